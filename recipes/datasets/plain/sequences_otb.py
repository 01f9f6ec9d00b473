"""Sequences of frames with a box each, in OTB's layout."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recipes.datasets.bundled import bundled


@dataclass
class FrameSequence:
    """Frames, decoded when asked for, and boxes (T, 4; left, top, right, bottom in pixels)."""

    name: str
    files: list[Path]
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.files)

    def frame(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(Image.open(self.files[index]).convert("RGB"))).permute(2, 0, 1)


def open_sequences(data: str | None = None) -> tuple[list[FrameSequence], list[FrameSequence]]:
    """Folders train and test of sequences: frames in img/, their boxes in groundtruth_rect.txt."""
    root, parts = Path(data) if data else bundled("sequences"), []
    for split in ("train", "test"):
        sequences = []
        for truth in sorted(root.glob(f"{split}/*/groundtruth_rect.txt")):
            lines = [[float(word) for word in re.split(r"[,\s]+", line)] for line in truth.read_text().splitlines()]
            boxes = torch.tensor(lines)  # left and top from 1, width, height
            corners = torch.cat([boxes[:, :2] - 1, boxes[:, :2] - 1 + boxes[:, 2:]], dim=1)
            frames = sorted((truth.parent / "img").iterdir(), key=natural)
            sequences.append(FrameSequence(truth.parent.name, frames, corners))
        parts.append(sequences)
    return parts[0], parts[1]


def natural(path: Path) -> list[str | int]:
    """The key to sort names by, so that 2.jpg comes before 10.jpg."""
    return [int(word) if word.isdecimal() else word for word in re.split(r"([0-9]+)", path.name)]
