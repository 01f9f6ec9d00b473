"""Pictures with boxes or masks in Pascal VOC's layout."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image

from recipes.datasets.plain.scenes import VOID, Boxes, Masks, read_pictures, warp_masks


def open_boxes(data: str, *, image_size: int | None = None, **_: Any) -> tuple[Boxes, Boxes]:
    """JPEGImages, which keep their proportions, Annotations and ImageSets/Main, in this folder or below it.

    Difficult objects are skipped.
    """
    home, side = next(Path(data).glob("**/JPEGImages")).parent, image_size or 128
    objects = {path.stem: read_xml(path) for path in (home / "Annotations").glob("*.xml")}
    classes = sorted({name for _, found in objects.values() for name, _ in found})
    parts = []
    for stems in read_splits(home, "Main"):
        found = [objects[stem] for stem in stems]
        corners = [(torch.tensor([box for _, box in things]).view(-1, 4), max(size)) for size, things in found]
        boxes = [one * (side / longer) for one, longer in corners]
        labels = [torch.tensor([classes.index(name) for name, _ in objects[stem][1]]).long() for stem in stems]
        parts.append(Boxes(read_pictures(picture_paths(home, stems), side, letterbox=True), boxes, labels, classes))
    return parts[0], parts[1]


def read_xml(path: Path) -> tuple[list[int], list[tuple[str, list[float]]]]:
    """Width and height of a picture, and the name and box of each of its objects."""
    tree, found = ElementTree.parse(path), []
    for one in tree.iter("object"):
        if one.findtext("difficult", "0").strip() != "1":
            left, top, right, bottom = (
                float(one.findtext(f"bndbox/{s}", "")) for s in ("xmin", "ymin", "xmax", "ymax")
            )
            found.append((one.findtext("name", "").strip(), [left - 1, top - 1, right, bottom]))  # from 1, inclusive
    return [int(tree.findtext(f"size/{side}", "")) for side in ("width", "height")], found


def open_masks(data: str, *, image_size: int | None = None, seed: int = 0) -> tuple[Masks, Masks]:
    """JPEGImages, SegmentationClass and ImageSets/Segmentation, in this folder or below it; 255 is void."""
    home, side = next(Path(data).glob("**/JPEGImages")).parent, image_size or 128
    parts = []
    for stems in read_splits(home, "Segmentation"):
        values = [np.asarray(Image.open(home / "SegmentationClass" / f"{stem}.png")) for stem in stems]
        parts.append((read_pictures(picture_paths(home, stems), side), warp_masks(values, side)))
    highest = max(int(masks[masks != VOID].max()) for _, masks in parts)
    classes = ["background", *(f"class {value}" for value in range(1, highest + 1))]
    return Masks(*parts[0], classes), Masks(*parts[1], classes)


def read_splits(home: Path, kind: str) -> list[list[str]]:
    """The names in train.txt, and those in test.txt or val.txt."""
    folder = home / "ImageSets" / kind
    test = folder / "test.txt" if (folder / "test.txt").exists() else folder / "val.txt"
    return [[line.split()[0] for line in path.read_text().splitlines()] for path in (folder / "train.txt", test)]


def picture_paths(home: Path, stems: list[str]) -> list[Path]:
    return [next((home / "JPEGImages").glob(f"{stem}.*")) for stem in stems]
