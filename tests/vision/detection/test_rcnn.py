"""R-CNN and Fast R-CNN: crops, regions and pooling held against plain ones, and controls that must fail."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

import recipes
from recipes.core.errors import InputError
from recipes.core.measure import macs
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.backbones import Features
from recipes.vision.detection import fast_rcnn, rcnn
from recipes.vision.detection.boxes import box_iou
from recipes.vision.detection.proposals import recall
from recipes.vision.detection.region_detector import sample_regions
from recipes.vision.detection.regions import Proposed, moved_along, propose, regions_of
from recipes.vision.detection.scoring import evaluate
from recipes.vision.detection.selective_search import merged, selective_search
from tests.vision.detection.test_features import save_wide

CPU = torch.device("cpu")
NAMES = ["vision.detection.rcnn", "vision.detection.fast_rcnn"]

of_both = pytest.mark.parametrize("build", [rcnn.RCNN, fast_rcnn.FastRCNN])


def few(dataset: Boxes, count: int) -> Boxes:
    return Boxes(dataset.images[:count], dataset.boxes[:count], dataset.labels[:count], dataset.classes, [""] * count)


@pytest.fixture(scope="module")
def scenes() -> tuple[Proposed, Proposed]:
    train_set, test_set = open_boxes()
    return propose(few(train_set, 160), 80), propose(test_set, 80)


def test_neighbors_are_merged_by_likeness_until_one_is_left() -> None:
    """Three stripes: the two of one color are joined first, then all; every one is a box."""
    import numpy as np

    segments = np.repeat([[0, 1, 2]], 12, axis=0).repeat(4, axis=1)
    colors = np.array([3, 3, 20])[segments.ravel()][:, None].repeat(3, axis=1)
    boxes = merged(segments, colors)
    assert boxes == [(0, 0, 4, 12), (4, 0, 8, 12), (8, 0, 12, 12), (0, 0, 8, 12), (0, 0, 12, 12)]
    boxes = merged(segments, colors[::-1])  # now the last two are alike
    assert boxes[3:] == [(4, 0, 12, 12), (0, 0, 12, 12)]


def test_regions_hold_what_stands_out() -> None:
    image = torch.zeros(3, 60, 80, dtype=torch.uint8)
    image[:, 10:30, 10:40] = 200
    image[0, 35:55, 50:70] = 250
    boxes = selective_search(image)
    assert len(boxes.unique(dim=0)) == len(boxes)
    overlaps = box_iou(torch.tensor([[10.0, 10, 40, 30], [50, 35, 70, 55], [0, 0, 80, 60]]), boxes)
    assert (overlaps.amax(dim=1) > 0.9).all()
    assert torch.equal(selective_search(image), boxes), "the same each time"
    padded = regions_of(image, 50)
    assert padded.shape == (50, 4)
    assert padded[-1].tolist() == [0, 0, 80, 60]


def test_nearly_every_digit_is_among_the_regions(scenes: tuple[Proposed, Proposed]) -> None:
    shares = [recall(list(scenes[1].regions), scenes[1], count) for count in (5, 20, 80)]
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert shares[-1] > 0.9


def test_warped_pieces_are_those_of_their_definition() -> None:
    """Boxes whose piece has as many pixels as the square are cut out as they are; black beyond the picture."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[20.0, 28, 28, 36], [0, 0, 8, 8], [8, 8, 40, 16]])
    for image, pieces in zip(
        images, rcnn.warp(images, boxes.expand(2, -1, -1), side=10), strict=True
    ):  # a quarter more
        torch.testing.assert_close(pieces[0], image[:, 27:37, 19:29], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pieces[1, :, 1:, 1:], image[:, :9, :9], rtol=1e-4, atol=1e-5)
        assert pieces[1, :, 0].abs().max() < 1e-4
        columns = (image[:, 7:17, 5:43:4] + image[:, 7:17, 6:44:4]) / 2  # 40 pixels wide, 10 high
        torch.testing.assert_close(pieces[2], columns, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_roi_pool_and_its_gradient_equal_torchvision(side: int) -> None:
    from torchvision import ops

    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(40, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 1 + torch.rand(40, 2, generator=generator) * 30], dim=1)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(max=68)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(max=64)
    boxes[:2] = torch.tensor([[0.0, 0, 68, 64], [66, 62, 68, 64]])  # the whole, and the last corner
    both = torch.stack([boxes, boxes.flip(0)])  # a set for each picture
    features = torch.randn(2, 6, 16, 17, generator=generator).relu().requires_grad_()  # 64 × 68 pixels
    ours = fast_rcnn.roi_pool(features, both, side, 4).flatten(0, 1)
    theirs = ops.roi_pool(features, list(both), side, 1 / 4)
    assert torch.equal(ours, theirs)
    weights = torch.randn(ours.shape, generator=generator)
    mine, other = (torch.autograd.grad((given * weights).sum(), features)[0] for given in (ours, theirs))
    # where all features of a part are 0, which of them is the strongest is a matter of taste
    torch.testing.assert_close(mine * (features > 0), other * (features > 0), rtol=1e-4, atol=1e-5)


def test_the_picture_is_seen_once(scenes: tuple[Proposed, Proposed]) -> None:
    """R-CNN's work grows with the number of regions; Fast R-CNN's only by its head."""
    (images, regions), _ = scenes[1].__getitems__([0])
    work = {}
    for build in (rcnn.RCNN, fast_rcnn.FastRCNN):
        model = build(4)
        model.forward = lambda images, regions, model=model: model.features_under(images, regions)
        work[build] = [macs(model, images, regions[:, :count]) for count in (10, 80)]
    assert work[rcnn.RCNN][1] == 8 * work[rcnn.RCNN][0]
    assert work[fast_rcnn.FastRCNN][1] == work[fast_rcnn.FastRCNN][0]


def test_pixels_seen_again_are_counted_by_area() -> None:
    regions = torch.tensor([[[0.0, 0, 10, 10], [5, 5, 15, 15], [0, 0, 20, 20]]])
    nothing = [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.long)]
    dataset = Proposed(torch.zeros(1, 3, 20, 20), *nothing, ["a"], [""], regions=regions)
    assert rcnn.seen_again(dataset) == pytest.approx(200 / 400), "the whole picture stands for none"


def test_regions_move_along_with_their_picture(scenes: tuple[Proposed, Proposed]) -> None:
    """A region that is an object's box stays so; none is taken for an object."""
    torch.manual_seed(0)
    (images, _), targets = scenes[0].__getitems__([i for i, boxes in enumerate(scenes[0].boxes) if len(boxes) == 2][:8])
    regions = torch.stack([target["boxes"] for target in targets])
    moved, seen, follow = moved_along(images, regions, targets)
    for own, target, before in zip(seen, follow, targets, strict=True):
        assert torch.equal(own, target["boxes"])
        assert set(target["labels"].tolist()) <= set(before["labels"].tolist())
    assert any(not torch.equal(one["boxes"], other["boxes"]) for one, other in zip(follow, targets, strict=True))
    assert not torch.equal(moved, images)


@of_both
def test_pictures_without_objects_or_with_few_regions(build: Callable[[int], Any]) -> None:
    torch.manual_seed(0)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    model, regions = build(3), torch.tensor([[4.0, 4, 30, 20], [0, 0, 64, 48]])
    images = torch.rand(2, 3, 48, 64)
    assert model((images, [regions, regions[:0]]), [nothing, nothing]).isfinite()
    assert len(model.eval()((images, regions.expand(2, -1, -1)))) == 2


@of_both
def test_gradients_reach_every_parameter_and_answers_depend_on_the_picture(
    build: Callable[[int], Any], scenes: tuple[Proposed, Proposed]
) -> None:
    torch.manual_seed(0)
    model = build(4)
    (images, regions), targets = scenes[0].__getitems__(range(16))
    model((images, regions), targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    with torch.no_grad():
        scores = [model.eval().raw(given, regions)[0] for given in (images, 1 - images)]
    assert not torch.allclose(*scores, atol=1e-5)


@pytest.mark.parametrize("module", [rcnn, fast_rcnn])
def test_shuffled_labels_teach_nothing(module: ModuleType, scenes: tuple[Proposed, Proposed]) -> None:
    """Objects can still be told from background, their kinds cannot be told apart."""
    train_set, test_set = scenes
    labels = torch.cat(train_set.labels)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    shuffled = replace(train_set, labels=list(labels.split([len(own) for own in train_set.labels])))
    torch.manual_seed(0)
    kind = module.RCNNOptions if module is rcnn else module.FastRCNNOptions
    options = kind(epochs=4, device="cpu")
    network = module.build(options, train_set)
    module.train(network, shuffled, options)
    assert evaluate(network, test_set, CPU)["map_50"] < 0.4


@pytest.mark.parametrize("recipe", NAMES)
def test_own_pictures(recipe: str, tmp_path: Path) -> None:
    """Numbered objects, one class; used again on files, whose regions are proposed anew, and exported."""
    for i in range(10):
        left, top = 4 + 3 * i, 40 - 3 * i
        for folder, value in (("images", (255, 200, 0)), ("objects", 1)):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture = Image.new("RGB" if folder == "images" else "L", (72, 72))
            picture.paste(value, (left, top, left + 24, top + 24))
            picture.save(tmp_path / folder / f"{i}.png")
    out = tmp_path / "out"
    result = recipes.run(recipe, data=str(tmp_path), epochs=2, batch_size=4, regions=20, device="cpu", out=str(out))
    assert len(result.claims) == 3
    assert 0 <= result.metrics["map_50"] <= 1
    assert result.figure().axes
    trained = recipes.trained(out, device="cpu")
    with torch.inference_mode():
        expected = result.model.eval()(result.test_set.__getitems__([0])[0])[0]
    answer = trained([str(tmp_path / result.test_set.files[0])])[0]
    torch.testing.assert_close(answer["boxes"], expected["boxes"], rtol=0, atol=1e-3)
    torch.testing.assert_close(answer["scores"], expected["scores"], rtol=0, atol=1e-5)
    for suffix in ("onnx", "pt2"):
        assert trained.export(out / f"model.{suffix}") < 1e-3


@pytest.mark.parametrize("recipe", NAMES)
def test_a_backbone_in_place_of_the_small_network(recipe: str, tmp_path: Path) -> None:
    """Its weights learn slowly; used again, it needs no file of theirs."""
    data, out = save_wide(tmp_path / "wide"), tmp_path / "out"
    given = {"backbone": "timm:tf_efficientnet_lite0", "weights": "pretrained", "image_size": 64, "regions": 10}
    result = recipes.run(recipe, data=str(data), steps=1, lr=1e-5, batch_size=4, device="cpu", out=str(out), **given)
    assert not result.claims
    (backbone,) = [part for part in result.model.modules() if isinstance(part, Features)]
    assert backbone.pretrained
    assert result.figure().axes
    trained = recipes.trained(out, device="cpu")
    with torch.inference_mode():
        expected = result.model.eval()(result.test_set.__getitems__([0])[0])[0]
    answer = trained([str(data / result.test_set.files[0])])[0]
    assert len(answer["scores"])
    torch.testing.assert_close(answer["scores"], expected["scores"], rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="option weights: expected a backbone"):
        recipes.run(recipe, weights="pretrained")


def test_of_many_regions_all_scales_have_a_share() -> None:
    """Two hundred and more are drawn from all scales, fewer from the first that has enough."""
    image = torch.randint(256, (3, 96, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    one, every = ({tuple(box) for box in selective_search(image, scales=s).tolist()} for s in ((1.0,), (1.0, 300.0)))
    few, many = (selective_search(image, most, scales=(1.0, 300.0)).tolist() for most in (150, 250))
    assert {tuple(box) for box in few} <= one
    assert not {tuple(box) for box in many} <= one
    assert {tuple(box) for box in many} <= every


def test_a_sample_of_regions_is_balanced() -> None:
    true = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    regions = torch.cat([true, torch.tensor([[1.0, 0, 10, 10], [12, 12, 18, 18], [50, 50, 60, 60], [50, 50, 50, 50]])])
    chosen, matched = sample_regions(true, regions, 6)
    pairs = dict(zip(chosen.tolist(), matched.tolist(), strict=True))
    assert pairs == {0: 0, 1: 1, 2: 0, 3: -1, 4: -1, 5: -1}
    assert (sample_regions(true, regions, 2)[1] >= 0).sum() == 1
    assert (sample_regions(true[:0], regions, 6)[1] == -1).all()
