"""Selective search: regions that may hold an object, found by merging segments of a picture.

Source: Uijlings, van de Sande, Gevers and Smeulders (2013), "Selective Search for Object Recognition", with colors
of one space and no textures; the segments are those of Felzenszwalb and Huttenlocher (2004), by scikit-image.
"""

import heapq
from typing import Any

import numpy as np
import torch
from torch import Tensor


def selective_search(image: Tensor, most: int = 2000, scales: tuple[float, ...] = (50.0, 100.0, 200.0)) -> Tensor:
    """Boxes (N, 4) of at most so many regions, in a random order in which large ones tend to come first.

    Args:
        image: (3, height, width) uint8.
        most: regions.
        scales: of the segments to start from: a larger one makes fewer, and larger. Where fewer than 200 regions are
            wanted, the next scale is taken only if there are not enough.
    """
    from skimage.color import rgb2lab
    from skimage.segmentation import felzenszwalb

    pixels, random, found = image.permute(1, 2, 0).cpu().numpy(), np.random.default_rng(0), []
    colors = (np.add(rgb2lab(pixels), [0, 100, 100]) / [100, 200, 200] * 25).clip(0, 24).astype(int).reshape(-1, 3)
    for scale in scales:
        segments = felzenszwalb(pixels, scale=scale, sigma=0.8, min_size=max(8, pixels[..., 0].size // 4000))
        boxes = merged(segments, colors)  # the last is the whole picture
        found += [*zip(random.random(len(boxes)) * np.arange(len(boxes), 0, -1), boxes, strict=True)]
        if len(found) >= most and most < 200:  # a few are better from one scale
            break
    ordered = dict.fromkeys(box for _, box in sorted(found))  # each box once
    return torch.tensor([*ordered][:most], dtype=torch.float32).view(-1, 4)


def merged(segments: Any, colors: Any) -> list[tuple[int, ...]]:
    """Boxes of all segments (height, width), then of what comes of them as the two most alike neighbors are joined.

    Neighbors are alike that share colors, are small, and fill the box around both of them.
    """
    from scipy.ndimage import find_objects

    flat, count, whole = segments.ravel(), segments.max() + 1, segments.size
    size = [*np.bincount(flat).astype(float)]
    counts = [np.bincount(flat * 25 + bins, minlength=count * 25).reshape(count, 25) for bins in colors.T]
    histogram = [*np.concatenate(counts, axis=1) / np.array(size)[:, None] / 3]
    boxes: list[tuple[int, ...]] = [(x.start, y.start, x.stop, y.stop) for y, x in find_objects(segments + 1)]

    def around(a: int, b: int) -> tuple[int, ...]:
        pairs = [*zip(boxes[a], boxes[b], strict=True)]
        return (*map(min, pairs[:2]), *map(max, pairs[2:]))

    def unlike(a: int, b: int) -> float:
        left, top, right, bottom = around(a, b)
        gap = (right - left) * (bottom - top) - size[a] - size[b]
        return (size[a] + size[b]) / whole + gap / whole - np.minimum(histogram[a], histogram[b]).sum()

    near: list[set[int]] = [set() for _ in range(count)]
    for one, other in ((segments[:, :-1], segments[:, 1:]), (segments[:-1], segments[1:])):
        for a, b in {*zip(one[one != other].tolist(), other[one != other].tolist(), strict=True)}:
            near[a].add(b)
            near[b].add(a)
    queue = [(unlike(a, b), a, b) for a in range(count) for b in near[a] if a < b]
    heapq.heapify(queue)
    while queue:
        _, a, b = heapq.heappop(queue)
        if near[a] and near[b]:  # neither is part of a larger one yet
            new = len(boxes)
            boxes.append(around(a, b))
            size.append(size[a] + size[b])
            histogram.append((size[a] * histogram[a] + size[b] * histogram[b]) / size[new])
            near.append((near[a] | near[b]) - {a, b})
            near[a], near[b] = set(), set()
            for beside in near[new]:
                near[beside] = near[beside] - {a, b} | {new}
                heapq.heappush(queue, (unlike(new, beside), beside, new))
    return boxes
