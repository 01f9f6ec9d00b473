"""What using segmenters and detectors has in common: pictures are brought to the network's square."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from recipes.core.result import Result
from recipes.core.task import Task, first_inputs
from recipes.datasets.images import as_picture
from recipes.datasets.pictures import picture_size, read_picture
from recipes.datasets.scenes import letterboxed, read_letterboxed, read_warped
from recipes.datasets.scenes.pairs import as_tensor, warped


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
        letterbox: keep their proportions, from the square's upper left corner.
        classes: their names, as the network numbers them.
        image_size: side in pixels that pictures are warped to; answers are for the pictures' own sizes.
    """

    takes: ClassVar[str] = "pictures"
    letterbox: ClassVar[bool] = False

    classes: list[str]
    image_size: int

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        example = first_inputs(result.test_set)
        return cls(classes=list(result.test_set.classes), image_size=example[0].shape[-1], example=example)

    def load(self, item: Any) -> Picture:
        """A path, or a picture as `as_picture` takes it, brought to the square as those of the training were."""
        if isinstance(item, (str, PathLike)):
            width, height = picture_size(Path(item))
            read = read_letterboxed if self.letterbox else read_warped
            return Picture(str(item), (height, width), read(Path(item), self.image_size))
        picture = as_picture(item, "in place of a path").convert("RGB")
        square = (letterboxed if self.letterbox else warped)(picture, self.image_size)
        return Picture(None, (picture.height, picture.width), as_tensor(square), as_tensor(picture))

    def batch(self, items: Sequence[Picture]) -> tuple[Tensor, ...]:
        return (torch.stack([item.pixels for item in items]).float() / 255,)  # (N, 3, side, side)
