"""The checkpoint that is written by hand: each part of it, the file that is never half there, and real kills."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.images import Images, open_images
from recipes.training.checkpointing import build_model, differing, kill_and_resume, save, train

CPU = torch.device("cpu")
OPTIONS: dict = {"epochs": 2, "batch_size": 128, "lr": 0.01}  # eleven steps an epoch


class Interrupted(Exception):
    pass


def fresh(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(1, 10, width=4)


@pytest.fixture(scope="module")
def train_set() -> Images:
    train_set, _ = open_images()
    assert isinstance(train_set, Images)
    return train_set


def interrupted(train_set: Images, file: Path, stop: int) -> None:
    def after_step(step: int, loss: float) -> None:
        if step == stop:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(fresh(0), train_set, device=CPU, file=file, save_every=3, after_step=after_step, **OPTIONS)


@pytest.mark.parametrize("stop", [2, 3, 11, 12, 13, 20])
def test_interrupted_and_resumed_to_the_bit(train_set: Images, tmp_path: Path, stop: int) -> None:
    """Before the first checkpoint, at one, at an epoch's end, at the first step of the next, and later."""
    whole = fresh(0)
    losses = train(whole, train_set, device=CPU, **OPTIONS)
    interrupted(train_set, tmp_path / "run.pt", stop)
    resumed = fresh(0 if stop < 3 else 1)  # a process that finds no checkpoint starts anew, as the first did
    again = train(resumed, train_set, device=CPU, file=tmp_path / "run.pt", save_every=3, **OPTIONS)
    assert differing(resumed, whole.state_dict()) == 0
    assert again == losses[stop // 3 * 3 :]


@pytest.mark.parametrize("part", ["model", "optimizer", "schedule", "random", "place"])
def test_every_part_is_needed(train_set: Images, tmp_path: Path, part: str) -> None:
    whole, resumed = fresh(0), fresh(1)
    train(whole, train_set, device=CPU, **OPTIONS)
    interrupted(train_set, tmp_path / "run.pt", 9)
    train(resumed, train_set, device=CPU, file=tmp_path / "run.pt", without=part, **OPTIONS)
    assert differing(resumed, whole.state_dict()) > 0


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
    torch.manual_seed(0)
    whole = build_model(1, 10)
    train(whole, train_set, device=CPU, **OPTIONS)
    opened = {"data": None, "image_size": None, "seed": 0}
    options = {**OPTIONS, "device": "cpu", "save_every": 2}
    order = {"kills": [4, 15], "threads": torch.get_num_threads(), "opened": opened, "options": options}
    (end,), told = kill_and_resume(tmp_path, **order)
    assert differing(whole, end) == 0
    first, second, last = ([step for step, _ in process] for process in told)
    assert first[0] == 1
    assert 1 < second[0] <= 7  # not from the start
    assert last[0] > 4
    assert last[-1] == 22


def test_outputs_depend_on_the_input_and_every_parameter_gets_a_gradient() -> None:
    model = fresh(0).eval()
    logits = model(torch.randn(4, 1, 8, 8))
    assert not torch.equal(logits[0], logits[1])
    F.cross_entropy(logits, torch.arange(4)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.xdist_group("training.checkpointing")
def test_claims_hold(default_run: Callable[[str], Result]) -> None:
    result = default_run("training.checkpointing")
    assert len(result.claims) == 4
    assert [claim.text for claim in result.claims if not claim.holds] == []


@pytest.mark.parametrize("options", [{"kills": -1}, {"save_every": 0}, {"batch_size": 1000, "epochs": 3}])
def test_options_that_cannot_be(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="option"):
        recipes.run("training.checkpointing", device="cpu", **options)
