"""How trained networks that draw pictures are used: from the name of a class to a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.result import Result
from recipes.core.task import Task, first_inputs


@dataclass(kw_only=True)
class PictureDrawing(Task):
    """Names of classes to pictures of them, the same ones with the same seed.

    Attributes:
        classes: their names.
        shape: (C, H, W) of the train pictures; what is drawn is (H, W).
        levels: gray levels of a picture, 0 to levels - 1.
        temperature: below 1, likely levels become likelier still.
        seed: of the draw; the n-th picture asked for has a draw of its own.
    """

    takes: ClassVar[str] = "texts"

    classes: list[str]
    shape: list[int]
    levels: int
    temperature: float = 0.7
    seed: int = 0

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        test_set, how = result.test_set, {"temperature": options.temperature, "seed": options.seed}
        sizes = {"shape": list(test_set.shape), "levels": options.levels}
        return cls(classes=list(test_set.classes), example=first_inputs(test_set), **sizes, **how)

    def load(self, item: str) -> str:
        if item.strip() not in self.classes:
            raise InputError(f"{item!r}: expected a class, one of {', '.join(self.classes)}")
        return item.strip()

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        """The words that the pictures start with, (N, 1)."""
        return (self.levels + torch.tensor([[self.classes.index(item)] for item in items]),)

    def predict(self, model: Any, items: Sequence[str], device: torch.device) -> list[dict[str, Any]]:
        labels = self.batch(items)[0][:, 0] - self.levels
        pictures = model.draw(labels, temperature=self.temperature, seed=self.seed)
        return [{"class": item, "levels": rows.tolist()} for item, rows in zip(items, pictures, strict=True)]

    def draw(self, item: str, answer: dict[str, Any]) -> Any:
        figure, axes = new_figure(1, 1, width=3.0, height=3.2)
        axes[0, 0].imshow(answer["levels"], cmap="gray_r", vmin=0, vmax=self.levels - 1)
        axes[0, 0].set(xticks=[], yticks=[], title=item)
        return figure
