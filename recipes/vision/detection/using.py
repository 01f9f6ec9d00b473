"""How trained detectors are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from recipes.core.figures import new_figure, show_picture
from recipes.core.result import Result
from recipes.core.task import first_inputs
from recipes.datasets.scenes import scale_of
from recipes.vision.detection.boxes import Detections
from recipes.vision.detection.drawing import draw_frames
from recipes.vision.using import Picture, WarpedPictures


@dataclass(kw_only=True)
class Detection(WarpedPictures):
    """Pictures to boxes (n, 4: left, top, right, bottom, in the picture's own pixels), labels and scores.

    Pictures keep their proportions in the network's square. Their networks give `Detections` in evaluation mode, and
    have `raw(images)`, which is what gets exported: scores or class logits and boxes before non-maximum suppression,
    the boxes in pixels of the network's square.

    Attributes:
        least_score: of what is listed among the answer's `objects`, and drawn; `boxes` holds the others too.
    """

    letterbox: ClassVar[bool] = True
    least_score: float = 0.4

    def answers(self, outputs: Detections, items: Sequence[Picture]) -> list[dict[str, Any]]:
        answers = []
        for picture, found in zip(items, outputs, strict=True):
            height, width = picture.size
            scale = torch.tensor(scale_of((width, height), self.image_size, True))
            boxes = (found["boxes"] / scale).clamp(min=0).minimum(torch.tensor([width, height, width, height]))
            inside = (boxes[:, :2] < boxes[:, 2:]).all(dim=1)  # others lie in the square beside the picture
            boxes, scores = boxes[inside], found["scores"][inside]
            labels = [self.classes[label] for label in found["labels"][inside].tolist()]
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
    """A detector's scores or class logits (N, D, …) and boxes (N, D, 4), before non-maximum suppression."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.raw(images)  # type: ignore[operator]


@dataclass(kw_only=True)
class AnchoredDetection(Detection):
    """Detection by anchors whose sides, in pixels of the network's square, were taken from the train part."""

    sides: list[float]

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        example = first_inputs(result.test_set)
        given: dict[str, Any] = {"classes": list(result.test_set.classes), "image_size": example[0].shape[-1]}
        return cls(sides=result.model.sides.tolist(), example=example, **given)
