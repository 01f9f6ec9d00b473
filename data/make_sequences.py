"""Makes data/sequences: an object moving among others like it, followed by a box, in OTB's layout.

Every frame is 64 pixels square. In two sequences of three the object is a digit of `load_digits`, in every third a
card of two colors with a digit on it. It wanders over a still background, is turned, grows and shrinks by up to a
half, and changes its colors, a digit's altogether; the light falls and rises again. Two more objects of the same sort
wander there, with digits of other kinds. One keeps the colors that the object had at first; the other changes its
colors with it, a card having them in another order. Both pass under the object, and two thin lines of the
background pass over it. So neither color nor motion tells which one to follow; shape does.
Train sequences use the first 80 % of the pictures of `load_digits`, test sequences the rest.

    python data/make_sequences.py [FOLDER]

The same seed gives the same frames. Digits and backgrounds are drawn by `make_scenes.py` beside this file.
"""

import sys
from pathlib import Path

import numpy as np
from make_scenes import (
    COLOURS,
    SIZE,
    SOURCES,
    blend,
    draw_background,
    draw_colour,
    draw_lines,
    enlarge,
    handwritten,
    place,
    trim,
)
from numpy.typing import NDArray
from PIL import Image

SEED = 49
COUNTS = {"train": 64, "test": 12}
MOMENTS = 24  # from the beginning of a sequence to its end
KEPT = {"train": 6, "test": 1}  # of that many moments one becomes a frame
MIN_CONTRAST = 60  # distance in RGB between the object and nine tenths of the pixels it covers, in every frame
MARGIN = 3  # pixels around the object that are free of others in the first frame

Box = tuple[int, int, int, int]  # left, top, width, height in pixels
Layers = list[list[NDArray[np.float64]]]  # for each moment, what an object's colors cover: (SIZE, SIZE) in 0 to 1


def wander(rng: np.random.Generator) -> NDArray[np.float64]:
    """A path of centers (MOMENTS, 2) that bends a little and turns back at the edges: 1.5 to 3.5 pixels a moment."""
    at, heading, speed = rng.uniform(16, SIZE - 16, 2), rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 3.5)
    bend, path = rng.uniform(-0.2, 0.2), []
    for _ in range(MOMENTS):
        path.append(at)
        step = speed * np.array([np.cos(heading), np.sin(heading)])
        outside = (at + step < 10) | (at + step > SIZE - 10)
        step = np.where(outside, -step, step)
        heading = np.arctan2(step[1], step[0]) + bend
        at = at + step
    return np.array(path)


def swing(rng: np.random.Generator, least: float, most: float) -> NDArray[np.float64]:
    """A value (MOMENTS,) that begins at 0 and swings slowly, by `least` to `most` to either side."""
    turn = np.linspace(0, rng.uniform(1, 2) * np.pi, MOMENTS)
    return rng.choice([-1, 1]) * rng.uniform(least, most) * np.sin(turn)


def card(ink: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """A card as small pictures in 0 to 16: all of it, its lower half, and the digit on its upper half."""
    whole = np.pad(np.full((10, 10), 16.0), 1)
    half, digit = whole.copy(), np.zeros((20, 10))
    half[:6] = 0
    upper = Image.fromarray(trim(ink).astype(np.uint8)).resize((6, 9), Image.Resampling.BICUBIC)
    digit[2:11, 2:8] = np.asarray(upper)
    return [whole, half, digit]


def draw_moving(rng: np.random.Generator, shapes: list[NDArray[np.float64]], size: float, wide: float) -> Layers:
    """Small pictures that wander, turn and change their size together; `wide` is their width over their height."""
    path, angles, sizes = wander(rng), swing(rng, 10, 40), size * np.exp(swing(rng, 0.25, 0.5))
    layers = []
    for (x, y), angle, height in zip(path, angles, sizes, strict=True):
        patches = [enlarge(shape, max(6, round(height * wide)), round(height), angle) for shape in shapes]
        layers.append([place(p, round(x - p.shape[1] / 2), round(y - p.shape[0] / 2)) for p in patches])
    return layers


def box_of(mask: NDArray[np.bool_]) -> Box:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


def draw_sequence(
    rng: np.random.Generator, split: str, on_card: bool
) -> tuple[list[NDArray[np.uint8]], list[Box]] | None:
    """Frames (SIZE, SIZE, 3) and the object's box in each; None if it cannot be told from what is around it."""
    pictures, kinds = handwritten()
    sources = np.array(SOURCES[split])
    background = draw_background(rng, pictures[sources])
    target = rng.choice(sources)
    others = rng.choice(sources[kinds[sources] != kinds[target]], 2)
    size, wide = (rng.uniform(18, 26), rng.uniform(0.4, 0.8)) if on_card else (rng.uniform(13, 18), 0)
    objects: list[Layers] = []
    for index in (*others, target):  # the last passes over the others
        ink = np.pad(trim(pictures[index]), 1)
        shapes = card(ink) if on_card else [ink]
        objects.append(draw_moving(rng, shapes, size, wide or max(ink.shape[1] / ink.shape[0], 0.5)))
    first = [draw_colour(rng, 0.7 if i == 0 else 0.1) for i in range(3)]
    last = [color + (rng.uniform(0.4, 0.9) if on_card else 1) * (draw_colour(rng) - color) for color in first]
    lines = [draw_lines(rng) for _ in range(2)]
    line_colors = [draw_colour(rng, 0.2) for _ in lines]
    light, inverted = np.exp(-np.abs(swing(rng, 0, 0.5))), rng.random() < 0.5

    frames, boxes = [], []
    for moment in range(0, MOMENTS, KEPT[split]):
        mask = objects[-1][moment][0] >= 0.5
        now = [a + (b - a) * moment / (MOMENTS - 1) for a, b in zip(first, last, strict=True)]
        if not mask.any() or np.quantile(np.linalg.norm(background[mask] - now[0], axis=1), 0.1) < MIN_CONTRAST:
            return None
        canvas = background.copy()
        for layers, colors in zip(objects, (first, [now[0], now[2], now[1]], now), strict=True):
            for coverage, color in zip(layers[moment], colors, strict=False):
                blend(canvas, color, coverage)
        for coverage, color in zip(lines, line_colors, strict=True):
            blend(canvas, color, coverage)
        canvas = 255 - canvas if inverted else canvas
        frames.append(np.clip(canvas * light[moment], 0, 255).astype(np.uint8))
        boxes.append(box_of(mask))
    left, top, width, height = boxes[0]
    near = np.s_[max(0, top - MARGIN) : top + height + MARGIN, max(0, left - MARGIN) : left + width + MARGIN]
    crowded = any(layers[0][0][near].any() for layers in objects[:-1])
    crossed = any((line[near] > 0.3).sum() > 0.1 * width * height for line in lines)
    return None if crowded or crossed else (frames, boxes)


def make_sequence(split: str, number: int) -> tuple[list[Image.Image], list[Box]]:
    """Sequence `number` of a split: its frames, with one palette, and the object's box in each."""
    rng = np.random.default_rng([SEED, list(COUNTS).index(split), number])
    while (drawn := draw_sequence(rng, split, on_card=number % 3 == 0)) is None:
        pass
    frames, boxes = drawn
    strip = Image.fromarray(np.concatenate(frames)).quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE)
    return [strip.crop((0, top, SIZE, top + SIZE)) for top in range(0, strip.height, SIZE)], boxes


def make(folder: Path, counts: dict[str, int] = COUNTS) -> None:
    """Writes the sequences of both splits, `counts` of them each, into a folder."""
    for split, count in counts.items():
        for number in range(1, count + 1):
            home = folder / split / f"{'card' if number % 3 == 0 else 'digit'}{number:02}"
            (home / "img").mkdir(parents=True, exist_ok=True)
            frames, boxes = make_sequence(split, number)
            for i, frame in enumerate(frames, 1):
                frame.save(home / "img" / f"{i:04}.png", optimize=True)
            # OTB counts pixels from 1
            lines = [f"{left + 1},{top + 1},{width},{height}\n" for left, top, width, height in boxes]
            (home / "groundtruth_rect.txt").write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "sequences")
