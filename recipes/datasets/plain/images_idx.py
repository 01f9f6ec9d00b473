"""Pictures with a class from IDX files, the format of the MNIST family."""

import gzip
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.datasets.bundled import bundled


@dataclass
class Images:
    """Pictures (N, C, H, W) uint8 with a class (N,); batches come as float32, normalized by `mean` and `std` (C,)."""

    images: Tensor
    labels: Tensor
    classes: list[str]
    mean: Tensor
    std: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.images.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        index = torch.as_tensor(indices)
        scale, shift = 1 / (255 * self.std), -self.mean / self.std  # (x / 255 - mean) / std is x · scale + shift
        return self.images[index].float() * scale[:, None, None] + shift[:, None, None], self.labels[index]

    def pixels(self, indices: Tensor) -> Tensor:
        return self.images[indices]

    def subset(self, indices: Tensor) -> "Images":
        return replace(self, images=self.images[indices], labels=self.labels[indices])


ImageFiles = Images  # the pictures are held in memory


def open_images(data: str | None = None, *, image_size: int | None = None, seed: int = 0) -> tuple[Images, Images]:
    """The train and the test part of a folder with train-images-idx3-ubyte, t10k-images-idx3-ubyte and their labels."""
    folder = Path(data) if data else bundled("digits")

    def read(name: str) -> Tensor:
        path = next(folder.glob(f"{name}*"), folder / f"{name}-idx")
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        start = 4 + 4 * content[3]  # the fourth byte is the number of dimensions; their sizes follow
        shape = struct.unpack(f">{content[3]}I", content[4:start])
        return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)

    images, test_images = (read(f"{part}-images").unsqueeze(1) for part in ("train", "t10k"))
    labels, test_labels = (read(f"{part}-labels").long() for part in ("train", "t10k"))
    classes = [str(number) for number in range(int(labels.max()) + 1)]
    if image_size:
        images, test_images = (scaled(part, image_size) for part in (images, test_images))
    mean, std = channel_statistics(images)
    return Images(images, labels, classes, mean, std), Images(test_images, test_labels, classes, mean, std)


def scaled(images: Tensor, size: int) -> Tensor:
    """Pictures (N, C, H, W) as squares of that side."""
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel on the scale 0 to 1."""
    channels = images.transpose(0, 1).flatten(1).double() / 255  # (C, pixels)
    return channels.mean(dim=1).float(), channels.std(dim=1, correction=0).float()
