"""Damaged and odd pictures, annotations and folders: each opens, or is refused in one line that names the file."""

import gc
import gzip
import json
import math
import os
import random
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from recipes.core.errors import InputError
from recipes.datasets.images import open_images
from recipes.datasets.scenes import open_boxes, open_masks
from recipes.datasets.sequences import open_sequences

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools
]
SUFFIXES = ["jpg", "png", "gif", "webp", "tif", "bmp", "ppm"]
ODD: list[Any] = [None, True, -1, 0, 0.5, 3, 99, 1e39, math.nan, math.inf, 10**400, "", "x", "7", "7.0", "../x", "/x"]
ODD += [
    "C:\\x",
    "a\nb",
    "a\\0.png",
    "a\0b",
    "n" * 300,
    "\ud800",
    [],
    [[]],
    {},
    [1, 2],
    [1e300] * 4,
    [[9, 9, -9e9, 4, 3, 9e9]],
]
WORDS = [
    "",
    "nan",
    "inf",
    "-1",
    "0",
    "1e39",
    "9" * 400,
    "x",
    "1 0",
    "../x",
    "é",
    "\0",
    "&#0;",
    "<a>",
    "</size>",
    ",",
    "\t",
]


def noise(size: tuple[int, int] = (20, 20), seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def rectangle(value: int = 1) -> Image.Image:
    mask = Image.new("L", (20, 20))
    mask.paste(value, (2, 4, 8, 12))
    return mask


def class_folders(home: Path) -> None:
    for number, suffix in enumerate(SUFFIXES * 2):
        path = home / ("train", "Testing")[number // 7] / "ab"[number % 2] / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = number % 9
        noise(seed=number).save(path, **({"exif": exif} if suffix in ("jpg", "png", "webp", "tif") else {}))


def idx(home: Path) -> None:
    home.mkdir()
    for part in ("train", "t10k"):
        images = bytes((0, 0, 8, 3)) + struct.pack(">3I", 10, 4, 4) + bytes(160)
        labels = bytes((0, 0, 8, 1)) + struct.pack(">I", 10) + bytes(range(10))
        (home / f"emnist-digits-{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (home / f"emnist-digits-{part}-labels-idx1-ubyte").write_bytes(labels)


def coco(home: Path) -> None:
    for part in ("train", "val"):
        (home / part).mkdir(parents=True)
        outlines: list[Any] = [[[2, 4, 8, 4, 8, 12, 2, 12]], {"size": [20, 20], "counts": [44, 6, 350]}]
        packed = rle.encode(np.asfortranarray(rectangle()))["counts"].decode()
        outlines += [{"size": [20, 20], "counts": packed}]
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "cat"}]}
        for i, outline in enumerate(outlines):
            noise(seed=i).save(home / part / f"{i}.png")
            content["images"].append({"id": i, "file_name": f"{i}.png", "width": 20, "height": 20})
            thing = {"id": i, "image_id": i, "category_id": 7, "bbox": [2, 4, 6, 8], "iscrowd": 0}
            content["annotations"].append(thing | {"segmentation": outline})
        (home / part / "_annotations.coco.json").write_text(json.dumps(content))


def voc(home: Path) -> None:
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main"):
        (home / "VOC2007" / folder).mkdir(parents=True)
    for i in range(4):
        noise(seed=i).save(home / "VOC2007" / "JPEGImages" / f"a {i}.JPG")
        rectangle(i % 2 + 1).save(home / "VOC2007" / "SegmentationClass" / f"a {i}.PNG")
        size = "<size><width>20</width><height>20</height></size>"
        box = "<bndbox><xmin>3</xmin><ymin>5</ymin><xmax>8</xmax><ymax>12</ymax></bndbox>"
        thing = f"<object><name>cat</name><difficult>0</difficult>{box}</object>"
        xml = f'<?xml version="1.0" encoding="utf-8"?><annotation>{size}{thing}</annotation>'
        (home / "VOC2007" / "Annotations" / f"a {i}.xml").write_text(xml)
    (home / "VOC2007" / "ImageSets" / "Main" / "train.txt").write_text("a 0\na 1 1\n")
    (home / "VOC2007" / "ImageSets" / "Main" / "val.txt").write_text("a 2 -1\na 3\n")


def masks(home: Path) -> None:
    for folder in ("images", "masks"):
        (home / folder).mkdir(parents=True)
    for i, suffix in enumerate(("png", "gif", "bmp", "tif", "PNG")):
        noise(seed=i).save(home / "images" / f"{i}.jpg")
        rectangle(255).save(home / "masks" / f"{i}.{suffix}")
    (home / "classes.txt").write_text("sky\nroad\n")


def objects(home: Path) -> None:
    for folder in ("PNGImages", "PedMasks"):
        (home / folder).mkdir(parents=True)
    for i in range(5):
        noise(seed=i).save(home / "PNGImages" / f"{i}.png")
        rectangle(i + 1).save(home / "PedMasks" / f"{i}_mask.png")


def otb(home: Path) -> None:
    for name in ("groundtruth_rect.1.txt", "groundtruth_rect.2.txt"):
        (home / "walk" / "img").mkdir(parents=True, exist_ok=True)
        (home / "walk" / name).write_text("3,4,10,8\n3\t4\t10\t8\n0,0,0,0\n3, 4, 10, 8,\n")
    for i in range(4):
        noise(seed=i).save(home / "walk" / "img" / f"{i + 1}.jpg")


def seen_sequences(home: Path) -> None:
    for sequence in open_sequences(home)[1]:
        for index in range(len(sequence)):
            sequence.frame(index)


LAYOUTS: dict[str, tuple[Callable[[Path], None], list[Callable[[Path], Any]]]] = {
    "class folders": (class_folders, [open_images]),
    "IDX": (idx, [open_images]),
    "COCO": (coco, [open_boxes, open_masks]),
    "VOC": (voc, [open_boxes, open_masks]),
    "masks": (masks, [open_masks]),
    "objects": (objects, [open_boxes, open_masks]),
    "OTB": (otb, [seen_sequences]),
}


@pytest.fixture(scope="module", autouse=True)
def no_workers_left() -> None:
    gc.collect()  # of earlier tests, whose end may take seconds


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    def alarm(*_: Any) -> None:
        raise AssertionError("an opener waits")

    before = signal.signal(signal.SIGALRM, alarm)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def opens_or_is_refused(layout: str, home: Path, change: str) -> int:
    """Opens the folder in every way; how many were refused, each in one line that names something in it."""
    lines = []
    for opener in LAYOUTS[layout][1]:
        signal.alarm(20)
        try:
            opener(home)
        except InputError as error:
            lines.append(str(error))
        except Exception as error:
            raise AssertionError(f"{layout}, {change}: {type(error).__name__}") from error
    for line in lines:
        assert line.isprintable(), change
        assert str(home) in line, change
        assert len(line) < 1500, change
    return len(lines)


def damaged(content: bytes, dice: random.Random) -> tuple[bytes, str]:
    """The content with one kind of damage, and what that was."""
    place = dice.randrange(len(content))
    length = dice.randint(1, 40)
    kind = dice.choice(["cut", "bit", "zeros", "bytes", "doubled", "empty", "word"])
    changed = {
        "cut": content[:place],
        "bit": content[:place] + bytes([content[place] ^ 1 << dice.randrange(8)]) + content[place + 1 :],
        "zeros": content[:place] + bytes(length) + content[place + length :],
        "bytes": content[:place] + dice.randbytes(length) + content[place + length :],
        "doubled": content[: place + length] + content[place:],
        "empty": b"",
        "word": content[:place] + dice.choice(WORDS).encode() + content[place + length // 8 :],
    }[kind]
    return changed, f"{kind} at {place}"


def odd_json(content: Any, dice: random.Random) -> tuple[str, str]:
    """The JSON with one value, anywhere in it, of another kind or missing."""
    content, place, way = json.loads(content), None, []
    node = content
    while isinstance(node, dict | list) and node and (place is None or dice.random() < 0.8):
        parent, place = node, dice.choice(list(node) if isinstance(node, dict) else range(len(node)))
        way.append(place)
        node = node[place]
    if dice.random() < 0.15:
        del parent[place]
        return json.dumps(content), f"{way} missing"
    parent[place] = value = dice.choice(ODD)
    return json.dumps(content), f"{way} is {str(value)[:50]!r}"


def damage_all(layout: str, home: Path, dice: random.Random, count: int) -> int:
    LAYOUTS[layout][0](home)
    assert opens_or_is_refused(layout, home, "whole") == 0
    files = sorted(path for path in home.rglob("*") if path.is_file())
    notes = [path for path in files if path.suffix in (".json", ".xml", ".txt")]
    refused = 0
    for _ in range(count):
        path = dice.choice(notes if notes and dice.random() < 0.6 else files)
        content = path.read_bytes()
        if path.suffix == ".json" and dice.random() < 0.8:
            text, change = odd_json(content, dice)
            path.write_bytes(text.encode())
        else:
            broken, change = damaged(content, dice)
            path.write_bytes(broken)
        refused += opens_or_is_refused(layout, home, f"{path.name}: {change}")
        path.write_bytes(content)
    assert sorted(path for path in home.rglob("*") if path.is_file()) == files, "nothing is written"
    return refused


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_files(layout: str, tmp_path: Path) -> None:
    """50 of each layout: pictures, annotations and lists that are cut, flipped, of wrong types."""
    assert damage_all(layout, tmp_path / "home", random.Random(layout), 50) > 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_damaged_files(layout: str, seed: int, tmp_path: Path) -> None:
    damage_all(layout, tmp_path / "home", random.Random(f"{layout} {seed}"), 100)


def put(kind: str, path: Path) -> None:
    """Something else than a readable file or folder in a path's place."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.touch()
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path.symlink_to({"dangling": "nowhere", "zeros": "/dev/zero", "error": "/proc/self/mem"}[kind])


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_no_file(layout: str, tmp_path: Path) -> None:
    """Every kind of special file in the place of a picture, an annotation, a list and each folder."""
    home, aside = tmp_path / "home", tmp_path / "aside"
    LAYOUTS[layout][0](home)
    first: dict[tuple[Path, str], Path] = {}
    for path in sorted(home.rglob("*")):
        first.setdefault((path.parent, path.suffix.lower()) if path.is_file() else (path, ""), path)
    for path in first.values():
        for kind in ("pipe", "folder", "file", "loop", "dangling", "zeros", "error"):
            shutil.move(path, aside)
            put(kind, path)
            opens_or_is_refused(layout, home, f"{path.relative_to(home)} is a {kind}")
            path.rmdir() if kind == "folder" else path.unlink()
            shutil.move(aside, path)
    for kind in ("pipe", "file", "loop", "dangling", "zeros"):
        put(kind, aside)
        assert opens_or_is_refused(layout, aside, f"all is a {kind}") == len(LAYOUTS[layout][1])
        aside.unlink()


@pytest.mark.parametrize("opener", [open_images, open_boxes, open_masks, open_sequences])
@pytest.mark.parametrize(
    "data", ["", "~nobody-by-this-name/x", "a\nb", "a\0b", "n" * 5000, "no/such", "hf:", 3, b"x", [], {}]
)
def test_paths(opener: Callable[[Any], Any], data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        opener(data)
    assert str(caught.value).isprintable()
