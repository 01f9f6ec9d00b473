"""Scenes in Pascal VOC's layout."""

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from recipes.core.errors import InputError
from recipes.datasets.reading import (
    PICTURE_SUFFIXES,
    by_split,
    file_content,
    file_lines,
    files_in,
    finite,
    first_with_suffix,
    folders_in,
    is_folder,
    is_there,
)
from recipes.datasets.scenes.pngs import MASK_SUFFIXES, classes_listed
from recipes.datasets.scenes.records import Found, Scene, Thing, inside, stated_size


def find_voc(root: Path, kind: str) -> Found | None:
    """Reads the lists of Pascal VOC, and for boxes its XML files, if the folder has that layout."""
    kits = [folder for folder in (root, root / "VOCdevkit") if is_folder(folder)]
    below = [home for kit in kits for home in folders_in(kit) if home.name.startswith("VOC")]
    homes = [home for home in (root, *below) if is_folder(home / "JPEGImages")]
    if not homes:
        return None
    if len(homes) > 1:
        raise InputError(f"{root}: holds {homes[0].name} and {homes[1].name}: expected the path of one of them")
    home = homes[0]
    masks, notes = home / "SegmentationClass", home / "Annotations"
    as_masks = is_folder(masks) and (kind == "masks" or not is_folder(notes))
    lists = home / "ImageSets" / "Segmentation"
    if not as_masks or not is_folder(lists):
        lists = home / "ImageSets" / "Main"
    found = Found(root, "classes" if as_masks else "boxes", {}, [])
    things: list[tuple[Scene, str, list[float], str, bool]] = []
    for split, (source, stems) in voc_names(home, lists, masks if as_masks else notes, found.changed).items():
        found.parts[split] = []
        for stem in stems:
            base = inside(home / "JPEGImages", stem, str(source))
            picture = first_with_suffix(base, PICTURE_SUFFIXES)
            if picture is None:
                raise InputError(f"{base}.jpg: this picture, listed in {source}, is missing")
            scene = Scene(picture, str(notes / f"{stem}.xml"))
            if as_masks:
                scene.mask = first_with_suffix(masks / stem, MASK_SUFFIXES) or masks / f"{stem}.png"
            else:
                things += [(scene, *thing) for thing in read_xml(notes / f"{stem}.xml", scene)]
            found.parts[split].append(scene)
    if as_masks:
        found.classes, found.zero_is_background = classes_listed(root, home), True
        return found
    found.classes = sorted({name for _, name, _, _, difficult in things if not difficult})
    for scene, name, box, where, difficult in things:
        if name in found.classes:
            scene.things.append(Thing(found.classes.index(name), box, where, ignored=difficult))
    return found


def voc_names(home: Path, lists: Path, annotations: Path, changed: Counter[str]) -> dict[str, tuple[Path, list[str]]]:
    """For each split its list and the pictures' names there, without suffix; without lists, all that are annotated."""
    files = files_in(lists, {".txt"}) if is_folder(lists) else []
    listed = by_split(files)
    for file in files:
        if file.stem.lower() == "trainval":
            listed.setdefault("train", file)
    if not listed:
        files = files_in(annotations, (".xml", *MASK_SUFFIXES)) if is_folder(annotations) else []
        stems = [file.stem for file in files]
        pictures = {picture.stem for picture in files_in(home / "JPEGImages", PICTURE_SUFFIXES)}
        changed[f"pictures without a file in {annotations.name} left out"] += len(pictures.difference(stems))
        return {"all": (annotations, stems)}
    names = {}
    for split, file in listed.items():
        names[split] = file, [stem_of(home / "JPEGImages", line, file) for line in file_lines(file)]
    return names


def stem_of(pictures: Path, line: str, file: Path) -> str:
    """The name that a line of a list gives, blanks in it and all; behind it may stand its suffix, or 1, 0 or -1."""
    for end in (r"\s+(1|0|-1)", r"\.\w+"):
        cut = re.fullmatch(rf"(.*\S){end}", line)
        if cut and first_with_suffix(inside(pictures, line, str(file)), PICTURE_SUFFIXES) is None:
            line = cut[1]
    return line


def read_xml(path: Path, scene: Scene) -> list[tuple[str, list[float], str, bool]]:
    """Of each object in one of VOC's XML files: name, box, where it stands, and whether it is difficult.

    The scene gets the size that the file states, if any.
    """
    if not is_there(path):
        raise InputError(f"{path}: this file is missing")
    try:
        tree = ElementTree.fromstring(file_content(path))
    except (ElementTree.ParseError, LookupError, UnicodeError) as error:  # of the encoding that it names
        raise InputError(f"{path}: expected XML: {error}") from error
    scene.size = stated_size(tree.findtext("size/width"), tree.findtext("size/height"))
    things = []
    for i, record in enumerate(tree.iter("object"), 1):
        where, name = f"{path}: object {i}", record.findtext("name", "").strip()
        box = [finite(record.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
        left, top, right, bottom = box
        if left is None or top is None or right is None or bottom is None:
            raise InputError(f"{where}: expected a bndbox with xmin, ymin, xmax and ymax")
        if not name:
            raise InputError(f"{where}: expected a name")
        difficult = record.findtext("difficult", "0").strip().lower() in ("1", "true")
        things.append((name, [left - 1, top - 1, right, bottom], where, difficult))  # from 1 inclusive to edges
    return things
