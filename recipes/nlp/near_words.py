"""From texts to counts of which words stand near each other, and what these counts tell of the words' likeness."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.datasets.word_vectors import WordVectors
from recipes.nlp.text_classification.encoding import UNKNOWN, Vocabulary


def common_words(texts: Sequence[str], min_freq: int, *, most: int = 8000) -> Vocabulary:
    """The words that occur `min_freq` times, the `most` commonest: a table of all their pairs fits in memory."""
    vocabulary = Vocabulary(texts, min_freq=min_freq)
    vocabulary.words = vocabulary.words[: most + 2]  # beside padding and the unknown word
    vocabulary.number = {word: number for number, word in enumerate(vocabulary.words)}
    return vocabulary


def known_words(texts: Sequence[str], vocabulary: Vocabulary) -> list[Tensor]:
    """The numbers of each text's words; those that are not known are left out, as word2vec does."""
    encoded = (vocabulary.encode(text, max_words=len(text) + 1) for text in texts)
    return [ids[ids != UNKNOWN] for ids in encoded]


def near_counts(texts: Sequence[Tensor], words: int, window: int) -> Tensor:
    """How often each two words are at most `window` positions apart, (words, words); at a distance of d, 1 / d counts.

    Args:
        texts: the numbers of each text's words.
        words: that there are.
        window: the largest distance.
    """
    ids = torch.cat(list(texts))
    text = torch.repeat_interleave(torch.tensor([len(one) for one in texts]))  # which text each word is in
    table = torch.zeros(words * words)
    for distance in range(1, window + 1):
        together = text[distance:] == text[:-distance]
        pairs = ids[:-distance][together] * words + ids[distance:][together]
        table.index_add_(0, pairs, torch.full((len(pairs),), 1 / distance))
    return table.view(words, words) + table.view(words, words).T


def mutual_information(counts: Tensor) -> Tensor:
    """How much more often two words are near than by chance, as a logarithm, none below 0: (words, words)."""
    ones = counts.sum(dim=1, keepdim=True).clamp(min=1e-9)
    return (counts * counts.sum() / (ones * ones.T)).log().clamp(min=0)


def likeness(table: Tensor) -> Tensor:
    """The cosine between each two rows of (words, size): (words, words)."""
    rows = F.normalize(table, dim=1)
    return rows @ rows.T


@dataclass
class NearWords:
    """Pairs of words that are near each other, and how often each pair is.

    Attributes:
        pairs: (N, 2) numbers of words.
        counts: (N,), see `near_counts`.
        occurs: (words,), how often each word does.
        vocabulary: of all words.
        vectors: pretrained ones of words in the vocabulary, if there are any.
    """

    pairs: Tensor
    counts: Tensor
    occurs: Tensor
    vocabulary: Vocabulary
    vectors: WordVectors | None = None

    @property
    def vector_size(self) -> int | None:
        """Numbers in a pretrained vector, or None."""
        return None if self.vectors is None else self.vectors.table.shape[1]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.pairs[list(indices)], self.counts[list(indices)]


def count_near(texts: Sequence[str], min_freq: int, window: int) -> NearWords:
    """The pairs of words in the texts that occur `min_freq` times and are at most `window` positions apart."""
    vocabulary = common_words(texts, min_freq)
    ids = known_words(texts, vocabulary)
    table = near_counts(ids, len(vocabulary), window)
    occurs = torch.bincount(torch.cat(ids), minlength=len(vocabulary))
    return NearWords(table.nonzero(), table[table > 0], occurs, vocabulary)


class DrawnPairs:
    """Pairs drawn as often as they are near each other, each with words drawn at random beside the true neighbor.

    Args:
        near: what is drawn from; an epoch has as many draws as there are pairs.
        negatives: words drawn for each pair.
        common: frequency above which a word is drawn less often than it occurs.
    """

    def __init__(self, near: NearWords, negatives: int, *, common: float = 1e-2) -> None:
        # A word of frequency f is kept with probability √(common / f): else "the" would be in every tenth pair.
        kept = (common * near.occurs.sum() / near.occurs.clamp(min=1)).sqrt().clamp(max=1)
        self.pairs, self.negatives = near.pairs, negatives
        self.chances = (near.counts * kept[near.pairs].prod(dim=1)).double().cumsum(dim=0)
        self.noise = (near.occurs.double() ** 0.75).cumsum(dim=0)  # rare words are drawn more often than they occur

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        words, neighbors = self.pairs[drawn(self.chances, len(indices))].unbind(1)
        others = drawn(self.noise, len(indices), self.negatives)
        return words, torch.cat([neighbors[:, None], others], dim=1)  # (batch,), (batch, 1 + negatives)


def drawn(chances: Tensor, *shape: int) -> Tensor:
    """Indices drawn at random, given the sums of their chances up to each one."""
    return torch.searchsorted(chances, torch.rand(shape, dtype=torch.double) * chances[-1], right=True)


def synonyms_from(texts: Sequence[str], *, least: float = 0.2, count: int = 5) -> dict[str, list[str]]:
    """Each word with at most `count` words that appear among the same words, as far as texts without labels tell.

    Args:
        texts: to read.
        least: cosine between two words' mutual information with all others.
        count: of synonyms, the most alike ones.
    """
    vocabulary = common_words(texts, 4)
    words = vocabulary.words
    counts = near_counts(known_words(texts, vocabulary), len(words), window=5)
    best = likeness(mutual_information(counts)).fill_diagonal_(-1).topk(min(count, len(words)), dim=1)
    rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    found = [[words[other] for score, other in zip(*row, strict=True) if score > least] for row in rows]
    return {word: others for word, others in zip(words, found, strict=True) if others}
