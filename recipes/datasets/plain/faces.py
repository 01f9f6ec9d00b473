"""Pictures of people, a folder each, or drawn ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from recipes.datasets.drawn_faces import draw_faces
from recipes.datasets.faces import hold_out_people
from recipes.datasets.plain.images_idx import Images, channel_statistics


def open_faces(data: str | None = None, *, image_size: int = 64, seed: int = 0) -> tuple[Images, Images]:
    """Folders PERSON/*.jpg, a fifth of the people held out; without data, drawn faces."""
    if data is None:
        train, test = (with_names(*draw_faces(*size, 1 + part)) for part, size in enumerate(((300, 10), (100, 8))))
    else:
        folders = [[*sorted(path.iterdir())] for path in sorted(Path(data).iterdir()) if path.is_dir()]
        folders = [files for files in folders if len(files) > 1]  # a single picture makes no pair
        images = torch.stack([read(path, image_size) for files in folders for path in files])
        labels = torch.arange(len(folders)).repeat_interleave(torch.tensor([len(files) for files in folders]))
        train, test = hold_out_people(with_names(images, labels), 0.2, seed)
    mean, std = channel_statistics(train.images)
    return replace(train, mean=mean, std=std), replace(test, mean=mean, std=std)


def with_names(images: Tensor, labels: Tensor) -> Images:
    return Images(
        images, labels, [str(number) for number in range(int(labels.max()) + 1)], torch.zeros(3), torch.ones(3)
    )


def read(path: Path, side: int) -> Tensor:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    return torch.from_numpy(np.array(ImageOps.fit(image, (side, side)))).permute(2, 0, 1)
