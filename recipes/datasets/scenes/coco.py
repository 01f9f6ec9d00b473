"""Scenes from COCO's JSON files."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.core.errors import InputError
from recipes.datasets.reading import (
    SPLIT_NAMES,
    file_json,
    files_in,
    first_with_suffix,
    folders_in,
    is_folder,
    is_there,
)
from recipes.datasets.scenes.records import Found, Scene, Thing, inside, numbers_of, stated_size, take
from recipes.datasets.scenes.sets import VOID

SPLIT_WORD = re.compile(r"(?:^|[^a-z])((train|val|dev|test|eval)[a-z]*\d*)(?:$|[^a-z])", re.IGNORECASE)


def split_of(file: Path) -> tuple[str, str]:
    """The split that a file's name or folder tells, and the word for it: ("val", "val2017"), or ("all", "default")."""
    for name in (file.stem, file.parent.name):
        if match := SPLIT_WORD.search(name):
            return next(split for split, names in SPLIT_NAMES.items() if match[2].lower() in names), match[1]
    return "all", file.stem.removeprefix("instances_")


def find_coco(root: Path) -> Found | None:
    """Reads COCO's JSON files, if the folder has any."""
    notes = root / "annotations"
    files = (
        [file for file in files_in(notes, {".json"}) if file.name.startswith("instances_")] if is_folder(notes) else []
    )
    named = bool(files)
    if not named:
        files = [file for folder in (root, *folders_in(root)) for file in files_in(folder, {".json"})]
    found = Found(root, "outlines", {}, [])
    categories: dict[int | str, str] = {}
    for file in files:
        content = file_json(file)
        if not named and not (isinstance(content, dict) and content.keys() >= {"images", "annotations"}):
            continue
        own: dict[int | str, str] = {}
        for i, record in enumerate(take(content, "categories", list, str(file))):
            where = f"{file}: category {i}"
            number, name = identifier(record, "id", where), str(take(record, "name", (str, int), where))
            if number in own:
                raise InputError(f"{where}: the id {number} of {name!r} is given twice, first to {own[number]!r}")
            own[number] = name
        if categories and own != categories:
            raise InputError(f"{file}: its categories differ from those of the other JSON files")
        categories = dict(sorted(own.items(), key=lambda item: (isinstance(item[0], str), item[0])))
        split, word = split_of(file)
        if split in found.parts:
            raise InputError(f"{file}: expected one JSON file for the part {split!r}, this is the second")
        folders = [root / word, root / "images" / word, root / "images", file.parent, root]
        found.parts[split] = coco_scenes(folders, file, content, list(categories), found.changed)
    found.classes = list(categories.values())
    return found if found.parts else None


def identifier(record: Any, key: str, where: str) -> int | str:
    """A number or name that other records refer to; 7, 7.0 and "7" are the same."""
    value = take(record, key, (int, float, str), where)
    if isinstance(value, str):
        return int(value) if re.fullmatch("-?[0-9]{1,18}", value) else value
    if value % 1:
        raise InputError(f"{where}: expected {key!r} as a whole number, got {value}")
    return int(value)


def coco_scenes(
    folders: list[Path], file: Path, content: Any, categories: list[int | str], changed: Counter[str]
) -> list[Scene]:
    """The scenes of one COCO file, in its order; pictures are looked for in these folders."""
    scenes: dict[int | str, Scene] = {}
    for i, record in enumerate(take(content, "images", list, str(file))):
        where = f"{file}: image {i}"
        number, name = identifier(record, "id", where), take(record, "file_name", str, where)
        where = f"{file}: image {number}"
        if number in scenes:
            raise InputError(f"{where}: its id is given twice")
        paths = [inside(folder, name, where) for folder in folders]
        picture = next((path for path in paths if is_there(path)), None)
        for path in paths:
            picture = picture or first_with_suffix(path.with_suffix(""), [path.suffix.lower()])
        if picture is None:
            raise InputError(f"{where}: the picture {name} is missing: expected it in {folders[0]} or {folders[-1]}")
        scenes[number] = Scene(picture, where, stated_size(record.get("width"), record.get("height")))
    labels = {category: label for label, category in enumerate(categories)}
    for i, record in enumerate(take(content, "annotations", list, str(file))):
        where = f"{file}: annotation {record.get('id', i) if isinstance(record, dict) else i}"
        image, category = identifier(record, "image_id", where), identifier(record, "category_id", where)
        if image not in scenes or category not in labels:
            what = "pictures" if image not in scenes else "categories"
            changed[f"annotations of {what} that are not listed left out"] += 1
            continue
        crowd = record.get("iscrowd") in (1, "1")
        box = [0.0] * 4 if crowd and not record.get("bbox") else numbers_of(record.get("bbox"), where, "bbox")
        if len(box) != 4:
            raise InputError(f"{where}: expected bbox as [left, top, width, height]")
        corners = (box[0], box[1], box[0] + box[2], box[1] + box[3])
        scenes[image].things.append(Thing(labels[category], corners, where, record.get("segmentation"), crowd))
    return list(scenes.values())


def paint(scene: Scene, changed: Counter[str]) -> NDArray[np.uint8]:
    """COCO's outlines as classes from 1, (height, width), smaller objects over larger ones, all over void crowds."""
    width, height = (int(side) for side in scene.size)
    values = np.zeros((height, width), np.uint8)
    things = [thing for thing in scene.things if thing.outline or not thing.ignored]
    shapes = [(outline(one, width, height, changed), VOID if one.ignored else one.label + 1) for one in things]
    for shape, value in sorted(shapes, key=lambda item: (item[1] != VOID, -int(item[0].sum()))):
        values[shape] = value
    return values


def outline(thing: Thing, width: int, height: int, changed: Counter[str]) -> NDArray[np.bool_]:
    """A COCO segmentation as a mask (height, width): polygons, or run lengths, compressed or plain."""
    from pycocotools import mask as rle

    given = thing.outline
    if isinstance(given, list):
        polygons = []
        for polygon in given:
            numbers = numbers_of(polygon, thing.where, "a polygon")
            if len(numbers) % 2:
                raise InputError(f"{thing.where}: expected a polygon of x, y pairs, got {len(numbers)} numbers")
            if len(numbers) < 6:
                changed["polygons of fewer than three points left out"] += 1
                continue
            sides = (width, height) * (len(numbers) // 2)  # far points would only take time: they are not seen
            polygons.append([min(max(value, -side), 2 * side) for value, side in zip(numbers, sides, strict=True)])
        given = polygons
    if not given:
        changed["objects without an outline left out"] += 1
        return np.zeros((height, width), bool)
    if isinstance(given, list):
        return rle.decode(rle.merge(rle.frPyObjects(given, height, width))).astype(bool)
    counts = take(given, "counts", (str, list), thing.where)
    if numbers_of(given.get("size"), thing.where, "size") != [height, width]:
        raise InputError(f"{thing.where}: its run lengths have the size {given['size']}, expected {[height, width]}")
    if isinstance(counts, list):
        runs = numbers_of(counts, thing.where, "run lengths")
        if any(run < 0 or run % 1 for run in runs) or sum(runs) != height * width:
            raise InputError(f"{thing.where}: expected run lengths that add up to {height * width} pixels")
        given = rle.frPyObjects({"size": [height, width], "counts": [int(run) for run in runs]}, height, width)
    else:
        given = {"size": [height, width], "counts": counts}
    try:
        shape = rle.decode(given)
    except (ValueError, TypeError) as error:
        raise InputError(f"{thing.where}: its run lengths cannot be decoded: {error}") from error
    # the decoder leaves unset what too few runs do not reach; whole ones come out as they went in
    if isinstance(counts, str) and rle.encode(np.asfortranarray(shape))["counts"] != counts.encode():
        raise InputError(f"{thing.where}: expected run lengths that add up to {height * width} pixels")
    return shape.astype(bool)
