"""Word vectors from a text file, a word and its numbers a line."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass
class WordVectors:
    """N words and their vectors (N, size)."""

    words: list[str]
    table: Tensor


def read_vectors(path: str, wanted: Collection[str]) -> WordVectors:
    """The vectors of the wanted words in a text file with a word and its numbers a line."""
    chosen = set(wanted)
    with Path(path).open(encoding="utf-8-sig") as file:
        rows = [line.rstrip().split(" ") for line in file]
    kept = {word: [float(number) for number in numbers] for word, *numbers in rows if word in chosen}
    return WordVectors(list(kept), torch.tensor(list(kept.values())))


@torch.no_grad()
def start_from(embedding: nn.Embedding, words: Sequence[str], vectors: WordVectors) -> None:
    """Sets the rows of the words that have a vector; the others stay as they are."""
    row_of = {word: row for row, word in enumerate(words)}
    embedding.weight[[row_of[word] for word in vectors.words]] = vectors.table
