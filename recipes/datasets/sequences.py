"""Opens sequences of frames with one box a frame, bundled or yours: in OTB's layout, or your own Datasets.

A sequence is a folder with the frames in `img/`, in the order of their names, and `groundtruth_rect.txt`: a
line a frame with left, top, width and height of the box, between commas, tabs or blanks. OTB counts pixels
from 1. The folder to open is one sequence, or holds sequences, or holds them in `train/` and `test/`.

A pair of Datasets (train, test) has samples (frames, boxes): frames (T, 3, H, W) uint8, and boxes (T, 4) with left,
top, right and bottom in pixels from 0, as tensors or arrays.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recipes.core.errors import InputError
from recipes.datasets.bundled import bundled
from recipes.datasets.own import PAIR_PARTS, described, pair_of_datasets, samples_of
from recipes.datasets.scenes import SUFFIXES, load_whole, measure

TRUTH = "groundtruth_rect.txt"


@dataclass
class FrameSequence:
    """The frames of one object's way, and where it is in each.

    Attributes:
        name: of the folder.
        files: T frames of equal size, decoded when asked for; or the frames themselves, (T, 3, H, W) uint8.
        boxes: (T, 4) float32: left, top, right, bottom in pixels. To follow an object, the first is enough.
    """

    name: str
    files: list[Path] | Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.files)

    def frame(self, index: int) -> Tensor:
        """Frame `index`, (3, H, W) uint8."""
        file = self.files[index]
        if isinstance(file, Tensor):
            return file
        picture = np.array(load_whole(file, None).convert("RGB"))
        return torch.from_numpy(picture).permute(2, 0, 1)


def open_sequences(data: Any = None) -> tuple[list[FrameSequence], list[FrameSequence]]:
    """The sequences to train on and those to be tested on.

    Args:
        data: folder in the layout above, or a pair of Datasets; None opens the bundled sequences. Without a train
            part of its own, all of a folder is the test part, and the train part is the bundled one.

    Raises:
        InputError: naming the file and the line, or the sample, that cannot be used.
    """
    pair = pair_of_datasets(data)
    if pair is not None:
        train, test = (sequences_of(dataset, part) for dataset, part in zip(pair, PAIR_PARTS, strict=True))
        return train, test
    root = bundled("sequences") if data is None else Path(data).expanduser()
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder of sequences")
    if (root / "train").is_dir():
        return read_sequences(root / "train"), read_sequences(root / "test")
    return read_sequences(bundled("sequences") / "train"), read_sequences(root)


def sequences_of(dataset: Any, part: str) -> list[FrameSequence]:
    """The sequences of the user's own Dataset of samples (frames, boxes)."""
    found = []
    for number, (frames, boxes) in enumerate(samples_of(dataset, part, "(frames, boxes)")):
        where, kinds = f"data: {part} sample {number}", (Tensor, np.ndarray)
        shape = tuple(frames.shape) if isinstance(frames, kinds) else ()
        if len(shape) != 4 or shape[1] != 3 or str(frames.dtype).removeprefix("torch.") != "uint8":
            raise InputError(f"{where}: expected frames (T, 3, H, W) of uint8, got {described(frames)}")
        corners = corners_of(boxes, where)
        if corners.shape != (shape[0], 4) or len(corners) < 2:
            raise InputError(f"{where}: expected two or more frames with a box each, got {described(boxes)}")
        require_inside(corners, (shape[3], shape[2]), where)
        found.append(FrameSequence(f"{part} {number}", torch.as_tensor(frames).cpu(), corners))
    return found


def read_sequences(folder: Path) -> list[FrameSequence]:
    """All sequences of a folder, by name; or the one that it is."""
    if (folder / TRUTH).is_file():
        return [read_sequence(folder)]
    homes = sorted(path.parent for path in folder.glob(f"*/{TRUTH}") if not path.parent.name.startswith("."))
    if not homes:
        raise InputError(f"{folder}: found no sequence: expected {TRUTH} and frames in img/, here or in folders")
    return [read_sequence(home) for home in homes]


def read_sequence(home: Path) -> FrameSequence:
    files, size = frames_of(home)
    boxes = read_boxes(home / TRUTH)
    if len(boxes) != len(files) or len(files) < 2:
        raise InputError(f"{home / TRUTH}: {len(boxes)} boxes for {len(files)} frames in img/, expected two or more")
    require_inside(boxes, size, str(home / TRUTH))
    return FrameSequence(home.name, files, boxes)


def read_start(item: Any) -> FrameSequence:
    """A sequence to follow: its frames, and the first box alone.

    Args:
        item: folder with frames in img/ and the first box in the first line of groundtruth_rect.txt, or a pair of
            a folder and a box: left, top, right, bottom in pixels from 0.
    """
    folder, box = item if isinstance(item, (tuple, list)) and len(item) == 2 else (item, None)
    home = Path(folder).expanduser()
    files, size = frames_of(home)
    if not files:
        raise InputError(f"{home}: expected a folder with frames in img/ and the first box in {TRUTH}")
    where = str(home / TRUTH) if box is None else f"{home}: the first box"
    boxes = read_boxes(home / TRUTH) if box is None else corners_of(box, where).view(1, -1)
    if boxes.shape[1:] != (4,) or not len(boxes):
        raise InputError(f"{where}: expected 4 numbers: left, top, right, bottom")
    require_inside(boxes[:1], size, where)
    return FrameSequence(str(home), files, boxes[:1])


def frames_of(home: Path) -> tuple[list[Path], tuple[int, int]]:
    """The frames in img/, in natural order, and their width and height."""
    shown = (path for path in home.glob("img/*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    files = sorted(shown, key=lambda path: [int(w) if w.isdecimal() else w for w in re.split(r"(\d+)", path.name)])
    sizes = [measure(path) for path in files]
    for path, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            width, height = sizes[0]
            raise InputError(f"{path}: is {size[0]} x {size[1]} pixels, expected {width} x {height} as the first frame")
    return files, sizes[0] if sizes else (0, 0)


def corners_of(boxes: Any, where: str) -> Tensor:
    """Boxes that a user has given, as float32."""
    try:
        return torch.as_tensor(boxes, dtype=torch.float32).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{where}: expected boxes of 4 numbers, got {described(boxes)}") from None


def require_inside(boxes: Tensor, size: tuple[int, int], where: str) -> None:
    """Raises InputError unless every box has a size and shares pixels with its frame, width and height `size`."""
    inside = ((boxes[:, 2:] > 0) & (boxes[:, :2] < torch.tensor(size))).all(dim=1)
    inside &= (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    if not inside.all():
        raise InputError(f"{where}: box {int((~inside).nonzero()[0]) + 1} lies outside its frame or is empty")


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
