"""Makes data/scenes: handwritten digits of four kinds on cluttered backgrounds, in COCO's layout.

Every scene is 64 pixels square and holds one to four digits, each a real 8x8 picture from
scikit-learn's `load_digits`, enlarged smoothly. The colour of a digit says nothing about its kind, and
the clutter around it is painted, translucent, in colours drawn in the same way: shape tells the kind.
Train scenes use the first 80 % of the pictures of `load_digits`, test scenes the rest.

    python data/make_scenes.py [FOLDER]

The same seed gives the same scenes.
"""

import colorsys
import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from pycocotools import mask as rle
from sklearn.datasets import load_digits

SIZE = 64
SEED = 20
COLOURS = 16  # a palette of sixteen takes four bits a pixel
KINDS = {0: "zero", 1: "one", 4: "four", 7: "seven"}
COUNTS = {"train": 640, "test": 160}
SOURCES = {"train": range(1437), "test": range(1437, 1797)}  # indices into load_digits: no picture in both
MAX_OVERLAP = 0.15  # shared area of two boxes, as a share of the smaller
MIN_CONTRAST = 120  # distance in RGB between a digit and nine tenths of the pixels it covers


@dataclass
class Digit:
    """One digit of a scene: its index in `load_digits`, its kind and where it is seen (SIZE, SIZE)."""

    source: int
    kind: int
    mask: NDArray[np.bool_]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height in pixels, tight around the mask."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


@cache
def handwritten() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The pictures of `load_digits`, (1797, 8, 8) with ink from 0 to 16, and the digit each shows."""
    pictures, kinds = load_digits(return_X_y=True)
    return pictures.reshape(-1, 8, 8), kinds


def draw_colour(rng: np.random.Generator, darkest: float = 0.7, lightest: float = 1.0) -> NDArray[np.float64]:
    """A colour of any hue, (3,) in 0 to 255: a light one for digits and clutter, unless asked otherwise."""
    value = rng.uniform(darkest, lightest)
    return 255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.7), value))


def blend(canvas: NDArray[np.float64], colour: NDArray[np.float64], alpha: NDArray[np.float64]) -> None:
    """Lays a colour over the canvas (SIZE, SIZE, 3), as opaque as alpha (SIZE, SIZE) in 0 to 1 says."""
    canvas += alpha[:, :, None] * (colour - canvas)


def enlarge(ink: NDArray[np.float64], width: int, height: int, angle: float) -> NDArray[np.float64]:
    """Coverage (rows, columns) in 0 to 1 of a small picture in 0 to 16, enlarged and turned by degrees."""
    small = Image.fromarray((ink * 255 / 16).astype(np.uint8))
    large = small.resize((width, height), Image.Resampling.BICUBIC)
    large = large.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    # a steep ramp about half ink keeps the strokes crisp at any size
    return np.clip((np.asarray(large) / 255 - 0.35) / 0.25, 0, 1)


def trim(ink: NDArray[np.float64]) -> NDArray[np.float64]:
    """The picture without the empty rows and columns around it."""
    rows, columns = np.flatnonzero((ink > 2).any(1)), np.flatnonzero((ink > 2).any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def place(patch: NDArray[np.float64], left: int, top: int) -> NDArray[np.float64]:
    """Puts a patch on an empty layer (SIZE, SIZE), cut where it leaves it."""
    layer = np.zeros((SIZE, SIZE))
    rows, columns = patch.shape
    y, x = max(0, top), max(0, left)
    piece = patch[y - top : SIZE - top, x - left : SIZE - left]
    layer[y : min(SIZE, top + rows), x : min(SIZE, left + columns)] = piece
    return layer


def draw_lines(rng: np.random.Generator) -> NDArray[np.float64]:
    """Coverage (SIZE, SIZE) of one thin stroke: a long line, an arc, a zigzag or an outline."""
    layer = Image.new("L", (2 * SIZE, 2 * SIZE))  # drawn at twice the size, to smooth the edges
    draw = ImageDraw.Draw(layer)
    x, y = rng.uniform(0, 2 * SIZE, 2)
    width = int(rng.integers(2, 6))
    shape = rng.integers(4)
    if shape == 0:
        angle = rng.uniform(0, np.pi)
        dx, dy = 3 * SIZE * np.cos(angle), 3 * SIZE * np.sin(angle)
        draw.line((x - dx, y - dy, x + dx, y + dy), 255, width)
    elif shape == 1:
        start = rng.uniform(0, 360)
        radius = rng.uniform(6, 26)
        draw.arc((x - radius, y - radius, x + radius, y + radius), start, start + rng.uniform(50, 140), 255, width)
    elif shape == 2:
        step, rise = rng.uniform(6, 14), rng.uniform(4, 12)
        draw.line([(x + i * step, y + (i % 2) * rise) for i in range(5)], 255, width)
    else:
        w, h = rng.uniform(10, 40, 2)
        draw.rectangle((x, y, x + w, y + h), outline=255, width=width)
    return np.asarray(layer.resize((SIZE, SIZE), Image.Resampling.BOX)) / 255


def draw_blob(rng: np.random.Generator) -> NDArray[np.float64]:
    """Coverage (SIZE, SIZE) of one ellipse with soft or sharp edges."""
    layer = Image.new("L", (SIZE, SIZE))
    x, y = rng.uniform(0, SIZE, 2)
    rx, ry = rng.uniform(2, 13, 2)
    ImageDraw.Draw(layer).ellipse((x - rx, y - ry, x + rx, y + ry), fill=255)
    return np.asarray(layer.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 2.5)))) / 255


def draw_fragment(rng: np.random.Generator, pictures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coverage (SIZE, SIZE) of a piece of a digit of another kind: much like a part of one, but none."""
    ink = trim(pictures[rng.integers(len(pictures))])
    rows, columns = (ink.shape[0] + 1) // 2, (ink.shape[1] + 1) // 2
    top, left = rng.integers(2) * (ink.shape[0] - rows), rng.integers(2) * (ink.shape[1] - columns)
    width, height = rng.integers(5, 11, 2)
    patch = enlarge(ink[top : top + rows, left : left + columns], int(width), int(height), rng.uniform(-40, 40))
    return place(patch, *(int(value) for value in rng.integers(-3, SIZE - 5, 2)))


def draw_background(rng: np.random.Generator, others: NDArray[np.float64]) -> NDArray[np.float64]:
    """A cluttered background, (SIZE, SIZE, 3) in 0 to 255; `others` are digits of the other kinds."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:SIZE, :SIZE] / (SIZE - 1) - 0.5
    ramp = np.clip(x * np.cos(angle) + y * np.sin(angle) + 0.5, 0, 1)
    canvas = np.broadcast_to(draw_colour(rng, 0.05, 0.4), (SIZE, SIZE, 3)).copy()
    blend(canvas, draw_colour(rng, 0.05, 0.6), ramp)
    for _ in range(rng.integers(2, 6)):
        blend(canvas, draw_colour(rng), draw_blob(rng) * rng.uniform(0.2, 0.7))
    for _ in range(rng.integers(2, 6)):
        blend(canvas, draw_colour(rng), draw_lines(rng) * rng.uniform(0.3, 0.8))
    for _ in range(rng.integers(1, 4)):
        blend(canvas, draw_colour(rng), draw_fragment(rng, others) * rng.uniform(0.4, 0.9))
    return canvas


def overlap(one: tuple[int, int, int, int], two: tuple[int, int, int, int]) -> float:
    """Area two boxes (left, top, width, height) share, as a share of the smaller one's."""
    width = min(one[0] + one[2], two[0] + two[2]) - max(one[0], two[0])
    height = min(one[1] + one[3], two[1] + two[3]) - max(one[1], two[1])
    return max(0, width) * max(0, height) / min(one[2] * one[3], two[2] * two[3])


def draw_digit(
    rng: np.random.Generator,
    pictures: NDArray[np.float64],
    kinds: NDArray[np.int64],
    sources: NDArray[np.int64],
) -> tuple[Digit, NDArray[np.float64]]:
    """A digit at a random place, and its coverage (SIZE, SIZE): every kind is as likely."""
    kind = int(rng.choice(list(KINDS)))
    source = int(rng.choice(sources[kinds[sources] == kind]))
    ink = trim(pictures[source])
    height = float(np.exp(rng.uniform(np.log(14), np.log(29))))
    width = height * ink.shape[1] / ink.shape[0] * rng.uniform(0.85, 1.15)
    patch = enlarge(np.pad(ink, 1), round(width * 1.25), round(height * 1.25), rng.uniform(-10, 10))
    rows, columns = np.flatnonzero((patch >= 0.5).any(1)), np.flatnonzero((patch >= 0.5).any(0))
    patch = patch[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    left, top = rng.integers(0, SIZE - patch.shape[1] + 1), rng.integers(0, SIZE - patch.shape[0] + 1)
    coverage = place(patch, int(left), int(top))
    return Digit(source, kind, coverage >= 0.5), coverage


def make_scene(split: str, number: int) -> tuple[Image.Image, list[Digit]]:
    """Scene `number` of a split: a picture with a palette, and its digits from back to front."""
    rng = np.random.default_rng([SEED, list(COUNTS).index(split), number])
    pictures, kinds = handwritten()
    sources = np.array(SOURCES[split])
    canvas = draw_background(rng, pictures[sources[~np.isin(kinds[sources], list(KINDS))]])

    digits: list[Digit] = []
    wanted = rng.integers(1, 5)
    while len(digits) < wanted:
        digit, coverage = draw_digit(rng, pictures, kinds, sources)
        if any(overlap(digit.box, other.box) > MAX_OVERLAP for other in digits):
            continue
        colour = draw_colour(rng)
        contrasts = np.linalg.norm(canvas[digit.mask] - colour, axis=1)
        if np.quantile(contrasts, 0.1) < MIN_CONTRAST:
            continue
        blend(canvas, colour, coverage)
        for other in digits:
            other.mask &= ~digit.mask
        digits.append(digit)

    canvas += rng.normal(0, rng.uniform(1, 5), canvas.shape)
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    return picture.quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE), digits


def annotate(digit: Digit, identifier: int, image: int) -> dict[str, Any]:
    """One COCO annotation. `source`, the index in `load_digits`, is an extra."""
    run_lengths = rle.encode(np.asfortranarray(digit.mask, dtype=np.uint8))
    return {
        "id": identifier,
        "image_id": image,
        "category_id": list(KINDS).index(digit.kind) + 1,
        "bbox": digit.box,
        "area": int(digit.mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": [SIZE, SIZE], "counts": run_lengths["counts"].decode()},
        "source": digit.source,
    }


def make(folder: Path, counts: dict[str, int] = COUNTS) -> None:
    """Writes pictures and annotations of both splits, `counts` scenes each, into a folder."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        (folder / split).mkdir(exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(1, count + 1):
            picture, digits = make_scene(split, number)
            name = f"{number:04}.png"
            picture.save(folder / split / name, optimize=True)
            images.append({"id": number, "file_name": name, "width": SIZE, "height": SIZE})
            for digit in digits:
                annotations.append(annotate(digit, len(annotations) + 1, number))
        categories = [{"id": i, "name": name} for i, name in enumerate(KINDS.values(), 1)]
        parts = {"images": images, "categories": categories, "annotations": annotations}
        # one record a line: small, and a change shows in a diff
        lists = (
            f'"{key}":[\n' + ",\n".join(json.dumps(record, separators=(",", ":")) for record in records) + "\n]"
            for key, records in parts.items()
        )
        text = "{" + ",\n".join(lists) + "}\n"
        (folder / "annotations" / f"instances_{split}.json").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "scenes")
