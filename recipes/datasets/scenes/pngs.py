"""Scenes with masks beside the pictures: numbered objects, or classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.core.errors import InputError, tell
from recipes.datasets.pictures import read_picture
from recipes.datasets.reading import (
    PICTURE_SUFFIXES,
    by_split,
    file_lines,
    files_in,
    first_with_suffix,
    folders_in,
    is_folder,
    is_there,
)
from recipes.datasets.scenes.records import Found, Scene, Thing
from recipes.datasets.scenes.sets import VOID

MASK_SUFFIXES = (".png", ".gif", ".bmp", ".tif", ".tiff")  # formats that keep every value
LAYOUTS = (
    ("PNGImages", "PedMasks", "objects"),
    ("images", "objects", "objects"),
    ("images", "masks", "classes"),
)


def find_pngs(root: Path) -> Found | None:
    """Lists pictures with masks, if the folder has one of those layouts."""
    splits = by_split(folders_in(root))
    for pictures, masks, format in LAYOUTS:
        homes = {"all": root, **splits}
        if parts := mask_scenes({split: (home / pictures, home / masks) for split, home in homes.items()}):
            return Found(root, format, parts, ["object"] if format == "objects" else classes_listed(root))
    if parts := mask_scenes({split: (home, home.with_name(f"{home.name}annot")) for split, home in splits.items()}):
        return Found(root, "classes", parts, classes_listed(root), camvid=True)
    return None


def mask_scenes(folders: dict[str, tuple[Path, Path]]) -> dict[str, list[Scene]]:
    """The scenes of each split whose folders of pictures and of masks both exist."""
    parts: dict[str, list[Scene]] = {}
    for split, (pictures, masks) in folders.items():
        if not (is_folder(pictures) and is_folder(masks)):
            continue
        parts[split] = []
        for picture in files_in(pictures, PICTURE_SUFFIXES):
            bases = (masks / f"{picture.stem}_mask", masks / picture.stem)
            mask = next((path for base in bases if (path := first_with_suffix(base, MASK_SUFFIXES))), None)
            if mask is None:
                raise InputError(f"{picture}: its mask is missing: expected {bases[1]}.png")
            parts[split].append(Scene(picture, str(mask), mask=mask))
    return parts


def classes_listed(*folders: Path) -> list[str]:
    """The lines of the first `classes.txt` in these folders, or none."""
    return next((file_lines(path, numbered=True) for folder in folders if is_there(path := folder / "classes.txt")), [])


def read_mask(path: Path, size: Sequence[float]) -> NDArray[Any]:
    """The values of a mask, (height, width); those of a palette are its indices, or the grays of a GIF."""
    image = read_picture(path, None)
    if path.suffix.lower() == ".gif" and image.mode == "P":  # GIF has no other way to store gray, in any order
        colors = np.reshape(image.getpalette() or [], (-1, 3))
        image = image.convert("L") if (colors == colors[:, :1]).all() else image
    values = np.asarray(image.getchannel(0) if image.mode in ("LA", "PA") else image)
    if values.ndim == 3 and (values[..., :1] == values[..., :3]).all():  # gray saved as color
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind == "f":
        raise InputError(f"{path}: expected one value a pixel (gray or palette), not colors")
    if values.shape[::-1] != tuple(size):
        here = f"{values.shape[1]} x {values.shape[0]}"
        raise InputError(f"{path}: is {here} pixels, expected {size[0]:g} x {size[1]:g} as its picture")
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


def black_and_white(masks: Sequence[NDArray[np.uint8]], where: str) -> list[NDArray[np.uint8]]:
    """The parts' masks, with 255 as class 1 where they have 0 and 255 alone: no other class would be left."""
    if set().union(*(np.unique(part).tolist() for part in masks)) != {0, VOID}:
        return list(masks)
    tell(f"{where}: its masks have the values 0 and {VOID} alone: {VOID} is taken as class 1, not as void")
    return [(part == VOID).astype(np.uint8) for part in masks]


def highest_class(masks: Sequence[NDArray[np.uint8]], where: str) -> int:
    """The highest value of the parts' masks that stands for a class."""
    seen = np.unique(np.concatenate([np.unique(part) for part in masks]))
    if seen.tolist() == [VOID]:
        raise InputError(f"{where}: no mask has a class: expected 0, 1, 2 …, and {VOID} for void only")
    return int(seen[seen != VOID].max())


def without_void(masks: Sequence[NDArray[np.uint8]], names: list[str]) -> tuple[Any, list[str]]:
    """The parts' masks with the values of classes named void made VOID, and the other classes' names."""
    kept = [value for value, name in enumerate(names) if name != "void"]
    table = np.full(256, VOID, np.uint8)
    table[kept] = range(len(kept))
    return [table[part] for part in masks], [names[value] for value in kept]
