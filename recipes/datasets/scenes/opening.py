"""Opens scenes in whatever format they are."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recipes.core.errors import InputError
from recipes.core.files import own_path
from recipes.core.loading import holdout
from recipes.datasets.bundled import bundled
from recipes.datasets.own import PAIR_PARTS, pair_of_datasets
from recipes.datasets.pictures import picture_size, read_picture
from recipes.datasets.reading import require_folder, tell_left_out, tested_part
from recipes.datasets.scenes.coco import find_coco, paint
from recipes.datasets.scenes.pairs import as_tensor, boxes_of, common_side, letterboxed, masks_of, scale_of, warped
from recipes.datasets.scenes.pngs import (
    black_and_white,
    find_pngs,
    highest_class,
    number_objects,
    read_mask,
    without_void,
)
from recipes.datasets.scenes.records import Found, Scene, clipped_box
from recipes.datasets.scenes.sets import VOID, Boxes, Masks
from recipes.datasets.scenes.voc import find_voc

SMALLEST = 8  # side in pixels of a picture with boxes
CAMVID = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
    "void",
]


def open_boxes(
    data: Any = None,
    *,
    image_size: int | None = None,
    seed: int = 0,
    letterbox: bool = True,
    enlarged: Callable[[Sequence[Tensor], Sequence[Tensor], int], int] | None = None,
) -> tuple[Boxes, Boxes]:
    """The train and the test part of a set of pictures with boxes.

    Args:
        data: folder in one of the formats above, or a pair of Datasets; None opens the bundled scenes.
        image_size: pictures are brought to so many pixels square, boxes with them. None keeps the
            pictures' own size if all are equal, square and at most 128, and else takes 128.
        seed: of the pictures held out where the set has no parts of its own.
        letterbox: keep each picture's proportions: it fills the square's width or height from the upper left
            corner, and the rest is black, as trained detectors are given theirs. Otherwise pictures are warped.
        enlarged: of a folder, where no size is given: from the boxes and labels of the train part's pictures, as they
            are at the size that they would get, and that size to the one they get, if it is larger.

    Raises:
        InputError: naming the file and the record that cannot be used.
    """
    pair = pair_of_datasets(data)
    if pair is not None:
        return boxes_of(pair, image_size, letterbox)
    found = find_scenes(data, "boxes")
    parts, side = prepare(found, image_size, seed)
    if side < SMALLEST:
        sides = f"pictures of {side} pixels a side, expected at least {SMALLEST} to find objects in"
        raise InputError(f"{found.root}: {sides}; image_size enlarges them")
    if found.format == "classes":
        raise InputError(f"{found.root}: its masks give classes of pixels, not objects: boxes cannot be derived")
    targets = [[objects_of(scene, found) for scene in scenes] for scenes in parts]

    def scaled(scene: Scene, target: dict[str, Tensor]) -> dict[str, Tensor]:
        return target | {"boxes": target["boxes"] * torch.tensor(scale_of(scene.size, side, letterbox))}

    if data is not None and image_size is None and enlarged is not None:
        learned = [scaled(scene, target) for scene, (target, _) in zip(parts[0], targets[0], strict=True)]
        side = max(side, enlarged([one["boxes"] for one in learned], [one["labels"] for one in learned], side))

    def read(scenes: list[Scene], targets: list[tuple[dict[str, Tensor], dict[str, Tensor]]]) -> Boxes:
        images = torch.empty(len(scenes), 3, side, side, dtype=torch.uint8)
        for i, scene in enumerate(scenes):
            images[i] = (read_letterboxed if letterbox else read_warped)(scene.picture, side)
        pairs = [[scaled(scene, one) for one in both] for scene, both in zip(scenes, targets, strict=True)]
        boxes, labels = [one["boxes"] for one, _ in pairs], [one["labels"] for one, _ in pairs]
        ignored = [other for _, other in pairs] if any(len(other["labels"]) for _, other in pairs) else []
        return Boxes(images, boxes, labels, found.classes, names_of(scenes, found.root), ignored)

    train, test = (read(*both) for both in zip(parts, targets, strict=True))
    tell_left_out(found.root, found.changed)
    require_objects(found, [any(map(len, part.labels)) for part in (train, test)])
    return train, test


def objects_of(scene: Scene, found: Found) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The boxes (n, 4) in pixels of the picture and the labels (n,) of its objects, and those of the ignored ones."""
    things, both = number_objects(scene) if found.format == "objects" else scene.things, []
    for chosen in (False, True):
        changed = Counter() if chosen else found.changed
        these = [thing for thing in things if thing.ignored is chosen]
        clipped = [(clipped_box(thing.box, scene.size, changed), thing.label) for thing in these]
        kept = [(box, label) for box, label in clipped if box is not None]
        corners = torch.tensor([box for box, _ in kept], dtype=torch.float32).reshape(-1, 4)
        both.append({"boxes": corners, "labels": torch.tensor([label for _, label in kept], dtype=torch.int64)})
    return both[0], both[1]


def open_masks(data: Any = None, *, image_size: int | None = None, seed: int = 0) -> tuple[Masks, Masks]:
    """The train and the test part of a set of pictures with a class for each pixel.

    Args:
        data: folder in one of the formats above, or a pair of Datasets; None opens the bundled scenes. Where
            only objects are outlined, the rest is background and a smaller object lies over a larger one.
        image_size: pictures are warped to so many pixels square, masks with them by nearest neighbor.
            None keeps the pictures' own size if all are equal, square and at most 128, and else takes 128.
        seed: of the pictures held out where the set has no parts of its own.

    Raises:
        InputError: naming the file and the record that cannot be used.
    """
    pair = pair_of_datasets(data)
    if pair is not None:
        return masks_of(pair, image_size)
    found = find_scenes(data, "masks")
    parts, image_size = prepare(found, image_size, seed)
    if found.format == "boxes":
        raise InputError(f"{found.root}: has boxes only: expected masks in SegmentationClass")
    names = found.classes if found.format == "classes" else ["background", *found.classes]
    if len(names) > VOID:
        raise InputError(f"{found.root}: {len(names)} classes, expected at most {VOID}")

    def read(scenes: list[Scene]) -> tuple[Tensor, NDArray[np.uint8]]:
        images = torch.empty(len(scenes), 3, image_size, image_size, dtype=torch.uint8)
        masks = np.empty((len(scenes), image_size, image_size), np.uint8)
        for i, scene in enumerate(scenes):
            images[i] = read_warped(scene.picture, image_size)
            values = paint(scene, found.changed) if scene.mask is None else read_mask(scene.mask, scene.size)
            if found.format == "objects":
                values = values > 0
            elif found.format == "classes":
                unknown = values[(values != VOID) & (values >= (len(names) or VOID))]
                if unknown.size:
                    wanted = f"values up to {(len(names) or VOID) - 1}, or {VOID} for void"
                    raise InputError(f"{scene.mask}: has the value {unknown[0]}, expected {wanted}")
            mask = Image.fromarray(values.astype(np.uint8))
            masks[i] = np.asarray(mask.resize((image_size, image_size), Image.Resampling.NEAREST))
        return images, masks

    images, masks = (list(both) for both in zip(*(read(part) for part in parts), strict=True))
    tell_left_out(found.root, found.changed)
    outlined = [((part > 0) & (part < VOID)).any() for part in masks]
    if found.changed["objects without an outline left out"] and not any(outlined):
        raise InputError(f"{found.root}: no object has an outline: a set with boxes only cannot be opened as masks")
    if found.format != "classes":
        require_objects(found, outlined)
    else:
        if len(names) in (0, 2):
            masks = black_and_white(masks, str(found.root))
        highest = highest_class(masks, str(found.root))
        if not names and found.camvid and highest == CAMVID.index("void"):
            names = CAMVID
        if not names:
            names = ["background" if found.zero_is_background else "class 0"]
            names += [f"class {value}" for value in range(1, highest + 1)]
        masks, names = without_void(masks, names)
    files = [names_of(part, found.root) for part in parts]
    return Masks(images[0], torch.from_numpy(masks[0]), names, files[0]), Masks(
        images[1], torch.from_numpy(masks[1]), names, files[1]
    )


def require_objects(found: Found, in_parts: Sequence[Any]) -> None:
    """Raises InputError unless there are objects in the train and in the test part."""
    for name, there in zip(PAIR_PARTS, in_parts, strict=True):
        if not there:
            raise InputError(f"{found.root}: no object is left in the {name} part: expected at least one")


def find_scenes(data: str | Path | None, kind: str) -> Found:
    """Tells the format of a folder and lists its scenes, pictures unread; `kind` is boxes or masks."""
    root = bundled("scenes") if data is None else own_path(data)
    require_folder(root, "a folder of scenes")
    found = find_coco(root) or find_voc(root, kind) or find_pngs(root)
    if found is None:
        wanted = "COCO (annotations/instances_*.json), Pascal VOC (JPEGImages and Annotations) or PNG masks"
        raise InputError(f"{root}: found no scenes: expected {wanted}")
    return found


def names_of(scenes: list[Scene], root: Path) -> list[str]:
    return [scene.picture.relative_to(root).as_posix() for scene in scenes]


def prepare(found: Found, image_size: int | None, seed: int) -> tuple[list[list[Scene]], int]:
    """The train and the test part with every picture's size measured, and the size to warp them to."""
    parts = found.parts
    if "train" in parts and (tested := tested_part(parts, found.root)) is not None:
        chosen = [parts["train"], tested]
    elif len(parts) == 1:
        scenes = next(iter(parts.values()))
        chosen = (
            [[scenes[i] for i in part] for part in holdout(torch.zeros(len(scenes)), seed=seed)] if scenes else [[], []]
        )
    else:
        raise InputError(f"{found.root}: has the parts {', '.join(parts)}: expected train and test or val")
    for name, scenes in zip(("train", "test"), chosen, strict=True):
        if not scenes:
            raise InputError(f"{found.root}: no picture is left for the {name} part")
    sizes, seen = set(), set()
    for scene in chosen[0] + chosen[1]:
        if scene.picture in seen:
            raise InputError(f"{scene.picture}: is listed twice ({scene.where}): expected once, in one part")
        seen.add(scene.picture)
        size = picture_size(scene.picture)
        if scene.size and scene.size != size:
            stated = " x ".join(f"{side:g}" for side in scene.size)
            measured = f"{size[0]} x {size[1]} pixels, seen upright"
            raise InputError(f"{scene.picture}: is {measured}, but {scene.where} says {stated}")
        scene.size = size
        sizes.add(size)
    return chosen, common_side(sizes, image_size)


def read_warped(path: Path, size: int) -> Tensor:
    """A picture warped to a square, (3, size, size) uint8."""
    return as_tensor(warped(read_picture(path, "RGB", least=(size, size)), size))


def read_letterboxed(path: Path, size: int) -> Tensor:
    """A picture in its own proportions from the upper left of a black square, (3, size, size) uint8."""
    return as_tensor(letterboxed(read_picture(path, "RGB", least=(size, size)), size))
