"""Words by their letters: what they share with words spelled alike, how they are mistyped, and texts read so."""

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.core.result import Result
from recipes.core.task import Task, class_answers, first_inputs
from recipes.nlp.text_classification.encoding import tokenize

BUCKETS = 16384  # numbers that all pieces share
Words = list[str]
Change = Callable[[Words, Random], Words]
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


@functools.cache
def pieces(word: str) -> Tensor:
    """Numbers of the word's runs of three and four letters and of itself, (pieces,), as fastText has them.

    "good" falls into <go, goo, ood, od>, <goo, good, ood> and <good>; a slip of a key leaves some of them as they are.
    """
    marked = f"<{word}>"
    parts = [marked, *(marked[start : start + n] for n in (3, 4) for start in range(len(marked) - n + 1))]
    return torch.tensor([1 + zlib.crc32(part.encode()) % (BUCKETS - 1) for part in parts])  # 0 is for padding


def spelled(texts: Sequence[Sequence[str]]) -> Tensor:
    """The pieces of each text's words, (texts, pieces), filled up with 0; a text without a word is the empty word."""
    return pad_sequence([torch.cat([pieces(word) for word in text or [""]]) for text in texts], batch_first=True)


@functools.cache
def keys_near() -> dict[str, str]:
    """The letters beside, above and below each letter of a QWERTY keyboard."""
    positions = {letter: (row, column) for row, letters in enumerate(KEYS) for column, letter in enumerate(letters)}
    return {
        letter: "".join(
            other
            for other, (r, c) in positions.items()
            if other != letter and abs(r - row) <= 1 and -1 <= (c - column) + (r - row) / 2 <= 1
        )
        for letter, (row, column) in positions.items()
    }


def with_slips(words: Words, draw: Random, *, share: float = 0.2) -> Words:
    """Each letter mistyped with this probability: a key beside it, none, twice the same, or swapped with the next."""
    near = keys_near()

    def typed(word: str) -> str:
        letters = list(word)
        for position in range(len(letters)):
            if draw.random() < share and letters[position] in near:
                slip = draw.randrange(4)
                if slip == 0:
                    letters[position] = draw.choice(near[letters[position]])
                elif slip == 1:
                    letters[position] = ""
                elif slip == 2:
                    letters[position] *= 2
                elif position + 1 < len(letters):
                    letters[position : position + 2] = reversed(letters[position : position + 2])
        return "".join(letters)

    return [mistyped for word in words if (mistyped := typed(word))] or words


@dataclass
class ChangingTexts:
    """Texts as words, changed anew each time they are read; a batch is the pieces of their words.

    Attributes:
        words: N lists of words.
        labels: (N,) indices into `classes`.
        classes: names.
        changes: each of them is made with a probability of `often`; with none all texts stay as they are.
        often: see there.
    """

    words: list[list[str]]
    labels: Tensor
    classes: list[str]
    changes: Sequence[Change] = ()
    often: float = 0.5

    def __len__(self) -> int:
        return len(self.words)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        texts = [self.words[index] for index in indices]
        draw = Random(int(torch.randint(2**31, ())))
        for change in self.changes:
            texts = [change(text, draw) if text and draw.random() < self.often else text for text in texts]
        return spelled(texts), self.labels[list(indices)]  # (batch, pieces), (batch,)


@dataclass(kw_only=True)
class SpelledTexts(Task):
    """Texts to classes, by the pieces of their words.

    Attributes:
        classes: their names.
        max_words: of a text that are read; the rest is left out.
    """

    takes: ClassVar[str] = "texts"

    classes: list[str]
    max_words: int

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        example = first_inputs(result.test_set)
        return cls(classes=list(result.test_set.classes), max_words=options.max_words, example=example)

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        return (spelled([tokenize(text)[: self.max_words] for text in items]),)  # (N, pieces)

    def answers(self, outputs: Tensor, items: Sequence[str]) -> list[dict[str, Any]]:
        return class_answers(outputs, self.classes, [{"text": text} for text in items])

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        return ({0: "batch", 1: "pieces"},)
