"""Running text from a text file, cut into windows of characters."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recipes.datasets.bundled import bundled

UNKNOWN = 0  # stands for every character that the train text does not hold


@dataclass
class Windows:
    """A text (characters,) cut into windows, each with its target: the characters `shift` positions later."""

    ids: Tensor
    context: int
    characters: list[str]
    shift: int
    stride: int
    jitter: bool = False

    def __len__(self) -> int:
        return 1 + (len(self.ids) - self.shift - self.context) // self.stride

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        starts = torch.tensor(indices) * self.stride
        if self.jitter:  # no two epochs are alike
            starts += torch.randint(self.stride, starts.shape)
            starts.clamp_(max=len(self.ids) - self.shift - self.context)
        positions = starts[:, None] + torch.arange(self.context)  # (batch, context)
        return self.ids[positions], self.ids[positions + self.shift]


def vocabulary(text: str) -> list[str]:
    return ["�", *sorted(set(text) - {"�"})]


def open_characters(
    data: Any = None, context: int = 64, *, shift: int = 1, limit: int | None = None, characters: Any = None
) -> tuple[Windows, Windows]:
    """A text file cut in two, or two texts: to train on, and, in windows that overlap by half, to test on."""
    if isinstance(data, tuple):
        text = "".join(part.strip("\n") for part in data)
    else:
        files = [Path(data)] if data else sorted(bundled("python_reference").glob("*.txt"))
        text = "\n\n".join(file.read_text("utf-8").strip("\n") for file in files)
    cut = len(data[0].strip("\n")) if isinstance(data, tuple) else len(text) - len(text) // 10
    characters = characters or vocabulary(text[:cut])
    number = {character: index for index, character in enumerate(characters)}
    ids = torch.tensor([number.get(character, UNKNOWN) for character in text])
    train_ids, test_ids = ids[:cut][:limit], ids[cut:]
    train_set = Windows(train_ids, context, characters, shift, context, jitter=True)
    return train_set, Windows(test_ids, context, characters, shift, context // 2)
