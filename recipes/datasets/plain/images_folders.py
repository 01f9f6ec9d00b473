"""Pictures with a class from folders: train/CLASS/*.jpg and test/ or val/ alike, or the CLASS folders alone."""

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from recipes.core.loading import holdout
from recipes.datasets.plain.images_idx import Images, channel_statistics

ImageFiles = Images  # the pictures are held in memory
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


def open_images(data: str, *, image_size: int | None = None, seed: int = 0) -> tuple[Images, Images]:
    """The train and the test part; where there is no test folder, a fifth of each class is held out."""
    folder = Path(data).expanduser()
    split = (folder / "train").is_dir()
    root = folder / "train" if split else folder
    test = next((folder / name for name in ("test", "val", "valid") if split and (folder / name).is_dir()), None)
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    files, numbers = files_of(root, classes)
    rows = holdout(torch.tensor(numbers), seed=seed)
    if test is not None:
        more, more_numbers = files_of(test, classes)
        rows = torch.arange(len(files)), torch.arange(len(files), len(files) + len(more))
        files, numbers = files + more, numbers + more_numbers
    images, labels = read(files, image_size), torch.tensor(numbers)
    mean, std = channel_statistics(images[rows[0]])
    train_set, test_set = (Images(images[part], labels[part], classes, mean, std) for part in rows)
    return train_set, test_set


def files_of(root: Path, classes: list[str]) -> tuple[list[Path], list[int]]:
    """The pictures below each class's folder, and the class's number for each."""
    files: list[Path] = []
    numbers: list[int] = []
    for number, name in enumerate(classes):
        paths = [path for path in (root / name).rglob("*") if path.suffix.lower() in SUFFIXES]
        found = sorted((path for path in paths if path.name[0] != "."), key=natural)
        files, numbers = files + found, numbers + [number] * len(found)
    return files, numbers


def natural(path: Path) -> list[str | int]:
    """The key to sort names by, so that 2.jpg comes before 10.jpg."""
    return [int(word) if word.isdecimal() else word for word in re.split(r"([0-9]+)", path.name)]


def read(files: list[Path], image_size: int | None) -> Tensor:
    """The pictures, uint8 (N, C, H, W): their own size if all have the same and at most 256 pixels, else 224."""
    sizes, modes = set(), set()
    for path in files:
        with Image.open(path) as header:
            sizes.add(header.size)
            modes.add(header.mode)
    keep = image_size is None and len(sizes) == 1 and max(max(sizes)) <= 256
    size = max(sizes) if keep else (image_size or 224, image_size or 224)
    gray = modes <= {"1", "L", "LA"}
    images = torch.empty(len(files), 1 if gray else 3, size[1], size[0], dtype=torch.uint8)
    for row, path in enumerate(files):
        with Image.open(path) as opened:
            opened.draft(None, size)  # a JPEG is decoded at 1/2, 1/4 or 1/8 where that is large enough
            ImageOps.exif_transpose(opened, in_place=True)
            image = opened.convert("L" if gray else "RGB")
        image = image if image.size == size else ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        images[row] = torch.from_numpy(np.array(image)).view(size[1], size[0], -1).permute(2, 0, 1)
    return images
