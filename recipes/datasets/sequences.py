"""Opens sequences of frames with one box a frame, bundled or yours, in OTB's layout.

A sequence is a folder with the frames in `img/`, in the order of their names, and `groundtruth_rect.txt`: a
line a frame with left, top, width and height of the box, between commas, tabs or blanks. OTB counts pixels
from 1. The folder to open is one sequence, or holds sequences, or holds them in `train/` and `test/`.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recipes.core.errors import InputError
from recipes.datasets.bundled import bundled
from recipes.datasets.scenes import SUFFIXES, load_whole, measure

TRUTH = "groundtruth_rect.txt"


@dataclass
class FrameSequence:
    """The frames of one object's way, and where it is in each.

    Attributes:
        name: of the folder.
        files: T frames of equal size; they are decoded when asked for.
        boxes: (T, 4) float32: left, top, right, bottom in pixels.
    """

    name: str
    files: list[Path]
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.files)

    def frame(self, index: int) -> Tensor:
        """Frame `index`, (3, H, W) uint8."""
        picture = np.array(load_whole(self.files[index], None).convert("RGB"))
        return torch.from_numpy(picture).permute(2, 0, 1)


def open_sequences(data: str | Path | None = None) -> tuple[list[FrameSequence], list[FrameSequence]]:
    """The sequences to train on and those to be tested on.

    Args:
        data: folder in the layout above; None opens the bundled sequences. Without a train part of its own,
            all of it is the test part, and the train part is the bundled one.

    Raises:
        InputError: naming the file and the line that cannot be used.
    """
    root = bundled("sequences") if data is None else Path(data)
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder of sequences")
    if (root / "train").is_dir():
        return read_sequences(root / "train"), read_sequences(root / "test")
    return read_sequences(bundled("sequences") / "train"), read_sequences(root)


def read_sequences(folder: Path) -> list[FrameSequence]:
    """All sequences of a folder, by name; or the one that it is."""
    if (folder / TRUTH).is_file():
        return [read_sequence(folder)]
    homes = sorted(path.parent for path in folder.glob(f"*/{TRUTH}"))
    if not homes:
        raise InputError(f"{folder}: found no sequence: expected {TRUTH} and frames in img/, here or in folders")
    return [read_sequence(home) for home in homes]


def read_sequence(home: Path) -> FrameSequence:
    files = sorted(path for path in home.glob("img/*") if path.suffix.lower() in SUFFIXES)
    sizes = [measure(path) for path in files]
    for path, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            shown, first = (" x ".join(map(str, one)) for one in (size, sizes[0]))
            raise InputError(f"{path}: is {shown} pixels, expected {first} as the first frame")
    boxes = read_boxes(home / TRUTH)
    if len(boxes) != len(files) or len(files) < 2:
        raise InputError(f"{home / TRUTH}: {len(boxes)} boxes for {len(files)} frames in img/, expected two or more")
    beyond = (boxes[:, 2:] <= 0).any(dim=1) | (boxes[:, :2] >= torch.tensor(sizes[0])).any(dim=1)
    if beyond.any():
        raise InputError(f"{home / TRUTH}: box {int(beyond.nonzero()[0]) + 1} lies outside its frame")
    return FrameSequence(home.name, files, boxes)


def read_boxes(path: Path) -> Tensor:
    """The boxes (T, 4) of a ground truth: left, top, right, bottom, pixels counted from 0."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a text file: {error}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    boxes = []
    for number, line in enumerate(lines, 1):
        try:
            left, top, width, height = (float(word) for word in re.split(r"\s*[,\s]\s*", line.strip()))
        except ValueError:
            raise InputError(f"{path}: line {number}: expected left, top, width and height, got {line!r}") from None
        if not (math.isfinite(left + top + width + height) and width > 0 and height > 0):
            raise InputError(f"{path}: line {number}: expected finite numbers and a size above 0, got {line!r}")
        boxes.append([left - 1, top - 1, left - 1 + width, top - 1 + height])
    return torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
