"""What classifiers of clips have in common: how they are used and measured, and the baseline that has no network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.evaluation import predict
from recipes.core.figures import new_figure, show_picture
from recipes.core.files import own_path
from recipes.core.result import Result
from recipes.core.task import Task, class_answers, first_inputs
from recipes.datasets.clips import Clips, read_clip


@dataclass(kw_only=True)
class ClipClassification(Task):
    """Clips, each a folder of frames, to classes.

    Attributes:
        classes: their names.
        shape: (C, T, H, W) that clips are brought to.
    """

    takes: ClassVar[str] = "sequences"

    classes: list[str]
    shape: list[int]

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        train_set = result.train_set
        return cls(classes=list(train_set.classes), shape=list(train_set.shape), example=first_inputs(result.test_set))

    def load(self, item: Any) -> Any:
        """A folder of frames, or a clip (C, T, H, W) uint8 of the size that the network was trained on."""
        if isinstance(item, Tensor):
            return None, item
        return str(item), read_clip(own_path(item), self.shape)

    def batch(self, items: Sequence[Any]) -> tuple[Tensor, ...]:
        return (torch.stack([clip for _, clip in items]).float() / 255,)  # (N, C, T, H, W)

    def answers(self, outputs: Tensor, items: Sequence[Any]) -> list[dict[str, Any]]:
        given = [{"file": name} if name is not None else {} for name, _ in items]
        return class_answers(outputs, self.classes, given)

    def draw(self, item: Any, answer: dict[str, Any]) -> Any:
        frames = item[1].transpose(0, 1)  # (T, C, H, W)
        figure, axes = new_figure(1, len(frames), width=1.6, height=1.8)
        for number, (panel, frame) in enumerate(zip(axes[0], frames, strict=True)):
            show_picture(panel, frame, f"{answer['class']} {answer['probability']:.2f}" if number == 0 else "")
        return figure


def evaluate(model: nn.Module, dataset: Clips, device: torch.device) -> dict[str, float]:
    """Accuracy and mean cross-entropy (nats) over the whole set."""
    logits, labels = torch.stack(predict(model, dataset, device, batch_size=64)), dataset.labels
    accuracy = (logits.argmax(dim=1) == labels).double().mean().item()
    return {"accuracy": accuracy, "loss": F.cross_entropy(logits, labels).item()}


def flow_classifier(train_set: Clips, test_set: Clips) -> dict[str, float]:
    """The baseline without a network: ridge regression of the classes on six numbers of optical flow."""
    known, asked = (torch.cat([flow, flow.square()], dim=1) for flow in map(optical_flow, (train_set, test_set)))
    mean, std = known.mean(dim=0), known.std(dim=0) + 1e-6
    known, asked = (F.pad((part - mean) / std, (0, 1), value=1.0) for part in (known, asked))  # (N, 7)
    wanted = F.one_hot(train_set.labels, len(train_set.classes)).double() - 1 / len(train_set.classes)
    weights = torch.linalg.solve(known.T @ known + 1e-2 * len(known) * torch.eye(7).double(), known.T @ wanted)
    return {"accuracy": ((asked @ weights).argmax(dim=1) == test_set.labels).double().mean().item()}


def optical_flow(clips: Clips) -> Tensor:
    """How fast a clip moves across and down, and turns about its middle: least squares (Lucas, Kanade), (N, 3)."""
    frames = clips.frames.double().mean(dim=1) / 255  # (N, T, H, W)
    change, mean = frames[:, 1:] - frames[:, :-1], (frames[:, 1:] + frames[:, :-1]) / 2
    slopes = [(mean.roll(-1, axis) - mean.roll(1, axis)) / 2 for axis in (3, 2)]
    away = []  # from the middle of the ink on a plane without borders
    for axis in (3, 2):
        length = mean.shape[axis]
        position = torch.arange(length, dtype=torch.float64)
        wave = torch.polar(torch.ones_like(position), position * 2 * math.pi / length)
        middle = (mean.sum(dim=5 - axis) * wave).sum(dim=2).angle() * length / (2 * math.pi)  # (N, T - 1)
        away.append((position - middle[..., None] + length / 2) % length - length / 2)
    turning = away[0][:, :, None, :] * slopes[1] - away[1][:, :, :, None] * slopes[0]
    speeds = [
        (change * way).sum(dim=(1, 2, 3)) / (way.square().sum(dim=(1, 2, 3)) + 1e-6) for way in (*slopes, turning)
    ]
    return torch.stack(speeds, dim=1)
