"""How trained trackers are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from recipes.core.figures import new_figure, show_picture
from recipes.core.result import Result
from recipes.core.task import Task
from recipes.datasets.sequences import FrameSequence, read_start
from recipes.vision.detection.drawing import draw_frames
from recipes.vision.tracking.following import EXEMPLAR, SEARCH, crops, follow, square_around


@dataclass(kw_only=True)
class Tracking(Task):
    """Folders of frames and a first box to a box in every frame: left, top, right, bottom in pixels.

    An exported file holds the network's comparison: exemplars (N, 3, 32, 32) and searches (N, 3, 64, 64), in -1 to 1,
    to a response (N, 17, 17) and box codes (N, 4, 17, 17).
    """

    takes: ClassVar[str] = "sequences"

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        sequence = result.test_set[0]
        center, _, side = square_around(sequence.boxes[0])
        frames = torch.stack([sequence.frame(index) for index in (0, len(sequence) - 1)])
        centers, sides = center.expand(2, -1), side.expand(2)
        searches = crops(frames, centers, sides * SEARCH / EXEMPLAR, SEARCH)
        return cls(example=(crops(frames, centers, sides, EXEMPLAR), searches))

    def load(self, item: Any) -> FrameSequence:
        """A folder with frames in img/ and the first box in groundtruth_rect.txt, or a pair of such a folder and a box.

        A box is left, top, right, bottom in pixels from 0; the lines of the file are OTB's. A `FrameSequence`
        is taken as it is.
        """
        return item if isinstance(item, FrameSequence) else read_start(item)

    def predict(self, model: nn.Module, items: Sequence[FrameSequence], device: torch.device) -> list[dict[str, Any]]:
        return [self.answer(item, follow(model, item, device)) for item in items]

    def answer(self, sequence: FrameSequence, boxes: Tensor) -> dict[str, Any]:
        """Its folder's name, boxes (T, 4), and a row a frame."""
        frames = [
            {"frame": number, "box": [round(side, 1) for side in box]} for number, box in enumerate(boxes.tolist(), 1)
        ]
        return {"file": sequence.name, "boxes": boxes, "frames": frames}

    def draw(self, item: FrameSequence, answer: dict[str, Any]) -> Any:
        figure, axes = new_figure(2, 4, width=2.5, height=2.5)
        for panel, index in zip(
            axes.flatten(), torch.linspace(0, len(item) - 1, 8).round().int().tolist(), strict=True
        ):
            show_picture(panel, item.frame(index), f"frame {index + 1}")
            draw_frames(panel, answer["boxes"][index][None], "limegreen")
        return figure
