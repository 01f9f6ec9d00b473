"""R-CNN and Fast R-CNN: crops, regions and pooling held against plain ones, and controls that must fail."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from torch import nn

import recipes
from recipes.core.result import Result
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection import fast_rcnn, rcnn
from recipes.vision.detection.regions import Proposed, moved_along, propose, shaken
from recipes.vision.detection.scoring import evaluate

CPU = torch.device("cpu")
NAMES = ["vision.detection.rcnn", "vision.detection.fast_rcnn"]

of_both = pytest.mark.parametrize("build", [rcnn.RCNN, fast_rcnn.FastRCNN])


@pytest.fixture(scope="module")
def scenes() -> tuple[Proposed, Proposed]:
    train_set, test_set = open_boxes()
    small = Boxes(*(value if key == "classes" else value[:160] for key, value in vars(train_set).items()))
    return propose(small), propose(test_set)


def test_warped_pieces_are_those_of_their_definition() -> None:
    """Boxes whose piece has as many pixels as the square are cut out as they are; black beyond the picture."""
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    middle, corner = torch.tensor([20.0, 28, 28, 36]), torch.tensor([0.0, 0, 8, 8])
    pieces = rcnn.warp(image, torch.stack([middle, corner]), side=10)  # 8 pixels and a quarter more
    torch.testing.assert_close(pieces[0], image[:, 27:37, 19:29], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pieces[1, :, 1:, 1:], image[:, :9, :9], rtol=1e-4, atol=1e-5)
    assert pieces[1, :, 0].abs().max() < 1e-4
    wide = rcnn.warp(image, torch.tensor([[8.0, 8, 40, 16]]), side=10)  # 40 pixels wide, 10 high: every fourth between
    columns = (image[:, 7:17, 5:43:4] + image[:, 7:17, 6:44:4]) / 2
    torch.testing.assert_close(wide[0], columns, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_roi_pool_and_its_gradient_equal_torchvision(side: int) -> None:
    from torchvision import ops

    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(40, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 1 + torch.rand(40, 2, generator=generator) * 30], dim=1)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(max=68)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(max=64)
    boxes[:2] = torch.tensor([[0.0, 0, 68, 64], [66, 62, 68, 64]])  # the whole, and the last corner
    features = torch.randn(6, 16, 17, generator=generator).relu().requires_grad_()  # 64 × 68 pixels
    ours = fast_rcnn.roi_pool(features, boxes, side)
    theirs = ops.roi_pool(features[None], [boxes], side, 1 / fast_rcnn.STRIDE)
    assert torch.equal(ours, theirs)
    weights = torch.randn(ours.shape, generator=generator)
    mine, other = (torch.autograd.grad((some * weights).sum(), features)[0] for some in (ours, theirs))
    # where all features of a part are 0, which of them is the strongest is a matter of taste
    torch.testing.assert_close(mine * (features > 0), other * (features > 0))


def test_one_by_one_is_a_pass_for_each_region(scenes: tuple[Proposed, Proposed]) -> None:
    torch.manual_seed(0)
    model, passed = fast_rcnn.FastRCNN(4).eval(), []
    model.fine.register_forward_pre_hook(lambda module, inputs: passed.append(len(inputs[0])))
    inputs, _ = scenes[0].__getitems__(range(3))
    with torch.no_grad():
        once = model(inputs)
        model.one_by_one = True
        each = model(inputs)
    assert passed == [3, sum(len(some) for some in inputs["regions"])]
    assert len(once) == len(each) == 3


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


@of_both
def test_pictures_without_regions_or_objects(build: Callable[[int], nn.Module]) -> None:
    torch.manual_seed(0)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    model, regions = build(3), torch.tensor([[4.0, 4, 30, 20], [0, 0, 64, 48]])
    inputs = {"images": torch.rand(2, 3, 48, 64), "regions": [regions, torch.zeros(0, 4)]}
    assert model(inputs, [nothing, nothing]).isfinite()
    found = model.eval()(inputs)
    assert len(found) == 2
    assert found[1]["boxes"].shape == (0, 4)


@of_both
def test_gradients_reach_every_parameter_and_answers_depend_on_the_picture(
    build: Callable[[int], rcnn.RCNN | fast_rcnn.FastRCNN], scenes: tuple[Proposed, Proposed]
) -> None:
    torch.manual_seed(0)
    model = build(4)
    inputs, targets = scenes[0].__getitems__(range(16))
    model(inputs, targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    model.eval()
    with torch.no_grad():
        answers = [model.judge(images, inputs["regions"])[0] for images in (inputs["images"], 1 - inputs["images"])]
    assert not torch.allclose(*answers, atol=1e-5)


@pytest.mark.parametrize(("module", "model"), [(rcnn, rcnn.RCNN), (fast_rcnn, fast_rcnn.FastRCNN)])
def test_shuffled_labels_teach_nothing(
    module: ModuleType, model: Callable[[int], nn.Module], scenes: tuple[Proposed, Proposed]
) -> None:
    """Objects can still be told from background, their kinds cannot be told apart."""
    train_set, test_set = scenes
    labels = torch.cat(train_set.labels)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    shuffled = replace(train_set, labels=list(labels.split([len(some) for some in train_set.labels])))
    torch.manual_seed(0)
    network = model(4)
    settings = {"epochs": 4, "device": CPU, "precision": "auto", "channels_last": True}
    module.train(network, shuffled, batch_size=16, lr=4e-3, seed=0, **settings)
    assert evaluate(network, test_set, CPU)["map_50"] < 0.4


@pytest.mark.parametrize("recipe", NAMES)
def test_own_pictures(recipe: str, tmp_path: Path) -> None:
    """Numbered objects, one class."""
    for i in range(10):
        left, top = 4 + 3 * i, 40 - 3 * i
        for folder, value in (("images", (255, 200, 0)), ("objects", 1)):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture = Image.new("RGB" if folder == "images" else "L", (72, 72))
            picture.paste(value, (left, top, left + 24, top + 24))
            picture.save(tmp_path / folder / f"{i}.png")
    result = recipes.run(recipe, data=str(tmp_path), epochs=2, batch_size=4)
    assert len(result.claims) == 3
    assert 0 <= result.metrics["map_50"] <= 1
    assert result.figure().axes


@pytest.mark.parametrize("recipe", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NAMES])
def test_claims_hold(recipe: str, default_run: Callable[[str], Result]) -> None:
    assert [claim.text for claim in default_run(recipe).claims if not claim.holds] == []
