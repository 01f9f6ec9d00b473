"""Opens scenes with boxes or masks, bundled or yours: COCO, Pascal VOC, PNG masks beside pictures, your Datasets.

The layout of the folder tells the format; the first that fits is read:

- COCO: `annotations/instances_SPLIT.json`, or JSON files with `images` and `annotations` in the folder
  or one below. A picture is looked for in `SPLIT/`, `images/SPLIT/`, `images/`, beside the JSON file and
  in the folder itself. Polygons and run lengths are read, annotations with `iscrowd` skipped.
- Pascal VOC: `JPEGImages` and `Annotations` or `SegmentationClass`, here, in `VOC*/` or in
  `VOCdevkit/VOC*/`; splits from `ImageSets/Main/*.txt` (for masks `ImageSets/Segmentation/*.txt`, where
  that exists). Coordinates start at 1 and include the last pixel; `difficult` objects are skipped.
- Numbered objects, one class: `PNGImages/X.png` and `PedMasks/X_mask.png` (PennFudan), or `images/X.*`
  and `objects/X.png`. In a mask 0 is background, each other value one object.
- Classes as values: `images/X.*` and `masks/X.png`, or `SPLIT/X.*` and `SPLITannot/X.png` (CamVid).

The two with PNG masks may also lie within `train/`, `val/` and `test/`. Train and test parts are used
where they are given (val if there is no test), else a fifth of the pictures is held out.

Where values stand for classes (VOC's too), 255 is void. A file `classes.txt` names the value 0 in its
first line, 1 in the next, and so on; values named `void` become void. Without it the classes are numbered
up to the highest value; in the CamVid layout a highest value of 11 means CamVid's eleven classes and void.

A pair of Datasets (train, test) is read once, as its transforms give it, and held in memory:

- (image, {"boxes", "labels"}), as torchvision's detectors take it: boxes (n, 4) left, top, right, bottom in
  pixels; labels count from 1, and 0 is background. Where some object has the label 0, they count from 0.
- (image, mask): a class for each pixel, (H, W), 0 background and 255 void.

Their attribute `classes` names the classes; a first name `background` stands for 0.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recipes.core.errors import InputError
from recipes.core.loading import holdout
from recipes.datasets.bundled import bundled
from recipes.datasets.images import as_picture
from recipes.datasets.own import PAIR_PARTS, class_names, described, pair_of_datasets, samples_of

VOID = 255  # pixels of no class, left out of loss and metric
OWN_SIZE = 128  # pixels; equal square pictures up to this size keep it, others are warped to it
SLACK = 2  # pixels by which a box may leave its picture, for rounding; it is clipped
SPLITS = ("train", "val", "test")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
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


@dataclass
class Boxes:
    """Pictures with boxes, held in memory.

    Attributes:
        images: (N, 3, H, W) uint8.
        boxes: for each picture (n, 4) float32: left, top, right, bottom, in pixels of `images`.
        labels: for each picture (n,) int64, indices into `classes`; there is no background class.
        files: each picture's path within the data set's folder.
    """

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    classes: list[str]
    files: list[str]

    @property
    def image_size(self) -> int:
        return self.images.shape[-1]

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Pictures (B, 3, H, W) in 0 to 1, and for each its `boxes` (n, 4) and `labels` (n,)."""
        images = self.images[torch.as_tensor(indices)].float() / 255
        return images, [{"boxes": self.boxes[i], "labels": self.labels[i]} for i in indices]

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        images, targets = self.__getitems__([index])
        return images[0], targets[0]


@dataclass
class Masks:
    """Pictures with a class for each pixel, held in memory.

    Attributes:
        images: (N, 3, H, W) uint8.
        masks: (N, H, W) uint8, indices into `classes`, or VOID.
        classes: the first is `background`, unless the set has a class 0 of its own.
        files: each picture's path within the data set's folder.
    """

    images: Tensor
    masks: Tensor
    classes: list[str]
    files: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, H, W) in 0 to 1 and masks (B, H, W) int64."""
        chosen = torch.as_tensor(indices)
        return self.images[chosen].float() / 255, self.masks[chosen].long()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, masks = self.__getitems__([index])
        return images[0], masks[0]


def open_boxes(data: Any = None, *, image_size: int | None = None, seed: int = 0) -> tuple[Boxes, Boxes]:
    """The train and the test part of a set of pictures with boxes.

    Args:
        data: folder in one of the formats above, or a pair of Datasets; None opens the bundled scenes.
        image_size: pictures are warped to so many pixels square, boxes with them. None keeps the
            pictures' own size if all are equal, square and at most 128, and else takes 128.
        seed: of the pictures held out where the set has no parts of its own.

    Raises:
        InputError: naming the file and the record that cannot be used.
    """
    pair = pair_of_datasets(data)
    if pair is not None:
        return boxes_of(pair, image_size)
    found = find_scenes(data, "boxes")
    parts, image_size = prepare(found, image_size, seed)
    if found.format == "classes":
        raise InputError(f"{found.root}: its masks give classes of pixels, not objects: boxes cannot be derived")

    def read(scenes: list[Scene]) -> Boxes:
        images = torch.empty(len(scenes), 3, image_size, image_size, dtype=torch.uint8)
        boxes, labels = [], []
        for i, scene in enumerate(scenes):
            images[i] = read_picture(scene.picture, image_size)
            things = number_objects(scene) if found.format == "objects" else scene.things
            corners = [checked_box(thing, scene.size) for thing in things]
            scale = torch.tensor([image_size / side for side in scene.size * 2])
            boxes.append(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4) * scale)
            labels.append(torch.tensor([thing.label for thing in things], dtype=torch.int64))
        return Boxes(images, boxes, labels, found.classes, names_of(scenes, found.root))

    return read(parts[0]), read(parts[1])


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
            images[i] = read_picture(scene.picture, image_size)
            values = paint(scene) if scene.mask is None else read_mask(scene.mask, scene.size)
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

    images, masks = zip(*(read(part) for part in parts), strict=True)
    if found.format == "classes":
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


def highest_class(masks: Sequence[NDArray[np.uint8]], where: str) -> int:
    """The highest value of the parts' masks that stands for a class."""
    seen = np.unique(np.concatenate([np.unique(part) for part in masks]))
    if seen[-1] == VOID and seen[:-1].tolist() in ([], [0]):
        raise InputError(f"{where}: no mask has a class: expected 0, 1, 2 …, and {VOID} for void only")
    return int(seen[seen != VOID].max())


def without_void(masks: Sequence[NDArray[np.uint8]], names: list[str]) -> tuple[Any, list[str]]:
    """The parts' masks with the values of classes named void made VOID, and the other classes' names."""
    kept = [value for value, name in enumerate(names) if name != "void"]
    table = np.full(256, VOID, np.uint8)
    table[kept] = range(len(kept))
    return [table[part] for part in masks], [names[value] for value in kept]


def boxes_of(pair: tuple[Any, Any], image_size: int | None) -> tuple[Boxes, Boxes]:
    """The parts of a pair of Datasets of (image, {"boxes", "labels"})."""
    if all(isinstance(part, Boxes) for part in pair):
        return pair
    parts = read_pair(pair, image_size, '(image, {"boxes" and "labels"})', read_target)
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
        boxes = [box * torch.tensor([images.shape[-1] / side for side in size * 2]) for box, _, size in targets]
        numbers = [torch.tensor(labels, dtype=torch.int64) - first for _, labels, _ in targets]
        made.append(Boxes(images, boxes, numbers, classes, numbered_samples(name, len(images))))
    return made[0], made[1]


def masks_of(pair: tuple[Any, Any], image_size: int | None) -> tuple[Masks, Masks]:
    """The parts of a pair of Datasets of (image, mask)."""
    if all(isinstance(part, Masks) for part in pair):
        return pair
    parts = read_pair(pair, image_size, "(image, mask)", read_classes)
    sides = [images.shape[-1] for images, _ in parts]
    warped_masks = [
        np.stack([np.asarray(mask.resize((side, side), Image.Resampling.NEAREST)) for mask in given])
        for side, (_, given) in zip(sides, parts, strict=True)
    ]
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


def numbered_samples(part: str, count: int) -> list[str]:
    return [f"{part} sample {number}" for number in range(count)]


def read_pair(
    pair: tuple[Any, Any], image_size: int | None, expected: str, read: Callable[[Any, str, tuple[int, int]], Any]
) -> list[tuple[Tensor, list[Any]]]:
    """For the train and the test part: pictures (N, 3, side, side) uint8, and what `read` makes of the annotations.

    Args:
        pair: Datasets.
        image_size: side that pictures are warped to, or None.
        expected: a sample, in words.
        read: takes a sample's annotation, where it stands, and the picture's width and height.
    """
    parts: list[tuple[list[Image.Image], list[Any]]] = []
    sizes = set()
    for name, dataset in zip(PAIR_PARTS, pair, strict=True):
        pictures, found = [], []
        for number, (image, annotation) in enumerate(samples_of(dataset, name, expected)):
            where = f"data: {name} sample {number}"
            if isinstance(image, Image.Image):  # annotations are of the pixels as they are stored, whatever EXIF says
                image = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            picture = as_picture(image, where).convert("RGB")
            sizes.add(picture.size)
            found.append(read(annotation, where, picture.size))
            large = image_size is not None or max(picture.size) > OWN_SIZE  # made small at once, to save memory
            pictures.append(warped(picture, image_size or OWN_SIZE) if large else picture)
        parts.append((pictures, found))
    side = common_side(sizes, image_size)
    return [(torch.stack([as_tensor(warped(one, side)) for one in pictures]), found) for pictures, found in parts]


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
    corners = [checked_box(Thing(0, box, f"{where}: box {i}"), size) for i, box in enumerate(boxes.tolist())]
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


@dataclass
class Thing:
    """One object: its class, its box (left, top, right, bottom), COCO's outline, and where it was read."""

    label: int
    box: Sequence[float]
    where: str
    outline: Any = None


@dataclass
class Scene:
    """One picture and what is known of it; `size` is (width, height), as stated or measured."""

    picture: Path
    where: str
    size: tuple[int, ...] = ()
    things: list[Thing] = field(default_factory=list)
    mask: Path | None = None


@dataclass
class Found:
    """What a folder holds: parts by split, and how its annotations are to be read.

    `format` is `outlines` (COCO), `boxes` (VOC), `objects` (numbered in masks) or `classes`.
    """

    root: Path
    format: str
    parts: dict[str, list[Scene]]
    classes: list[str]
    zero_is_background: bool = False
    camvid: bool = False


def find_scenes(data: str | Path | None, kind: str) -> Found:
    """Tells the format of a folder and lists its scenes, pictures unread; `kind` is boxes or masks."""
    root = bundled("scenes") if data is None else Path(data)
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder of scenes")
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
    if "train" in parts and ("test" in parts or "val" in parts):
        chosen = [parts["train"], parts.get("test", parts.get("val", []))]
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
    sizes = set()
    for scene in chosen[0] + chosen[1]:
        size = measure(scene.picture)
        if scene.size and scene.size != size:
            stated = " x ".join(map(str, scene.size))
            raise InputError(f"{scene.picture}: is {size[0]} x {size[1]} pixels, but {scene.where} says {stated}")
        scene.size = size
        sizes.add(size)
    return chosen, common_side(sizes, image_size)


def common_side(sizes: set[tuple[int, int]], image_size: int | None) -> int:
    """The side to warp pictures to: what is asked for, else their own if all are equal, square and small, else 128."""
    if image_size is None:
        width, height = min(sizes)
        return width if len(sizes) == 1 and width == height <= OWN_SIZE else OWN_SIZE
    if image_size < 1:
        raise InputError(f"image_size is {image_size}: expected at least 1")
    return image_size


def inside(folder: Path, name: str, where: str) -> Path:
    """The path of a file named in an annotation, which may not lead out of its folder."""
    if not name or Path(name).is_absolute() or PureWindowsPath(name).drive or ".." in re.split(r"[/\\]", name):
        raise InputError(f"{where}: the name {name!r} leaves the folder: expected a path within {folder}")
    return folder / name


def measure(path: Path) -> tuple[int, int]:
    """Width and height of a picture, from its header."""
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError as error:
        raise InputError(f"{path}: this picture is missing") from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise InputError(f"{path}: expected a picture that can be read: {error}") from error


def load_whole(path: Path, size: int | None) -> Image.Image:
    """Decodes a picture to its last byte; a JPEG at the smallest scale that is not below `size`."""
    try:
        with Image.open(path) as image:
            if image.format == "PNG":
                image.verify()  # decoding alone does not look at the checksums or the end
        with Image.open(path) as image:
            if size is not None:
                image.draft("RGB", (size, size))
            image.load()
            return image
    except Exception as error:
        raise InputError(f"{path}: expected a whole picture, this one is damaged or cut: {error}") from error


def read_picture(path: Path, size: int) -> Tensor:
    """A picture warped to a square, (3, size, size) uint8."""
    return as_tensor(warped(load_whole(path, size).convert("RGB"), size))


def warped(picture: Image.Image, size: int) -> Image.Image:
    return picture.resize((size, size), Image.Resampling.BILINEAR)


def as_tensor(picture: Image.Image) -> Tensor:
    """(3, height, width) uint8."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def read_mask(path: Path, size: tuple[int, ...]) -> NDArray[Any]:
    """The values of a mask, (height, width); those of a palette are its indices."""
    values = np.asarray(load_whole(path, None))
    if values.ndim != 2:
        raise InputError(f"{path}: expected one value a pixel (grey or palette), not colors")
    if values.shape[::-1] != tuple(size):
        here = f"{values.shape[1]} x {values.shape[0]}"
        raise InputError(f"{path}: is {here} pixels, expected {size[0]} x {size[1]} as its picture")
    return values


def number_objects(scene: Scene) -> list[Thing]:
    """The objects of a mask that numbers them, with boxes tight around them."""
    assert scene.mask is not None
    values = read_mask(scene.mask, scene.size)
    things = []
    for value in np.unique(values[values > 0]):
        rows, columns = np.flatnonzero((values == value).any(1)), np.flatnonzero((values == value).any(0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        things.append(Thing(0, box, f"{scene.mask}: object {value}"))
    return things


def checked_box(thing: Thing, size: tuple[int, ...]) -> list[float]:
    """The box of a thing, clipped to the picture; refused if it is empty or further outside than SLACK."""
    left, top, right, bottom = (float(value) for value in thing.box)
    width, height = size
    shown = f"{thing.where}: the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g})"
    if not all(map(math.isfinite, (left, top, right, bottom))) or right <= left or bottom <= top:
        raise InputError(f"{shown} is empty: expected right > left and bottom > top")
    clipped = [max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)]
    moved = max(abs(a - b) for a, b in zip(clipped, (left, top, right, bottom), strict=True))
    if moved > SLACK or clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        raise InputError(f"{shown} leaves the picture: expected it within {width} x {height}")
    return clipped


def paint(scene: Scene) -> NDArray[np.uint8]:
    """COCO's outlines as classes from 1, (height, width), smaller objects over larger ones."""
    width, height = scene.size
    values = np.zeros((height, width), np.uint8)
    shapes = [(outline(thing, width, height), thing.label) for thing in scene.things]
    for shape, label in sorted(shapes, key=lambda item: -int(item[0].sum())):
        values[shape] = label + 1
    return values


def outline(thing: Thing, width: int, height: int) -> NDArray[np.bool_]:
    """A COCO segmentation as a mask (height, width): polygons, or run lengths, compressed or plain."""
    from pycocotools import mask as rle

    given = thing.outline
    if not given:
        raise InputError(f"{thing.where}: has no segmentation: a set with boxes only cannot be opened as masks")
    if isinstance(given, list):
        for polygon in given:
            numbers = numbers_of(polygon, thing.where, "a polygon")
            if len(numbers) < 6 or len(numbers) % 2:
                raise InputError(f"{thing.where}: expected a polygon of at least three x, y pairs")
            for value, side in zip(numbers, (width, height) * (len(numbers) // 2), strict=True):
                if not -SLACK <= value <= side + SLACK:
                    raise InputError(f"{thing.where}: its polygon leaves the picture of {width} x {height}")
        return rle.decode(rle.merge(rle.frPyObjects(given, height, width))).astype(bool)
    counts = take(given, "counts", (str, list), thing.where)
    if take(given, "size", list, thing.where) != [height, width]:
        raise InputError(f"{thing.where}: its run lengths have the size {given['size']}, expected {[height, width]}")
    if isinstance(counts, list):
        runs = numbers_of(counts, thing.where, "run lengths")
        if any(run < 0 or run % 1 for run in runs) or sum(runs) != height * width:
            raise InputError(f"{thing.where}: expected run lengths that add up to {height * width} pixels")
        given = rle.frPyObjects({"size": [height, width], "counts": [int(run) for run in runs]}, height, width)
    try:
        shape = rle.decode(given)
    except (ValueError, TypeError) as error:
        raise InputError(f"{thing.where}: its run lengths cannot be decoded: {error}") from error
    # the decoder leaves unset what too few runs do not reach; whole ones come out as they went in
    if isinstance(counts, str) and rle.encode(np.asfortranarray(shape))["counts"] != counts.encode():
        raise InputError(f"{thing.where}: expected run lengths that add up to {height * width} pixels")
    return shape.astype(bool)


def take(record: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of a JSON record, of the kind that is expected."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise InputError(f"{where}: expected {key!r} with a value of type {names}")
    return value


def numbers_of(values: Any, where: str, what: str) -> list[float]:
    """A list of finite numbers, as they come from JSON."""
    good = isinstance(values, list) and all(isinstance(v, int | float) and math.isfinite(v) for v in values)
    if not good:
        raise InputError(f"{where}: expected {what} as a list of numbers")
    return values


def split_of(file: Path) -> str:
    """The split a file's name or folder tells: train, val or test, followed by whatever (`train2017`)."""
    for name in (file.stem, file.parent.name):
        if match := re.search(r"(?:^|[^a-z])((?:train|val|test)[a-z]*\d*)(?:$|[^a-z])", name.lower()):
            return match[1]
    return "all"


def find_coco(root: Path) -> Found | None:
    """Reads COCO's JSON files, if the folder has any."""
    files = sorted((root / "annotations").glob("instances_*.json"))
    named = bool(files)
    parts: dict[str, list[Scene]] = {}
    categories: dict[int, str] = {}
    for file in files or sorted([*root.glob("*.json"), *root.glob("*/*.json")]):
        try:
            content = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file}: expected JSON: {error}") from error
        if not named and not (isinstance(content, dict) and content.keys() >= {"images", "annotations"}):
            continue
        split = split_of(file)
        own = {
            take(record, "id", int, f"{file}: category {i}"): take(record, "name", str, f"{file}: category {i}")
            for i, record in enumerate(take(content, "categories", list, str(file)))
        }
        if categories and own != categories:
            raise InputError(f"{file}: its categories differ from those of the other JSON files")
        categories = own
        key = next((name for name in SPLITS if split.startswith(name)), "all")
        if key in parts:
            raise InputError(f"{file}: expected one JSON file for the part {key!r}, this is the second")
        parts[key] = coco_scenes(root, file, split, content, sorted(categories))
    if not parts:
        return None
    return Found(root, "outlines", parts, [categories[key] for key in sorted(categories)])


def coco_scenes(root: Path, file: Path, split: str, content: Any, category_ids: list[int]) -> list[Scene]:
    """The scenes of one COCO file, in its order."""
    folders = [root / split, root / "images" / split, root / "images", file.parent, root]
    scenes: dict[int, Scene] = {}
    for i, record in enumerate(take(content, "images", list, str(file))):
        where = f"{file}: image {i}"
        identifier, name = take(record, "id", int, where), take(record, "file_name", str, where)
        where = f"{file}: image {identifier}"
        if identifier in scenes:
            raise InputError(f"{where}: its id is given twice")
        paths = [inside(folder, name, where) for folder in folders]
        picture = next((path for path in paths if path.is_file()), None)
        if picture is None:
            raise InputError(f"{where}: the picture {name} is missing: expected it in {folders[0]} or {root}")
        size = (take(record, "width", int, where), take(record, "height", int, where))
        scenes[identifier] = Scene(picture, where, size)
    for i, record in enumerate(take(content, "annotations", list, str(file))):
        where = f"{file}: annotation {record.get('id', i) if isinstance(record, dict) else i}"
        image, category = take(record, "image_id", int, where), take(record, "category_id", int, where)
        if image not in scenes:
            raise InputError(f"{where}: expected an image_id that is listed in images, not {image}")
        if category not in category_ids:
            raise InputError(f"{where}: expected a category_id that is listed in categories, not {category}")
        box = numbers_of(record.get("bbox"), where, "bbox")
        if len(box) != 4:
            raise InputError(f"{where}: expected bbox as [left, top, width, height]")
        if not record.get("iscrowd"):
            corners = (box[0], box[1], box[0] + box[2], box[1] + box[3])
            thing = Thing(category_ids.index(category), corners, where, record.get("segmentation"))
            scenes[image].things.append(thing)
    return list(scenes.values())


def find_voc(root: Path, kind: str) -> Found | None:
    """Reads the lists of Pascal VOC, and for boxes its XML files, if the folder has that layout."""
    homes = [
        home
        for home in (root, *sorted(root.glob("VOC*")), *sorted(root.glob("VOCdevkit/VOC*")))
        if (home / "JPEGImages").is_dir()
    ]
    if not homes:
        return None
    if len(homes) > 1:
        raise InputError(f"{root}: holds {homes[0].name} and {homes[1].name}: expected the path of one of them")
    home = homes[0]
    masks, notes = home / "SegmentationClass", home / "Annotations"
    as_masks = masks.is_dir() and (kind == "masks" or not notes.is_dir())
    lists = home / "ImageSets" / "Segmentation"
    if not as_masks or not lists.is_dir():
        lists = home / "ImageSets" / "Main"
    names = {}
    for split in (*SPLITS, "trainval"):
        if (lists / f"{split}.txt").is_file():
            lines = (lists / f"{split}.txt").read_text(encoding="utf-8").splitlines()
            names[split] = [line.split()[0] for line in lines if line.strip()]
    joined = names.pop("trainval", [])
    if joined and "train" not in names:
        names["train"] = joined
    if not names:
        files = masks.glob("*.png") if as_masks else notes.glob("*.xml")
        names["all"] = sorted(file.stem for file in files)

    parts: dict[str, list[Scene]] = {}
    things: list[tuple[Scene, str, list[float], str]] = []
    for split, stems in names.items():
        parts[split] = []
        for stem in stems:
            base = inside(home / "JPEGImages", stem, str(lists / f"{split}.txt"))
            picture = next((path for end in SUFFIXES if (path := Path(f"{base}{end}")).is_file()), None)
            if picture is None:
                raise InputError(f"{base}.jpg: this picture, listed in {lists / split}.txt, is missing")
            scene = Scene(picture, str(notes / f"{stem}.xml"), mask=masks / f"{stem}.png" if as_masks else None)
            parts[split].append(scene)
            if not as_masks:
                things += [(scene, *thing) for thing in read_xml(notes / f"{stem}.xml", scene)]
    if as_masks:
        return Found(root, "classes", parts, classes_listed(root, home), zero_is_background=True)
    classes = sorted({name for _, name, _, _ in things})
    for scene, name, box, where in things:
        scene.things.append(Thing(classes.index(name), box, where))
    return Found(root, "boxes", parts, classes)


def read_xml(path: Path, scene: Scene) -> list[tuple[str, list[float], str]]:
    """Name, box and place of each object in one of VOC's XML files; the scene gets the size it states."""
    try:
        tree = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise InputError(f"{path}: this file is missing") from error
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path}: expected XML: {error}") from error
    try:
        scene.size = tuple(int(tree.findtext(f"size/{side}", "")) for side in ("width", "height"))
    except ValueError as error:
        raise InputError(f"{path}: expected a size with width and height") from error
    if tree.find("object") is None:
        raise InputError(f"{path}: expected at least one object")
    things = []
    for i, record in enumerate(tree.iter("object"), 1):
        where, name = f"{path}: object {i}", record.findtext("name", "").strip()
        try:
            box = [float(record.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
        except ValueError as error:
            raise InputError(f"{where}: expected a bndbox with xmin, ymin, xmax and ymax") from error
        if not name:
            raise InputError(f"{where}: expected a name")
        if record.findtext("difficult", "0").strip() != "1":
            things.append((name, [box[0] - 1, box[1] - 1, box[2], box[3]], where))  # from 1 inclusive to edges
    return things


def find_pngs(root: Path) -> Found | None:
    """Lists pictures with PNG masks, if the folder has one of those layouts."""
    layouts = (
        ("PNGImages", "PedMasks", "objects"),
        ("images", "objects", "objects"),
        ("images", "masks", "classes"),
    )
    for pictures, masks, format in layouts:
        homes = {"all": root, **{split: root / split for split in SPLITS}}
        folders = {split: (home / pictures, home / masks) for split, home in homes.items()}
        if parts := mask_scenes(folders):
            return Found(root, format, parts, ["object"] if format == "objects" else classes_listed(root, root))
    if parts := mask_scenes({split: (root / split, root / f"{split}annot") for split in SPLITS}):
        return Found(root, "classes", parts, classes_listed(root, root), camvid=True)
    return None


def mask_scenes(folders: dict[str, tuple[Path, Path]]) -> dict[str, list[Scene]]:
    """The scenes of each split whose folders of pictures and of masks both exist."""
    parts: dict[str, list[Scene]] = {}
    for split, (pictures, masks) in folders.items():
        if not (pictures.is_dir() and masks.is_dir()):
            continue
        parts[split] = []
        for picture in sorted(path for path in pictures.iterdir() if path.suffix.lower() in SUFFIXES):
            mask = masks / f"{picture.stem}_mask.png"
            mask = mask if mask.is_file() else masks / f"{picture.stem}.png"
            if not mask.is_file():
                raise InputError(f"{picture}: its mask is missing: expected {mask}")
            parts[split].append(Scene(picture, str(mask), mask=mask))
    return parts


def classes_listed(*folders: Path) -> list[str]:
    """The lines of the first `classes.txt` in these folders, or none."""
    for folder in folders:
        if (folder / "classes.txt").is_file():
            lines = (folder / "classes.txt").read_text(encoding="utf-8").splitlines()
            return [line.strip() for line in lines if line.strip()]
    return []
