"""Pictures to learn much from, and new tasks with few labels, out of the same scenes and digits."""

from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from recipes.datasets.bundled import bundled
from recipes.datasets.images import Images, read_idx
from recipes.datasets.loading import few_of_each
from recipes.datasets.scenes import Boxes

CROP = 32  # pixels; the side that digits cut out of scenes are brought to
NEW_KINDS = (2, 3, 5, 6, 8, 9)  # of digits, none of which the bundled scenes hold


def cut_out(scenes: Boxes) -> Images:
    """Every object of some scenes, with a tenth of its size around it, as a picture (3, CROP, CROP) of its own."""
    pieces = []
    for image, boxes in zip(scenes.images, scenes.boxes, strict=True):
        margin = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True) * 0.6
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        square = torch.cat([centre - margin, centre + margin], dim=1).round().int()
        for left, top, right, bottom in square.clamp(min=0).tolist():
            piece = image[None, :, top : max(bottom, top + 1), left : max(right, left + 1)].float()
            pieces.append(F.interpolate(piece, size=(CROP, CROP), mode="bilinear").round().to(torch.uint8)[0])
    return Images(torch.stack(pieces), torch.cat(scenes.labels), scenes.classes)


def other_digits(samples: int, seed: int) -> tuple[Images, Images]:
    """Bundled digits of the kinds that no scene holds: so many of each to learn from, and all of the test part."""
    parts = []
    for split in ("train", "t10k"):
        images = read_idx(bundled("digits") / f"{split}-images-idx3-ubyte", 3)[:, None]
        labels = read_idx(bundled("digits") / f"{split}-labels-idx1-ubyte", 1).long()
        new = torch.isin(labels, torch.tensor(NEW_KINDS))
        large = F.interpolate(images[new].float(), size=(CROP, CROP), mode="bicubic").clamp(0, 255).to(torch.uint8)
        labels = torch.searchsorted(torch.tensor(NEW_KINDS), labels[new])
        parts.append(Images(large.expand(-1, 3, -1, -1), labels, [str(kind) for kind in NEW_KINDS]))
    return parts[0].subset(few_of_each(parts[0].labels, samples, seed)), parts[1]


def some(scenes: Any, start: int, stop: int) -> Any:
    """The pictures from number `start` to before `stop` of `Boxes` or `Masks`, with all that belongs to them."""
    return replace(scenes, **{name: value[start:stop] for name, value in vars(scenes).items() if name != "classes"})
