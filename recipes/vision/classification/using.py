"""How trained classifiers of pictures are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from recipes.core.figures import new_figure, show_picture
from recipes.core.result import Result
from recipes.core.task import Task, class_answers, first_inputs
from recipes.datasets.images import OwnSample, as_picture, decode


@dataclass(kw_only=True)
class ScaledPictures(Task):
    """Pictures of one size, with the mean and deviation that the network was trained on.

    Attributes:
        shape: (C, H, W) that pictures are brought to.
        mean, std: of each channel in the train part, on the scale 0 to 1.
    """

    takes: ClassVar[str] = "pictures"

    shape: list[int]
    mean: list[float]
    std: list[float]

    @staticmethod
    def remembered(result: Result) -> dict[str, Any]:
        train_set = result.train_set
        scale = {name: getattr(train_set, name, None) for name in ("mean", "std")}
        channels = train_set.shape[0]
        mean, std = (
            [default] * channels if value is None else value.tolist()
            for value, default in ((scale["mean"], 0.0), (scale["std"], 1.0))
        )
        return {"shape": list(train_set.shape), "mean": mean, "std": std, "example": first_inputs(result.test_set)}

    def load(self, item: Any) -> Any:
        """The file's name or None, and the pixels as the network was trained on; takes what `as_picture` takes too."""
        is_file = isinstance(item, (str, PathLike))
        source = Path(item) if is_file else OwnSample([(as_picture(item, "in place of a path"), 0)], 0, "given")
        channels, height, width = self.shape
        return str(item) if is_file else None, torch.from_numpy(decode(source, (channels, height, width)).copy())

    def batch(self, items: Sequence[Any]) -> tuple[Tensor, ...]:
        images = torch.stack([image for _, image in items]).float() / 255
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return ((images - mean) / std,)  # (N, C, H, W)


@dataclass(kw_only=True)
class Classification(ScaledPictures):
    """Pictures to classes.

    Attributes:
        classes: their names.
    """

    classes: list[str]

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        return cls(classes=list(result.train_set.classes), **cls.remembered(result))

    def answers(self, outputs: Tensor, items: Sequence[Any]) -> list[dict[str, Any]]:
        given = [{"file": name} if name is not None else {} for name, _ in items]
        return class_answers(outputs, self.classes, given)

    def draw(self, item: Any, answer: dict[str, Any]) -> Any:
        figure, axes = new_figure(1, 1, width=3.0, height=3.2)
        show_picture(axes[0, 0], item[1], f"{answer['class']} {answer['probability']:.2f}")
        return figure
