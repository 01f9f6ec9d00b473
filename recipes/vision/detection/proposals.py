"""Region proposals: their sizes, finding them by colour, a sample to learn from, and moving them onto objects."""

import math
from typing import Any

import torch
from torch import Tensor

from recipes.core.errors import InputError
from recipes.datasets.scenes import Boxes
from recipes.vision.detection.boxes import Detections, box_iou, decode, encode, nms


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


def colour_regions(image: Tensor, steps: tuple[float, ...] = (0.1, 0.2, 0.3), least: int = 12) -> Tensor:
    """Boxes around the connected regions of a picture, the largest first.

    Two neighbouring pixels hang together if their colours differ by less than a step; what hangs together
    over any number of neighbours is a region. Several steps give regions of regions, as Selective Search
    gets by merging them (Uijlings et al., 2013).

    Args:
        image: (3, height, width) uint8.
        steps: Euclidean distances of colours in 0 to 1.
        least: regions of fewer pixels are left out.

    Returns:
        (N, 4) left, top, right, bottom, each once.
    """
    import numpy as np
    from scipy.ndimage import find_objects
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    colours = image.float().cpu().numpy() / 255
    height, width = colours.shape[1:]
    pixels = np.arange(height * width).reshape(height, width)
    first = np.concatenate([pixels[:, :-1].ravel(), pixels[:-1].ravel()])  # (pairs,) each pixel with the one
    second = np.concatenate([pixels[:, 1:].ravel(), pixels[1:].ravel()])  # to its right and the one below
    flat = colours.reshape(3, -1)
    distance = np.sqrt(((flat[:, first] - flat[:, second]) ** 2).sum(axis=0))
    found = set()
    for step in steps:
        near = distance < step
        links = coo_array((near[near], (first[near], second[near])), shape=(pixels.size, pixels.size))
        _, region = connected_components(links, directed=False)  # (height * width,)
        counts = np.bincount(region)
        for count, place in zip(counts, find_objects(region.reshape(height, width) + 1), strict=True):
            if count >= least:
                rows, columns = place
                found.add((columns.start, rows.start, columns.stop, rows.stop))
    by_size = sorted(found, key=lambda box: ((box[0] - box[2]) * (box[3] - box[1]), box))
    return torch.tensor(by_size, dtype=torch.float32).view(-1, 4)


def within(boxes: Tensor, size: Any) -> Tensor:
    """Boxes (N, 4) clipped to a picture of this height and width."""
    return boxes.clamp(min=0).minimum(boxes.new_tensor([size[1], size[0], size[1], size[0]]))


def sample(true: Tensor, boxes: Tensor, *, high: float, low: float, count: int) -> tuple[Tensor, Tensor]:
    """A random sample of boxes, at most half of them on objects.

    Args:
        true: (objects, 4).
        boxes: (N, 4).
        high: a box that overlaps an object by so much is on it, and so is the best one of each object.
        low: a box that overlaps no object by so much is background; those between are left out.
        count: size of the sample.

    Returns:
        Indices of the boxes chosen, and for each the index of its object, or -1 for background.
    """
    if len(true) == 0:
        chosen = torch.randperm(len(boxes), device=boxes.device)[:count]
        return chosen, torch.full_like(chosen, -1)
    overlaps = box_iou(true, boxes)  # (objects, N)
    overlap, matched = overlaps.max(dim=0)
    best = (overlaps == overlaps.amax(dim=1, keepdim=True)).any(dim=0) & (overlap > 0)
    on = (overlap >= high) | best
    positive, negative = on.nonzero()[:, 0], ((overlap < low) & ~on).nonzero()[:, 0]
    positive = positive[torch.randperm(len(positive), device=boxes.device)[: count // 2]]
    negative = negative[torch.randperm(len(negative), device=boxes.device)[: count - len(positive)]]
    return torch.cat([positive, negative]), torch.cat([matched[positive], torch.full_like(negative, -1)])


def examples(offered: list[Tensor], targets: Detections, *, count: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """A sample of the boxes offered for each picture, with what a head is to say of them.

    Args:
        offered: boxes (n, 4) for each picture.
        targets: the true boxes and labels of each.
        count: of boxes in the sample of a picture.

    Returns:
        The sampled boxes of each picture; labels (R,) of all of them, 0 for background and else 1 + the class;
        codes (O, 4) of those on objects, in the same order.
    """
    boxes, labels, goals = [], [], []
    for some, target in zip(offered, targets, strict=True):
        chosen, matched = sample(target["boxes"], some, high=0.5, low=0.5, count=count)
        own = matched >= 0
        boxes.append(some[chosen])
        labels.append(torch.zeros_like(chosen).masked_scatter(own, target["labels"][matched[own]] + 1))
        goals.append(encode(target["boxes"][matched[own]], some[chosen[own]]))
    return boxes, torch.cat(labels), torch.cat(goals)


def found_in(
    offered: list[Tensor], logits: Tensor, codes: Tensor, size: Any, *, overlap: float, adjusts: bool
) -> Detections:
    """What a head found: the boxes offered for each picture, moved, scored, and thinned class by class.

    Args:
        offered: boxes (n, 4) for each picture.
        logits: (R, 1 + classes) of all of them, background first.
        codes: (R, classes, 4), how to move each for each class.
        size: height and width of the pictures.
        overlap: IoU above which the lower score of two boxes of a class goes.
        adjusts: move the boxes; otherwise they stay as they were offered.
    """
    counts, found = [len(boxes) for boxes in offered], []
    for boxes, scores, shifts in zip(offered, logits.softmax(1).split(counts), codes.split(counts), strict=True):
        chosen, labels = (scores[:, 1:] > 0.02).nonzero(as_tuple=True)
        moved = decode(shifts[chosen, labels], boxes[chosen]) if adjusts else boxes[chosen]
        some = {"boxes": within(moved, size), "scores": scores[chosen, labels + 1], "labels": labels}
        stays = nms(some["boxes"], some["scores"], overlap, labels)[:100]
        found.append({key: value[stays] for key, value in some.items()})
    return found


def recall(proposals: list[Tensor], dataset: Boxes, most: int) -> float:
    """The share of objects that one of a picture's first `most` proposals overlaps by half."""
    pairs = zip(dataset.boxes, proposals, strict=True)
    return torch.cat([(box_iou(boxes, some[:most]) >= 0.5).any(dim=1) for boxes, some in pairs]).double().mean().item()
