"""How trained segmenters are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.core.figures import legend_name, new_figure, show_picture
from recipes.vision.segmentation.scoring import class_colors
from recipes.vision.using import Picture, WarpedPictures


@dataclass(kw_only=True)
class Segmentation(WarpedPictures):
    """Pictures to a class for each pixel: a mask (H, W) uint8 of the picture's size, and the classes' shares of it."""

    def answers(self, outputs: Tensor, items: Sequence[Picture]) -> list[dict[str, Any]]:
        answers = []
        for picture, logits in zip(items, outputs, strict=True):
            whole = F.interpolate(logits[None], size=picture.size, mode="bilinear")[0]  # (classes, H, W)
            mask = whole.argmax(dim=0).to(torch.uint8)
            counts = torch.bincount(mask.flatten().long(), minlength=len(self.classes)) / mask.numel()
            shares = [{"class": self.classes[i], "share": float(counts[i])} for i in counts.nonzero().flatten()]
            file = {"file": picture.file} if picture.file is not None else {}
            answers.append(file | {"shares": shares, "mask": mask})
        return answers

    def draw(self, item: Picture, answer: dict[str, Any]) -> Any:
        figure, axes = new_figure(1, 2, width=4.0, height=3.4)
        colors = class_colors(self.classes)
        show_picture(axes[0, 0], item.whole())
        show_picture(axes[0, 1], colors[answer["mask"].long()].permute(2, 0, 1))
        for name in (one["class"] for one in answer["shares"]):
            color = colors[self.classes.index(name)].tolist()
            axes[0, 1].fill_between([], [], color=color, label=legend_name(name))
        axes[0, 1].legend(fontsize=7, loc="upper right")
        return figure
