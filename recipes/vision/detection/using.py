"""How trained detectors are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recipes.core.figures import new_figure, show_picture
from recipes.vision.detection.boxes import Detections
from recipes.vision.detection.drawing import draw_frames
from recipes.vision.using import Picture, WarpedPictures


@dataclass(kw_only=True)
class Detection(WarpedPictures):
    """Pictures to boxes (n, 4: left, top, right, bottom, in the picture's own pixels), labels and scores.

    Their networks give `Detections` in evaluation mode, and have `raw(images)`, which is what gets exported: class
    logits and boxes before non-maximum suppression, the boxes in pixels of the network's square.

    Attributes:
        least_score: of what is listed among the answer's `objects`, and drawn; `boxes` holds the others too.
    """

    least_score: float = 0.4

    def answers(self, outputs: Detections, items: Sequence[Picture]) -> list[dict[str, Any]]:
        answers = []
        for picture, found in zip(items, outputs, strict=True):
            height, width = picture.size
            boxes = found["boxes"] * (torch.tensor([width, height, width, height]) / self.image_size)
            labels, scores = [self.classes[label] for label in found["labels"].tolist()], found["scores"]
            objects = [
                {"class": label, "score": score, "box": [round(side, 1) for side in box]}
                for label, score, box in zip(labels, scores.tolist(), boxes.tolist(), strict=True)
                if score >= self.least_score
            ]
            file = {"file": picture.file} if picture.file is not None else {}
            answers.append(file | {"boxes": boxes, "labels": labels, "scores": scores, "objects": objects})
        return answers

    def draw(self, item: Picture, answer: dict[str, Any]) -> Any:
        figure, axes = new_figure(1, 1, width=4.0, height=4.0)
        show_picture(axes[0, 0], item.whole())
        objects = answer["objects"]
        boxes = torch.tensor([one["box"] for one in objects]).view(-1, 4)
        names = [f"{one['class']} {one['score']:.2f}" for one in objects]
        draw_frames(axes[0, 0], boxes, "limegreen", names=names)
        return figure

    def to_export(self, model: nn.Module) -> nn.Module:
        return Raw(model)


class Raw(nn.Module):
    """A detector's class logits (N, D, …) and boxes (N, D, 4), before non-maximum suppression."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.raw(images)  # type: ignore[operator]
