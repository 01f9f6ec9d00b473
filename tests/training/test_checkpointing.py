"""The checkpoint that is written by hand: each part of it, the file that is never half there, and real kills."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.datasets.images import Images, open_images
from recipes.training import checkpointing
from recipes.training.checkpointing import CheckpointingOptions, Training, differing, new_training, save, train

OPTIONS = CheckpointingOptions(epochs=2, batch_size=128, width=4, device="cpu")  # eleven steps an epoch


@pytest.fixture(scope="module")
def train_set() -> Images:
    train_set, _ = open_images()
    assert isinstance(train_set, Images)
    return train_set


def trained(train_set: Images, seed: int = 0) -> Training:
    training = new_training(OPTIONS.with_changes(seed=seed), train_set)
    list(train(training))
    return training


@pytest.mark.parametrize("stop", [2, 3, 11, 12, 13, 20])
def test_interrupted_and_resumed_to_the_bit(train_set: Images, tmp_path: Path, stop: int) -> None:
    """Before the first checkpoint, at one, at an epoch's end, at the first step of the next, and later."""
    whole = trained(train_set)
    list(itertools.islice(train(new_training(OPTIONS, train_set), tmp_path / "run.pt", 3), stop))
    resumed = new_training(OPTIONS, train_set)
    torch.manual_seed(5)
    if stop >= 3:
        with torch.no_grad():
            for parameter in resumed.model.parameters():
                parameter.normal_()  # the checkpoint's weights count, not those that a new process makes
    else:
        torch.manual_seed(0)
        resumed = new_training(OPTIONS, train_set)  # no checkpoint yet: it starts anew, as the first did
    steps = list(train(resumed, tmp_path / "run.pt", 3))
    assert steps[0] == stop // 3 * 3 + 1
    assert differing(resumed.model.state_dict(), whole.model.state_dict()) == 0
    assert resumed.losses == whole.losses


@pytest.mark.parametrize("part", ["model", "optimizer", "schedule", "random", "losses"])
def test_every_part_is_needed(train_set: Images, part: str) -> None:
    half, fresh = new_training(OPTIONS, train_set), new_training(OPTIONS, train_set)
    list(itertools.islice(train(half), 9))
    state = half.state_dict()
    fresh.load_state_dict(state | {part: new_training(OPTIONS, train_set).state_dict()[part]})
    list(train(fresh))
    assert differing(fresh.model.state_dict(), trained(train_set).model.state_dict()) > 0


def test_a_failure_while_saving_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.pt"
    save({"step": 1}, file)

    def full_disk(state: object, path: Path) -> None:
        path.write_bytes(b"PK half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save({"step": 2}, file)
    assert torch.load(file, weights_only=True) == {"step": 1}


def test_processes_are_killed_and_the_last_one_ends_with_the_same_weights(train_set: Images, tmp_path: Path) -> None:
    options = OPTIONS.to_dict() | {"save_every": 2}
    order = json.dumps({"options": options, "kills": [4, 15], "threads": torch.get_num_threads()})
    command = [sys.executable, "-c", checkpointing.KILLER, checkpointing.__file__, str(tmp_path), order]
    subprocess.run(command, check=True)
    end = torch.load(tmp_path / "end.pt", weights_only=True)
    assert differing(trained(train_set).model.state_dict(), end) == 0
    assert len(torch.load(tmp_path / "killed.pt", weights_only=True)["losses"]) == 22


def test_the_recipe_resumes_from_its_folder_and_only_with_the_same_options(tmp_path: Path) -> None:
    given = {"device": "cpu", "claims": False, "width": 4, "batch_size": 128, "checkpoint": str(tmp_path)}
    whole = recipes.run("training.checkpointing", epochs=1, save_every=4, **given)
    again = recipes.run("training.checkpointing", epochs=1, save_every=4, **given)  # from step 8 of 11
    assert differing(whole.model.state_dict(), again.model.state_dict()) == 0
    with pytest.raises(InputError, match=r"training\.pt: expected a checkpoint of this training \(it was started with"):
        recipes.run("training.checkpointing", epochs=2, **given)
    (tmp_path / "training.pt").write_bytes(b"something else")
    with pytest.raises(InputError, match=r"training\.pt: expected a checkpoint of this training"):
        recipes.run("training.checkpointing", epochs=1, **given)


def test_outputs_depend_on_the_input_and_every_parameter_gets_a_gradient(train_set: Images) -> None:
    model = new_training(OPTIONS, train_set).model.eval()
    logits = model(torch.randn(4, 1, 8, 8))
    assert not torch.equal(logits[0], logits[1])
    F.cross_entropy(logits, torch.arange(4)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("options", [{"kills": 0}, {"save_every": 0}, {"precision": "bf16"}, {"accumulate": 2}])
def test_options_that_cannot_be(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"option {next(iter(options))}"):
        recipes.run("training.checkpointing", device="cpu", **options)
