"""What using segmenters and detectors has in common: pictures are warped to the network's square."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recipes.core.result import Result
from recipes.core.task import Task, first_inputs
from recipes.datasets.pictures import picture_size, read_picture
from recipes.datasets.scenes import read_warped


@dataclass(eq=False)
class Picture:
    """A picture to answer for.

    Attributes:
        file: it was read from, or None.
        size: its own height and width in pixels.
        pixels: (3, side, side) uint8, as the network takes them.
        given: the picture itself (3, height, width) where it is from no file.
    """

    file: str | None
    size: tuple[int, int]
    pixels: Tensor
    given: Tensor | None = None

    def whole(self) -> Tensor:
        """The picture at its own size, (3, height, width) uint8."""
        if self.given is not None:
            return self.given
        return torch.from_numpy(np.array(read_picture(Path(str(self.file))))).permute(2, 0, 1)


@dataclass(kw_only=True)
class WarpedPictures(Task):
    """Pictures of any size, warped to a square for the network.

    Attributes:
        classes: their names, as the network numbers them.
        image_size: side in pixels that pictures are warped to; answers are for the pictures' own sizes.
    """

    takes: ClassVar[str] = "pictures"

    classes: list[str]
    image_size: int

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        example = first_inputs(result.test_set)
        return cls(classes=list(result.test_set.classes), image_size=example[0].shape[-1], example=example)

    def load(self, item: Any) -> Picture:
        """A path, or a picture (3, H, W) uint8; files are read as those that the network was trained on."""
        side = self.image_size
        if isinstance(item, Tensor):
            warped = Image.fromarray(item.permute(1, 2, 0).numpy()).resize((side, side), Image.Resampling.BILINEAR)
            height, width = item.shape[1:]
            return Picture(None, (height, width), torch.from_numpy(np.array(warped)).permute(2, 0, 1), item)
        width, height = picture_size(Path(item))
        return Picture(str(item), (height, width), read_warped(Path(item), side))

    def batch(self, items: Sequence[Picture]) -> tuple[Tensor, ...]:
        return (torch.stack([item.pixels for item in items]).float() / 255,)  # (N, 3, side, side)
