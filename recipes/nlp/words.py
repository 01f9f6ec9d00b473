"""The words of many texts as numbers, one after the other in one tensor."""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, pairwise

import torch
from torch import Tensor

AT_A_TIME = 2**20  # numbers that are looked up together


class Rows(Sequence[Tensor]):
    """Rows of different lengths that lie in one tensor: a million tensors would take more room than what they hold.

    Args:
        numbers: int32, those of all rows.
        lengths: int64 (N,), of the rows.
        longest: numbers of a row that are given; the rest is left out.
        empty: what a row without a number gives.
    """

    def __init__(self, numbers: Tensor, lengths: Tensor, *, longest: int, empty: int) -> None:
        self.numbers, self.starts, self.empty = numbers, lengths.cumsum(0) - lengths, empty
        self.kept = lengths.clamp(max=longest)

    @property
    def lengths(self) -> Tensor:
        """int64 (N,), of the rows as they are given."""
        return self.kept.clamp(min=1)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        """The numbers of one row, int64, at least one."""
        start, length = int(self.starts[index]), int(self.kept[index])
        return self.numbers[start : start + length].long() if length else torch.tensor([self.empty])

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))


def numbered(texts: Iterable[str], tokenize: Callable[[str], list[str]]) -> tuple[list[str], Tensor, Tensor]:
    """Reads texts once: the different words in order, the number of each word (int32), and the lengths of the texts."""
    number: defaultdict[str, int] = defaultdict(count().__next__)
    numbers, lengths = array("i"), array("q")
    for text in texts:
        words = tokenize(text)
        lengths.append(len(words))
        numbers.extend(map(number.__getitem__, words))
    found = torch.frombuffer(numbers, dtype=torch.int32) if numbers else torch.empty(0, dtype=torch.int32)
    return list(number), found, torch.tensor(lengths.tolist(), dtype=torch.int64)


def counted(numbers: Tensor, words: int) -> Tensor:
    """How often each number from 0 to `words` - 1 occurs: int64 (words,)."""
    counts = torch.zeros(words, dtype=torch.int64)
    for block in numbers.split(AT_A_TIME):
        counts += block.bincount(minlength=words)
    return counts


def renumber_(numbers: Tensor, table: Tensor) -> None:
    """Replaces each number by the one that `table` has for it."""
    for block in numbers.split(AT_A_TIME):
        block.copy_(table[block.long()])


def nearest(train: Sequence[Tensor], test: Sequence[Tensor]) -> list[int]:
    """For each of the test texts the place of the train text nearest to it, by TF-IDF of words and pairs of them.

    Args:
        train, test: the numbers of each text's words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=lambda ids: [*zip(ids), *pairwise(ids)])
    known = vectorizer.fit_transform([ids.tolist() for ids in train]).T
    found: list[int] = []
    for start in range(0, len(test), 100):
        likeness = vectorizer.transform([ids.tolist() for ids in test[start : start + 100]]) @ known
        found += likeness.toarray().argmax(axis=1).tolist()
    return found
