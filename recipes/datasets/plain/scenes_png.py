"""Pictures with PNG masks beside them: numbered objects, or classes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from recipes.core.loading import holdout
from recipes.datasets.plain.scenes import VOID, Boxes, Masks, read_pictures, warp_masks


def open_boxes(data: str, *, image_size: int | None = None, seed: int = 0, **_: Any) -> tuple[Boxes, Boxes]:
    """PNGImages/X.png and PedMasks/X_mask.png, whose values number the objects (PennFudan); a fifth is held out."""
    root, side, parts = Path(data), image_size or 128, []
    for paths in split(sorted((root / "PNGImages").glob("*.png")), seed):
        boxes = []
        for path in paths:
            mask, found = np.asarray(Image.open(root / "PedMasks" / f"{path.stem}_mask.png")), []
            for number in np.unique(mask[mask > 0]):
                rows, columns = np.nonzero(mask == number)
                found.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            boxes.append(torch.tensor(np.array(found)).float().view(-1, 4) * (side / max(mask.shape)))
        labels = [torch.zeros(len(found), dtype=torch.int64) for found in boxes]
        parts.append(Boxes(read_pictures(paths, side, letterbox=True), boxes, labels, ["object"]))
    return parts[0], parts[1]


def open_masks(data: str, *, image_size: int | None = None, seed: int = 0) -> tuple[Masks, Masks]:
    """images/X.* and masks/X.png, whose values are classes, 255 void; a fifth is held out."""
    root, side, parts = Path(data), image_size or 128, []
    for paths in split(sorted((root / "images").iterdir()), seed):
        values = [np.asarray(Image.open(root / "masks" / f"{path.stem}.png")) for path in paths]
        parts.append((read_pictures(paths, side), warp_masks(values, side)))
    highest = max(int(masks[masks != VOID].max()) for _, masks in parts)
    classes = ["class 0", *(f"class {value}" for value in range(1, highest + 1))]
    return Masks(*parts[0], classes), Masks(*parts[1], classes)


def split(paths: list[Path], seed: int) -> list[list[Path]]:
    return [[paths[i] for i in part] for part in holdout(torch.zeros(len(paths)), seed=seed)]
