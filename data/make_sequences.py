"""Makes data/sequences: a handwritten digit moving over clutter, followed by a box, in OTB's layout.

Every frame is 64 pixels square. A digit of `load_digits` wanders over a still background and is turned, grows
or shrinks, and changes its colour on the way. A second digit of another kind, always in the colour of the
first, wanders there too, apart from it at first, and may pass under it: colour does not tell which one to
follow, shape does.
Train sequences use the first 80 % of the pictures of `load_digits`, test sequences the rest.

    python data/make_sequences.py [FOLDER]

The same seed gives the same frames. Digits and backgrounds are drawn by `make_scenes.py` beside this file.
"""

import sys
from pathlib import Path

import numpy as np
from make_scenes import COLOURS, SIZE, SOURCES, blend, draw_background, draw_colour, enlarge, handwritten, place, trim
from numpy.typing import NDArray
from PIL import Image

SEED = 49
COUNTS = {"train": 32, "test": 8}
MOMENTS = 20  # from the beginning of a sequence to its end
KEPT = {"train": 3, "test": 1}  # of so many moments one becomes a frame
MIN_CONTRAST = 70  # distance in RGB between a digit and nine tenths of the pixels it covers, in every frame

Box = tuple[int, int, int, int]  # left, top, width, height in pixels


def wander(rng: np.random.Generator) -> NDArray[np.float64]:
    """A path of centres (MOMENTS, 2) that bends a little and turns back at the edges: 2 to 4 pixels a moment."""
    at, heading, speed = rng.uniform(16, SIZE - 16, 2), rng.uniform(0, 2 * np.pi), rng.uniform(2, 4)
    bend, path = rng.uniform(-0.15, 0.15), []
    for _ in range(MOMENTS):
        path.append(at)
        step = speed * np.array([np.cos(heading), np.sin(heading)])
        outside = (at + step < 12) | (at + step > SIZE - 12)
        step = np.where(outside, -step, step)
        heading = np.arctan2(step[1], step[0]) + bend
        at = at + step
    return np.array(path)


def swing(rng: np.random.Generator, least: float, most: float) -> NDArray[np.float64]:
    """A value (MOMENTS,) that begins at 0 and swings slowly, by `least` to `most` to either side."""
    turn = np.linspace(0, rng.uniform(1, 2) * np.pi, MOMENTS)
    return rng.choice([-1, 1]) * rng.uniform(least, most) * np.sin(turn)


def draw_moving(rng: np.random.Generator, ink: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coverage (MOMENTS, SIZE, SIZE) of a small picture of a digit that wanders, turns and changes its size."""
    path, angles, sizes = wander(rng), swing(rng, 15, 40), rng.uniform(15, 20) * np.exp(swing(rng, 0.1, 0.3))
    ink = np.pad(trim(ink), 1)
    layers = []
    for (x, y), angle, size in zip(path, angles, sizes, strict=True):
        width = max(size * ink.shape[1] / ink.shape[0], size / 2)
        patch = enlarge(ink, round(width), round(size), angle)
        layers.append(place(patch, round(x - patch.shape[1] / 2), round(y - patch.shape[0] / 2)))
    return np.array(layers)


def box_of(mask: NDArray[np.bool_]) -> Box:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


def make_sequence(split: str, number: int) -> tuple[list[Image.Image], list[Box]]:
    """Sequence `number` of a split: its frames, with one palette, and the digit's box in each."""
    rng = np.random.default_rng([SEED, list(COUNTS).index(split), number])
    pictures, kinds = handwritten()
    sources = np.array(SOURCES[split])
    while True:
        background = draw_background(rng, pictures[sources])
        target = rng.choice(sources)
        other = rng.choice(sources[kinds[sources] != kinds[target]])
        layers = [draw_moving(rng, pictures[index]) for index in (other, target)]  # the target passes over the other
        first, last = draw_colour(rng), draw_colour(rng)
        frames, boxes, contrasts = [], [], []
        for moment in range(0, MOMENTS, KEPT[split]):
            colour = first + (last - first) * moment / (MOMENTS - 1)
            mask = layers[1][moment] >= 0.5
            contrasts.append(np.quantile(np.linalg.norm(background[mask] - colour, axis=1), 0.1))
            canvas = background.copy()
            for layer in layers:
                blend(canvas, colour, layer[moment])
            frames.append(np.clip(canvas, 0, 255).astype(np.uint8))
            boxes.append(box_of(mask))
        left, top, width, height = boxes[0]
        alone = not layers[0][0][max(0, top - 4) : top + height + 4, max(0, left - 4) : left + width + 4].any()
        if alone and min(contrasts) >= MIN_CONTRAST:
            break
    strip = Image.fromarray(np.concatenate(frames)).quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE)
    return [strip.crop((0, top, SIZE, top + SIZE)) for top in range(0, strip.height, SIZE)], boxes


def make(folder: Path, counts: dict[str, int] = COUNTS) -> None:
    """Writes the sequences of both splits, `counts` of them each, into a folder."""
    for split, count in counts.items():
        for number in range(1, count + 1):
            home = folder / split / f"digit{number:02}"
            (home / "img").mkdir(parents=True, exist_ok=True)
            frames, boxes = make_sequence(split, number)
            for i, frame in enumerate(frames, 1):
                frame.save(home / "img" / f"{i:04}.png", optimize=True)
            # OTB counts pixels from 1
            lines = [f"{left + 1},{top + 1},{width},{height}\n" for left, top, width, height in boxes]
            (home / "groundtruth_rect.txt").write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "sequences")
