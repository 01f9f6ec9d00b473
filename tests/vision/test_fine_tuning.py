"""What is frozen stays, lower layers learn more slowly, and controls that must fail."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.images import Images
from recipes.datasets.scenes import open_boxes, open_masks
from recipes.vision.few_labels import NEW_KINDS, cut_out, other_digits, some
from recipes.vision.fine_tuning import HEAD, METRICS, WAYS, Network, Way, loss_of, new_backbone, score, train

CPU = torch.device("cpu")
NAME = "vision.fine_tuning"
SETTINGS = {"epochs": 2, "batch_size": 8, "lr": 4e-3, "seed": 0, "device": CPU}


@pytest.fixture(scope="module")
def digits() -> tuple[Images, Images]:
    return other_digits(4, 0)


def states(network: Network) -> list[dict[str, torch.Tensor]]:
    return [{name: value.clone() for name, value in part.state_dict().items()} for part in network.parts]


@pytest.mark.parametrize("phase", [(HEAD,), (2, HEAD), (0, 1, HEAD), (0, 1, 2, HEAD)])
def test_frozen_parts_stay_to_the_bit_and_the_others_move(
    phase: tuple[int, ...], digits: tuple[Images, Images]
) -> None:
    torch.manual_seed(0)
    network = Network(new_backbone(), "classification", 6)
    before = states(network)
    train(network, Way((phase,)), digits[0], **SETTINGS)
    for part, (old, new) in enumerate(zip(before, states(network), strict=True)):
        assert all(torch.equal(old[name], new[name]) for name in old) == (part not in phase), part


def test_lower_layers_change_less(digits: tuple[Images, Images]) -> None:
    """Adam's steps are as large as the rate, so the way of each stage is shorter than that of the one above."""
    torch.manual_seed(0)
    network = Network(new_backbone(), "classification", 6)
    before = states(network)
    train(network, Way(((0, 1, 2, HEAD),), fall=0.1), digits[0], **SETTINGS)
    ways = [
        max((new[name] - old[name]).abs().max().item() for name in old if name.endswith("weight"))
        for old, new in zip(before, states(network), strict=True)
    ]
    for lower, upper in pairwise(ways):
        assert lower < 0.3 * upper


def test_phases_thaw_from_the_top_down(digits: tuple[Images, Images]) -> None:
    phases = WAYS["this recipe"].phases
    assert all(set(earlier) < set(later) for earlier, later in pairwise(phases))
    assert phases[0] == (HEAD,)
    history = train(Network(new_backbone(), "classification", 6), WAYS["this recipe"], digits[0], **SETTINGS)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    history = train(
        Network(new_backbone(), "classification", 6), WAYS["this recipe"], digits[0], **SETTINGS | {"epochs": 16}
    )
    assert len(history) == 16


@pytest.mark.parametrize("task", list(METRICS))
def test_gradients_reach_every_parameter_and_answers_depend_on_the_picture(task: str) -> None:
    torch.manual_seed(0)
    if task == "classification":
        images, targets = other_digits(4, 0)[0].__getitems__(range(8))
    else:
        images, targets = (open_masks if task == "segmentation" else open_boxes)()[0].__getitems__(range(8))
    network = Network(new_backbone(), task, 6)
    answers = network(images)
    loss_of(task, answers, targets).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert not torch.allclose(network(1 - images), answers, atol=1e-3)


def test_new_kinds_are_new(digits: tuple[Images, Images]) -> None:
    """None of them is among the kinds that the backbone learns to name, and no label is of another kind."""
    few, unseen = digits
    assert few.labels.bincount().tolist() == [4] * 6
    assert unseen.images.shape == (len(unseen), 3, 32, 32)
    names = {"zero": 0, "one": 1, "four": 4, "seven": 7}
    assert not {names[name] for name in open_boxes()[0].classes} & set(NEW_KINDS)


def test_pieces_are_cut_out_of_scenes() -> None:
    scenes = some(open_boxes()[0], 3, 9)
    pieces = cut_out(scenes)
    assert len(scenes) == 6
    assert len(pieces) == sum(len(boxes) for boxes in scenes.boxes)
    assert torch.equal(pieces.labels, torch.cat(scenes.labels))
    assert pieces.images.shape[1:] == (3, 32, 32)


def test_shuffled_labels_teach_nothing() -> None:
    """The backbone's own task, with labels that belong to other pieces."""
    train_set, test_set = (cut_out(some(part, 0, 160)) for part in open_boxes())
    shares = []
    for shuffled in (False, True):
        if shuffled:
            train_set.labels = train_set.labels[
                torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
            ]
        torch.manual_seed(0)
        network = Network(new_backbone(), "classification", 4)
        settings = SETTINGS | {"epochs": 4, "batch_size": 32, "precision": "auto", "channels_last": True}
        train(network, WAYS["from scratch"], train_set, **settings)
        shares.append(score(network, test_set, CPU))
    assert shares[0] > 0.7
    assert shares[1] < 0.45


def test_own_scenes(tmp_path: Path) -> None:
    """Pascal VOC, two classes: one task, detection."""
    for name in ("JPEGImages", "Annotations"):
        (tmp_path / name).mkdir()

    def save(i: int, kind: str) -> None:
        left, top = 4 + 3 * i, 40 - 3 * i
        picture = Image.new("RGB", (72, 72))
        picture.paste((255, 200, 0) if i % 2 else (0, 200, 255), (left, top, left + 24, top + 24))
        picture.save(tmp_path / "JPEGImages" / f"{i}.png")
        (tmp_path / "Annotations" / f"{i}.xml").write_text(
            f"<annotation><size><width>72</width><height>72</height></size><object><name>{kind}</name><bndbox>"
            f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{left + 24}</xmax><ymax>{top + 24}</ymax></bndbox>"
            "</object></annotation>"
        )

    for i in range(12):
        save(i, "sun" if i % 2 else "sky")
    result = recipes.run(NAME, data=str(tmp_path), epochs=2, batch_size=1)
    assert list(result.metrics) == ["map_50"]
    assert len(result.claims) == 4
    assert result.figure().axes
    for i in range(12):
        save(i, "sun")
    with pytest.raises(InputError, match="two classes or more"):
        recipes.run(NAME, data=str(tmp_path))


@pytest.mark.xdist_group(NAME)
def test_claims_hold(default_run: Callable[[str], Result]) -> None:
    assert [claim.text for claim in default_run(NAME).claims if not claim.holds] == []
