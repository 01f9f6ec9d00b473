"""What pictures with boxes or masks are held in, whatever their format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

VOID = 255  # pixels of no class, left out of loss and metric


@dataclass
class Boxes:
    """Pictures (N, 3, H, W) uint8, and for each its boxes (n, 4; left, top, right, bottom) and labels (n,)."""

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    classes: list[str]
    image_size = property(lambda self: self.images.shape[-1])

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, list[dict[str, Tensor]]]:
        images = self.images[indices].float() / 255
        return images, [{"boxes": self.boxes[i], "labels": self.labels[i]} for i in indices]


@dataclass
class Masks:
    """Pictures (N, 3, H, W) uint8 with a class for each pixel (N, H, W) uint8; class 0 is background."""

    images: Tensor
    masks: Tensor
    classes: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.images[indices].float() / 255, self.masks[indices].long()

    def subset(self, indices: Tensor) -> "Masks":
        return Masks(self.images[indices], self.masks[indices], self.classes)


def read_pictures(paths: Sequence[Path], side: int, letterbox: bool = False) -> Tensor:
    """Pictures as squares (N, 3, side, side) uint8, warped, or in their own proportions on black."""
    images = torch.zeros(len(paths), 3, side, side, dtype=torch.uint8)
    for image, path in zip(images, paths, strict=True):
        picture = Image.open(path)
        picture.draft("RGB", (side, side))  # a large JPEG is decoded smaller
        ImageOps.exif_transpose(picture, in_place=True)  # as a phone held it
        longer = max(picture.size)
        width, height = [max(1, round(side * one / longer)) for one in picture.size] if letterbox else [side, side]
        resized = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        image[:, :height, :width] = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
    return images


def warp_masks(masks: Sequence[Any], side: int) -> Tensor:
    """Masks (height, width) of any size, warped to squares, (N, side, side) uint8."""
    pictures = [Image.fromarray(np.asarray(mask).astype(np.uint8)) for mask in masks]
    warped = [np.array(one.resize((side, side), Image.Resampling.NEAREST)) for one in pictures]
    return torch.from_numpy(np.stack(warped))
