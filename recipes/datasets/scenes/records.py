"""What is known of a folder's scenes before their pictures are read, and the checks that all formats share."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from recipes.core.errors import InputError
from recipes.datasets.reading import finite

SLACK = 2  # pixels by which a box may leave its picture, for rounding


@dataclass
class Thing:
    """One object: its class, its box (left, top, right, bottom), COCO's outline, and where it was read.

    What is `ignored` (COCO's crowds, VOC's difficult objects) is neither learned nor scored.
    """

    label: int
    box: Sequence[float]
    where: str
    outline: Any = None
    ignored: bool = False


@dataclass
class Scene:
    """One picture and what is known of it; `size` is (width, height), as stated or measured."""

    picture: Path
    where: str
    size: tuple[float, ...] = ()
    things: list[Thing] = field(default_factory=list)
    mask: Path | None = None


@dataclass
class Found:
    """What a folder holds: parts by split, and how its annotations are to be read.

    Attributes:
        format: `outlines` (COCO), `boxes` (VOC), `objects` (numbered in masks) or `classes`.
        changed: what was left out, clipped or converted, and how often.
    """

    root: Path
    format: str
    parts: dict[str, list[Scene]]
    classes: list[str]
    zero_is_background: bool = False
    camvid: bool = False
    changed: Counter[str] = field(default_factory=Counter)


def inside(folder: Path, name: str, where: str) -> Path:
    """The path of a file named in an annotation, which may not lead out of its folder; backslashes are slashes."""
    if not name or PureWindowsPath(name).drive or name[0] in "/\\" or ".." in re.split(r"[/\\]", name):
        raise InputError(f"{where}: the name {name!r} leaves the folder: expected a path within {folder}")
    return folder / name.replace("\\", "/")


def stated_size(width: Any, height: Any) -> tuple[float, ...]:
    """The size of a picture as an annotation states it, or () where it states none or 0."""
    sides = [finite(side) for side in (width, height)]
    return tuple(side for side in sides if side) if all(side and side > 0 for side in sides) else ()


def take(record: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of a JSON record, of the kind that is expected."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise InputError(f"{where}: expected {key!r} with a value of type {names}")
    return value


def numbers_of(values: Any, where: str, what: str) -> list[float]:
    """A list of finite numbers, as they come from JSON."""
    if not isinstance(values, list) or any(isinstance(one, str) or finite(one) is None for one in values):
        raise InputError(f"{where}: expected {what} as a list of numbers")
    return values


def clipped_box(box: Sequence[float], size: Sequence[float], changed: Counter[str]) -> list[float] | None:
    """The box within its picture, or None if nothing of it is there; counts what is not as it was."""
    left, top, right, bottom = (float(value) for value in box)
    kept = [max(left, 0.0), max(top, 0.0), min(right, size[0]), min(bottom, size[1])]
    if right <= left or bottom <= top:
        changed["boxes without area left out"] += 1
    elif kept[0] >= kept[2] or kept[1] >= kept[3]:
        changed["boxes outside their picture left out"] += 1
    else:
        moved = max(abs(a - b) for a, b in zip(kept, (left, top, right, bottom), strict=True))
        if moved > SLACK:
            changed["boxes clipped to their picture"] += 1
        return kept
    return None
