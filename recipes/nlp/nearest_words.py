"""How trained word vectors are used: the words nearest to one, or to a sum of several."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.core.task import Task
from recipes.datasets.word_vectors import WordVectors, write_vectors
from recipes.nlp.text_classification.encoding import PAD, UNKNOWN, tokenize


class Likeness(nn.Module):
    """How near every word is to a sum of words: ids and signs (batch, words) to cosines (batch, vocabulary)."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.unit = nn.Buffer(F.normalize(table, dim=1))

    def forward(self, ids: Tensor, signs: Tensor) -> Tensor:
        total = (self.unit[ids] * signs[..., None]).sum(dim=1)  # (batch, size)
        return F.normalize(total, dim=1) @ self.unit.T


def signed_words(text: str) -> list[tuple[str, float]]:
    """The words with their signs: "values - value + tree" gives values and tree a 1, and value a -1."""
    first, *others = re.split(r"\s([+-])\s", f" {text}")
    parts = zip(["+", *others[::2]], [first, *others[1::2]], strict=True)
    return [(word, -1.0 if sign == "-" else 1.0) for sign, part in parts for word in tokenize(part)]


@dataclass(kw_only=True)
class NearestWords(Task):
    """A word, or several as in "values - value + tree", to the words whose vectors are nearest to their sum.

    Attributes:
        vocabulary: the words that have a vector, after padding and the unknown word.
        vector_size: numbers in a vector.
        count: words in an answer.
    """

    takes: ClassVar[str] = "texts"

    vocabulary: list[str]
    vector_size: int
    count: int = 10

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        words = list(result.train_set.vocabulary.words)
        if len(words) < 4:
            raise InputError("option min_freq: expected at least two words that occur so often, to compare them")
        task = cls(vocabulary=words, vector_size=result.model.vectors().shape[1])
        task.example = task.batch([" + ".join(words[2:5]), f"{words[2]} - {words[3]}"])
        return task

    @cached_property
    def number(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.vocabulary)}

    def known(self, text: str) -> list[tuple[int, float]]:
        """Numbers and signs of the words that have a vector."""
        return [(self.number[word], sign) for word, sign in signed_words(text) if self.number.get(word, PAD) > UNKNOWN]

    def batch(self, items: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = [self.known(text) or [(UNKNOWN, 0.0)] for text in items]
        ids = [torch.tensor([number for number, _ in row]) for row in rows]
        signs = [torch.tensor([sign for _, sign in row]) for row in rows]
        return pad_sequence(ids, batch_first=True, padding_value=PAD), pad_sequence(signs, batch_first=True)

    def predict(self, model: nn.Module, items: Sequence[str], device: torch.device) -> list[dict[str, Any]]:
        cosines = self.to_export(model)(*(tensor.to(device) for tensor in self.batch(items))).cpu()
        return self.answers(cosines, items)

    def answers(self, outputs: Tensor, items: Sequence[str]) -> list[dict[str, Any]]:
        found = []
        for text, cosines in zip(items, outputs.clone(), strict=True):
            known = self.known(text)
            cosines[[PAD, UNKNOWN, *(number for number, _ in known)]] = -torch.inf
            best = cosines.topk(min(self.count, len(cosines) - 2 - len(set(known)))) if known else None
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True) if best else []
            nearest = [{"word": self.vocabulary[number], "cosine": cosine} for number, cosine in pairs]
            unknown = [word for word, _ in signed_words(text) if self.number.get(word, PAD) <= UNKNOWN]
            found.append({"text": text, "nearest": nearest} | ({"unknown": unknown} if unknown else {}))
        return found

    def to_export(self, model: nn.Module) -> nn.Module:
        vectors: Callable[[], Tensor] = model.vectors  # type: ignore[assignment]
        return Likeness(vectors())

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        return ({0: "batch", 1: "words"}, {0: "batch", 1: "words"})

    def files(self, result: Result) -> dict[str, Callable[[Path], object]]:
        """The vectors in GloVe's format, which the classifiers of texts start from with --vectors."""
        table = result.model.vectors().cpu()[UNKNOWN + 1 :]
        vectors = WordVectors(self.vocabulary[UNKNOWN + 1 :], table)
        return {"vectors.txt": lambda path: write_vectors(path, vectors)}
