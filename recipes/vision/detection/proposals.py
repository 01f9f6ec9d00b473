"""Region proposals: the sizes of anchors, a sample to learn from, and what share of the objects they hold."""

import math
from typing import Any

import torch
from torch import Tensor

from recipes.core.errors import InputError
from recipes.datasets.scenes import Boxes
from recipes.vision.detection.boxes import box_iou


def anchor_sides(dataset: Boxes, *, step: float = 1.8, least: float = 4.0) -> list[float]:
    """Sides of square anchors for the objects of a data set, in pixels, the smallest first.

    An object's side is the root of its area. From all but the smallest and the largest hundredth of them the
    anchors grow by equal factors of at most `step`, so that a square between two overlaps one by 1 / step.

    Args:
        dataset: the train part.
        step: largest factor from one side to the next.
        least: smaller sides are not given.

    Raises:
        InputError: no picture has an object.
    """
    boxes = torch.cat(dataset.boxes)
    if len(boxes) == 0:
        raise InputError("the train part has no object: expected at least one")
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt().clamp(min=least)
    first, last = sides.quantile(torch.tensor([0.01, 0.99])).tolist()
    steps = math.ceil(math.log(last / first, step))
    return [first * (last / first) ** (i / max(steps, 1)) for i in range(steps + 1)]


def within(boxes: Tensor, size: Any) -> Tensor:
    """Boxes (N, 4) clipped to a picture of this height and width."""
    return boxes.clamp(min=0).minimum(boxes.new_tensor([size[1], size[0], size[1], size[0]]))


def sample(true: Tensor, boxes: Tensor, *, high: float, low: float, count: int, even: bool) -> tuple[Tensor, Tensor]:
    """A random sample of boxes, at most half of them on objects.

    Args:
        true: (objects, 4).
        boxes: (N, 4).
        high: a box that overlaps an object by so much is on it, and so is the best one of each object.
        low: a box that overlaps no object by so much is background; those between are left out.
        count: size of the sample.
        even: objects of all sizes share the sample evenly. The eight boxes that overlap an object most are on it too,
            if they overlap it by `low`: small ones have hardly a box that overlaps them by `high`.

    Returns:
        Indices of the boxes chosen, and for each the index of its object, or -1 for background.
    """
    overlaps = box_iou(true if len(true) else true.new_zeros(1, 4), boxes)  # (objects, N)
    overlap, matched = overlaps.max(dim=0)
    best = (overlaps == overlaps.amax(dim=1, keepdim=True)).any(dim=0) & (overlap > 0)
    if even:
        eight = overlaps.topk(min(8, len(boxes)))
        best[eight.indices[eight.values >= low]] = True
    on = (overlap >= high) | best
    positive, negative = on.nonzero()[:, 0], ((overlap < low) & ~on).nonzero()[:, 0]
    positive = positive[torch.randperm(len(positive), device=boxes.device)]
    if even:  # the first of every object, then the second of every object …
        turn = (matched[positive, None] == matched[positive]).tril(-1).sum(dim=1)
        positive = positive[turn.argsort(stable=True)]
    positive = positive[: count // 2]
    negative = negative[torch.randperm(len(negative), device=boxes.device)[: count - len(positive)]]
    return torch.cat([positive, negative]), torch.cat([matched[positive], torch.full_like(negative, -1)])


def recall(proposals: list[Tensor], dataset: Boxes, most: int) -> float:
    """The share of objects that one of a picture's first `most` proposals overlaps by half."""
    pairs = zip(dataset.boxes, proposals, strict=True)
    return torch.cat([(box_iou(boxes, some[:most]) >= 0.5).any(dim=1) for boxes, some in pairs]).double().mean().item()
