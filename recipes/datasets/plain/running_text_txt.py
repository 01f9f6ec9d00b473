"""Running text from a text file, cut into windows of characters."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

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


def open_characters(
    data: str | None = None, context: int = 64, *, shift: int = 1, limit: int | None = None
) -> tuple[Windows, Windows]:
    """The first nine tenths of a text file to train on, and the rest, in windows that overlap by half, to test on."""
    if data is None:  # the reference of the Python language; paragraphs that several topics share come once
        from pydoc_data.topics import topics

        paragraphs = (part.strip("\n") for name in sorted(topics) for part in topics[name].split("\n\n"))
        text = "\n\n".join(dict.fromkeys(part for part in paragraphs if part))
    else:
        text = Path(data).read_text("utf-8").strip("\n")
    cut = len(text) - len(text) // 10
    characters = ["�", *sorted(set(text[:cut]) - {"�"})]
    number = {character: index for index, character in enumerate(characters)}
    ids = torch.tensor([number.get(character, UNKNOWN) for character in text])
    train_ids, test_ids = ids[:cut][:limit], ids[cut:]
    train_set = Windows(train_ids, context, characters, shift, context, jitter=True)
    return train_set, Windows(test_ids, context, characters, shift, context // 2)
