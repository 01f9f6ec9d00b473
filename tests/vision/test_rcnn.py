"""R-CNN: its crops and regions held against plain ones, and controls that must fail."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import recipes
from recipes.core.result import Result
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection.rcnn import RCNN, train, warp
from recipes.vision.detection.regions import Proposed, moved_along, propose, shaken
from recipes.vision.detection.scoring import evaluate

CPU = torch.device("cpu")
NAME = "vision.detection.rcnn"


@pytest.fixture(scope="module")
def scenes() -> tuple[Proposed, Proposed]:
    train_set, test_set = open_boxes()
    small = Boxes(*(value if key == "classes" else value[:160] for key, value in vars(train_set).items()))
    return propose(small), propose(test_set)


def test_warped_pieces_are_those_of_their_definition() -> None:
    """Boxes whose piece has as many pixels as the square are cut out as they are; black beyond the picture."""
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    middle, corner = torch.tensor([20.0, 28, 28, 36]), torch.tensor([0.0, 0, 8, 8])
    pieces = warp(image, torch.stack([middle, corner]), side=10)  # 8 pixels and a quarter more
    torch.testing.assert_close(pieces[0], image[:, 27:37, 19:29], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pieces[1, :, 1:, 1:], image[:, :9, :9], rtol=1e-4, atol=1e-5)
    assert pieces[1, :, 0].abs().max() < 1e-4
    wide = warp(image, torch.tensor([[8.0, 8, 40, 16]]), side=10)  # 40 pixels wide, 10 high: every fourth is between
    columns = (image[:, 7:17, 5:43:4] + image[:, 7:17, 6:44:4]) / 2
    torch.testing.assert_close(wide[0], columns, rtol=1e-4, atol=1e-5)


def test_regions_move_along_with_their_picture(scenes: tuple[Proposed, Proposed]) -> None:
    """A region that is an object's box stays so; none is taken for an object."""
    torch.manual_seed(0)
    inputs, targets = scenes[0].__getitems__(range(8))
    inputs["regions"] = [target["boxes"] for target in targets]
    moved, follow = moved_along(inputs, targets)
    for regions, target, before in zip(moved["regions"], follow, targets, strict=True):
        assert torch.equal(regions, target["boxes"])
        assert set(target["labels"].tolist()) <= set(before["labels"].tolist())
    assert any(not torch.equal(one["boxes"], other["boxes"]) for one, other in zip(follow, targets, strict=True))
    assert not torch.equal(moved["images"], inputs["images"])


def test_shaken_regions_stay_within_reach(scenes: tuple[Proposed, Proposed]) -> None:
    for before, after in zip(scenes[1].regions, shaken(scenes[1]).regions, strict=True):
        size = (before[:, 2:] - before[:, :2]).repeat(1, 2)
        assert ((after - before).abs() <= 0.15 * size + 1e-4).all()
        assert after.min() >= 0
        assert after.max() <= 64


def test_pictures_without_regions_or_objects() -> None:
    torch.manual_seed(0)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    model, regions = RCNN(3), torch.tensor([[4.0, 4, 30, 20], [0, 0, 64, 48]])
    inputs = {"images": torch.rand(2, 3, 48, 64), "regions": [regions, torch.zeros(0, 4)]}
    assert model(inputs, [nothing, nothing]).isfinite()
    found = model.eval()(inputs)
    assert len(found) == 2
    assert found[1]["boxes"].shape == (0, 4)


def test_gradients_reach_every_parameter_and_answers_depend_on_the_picture(scenes: tuple[Proposed, Proposed]) -> None:
    torch.manual_seed(0)
    model = RCNN(4)
    inputs, targets = scenes[0].__getitems__(range(16))
    model(inputs, targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    model.eval()
    with torch.no_grad():
        answers = [model.judge(images, inputs["regions"])[0] for images in (inputs["images"], 1 - inputs["images"])]
    assert not torch.allclose(*answers, atol=1e-5)


def test_shuffled_labels_teach_nothing(scenes: tuple[Proposed, Proposed]) -> None:
    """Objects can still be told from background, their kinds cannot be told apart."""
    train_set, test_set = scenes
    labels = torch.cat(train_set.labels)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    shuffled = replace(train_set, labels=list(labels.split([len(some) for some in train_set.labels])))
    torch.manual_seed(0)
    model = RCNN(4)
    settings = {"epochs": 4, "device": CPU, "precision": "auto", "channels_last": True}
    train(model, shuffled, batch_size=16, lr=4e-3, seed=0, **settings)
    assert evaluate(model, test_set, CPU)["map_50"] < 0.4


def test_own_pictures(tmp_path: Path) -> None:
    """Numbered objects, one class."""
    for i in range(10):
        left, top = 4 + 3 * i, 40 - 3 * i
        for folder, value in (("images", (255, 200, 0)), ("objects", 1)):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture = Image.new("RGB" if folder == "images" else "L", (72, 72))
            picture.paste(value, (left, top, left + 24, top + 24))
            picture.save(tmp_path / folder / f"{i}.png")
    result = recipes.run(NAME, data=str(tmp_path), epochs=2, batch_size=4)
    assert len(result.claims) == 3
    assert 0 <= result.metrics["map_50"] <= 1
    assert result.figure().axes


@pytest.mark.xdist_group(NAME)
def test_claims_hold(default_run: Callable[[str], Result]) -> None:
    assert [claim.text for claim in default_run(NAME).claims if not claim.holds] == []
