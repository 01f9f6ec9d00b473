"""Faster R-CNN: its parts held against torchvision's, and controls that must fail."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection import faster_rcnn, proposals
from recipes.vision.detection.boxes import decode, encode
from recipes.vision.detection.scoring import evaluate, truths

CPU = torch.device("cpu")
NAME = "vision.detection.faster_rcnn"
SIDES = [8.0, 14.0, 24.0]


@pytest.fixture(scope="module")
def scenes() -> tuple[Boxes, Boxes]:
    return open_boxes()


def some_boxes(count: int, seed: int, size: float = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * size
    return torch.cat([corner, corner + 4 + torch.rand(count, 2, generator=generator) * 20], dim=1)


@pytest.mark.parametrize(("side", "samples"), [(5, 1), (3, 2), (7, 3)])
def test_roi_align_and_its_gradient_equal_torchvision(side: int, samples: int) -> None:
    from torchvision import ops

    torch.manual_seed(0)
    boxes = torch.cat([some_boxes(20, 0), torch.tensor([[0.0, 0, 68, 64], [60, 50, 68, 64]])])
    features = torch.randn(6, 16, 17, requires_grad=True)
    ours = faster_rcnn.roi_align(features, boxes, side, samples)
    theirs = ops.roi_align(features[None], [boxes], side, 1 / faster_rcnn.STRIDE, samples, aligned=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(ours)
    gradients = [torch.autograd.grad((some * weights).sum(), features)[0] for some in (ours, theirs)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


def test_anchors_equal_torchvision() -> None:
    """Up to half a pixel, to which theirs are rounded, and the order of the nine; theirs stand on cells' corners."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    generator = AnchorGenerator(((8, 14, 24),), ((0.5, 1.0, 2.0),))
    theirs = generator(ImageList(torch.zeros(1, 3, 24, 32), [(24, 32)]), [torch.zeros(1, 8, 6, 8)])[0] + 2
    ours = faster_rcnn.anchor_boxes(torch.tensor(SIDES), 6, 8)
    assert ours.shape == theirs.shape
    order = [3 * (2 - shape) + side for side in range(3) for shape in range(3)]  # their shape is height over width
    assert (ours.view(-1, 9, 4) - theirs.view(-1, 9, 4)[:, order]).abs().max() <= 0.5


def scenes_of(*sides: float) -> Boxes:
    """A picture with squares of these sides."""
    boxes = torch.tensor(sides)[:, None] * torch.tensor([0.0, 0, 1, 1])
    return Boxes(torch.zeros(1, 3, 64, 64), [boxes], [torch.zeros(len(sides), dtype=torch.long)], ["square"], [""])


def test_anchors_are_as_large_as_the_objects(scenes: tuple[Boxes, Boxes]) -> None:
    """Every object but the odd ones lies between them, and overlaps one of them well if it has its shape."""
    assert proposals.anchor_sides(scenes[0]) == pytest.approx([8, 14, 24], rel=0.12)
    many = torch.linspace(5, 100, 500).tolist()
    sides = torch.tensor(proposals.anchor_sides(scenes_of(*many)))
    assert sides.tolist() == pytest.approx(sorted(sides.tolist()))
    assert (sides[1:] / sides[:-1]).max() <= 1.8
    assert 5 <= sides[0] <= 6.5
    assert 98 <= sides[-1] <= 100
    for side in many[5:-5]:
        assert torch.minimum(sides / side, side / sides).square().max() > 1 / 1.81
    assert proposals.anchor_sides(scenes_of(20, 20)) == pytest.approx([20])
    assert proposals.anchor_sides(scenes_of(0, 1)) == pytest.approx([4])
    with pytest.raises(InputError, match="no object"):
        proposals.anchor_sides(replace(scenes_of(1), boxes=[torch.zeros(0, 4)]))


def test_codes_equal_torchvision_and_decode_back() -> None:
    from torchvision.models.detection._utils import BoxCoder

    boxes, references = some_boxes(50, 0), some_boxes(50, 1)
    codes = encode(boxes, references)
    torch.testing.assert_close(codes, BoxCoder((10.0, 10.0, 5.0, 5.0)).encode_single(boxes, references))
    torch.testing.assert_close(decode(codes, references), boxes, rtol=1e-4, atol=1e-4)


def test_samples_are_matched_as_by_torchvision(scenes: tuple[Boxes, Boxes]) -> None:
    """With room for all: the same positives and negatives."""
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    anchors, matcher = (
        faster_rcnn.anchor_boxes(torch.tensor(SIDES), 16, 16),
        Matcher(0.7, 0.3, allow_low_quality_matches=True),
    )
    for boxes in scenes[0].boxes[:8]:
        theirs = matcher(box_iou(boxes, anchors))
        chosen, matched = proposals.sample(boxes, anchors, high=0.7, low=0.3, count=2 * len(anchors))
        ours = torch.full_like(theirs, Matcher.BETWEEN_THRESHOLDS)
        ours[chosen] = matched
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("count", [8, 64])
def test_samples_are_balanced(count: int) -> None:
    true = torch.tensor([[20.0, 20, 34, 34], [40, 4, 52, 28]])
    boxes = torch.cat([true, true + 1, some_boxes(200, 2)])
    chosen, matched = proposals.sample(true, boxes, high=0.5, low=0.5, count=count)
    assert len(chosen) == len(set(chosen.tolist())) == count
    assert 2 <= (matched >= 0).sum() <= count // 2
    assert set(matched.tolist()) == {-1, 0, 1}
    chosen, matched = proposals.sample(true[:0], boxes, high=0.5, low=0.5, count=count)
    assert len(chosen) == count
    assert (matched == -1).all()


def test_region_loss_equals_torchvision(scenes: tuple[Boxes, Boxes], monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same sample, but for how the distance of boxes is shared: theirs over all, ours over the positives.

    And theirs bends from square to straight at 1/9, ours at 1.
    """
    from torchvision.models.detection.rpn import RegionProposalNetwork

    torch.manual_seed(0)
    targets, anchors = truths(scenes[0])[:4], faster_rcnn.anchor_boxes(torch.tensor(SIDES), 16, 16)
    logits, codes = torch.randn(4, len(anchors)), torch.randn(4, len(anchors), 4)
    drawn = [proposals.sample(target["boxes"], anchors, high=0.7, low=0.3, count=64) for target in targets]
    again = iter(drawn)
    monkeypatch.setattr(faster_rcnn, "sample", lambda *args, **options: next(again))
    ours = faster_rcnn.region_loss(logits, codes, anchors, targets)

    positive, negative = (torch.zeros(4, len(anchors), dtype=torch.bool) for _ in range(2))
    goals = torch.zeros_like(codes)
    for i, (target, (chosen, matched)) in enumerate(zip(targets, drawn, strict=True)):
        own = matched >= 0
        positive[i, chosen[own]], negative[i, chosen[~own]] = True, True
        goals[i, chosen[own]] = encode(target["boxes"][matched[own]], anchors[chosen[own]])
    half: Any = SimpleNamespace(fg_bg_sampler=lambda labels: (list(positive), list(negative)))
    objectness, location = RegionProposalNetwork.compute_loss(
        half, logits.view(-1, 1), codes.view(-1, 4), list(positive.float()), list(goals)
    )
    positives, sampled = int(positive.sum()), int((positive | negative).sum())
    straight, bent = (
        torch.nn.functional.smooth_l1_loss(codes[positive], goals[positive], reduction="sum", beta=beta)
        for beta in (1 / 9, 1)
    )
    torch.testing.assert_close(location, straight / sampled)
    torch.testing.assert_close(ours, objectness + bent / positives)


def test_colour_regions_are_those_of_their_definition() -> None:
    """Two rectangles and a slope, by hand: each a box, the largest first, specks left out."""
    image = torch.zeros(3, 40, 50, dtype=torch.uint8)
    image[:, 5:15, 8:20] = 200
    image[0, 20:36, 30:34] = 250
    image[1, 25, 5] = 255
    boxes = proposals.colour_regions(image)
    assert boxes.tolist() == [[0, 0, 50, 40], [8, 5, 20, 15], [30, 20, 34, 36]]
    slope = (torch.arange(50) * 2).expand(3, 40, 50).to(torch.uint8)  # each step is small, the whole way is not
    assert proposals.colour_regions(slope).tolist() == [[0, 0, 50, 40]]
    assert proposals.colour_regions(image, least=3000).shape == (0, 4)


def test_pictures_without_objects_have_a_finite_loss() -> None:
    torch.manual_seed(0)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    model = faster_rcnn.FasterRCNN(3, SIDES)
    assert model(torch.rand(2, 3, 48, 70), [nothing, nothing]).isfinite()
    assert len(model.eval()(torch.rand(2, 3, 48, 70))) == 2


def test_gradients_reach_every_parameter_and_answers_depend_on_the_picture(scenes: tuple[Boxes, Boxes]) -> None:
    torch.manual_seed(0)
    model = faster_rcnn.FasterRCNN(4, SIDES)
    images, targets = scenes[0].__getitems__(range(16))
    model(images, targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    model.eval()
    model.first_only = True
    first, second = model(images)[0], model(1 - images)[0]
    assert first.shape != second.shape or not torch.equal(first, second)


def test_shuffled_labels_teach_nothing(scenes: tuple[Boxes, Boxes]) -> None:
    """The places of objects can still be learned, their kinds cannot."""
    train_set, test_set = scenes
    labels = torch.cat(train_set.labels)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    shuffled = replace(train_set, labels=list(labels.split([len(some) for some in train_set.labels])))
    torch.manual_seed(0)
    model = faster_rcnn.FasterRCNN(4, SIDES)
    settings = {"epochs": 3, "device": CPU, "precision": "auto", "channels_last": True}
    faster_rcnn.train(model, shuffled, batch_size=16, lr=6e-3, seed=0, **settings)
    assert evaluate(model, test_set, CPU)["map_50"] < 0.4


def test_own_pictures(tmp_path: Path) -> None:
    """Pascal VOC's layout, not square, one class."""
    for name in ("JPEGImages", "Annotations"):
        (tmp_path / name).mkdir()
    for i in range(10):
        left, top = 4 + 3 * i, 40 - 3 * i
        picture = Image.new("RGB", (80, 70))
        picture.paste((255, 200, 0), (left, top, left + 24, top + 24))
        picture.save(tmp_path / "JPEGImages" / f"{i}.png")
        (tmp_path / "Annotations" / f"{i}.xml").write_text(
            f"<annotation><filename>{i}.png</filename><size><width>80</width><height>70</height></size><object>"
            f"<name>square</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{left + 24}</xmax>"
            f"<ymax>{top + 24}</ymax></bndbox></object></annotation>"
        )
    result = recipes.run(NAME, data=str(tmp_path), epochs=2, batch_size=4)
    assert len(result.claims) == 5
    assert 0 <= result.metrics["map_50"] <= 1
    assert result.figure().axes


@pytest.mark.xdist_group(NAME)
def test_claims_hold(default_run: Callable[[str], Result]) -> None:
    assert [claim.text for claim in default_run(NAME).claims if not claim.holds] == []
