"""A task in which size counts: pictures moved to all sides, and a network whose size is easily chosen.

Digits in the middle of their picture are told apart by very small networks; moved, they are not.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from recipes.compression.files import file_bytes, save_dense
from recipes.datasets.images import ImageFiles, Images
from recipes.vision.classification.scoring import evaluate, shifted


@dataclass
class Moved:
    """Pictures moved by an eighth of their side: by so many of these steps down and right, or else at random."""

    dataset: Images | ImageFiles
    steps: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.labels, self.workers = self.dataset.labels, getattr(self.dataset, "workers", 0)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: Any) -> tuple[Tensor, Tensor]:
        images, labels = self.dataset.__getitems__(indices)
        if self.steps is None:
            return shifted(images), labels
        down, right = (step * -(-side // 8) for step, side in zip(self.steps, images.shape[2:], strict=True))
        return images.roll((down, right), (2, 3)), labels


def evaluate_moved(model: nn.Module, test_set: Images | ImageFiles, device: torch.device) -> dict[str, float]:
    """Accuracy and loss, means over pictures as they are and moved to each of eight sides."""
    moved = [Moved(test_set, (down, right)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    scores = [evaluate(model, part, device) for part in moved]  # type: ignore[arg-type]
    return {name: mean(score[name] for score in scores) for name in scores[0]}


class DeepNet(nn.Module):
    """Convolutional blocks x + f(x) one after the other, all with weights of their own or all the same one."""

    def __init__(self, channels: int, num_classes: int, *, width: int, depth: int = 4, shared: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        first = self.block(width)
        self.blocks = nn.Sequential(*[first if shared else self.block(width) for _ in range(depth)])
        self.head = nn.Linear(width, num_classes)

    @staticmethod
    def block(width: int) -> nn.Module:
        return nn.Sequential(nn.GroupNorm(1, width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)  # (batch, width, height / 2, width / 2)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.amax(dim=(2, 3)))  # (batch, num_classes)


def as_large_a_file(
    build: Callable[[int], nn.Module],
    size: int,
    most: int,
    stored: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> nn.Module:
    """The narrowest network whose file, `stored` in some form, has at least so many bytes; of widths up to `most`."""
    narrow = (build(width) for width in range(1, most))
    return next((model for model in narrow if file_bytes(stored(model), save_dense) >= size), build(most))


def for_longer(options: Any, times: float) -> Any:
    """The options of a training that takes so many times the steps."""
    steps = options.steps and max(1, round(times * options.steps))
    return replace(options, epochs=max(1, round(times * options.epochs)), steps=steps)
