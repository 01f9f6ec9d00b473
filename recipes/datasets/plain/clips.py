"""Short clips with a class: folders of frames, or pictures that are made to move."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recipes.datasets.clips import Clips, draw_clips
from recipes.datasets.plain.images_idx import open_images
from recipes.datasets.plain.sequences_otb import natural


def open_clips(
    data: str | None = None, *, frames: int = 8, image_size: int = 16, count: int = 800, seed: int = 0
) -> tuple[Clips, Clips]:
    """Folders SPLIT/CLASS/CLIP/FRAME, for the splits train and test; without data, digits that move."""
    if data is None:
        train, test = open_images(seed=seed)
        size = {"frames": frames, "side": image_size}
        return draw_clips(train, count, seed, **size), draw_clips(test, max(1, count // 2), seed + 1, **size)
    parts: list[Any] = []
    for split in ("train", "test"):
        folders = sorted(path for path in Path(data).glob(f"{split}/*/*") if path.is_dir())
        classes = sorted({path.parent.name for path in folders})
        labels = torch.tensor([classes.index(path.parent.name) for path in folders])
        parts.append(Clips(torch.stack([read_clip(path, frames, image_size) for path in folders]), labels, classes))
    return parts[0], parts[1]


def read_clip(folder: Path, count: int, side: int) -> Tensor:
    """Frames of a folder, at equal distances, as uint8 (3, T, H, W)."""
    files = sorted(folder.iterdir(), key=natural)
    chosen = [files[int((index + 0.5) * len(files) / count)] for index in range(count)]
    pictures = [np.array(Image.open(path).convert("RGB").resize((side, side))) for path in chosen]
    return torch.from_numpy(np.stack(pictures)).permute(3, 0, 1, 2)
