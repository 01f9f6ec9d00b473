"""How trained segmenters are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from recipes.core.figures import new_figure, show_picture
from recipes.core.result import Result
from recipes.core.task import Task, first_inputs
from recipes.datasets.scenes import load_whole
from recipes.vision.segmentation.scoring import class_colors


@dataclass(kw_only=True)
class Segmentation(Task):
    """Pictures to a class for each pixel.

    Attributes:
        classes: their names; the first is usually background.
        image_size: side in pixels that pictures are warped to for the network; answers have the pictures' own size.
    """

    takes: ClassVar[str] = "pictures"

    classes: list[str]
    image_size: int

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        example = first_inputs(result.test_set)
        return cls(classes=list(result.test_set.classes), image_size=example[0].shape[-1], example=example)

    def load(self, item: Any) -> Any:
        """A path, or a picture (3, H, W) uint8; with it its name."""
        if isinstance(item, Tensor):
            return None, item
        picture = np.array(load_whole(Path(item), None).convert("RGB"))
        return str(item), torch.from_numpy(picture).permute(2, 0, 1)

    def batch(self, items: Sequence[Any]) -> tuple[Tensor, ...]:
        size = (self.image_size, self.image_size)
        pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for _, image in items]
        warped = [np.array(picture.resize(size, Image.Resampling.BILINEAR)) for picture in pictures]
        return (torch.from_numpy(np.stack(warped)).permute(0, 3, 1, 2).float() / 255,)  # (N, 3, side, side)

    def answers(self, outputs: Tensor, items: Sequence[Any]) -> list[dict[str, Any]]:
        found = []
        for (name, image), logits in zip(items, outputs, strict=True):
            whole = F.interpolate(logits[None], size=image.shape[1:], mode="bilinear")[0]  # (classes, H, W)
            mask = whole.argmax(dim=0).to(torch.uint8)
            counts = torch.bincount(mask.flatten().long(), minlength=len(self.classes)) / mask.numel()
            shares = {self.classes[i]: float(counts[i]) for i in counts.nonzero().flatten()}
            told = {"file": name} if name is not None else {}
            found.append(told | {"shares": shares, "mask": mask})
        return found

    def draw(self, item: Any, answer: dict[str, Any]) -> Any:
        figure, axes = new_figure(1, 2, width=4.0, height=3.4)
        colors = class_colors(self.classes)
        show_picture(axes[0, 0], item[1])
        show_picture(axes[0, 1], colors[answer["mask"].long()].permute(2, 0, 1))
        for index, name in enumerate(self.classes):
            if name in answer["shares"]:
                axes[0, 1].fill_between([], [], color=colors[index].tolist(), label=name)
        axes[0, 1].legend(fontsize=7, loc="upper right")
        return figure
