"""Faster R-CNN: its parts held against torchvision's, and controls that must fail."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import recipes
from recipes.core.errors import InputError
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection import faster_rcnn, proposals
from recipes.vision.detection.boxes import decode, nms
from recipes.vision.detection.features import SmallFeatures
from recipes.vision.detection.scoring import evaluate

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
    features = torch.randn(2, 6, 16, 17, requires_grad=True)
    both = torch.stack([boxes, boxes.flip(0)])  # a set for each picture
    ours = faster_rcnn.roi_align(features, both, side, 4, samples).flatten(0, 1)
    theirs = ops.roi_align(features, list(both), side, 1 / 4, samples, aligned=True)
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
    ours = faster_rcnn.anchor_boxes(torch.tensor(SIDES), 6, 8, 4)
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


def test_samples_are_matched_as_by_torchvision(scenes: tuple[Boxes, Boxes]) -> None:
    """With room for all: the same positives and negatives."""
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    anchors, matcher = (
        faster_rcnn.anchor_boxes(torch.tensor(SIDES), 16, 16, 4),
        Matcher(0.7, 0.3, allow_low_quality_matches=True),
    )
    for boxes in scenes[0].boxes[:8]:
        theirs = matcher(box_iou(boxes, anchors))
        chosen, matched = proposals.sample(boxes, anchors, high=0.7, low=0.3, count=2 * len(anchors), even=False)
        ours = torch.full_like(theirs, Matcher.BETWEEN_THRESHOLDS)
        ours[chosen] = matched
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("count", [8, 64])
def test_samples_are_balanced(count: int) -> None:
    torch.manual_seed(0)
    true = torch.tensor([[20.0, 20, 34, 34], [40, 4, 52, 28]])
    boxes = torch.cat([true, true + 1, some_boxes(200, 2)])
    chosen, matched = proposals.sample(true, boxes, high=0.5, low=0.5, count=count, even=False)
    assert len(chosen) == len(set(chosen.tolist())) == count
    assert 2 <= (matched >= 0).sum() <= count // 2
    assert set(matched.tolist()) == {-1, 0, 1}
    chosen, matched = proposals.sample(true[:0], boxes, high=0.5, low=0.5, count=count, even=False)
    assert len(chosen) == count
    assert (matched == -1).all()


def test_an_even_sample_is_shared_by_objects_of_all_sizes() -> None:
    """Forty boxes lie on a large object, and none overlaps the small one by 0.7."""
    torch.manual_seed(0)
    true = torch.tensor([[4.0, 4, 44, 44], [50, 50, 56, 56]])
    boxes = torch.cat([true[:1] + torch.rand(40, 4), true[1:] + torch.tensor([[2.0], [-2], [1.8]]), some_boxes(99, 2)])
    boxes[-1] = torch.tensor([0.0, 56, 8, 64])
    counts = []
    for even in (False, True):
        matched = proposals.sample(true, boxes, high=0.7, low=0.2, count=16, even=even)[1]
        assert len(matched) == 16
        counts.append((matched == 1).sum().item())
    assert counts[0] <= 1
    assert counts[1] >= 3


def network(num_classes: int, proposals: int = 50) -> faster_rcnn.FasterRCNN:
    return faster_rcnn.FasterRCNN(num_classes, SIDES, SmallFeatures(12), proposals, crowded=False)


def test_loss_of_a_stage_equals_torchvision() -> None:
    """But for how the distance of boxes is shared: theirs over all, ours over the positives.

    And theirs bends from square to straight at 1/9, ours at 1: here all are beyond both.
    """
    from torchvision.models.detection.roi_heads import fastrcnn_loss

    torch.manual_seed(0)
    logits, labels, codes = torch.randn(40, 4), torch.randint(0, 4, (40,)), torch.randn(40, 4, 4)
    goals = codes[torch.arange(40), labels] + 5 + torch.rand(40, 4)
    classes, location = fastrcnn_loss(logits, codes.flatten(1), [labels], [goals])
    on = labels > 0
    ours = faster_rcnn.stage_loss(logits, labels, codes[on, labels[on]], goals[on])
    bend = (1 / 2 - 1 / 18) * 4  # what the two bends take off, four codes a box
    torch.testing.assert_close(ours, classes + location * 40 / on.sum() - bend)
    nothing = faster_rcnn.stage_loss(logits, torch.zeros(40, dtype=torch.long), codes[:0, 0], goals[:0])
    assert nothing.isfinite()


def test_proposals_are_thinned_as_by_non_maximum_suppression(scenes: tuple[Boxes, Boxes]) -> None:
    torch.manual_seed(0)
    model = network(4, proposals=30).eval()
    images = scenes[1].__getitems__(range(4))[0]
    with torch.no_grad():
        _, anchors, logits, codes = model.first_stage(images)
        logits, codes = torch.randn_like(logits), torch.randn_like(codes) / 4
        ours = model.propose(images, anchors, logits, codes)
    assert ours.shape == (4, 30, 4)
    for picture, scores, moves in zip(ours, logits[..., 1] - logits[..., 0], codes, strict=True):
        best = scores.topk(60)
        boxes = decode(moves[best.indices], anchors[best.indices]).clamp(0, 64)
        kept = boxes[nms(boxes, best.values, torch.zeros_like(best.indices), 0.7)][:30]
        torch.testing.assert_close(picture[: len(kept)], kept)


def test_pictures_without_objects_have_a_finite_loss() -> None:
    torch.manual_seed(0)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    model = network(3)
    assert model(torch.rand(2, 3, 48, 70), [nothing, nothing]).isfinite()
    assert len(model.eval()(torch.rand(2, 3, 48, 70))) == 2


def test_gradients_reach_every_parameter_and_answers_depend_on_the_picture(scenes: tuple[Boxes, Boxes]) -> None:
    torch.manual_seed(0)
    model = network(4)
    images, targets = scenes[0].__getitems__(range(16))
    model(images, targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    first, second = (model.eval().raw(given)[0] for given in (images, 1 - images))
    assert not torch.equal(first, second)


def test_shuffled_labels_teach_nothing(scenes: tuple[Boxes, Boxes]) -> None:
    """The places of objects can still be learned, their kinds cannot."""
    train_set, test_set = scenes
    labels = torch.cat(train_set.labels)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    shuffled = replace(train_set, labels=list(labels.split([len(some) for some in train_set.labels])))
    torch.manual_seed(0)
    options = faster_rcnn.FasterRCNNOptions(epochs=3, device="cpu")
    model = faster_rcnn.build(options, train_set)
    faster_rcnn.train(model, shuffled, options)
    assert evaluate(model, test_set, CPU)["map_50"] < 0.4


def few(dataset: Boxes, count: int) -> Boxes:
    return Boxes(dataset.images[:count], dataset.boxes[:count], dataset.labels[:count], dataset.classes, [""] * count)


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
    assert len(result.claims) == 4
    assert 0 <= result.metrics["map_50"] <= 1
    assert result.figure().axes
