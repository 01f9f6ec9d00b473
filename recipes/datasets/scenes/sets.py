"""What pictures with boxes or masks are held in, whatever their format."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

VOID = 255  # pixels of no class, left out of loss and metric


@dataclass
class Boxes:
    """Pictures with boxes, held in memory.

    Attributes:
        images: (N, 3, H, W) uint8.
        boxes: for each picture (n, 4) float32: left, top, right, bottom, in pixels of `images`.
        labels: for each picture (n,) int64, indices into `classes`; there is no background class.
        files: each picture's path within the data set's folder.
        ignored: for each picture the `boxes` and `labels` of crowds and difficult objects, which are neither learned
            nor scored; an empty list if there are none.
    """

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    classes: list[str]
    files: list[str]
    ignored: list[dict[str, Tensor]] = field(default_factory=list)

    @property
    def image_size(self) -> int:
        return self.images.shape[-1]

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Pictures (B, 3, H, W) in 0 to 1, and for each its `boxes` (n, 4) and `labels` (n,)."""
        images = self.images[torch.as_tensor(indices)].float() / 255
        return images, [{"boxes": self.boxes[i], "labels": self.labels[i]} for i in indices]

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        images, targets = self.__getitems__([index])
        return images[0], targets[0]


@dataclass
class Masks:
    """Pictures with a class for each pixel, held in memory.

    Attributes:
        images: (N, 3, H, W) uint8.
        masks: (N, H, W) uint8, indices into `classes`, or VOID.
        classes: the first is `background`, unless the set has a class 0 of its own.
        files: each picture's path within the data set's folder.
    """

    images: Tensor
    masks: Tensor
    classes: list[str]
    files: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, H, W) in 0 to 1 and masks (B, H, W) int64."""
        chosen = torch.as_tensor(indices)
        return self.images[chosen].float() / 255, self.masks[chosen].long()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, masks = self.__getitems__([index])
        return images[0], masks[0]

    def subset(self, indices: Sequence[int] | Tensor) -> "Masks":
        chosen = torch.as_tensor(indices)
        return Masks(self.images[chosen], self.masks[chosen], self.classes, [self.files[i] for i in chosen.tolist()])
