"""Tasks with few labels, and pictures for the backbone to learn from."""

from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from recipes.datasets.images import Images, open_images
from recipes.datasets.loading import few_of_each
from recipes.datasets.scenes import Boxes

SCENES = 40  # bundled ones that a task is learned from; the backbone has learned from the others
CROP = 32  # pixels; the side that digits cut out of scenes are brought to
SIDE = 24  # pixels; of a digit in a picture of its own
NEW_KINDS = (2, 3, 5, 6, 8, 9)  # of digits, none of which the bundled scenes hold


def first(scenes: Any, start: int, stop: int | None) -> Any:
    """The pictures from number `start` to before `stop` (or the end) of `Boxes` or `Masks`, with all that is theirs."""
    return replace(scenes, **{name: value[start:stop] for name, value in vars(scenes).items() if name != "classes"})


def cut_out(scenes: Boxes) -> Images:
    """Every object of some scenes, with a tenth of its size around it, as a picture (3, CROP, CROP) of its own."""
    pieces = []
    for image, boxes in zip(scenes.images, scenes.boxes, strict=True):
        margin = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True) * 0.6
        center = (boxes[:, :2] + boxes[:, 2:]) / 2
        square = torch.cat([center - margin, center + margin], dim=1).round().int()
        for left, top, right, bottom in square.clamp(min=0).tolist():
            piece = image[None, :, top : max(bottom, top + 1), left : max(right, left + 1)].float()
            pieces.append(F.interpolate(piece, size=(CROP, CROP), mode="bilinear").round().to(torch.uint8)[0])
    return Images(torch.stack(pieces), torch.cat(scenes.labels), scenes.classes, torch.zeros(3), torch.ones(3))


def other_digits(samples: int, seed: int) -> tuple[Images, Images]:
    """Bundled digits of the kinds that no scene holds, each somewhere else in its picture (3, CROP, CROP).

    So many of each kind are there to learn from, and all of the test part.
    """
    opened: Any = open_images()
    parts, kinds, places = [], torch.tensor(NEW_KINDS), torch.Generator().manual_seed(0)
    for digits in opened:
        new = torch.isin(digits.labels, kinds)
        small = F.interpolate(digits.images[new].float(), size=(SIDE, SIDE), mode="bicubic").clamp(0, 255)
        images = torch.zeros(len(small), 3, CROP, CROP, dtype=torch.uint8)
        corners = torch.randint(0, CROP - SIDE + 1, (len(small), 2), generator=places).tolist()
        for image, digit, (top, left) in zip(images, small.to(torch.uint8), corners, strict=True):
            image[:, top : top + SIDE, left : left + SIDE] = digit
        labels = torch.searchsorted(kinds, digits.labels[new])
        parts.append(Images(images, labels, [str(kind) for kind in NEW_KINDS], torch.zeros(3), torch.ones(3)))
    return parts[0].subset(few_of_each(parts[0].labels, samples, seed)), parts[1]
