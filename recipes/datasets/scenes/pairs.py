"""Scenes from a pair of the user's own Datasets, read once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.datasets.images import as_picture
from recipes.datasets.own import PAIR_PARTS, class_names, described, samples_of
from recipes.datasets.scenes.pngs import black_and_white, highest_class, without_void
from recipes.datasets.scenes.records import SLACK
from recipes.datasets.scenes.sets import VOID, Boxes, Masks

OWN_SIDE = 128  # pixels; equal square pictures up to this size keep it, others are warped to it


def boxes_of(pair: tuple[Any, Any], image_size: int | None, letterbox: bool = True) -> tuple[Boxes, Boxes]:
    """The parts of a pair of Datasets of (image, {"boxes", "labels"})."""
    if all(isinstance(part, Boxes) for part in pair):
        return pair if image_size is None else (scaled(pair[0], image_size), scaled(pair[1], image_size))
    parts = read_pair(pair, image_size, '(image, {"boxes" and "labels"})', read_target, letterbox)
    corners = torch.cat([boxes for _, targets in parts for boxes, _, _ in targets])
    if len(corners) and corners.max() <= 1:
        raise InputError("data: expected boxes in pixels, but all of them lie within 0 to 1: multiply by the sizes")
    names = class_names(pair)
    every = [label for _, targets in parts for _, labels, _ in targets for label in labels]
    counts_background = names is not None and names[0].strip("_").lower() == "background"
    first = 0 if 0 in every and not counts_background else 1
    classes = [f"class {value}" for value in range(first, max(every, default=first) + 1)]
    if names is not None:
        classes = names[1:] if counts_background else names
    made = []
    for name, (images, targets) in zip(PAIR_PARTS, parts, strict=True):
        for number, (_, labels, _) in enumerate(targets):
            wrong = [label for label in labels if not first <= label < first + len(classes)]
            if wrong:
                wanted = f"labels from {first} to {first + len(classes) - 1}"
                raise InputError(f"data: {name} sample {number}: expected {wanted}, got {wrong[0]}")
        side = images.shape[-1]
        boxes = [box * torch.tensor(scale_of(size, side, letterbox)) for box, _, size in targets]
        numbers = [torch.tensor(labels, dtype=torch.int64) - first for _, labels, _ in targets]
        made.append(Boxes(images, boxes, numbers, classes, numbered_samples(name, len(images))))
    return made[0], made[1]


def masks_of(pair: tuple[Any, Any], image_size: int | None) -> tuple[Masks, Masks]:
    """The parts of a pair of Datasets of (image, mask)."""
    if all(isinstance(part, Masks) for part in pair):
        return pair if image_size is None else (scaled(pair[0], image_size), scaled(pair[1], image_size))
    parts = read_pair(pair, image_size, "(image, mask)", read_classes)
    sides = [images.shape[-1] for images, _ in parts]
    warped_masks = [
        np.stack([np.asarray(mask.resize((side, side), Image.Resampling.NEAREST)) for mask in given])
        for side, (_, given) in zip(sides, parts, strict=True)
    ]
    if len(class_names(pair) or []) in (0, 2):
        warped_masks = black_and_white(warped_masks, "data")
    highest = highest_class(warped_masks, "data")
    names = class_names(pair) or ["background", *(f"class {value}" for value in range(1, highest + 1))]
    if highest >= len(names):
        raise InputError(f"data: a mask has the value {highest}, expected values up to {len(names) - 1}, or {VOID}")
    masks, names = without_void(warped_masks, names)
    made = [
        Masks(images, torch.from_numpy(mask), names, numbered_samples(name, len(images)))
        for name, (images, _), mask in zip(PAIR_PARTS, parts, masks, strict=True)
    ]
    return made[0], made[1]


def scaled(part: Any, image_size: int) -> Any:
    """A part that was opened before, in another size."""
    height, width = part.images.shape[2:]
    side = common_side({(width, height)}, image_size)
    if height == width == side:
        return part
    images = F.interpolate(part.images, (side, side), mode="bilinear", antialias=True)
    if isinstance(part, Masks):
        return replace(part, images=images, masks=F.interpolate(part.masks[:, None], (side, side))[:, 0])
    scale = torch.tensor(scale_of((width, height), side, letterbox=False))
    ignored = [one | {"boxes": one["boxes"] * scale} for one in part.ignored]
    return replace(part, images=images, boxes=[boxes * scale for boxes in part.boxes], ignored=ignored)


def numbered_samples(part: str, count: int) -> list[str]:
    return [f"{part} sample {number}" for number in range(count)]


def read_pair(
    pair: tuple[Any, Any],
    image_size: int | None,
    expected: str,
    read: Callable[[Any, str, tuple[int, int]], Any],
    letterbox: bool = False,
) -> list[tuple[Tensor, list[Any]]]:
    """For the train and the test part: pictures (N, 3, side, side) uint8, and what `read` makes of the annotations.

    Args:
        pair: Datasets.
        image_size: side that pictures are warped to, or None.
        expected: a sample, in words.
        read: takes a sample's annotation, where it stands, and the picture's width and height.
        letterbox: keep the pictures' proportions.
    """
    resized = letterboxed if letterbox else warped
    parts: list[tuple[list[Image.Image], list[Any]]] = []
    sizes = set()
    for name, dataset in zip(PAIR_PARTS, pair, strict=True):
        pictures, found = [], []
        for number, (image, annotation) in enumerate(samples_of(dataset, name, expected)):
            where = f"data: {name} sample {number}"
            # Annotations are of the pixels as they are stored, whatever EXIF says.
            picture = as_picture(image, where, turned=False).convert("RGB")
            sizes.add(picture.size)
            found.append(read(annotation, where, picture.size))
            large = image_size is not None or max(picture.size) > OWN_SIDE  # made small at once, to save memory
            pictures.append(resized(picture, image_size or OWN_SIDE) if large else picture)
        parts.append((pictures, found))
    side = common_side(sizes, image_size)
    return [(torch.stack([as_tensor(resized(one, side)) for one in pictures]), found) for pictures, found in parts]


def read_target(target: Any, where: str, size: tuple[int, int]) -> tuple[Tensor, list[int], tuple[int, int]]:
    """Boxes (n, 4) and labels from what torchvision's detectors take, and the picture's size."""
    if not isinstance(target, dict) or not {"boxes", "labels"} <= target.keys():
        keys = f"a dict with {', '.join(map(repr, target))}" if isinstance(target, dict) else described(target)
        raise InputError(f"{where}: expected a dict with 'boxes' and 'labels', got {keys}")
    try:
        boxes = torch.as_tensor(target["boxes"], dtype=torch.float32)
        labels = torch.as_tensor(target["labels"])
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{where}: expected boxes and labels as tensors ({reason})") from error
    form = getattr(getattr(target["boxes"], "format", None), "name", "XYXY")  # torchvision's own kind of boxes
    if labels.ndim != 1 or (boxes.shape != (len(labels), 4) and not boxes.numel() == len(labels) == 0):
        shapes = f"{tuple(boxes.shape)} and {tuple(labels.shape)}"
        raise InputError(f"{where}: expected boxes (n, 4) and labels (n,), got the shapes {shapes}")
    if form != "XYXY" or (labels.is_floating_point() and len(labels)):
        got = f"boxes as {form}" if form != "XYXY" else "labels that are no whole numbers"
        raise InputError(f"{where}: expected boxes as XYXY and labels as whole numbers, got {got}")
    corners = [checked_box(box, f"{where}: box {i}", size) for i, box in enumerate(boxes.tolist())]
    return torch.tensor(corners, dtype=torch.float32).view(-1, 4), labels.tolist(), size


def read_classes(mask: Any, where: str, size: tuple[int, int]) -> Image.Image:
    """A mask of classes as Pillow has it."""
    values = np.asarray(mask.detach().cpu() if isinstance(mask, Tensor) else mask)
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    whole = values.dtype.kind in "biu"
    if values.ndim != 2 or not whole or values.size == 0 or values.min() < 0 or values.max() > VOID:
        wanted = f"a mask (height, width) of whole numbers from 0 to {VOID}"
        raise InputError(f"{where}: expected {wanted}, got {described(mask if not whole else values)}")
    if values.shape[::-1] != size:
        here = f"{values.shape[1]} x {values.shape[0]}"
        raise InputError(f"{where}: its mask is {here} pixels, expected {size[0]} x {size[1]} as its picture")
    return Image.fromarray(values.astype(np.uint8))


def checked_box(box: Sequence[float], where: str, size: tuple[int, int]) -> list[float]:
    """The box clipped to the picture; refused if it is empty or further outside than SLACK."""
    left, top, right, bottom = box
    width, height = size
    shown = f"{where}: the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g})"
    if not all(map(math.isfinite, (left, top, right, bottom))) or right <= left or bottom <= top:
        raise InputError(f"{shown} is empty: expected right > left and bottom > top")
    clipped = [max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)]
    moved = max(abs(a - b) for a, b in zip(clipped, (left, top, right, bottom), strict=True))
    if moved > SLACK or clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        raise InputError(f"{shown} leaves the picture: expected it within {width} x {height}")
    return clipped


def common_side(sizes: set[tuple[int, int]], image_size: int | None) -> int:
    """The side to warp pictures to: what is asked for, else their own if all are equal, square and small, else 128."""
    if image_size is None:
        width, height = min(sizes)
        return width if len(sizes) == 1 and width == height <= OWN_SIDE else OWN_SIDE
    if image_size < 1:
        raise InputError(f"image_size is {image_size}: expected at least 1")
    return image_size


def warped(picture: Image.Image, size: int) -> Image.Image:
    return picture.resize((size, size), Image.Resampling.BILINEAR)


def letterboxed(picture: Image.Image, size: int) -> Image.Image:
    """The picture in its own proportions, from the upper left of a black square."""
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    square = Image.new(picture.mode, (size, size))
    square.paste(picture.resize((width, height), Image.Resampling.BILINEAR))
    return square


def scale_of(size: Sequence[float], side: int, letterbox: bool) -> list[float]:
    """What boxes in a picture of that width and height are multiplied by when it fills a square of that side."""
    width, height = (max(size), max(size)) if letterbox else size
    return [side / width, side / height, side / width, side / height]


def as_tensor(picture: Image.Image) -> Tensor:
    """(3, height, width) uint8."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
