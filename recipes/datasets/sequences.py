"""Opens sequences of frames with one box a frame, bundled or yours: in OTB's layout, or your own Datasets.

A sequence is a folder with the frames in `img/`, in natural order of their names, and `groundtruth_rect.txt`: a
line a frame with left, top, width and height of the box, between commas, tabs or blanks. OTB counts pixels
from 1. With several objects there are `groundtruth_rect.1.txt`, `groundtruth_rect.2.txt` and so on, a sequence each.
Frames whose box is 0,0,0,0 or NaN do not show the object and are left out. Fewer boxes than frames are those of the
first frames, or, in OTB's own sequences that are known for it, of the frames from a certain number on.

The folder to open is one sequence, or holds sequences, or holds them in `train/` and `test/` (or `val/`).

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

from recipes.core.errors import InputError, tell
from recipes.core.files import own_path
from recipes.datasets.bundled import bundled
from recipes.datasets.own import PAIR_PARTS, described, pair_of_datasets, samples_of
from recipes.datasets.pictures import picture_size, read_picture
from recipes.datasets.reading import (
    PICTURE_SUFFIXES,
    by_split,
    file_text,
    files_in,
    finite,
    folders_in,
    is_folder,
    require_folder,
    tested_part,
)

TRUTH = "groundtruth_rect.txt"
TRUTH_NAME = re.compile(r"groundtruth_rect(\.[0-9]+)?\.txt")
FIRST_FRAMES = {"David": 300, "BlurCar1": 247, "BlurCar3": 3, "BlurCar4": 18}  # as OTB's own toolkit has them


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
        return torch.from_numpy(np.array(read_picture(file))).permute(2, 0, 1)


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
    root = bundled("sequences") if data is None else own_path(data)
    require_folder(root, "a folder of sequences")
    parts = by_split(path for path in folders_in(root) if not truths_of(path))
    if "train" not in parts:
        return read_sequences(bundled("sequences") / "train"), read_sequences(root)
    if (tested := tested_part(parts, root)) is None:
        raise InputError(f"{root}: has the part train alone: expected test or val beside it")
    return read_sequences(parts["train"]), read_sequences(tested)


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


def truths_of(home: Path) -> list[Path]:
    """The files of boxes in a folder: one an object."""
    return [path for path in files_in(home, {".txt"}) if TRUTH_NAME.fullmatch(path.name)]


def read_sequences(folder: Path) -> list[FrameSequence]:
    """All sequences of a folder, by name; or those that it is itself."""
    truths = truths_of(folder) or [truth for home in folders_in(folder) for truth in truths_of(home)]
    if not truths:
        raise InputError(f"{folder}: found no sequence: expected {TRUTH} and frames in img/, here or in folders")
    return [read_sequence(truth) for truth in truths]


def read_sequence(truth: Path) -> FrameSequence:
    """The sequence of one file of boxes and the frames beside it."""
    home = truth.parent
    files, size = frames_of(home)
    boxes = read_boxes(truth)
    first = first_frame(home, files, len(boxes))
    chosen = files[first : first + len(boxes)]
    if len(boxes) != len(chosen) or len(chosen) < 2:
        raise InputError(f"{truth}: {len(boxes)} boxes for {len(files)} frames in img/, expected two or more")
    if len(chosen) < len(files):
        range_of = f"taken as those of {chosen[0].name} to {chosen[-1].name}"
        tell(f"{truth}: {len(boxes)} boxes for {len(files)} frames in img/, {range_of}")
    seen = ~boxes.isnan().any(dim=1)
    if not seen.all():
        tell(f"{truth}: {int((~seen).sum())} frames without the object left out")
    if int(seen.sum()) < 2:
        raise InputError(f"{truth}: {int(seen.sum())} frames show the object, expected two or more")
    require_inside(torch.where(seen[:, None], boxes, boxes[seen][:1]), size, str(truth))
    name = home.name + truth.stem.removeprefix("groundtruth_rect")
    return FrameSequence(name, [file for file, shown in zip(chosen, seen.tolist(), strict=True) if shown], boxes[seen])


def first_frame(home: Path, files: list[Path], boxes: int) -> int:
    """Index of the frame that the first of so many boxes belongs to."""
    numbers = [re.sub("[^0-9]", "", file.stem).lstrip("0") for file in files]
    start = str(FIRST_FRAMES.get(home.name, ""))
    return numbers.index(start) if boxes < len(files) and start in numbers else 0


def read_start(item: Any) -> FrameSequence:
    """A sequence to follow: its frames, and the first box alone.

    Args:
        item: folder with frames in img/ and the first box in the first line of groundtruth_rect.txt, or a pair of
            a folder and a box: left, top, right, bottom in pixels from 0.
    """
    folder, box = item if isinstance(item, (tuple, list)) and len(item) == 2 else (item, None)
    home = own_path(folder)
    require_folder(home, f"frames in img/ and the first box in {TRUTH}")
    files, size = frames_of(home)
    if not files:
        raise InputError(f"{home}: expected a folder with frames in img/ and the first box in {TRUTH}")
    truth, *others = truths_of(home) or [home / TRUTH]
    if others and box is None:
        tell(f"{home}: has the boxes of {1 + len(others)} objects: that of {truth.name} is followed")
    where = str(truth) if box is None else f"{home}: the first box"
    boxes = read_boxes(truth) if box is None else corners_of(box, where).view(1, -1)
    if boxes.shape[1:] != (4,) or not len(boxes):
        raise InputError(f"{where}: expected 4 numbers: left, top, right, bottom")
    require_inside(boxes[:1], size, where)
    first = first_frame(home, files, len(boxes)) if box is None else 0
    return FrameSequence(str(home), files[first:], boxes[:1])


def frames_of(home: Path) -> tuple[list[Path], tuple[int, int]]:
    """The frames in img/, in natural order, and their width and height."""
    files = files_in(home / "img", PICTURE_SUFFIXES) if is_folder(home / "img") else []
    sizes = [picture_size(path) for path in files]
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
    """The boxes (T, 4) of a ground truth: left, top, right, bottom, pixels counted from 0; NaN where there is none."""
    lines = re.split(r"\r\n|\r|\n", file_text(path))
    while lines and not lines[-1].strip():
        lines.pop()
    boxes = []
    for number, line in enumerate(lines, 1):
        words = re.split(r"\s*[,\s]\s*", line.strip().rstrip(", \t"))
        numbers = [math.nan if word.lower() == "nan" else finite(word) for word in words]
        if len(numbers) != 4 or None in numbers:
            raise InputError(f"{path}: line {number}: expected left, top, width and height, got {line[:60]!r}")
        left, top, width, height = (float(value or 0) for value in numbers)
        if all(map(math.isnan, (left, top, width, height))) or left == top == width == height == 0:
            left = top = width = height = math.nan
        elif not (math.isfinite(left + top + width + height) and width > 0 and height > 0):
            raise InputError(f"{path}: line {number}: expected finite numbers and a size above 0, got {line[:60]!r}")
        boxes.append([left - 1, top - 1, left - 1 + width, top - 1 + height])
    return torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
