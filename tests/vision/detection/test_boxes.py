"""Boxes: overlap, suppression and codes held against torchvision, and boxes that follow their picture."""

import pytest
import torch
from torch import Tensor

from recipes.vision.detection.boxes import box_iou, decode, encode, giou, nms, shift_and_zoom


def random_boxes(count: int, generator: torch.Generator, size: float = 40) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * size
    return torch.cat([corner, corner + 4 + torch.rand(count, 2, generator=generator) * 20], dim=1)


@pytest.mark.parametrize("seed", range(3))
def test_box_iou_and_nms_equal_torchvision(seed: int) -> None:
    from torchvision import ops

    generator = torch.Generator().manual_seed(seed)
    boxes, scores = random_boxes(200, generator), torch.rand(200, generator=generator)
    labels = torch.randint(0, 3, (200,), generator=generator)
    torch.testing.assert_close(box_iou(boxes, boxes[:7]), ops.box_iou(boxes, boxes[:7]))
    theirs = ops.generalized_box_iou(boxes, boxes.flip(0)).diagonal()
    torch.testing.assert_close(giou(boxes, boxes.flip(0)), theirs)
    for threshold in (0.1, 0.5, 0.9):
        assert torch.equal(nms(boxes, scores, 0 * labels, threshold), ops.nms(boxes, scores, threshold))
        assert torch.equal(nms(boxes, scores, labels, threshold), ops.batched_nms(boxes, scores, labels, threshold))
    assert nms(boxes[:0], scores[:0], labels[:0], 0.5).shape == (0,)


def test_codes_equal_torchvision_and_decode_back() -> None:
    from torchvision.models.detection._utils import BoxCoder

    generator = torch.Generator().manual_seed(0)
    boxes, references = random_boxes(50, generator), random_boxes(50, generator)
    codes = encode(boxes, references)
    torch.testing.assert_close(codes, BoxCoder((10.0, 10.0, 5.0, 5.0)).encode_single(boxes, references))
    torch.testing.assert_close(decode(codes, references), boxes, rtol=1e-4, atol=1e-4)
    batch = decode(torch.stack([codes, codes]), references)
    torch.testing.assert_close(batch[1], boxes, rtol=1e-4, atol=1e-4)


def test_boxes_follow_their_picture() -> None:
    """Bright rectangles on black, moved and scaled: the box is where the light is."""
    torch.manual_seed(0)
    images, targets = torch.zeros(32, 3, 64, 64), []
    for image in images:
        left, top = torch.randint(0, 40, (2,)).tolist()
        width, height = torch.randint(8, 24, (2,)).tolist()
        image[:, top : top + height, left : left + width] = 1
        right, bottom = min(left + width, 64), min(top + height, 64)
        targets.append({"boxes": torch.tensor([[left, top, right, bottom]]).float(), "labels": torch.tensor([2])})
    moved, follow = shift_and_zoom(images, targets)
    assert moved.shape == images.shape
    kept = [(image, target) for image, target in zip(moved, follow, strict=True) if len(target["labels"])]
    assert len(kept) > 25
    for image, target in kept:
        rows, columns = (image[0] > 0.5).nonzero().T
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        assert (seen - target["boxes"][0]).abs().max() <= 1
        assert target["labels"].tolist() == [2]
    areas = {round(float((target["boxes"][0, 2:] - target["boxes"][0, :2]).prod())) for _, target in kept}
    assert len(areas) > 10, "every picture is scaled by its own factor"
