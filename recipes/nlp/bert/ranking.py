"""Scored pairs as numbers, Spearman's correlation, and two plain measures that count the words sentences share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.datasets.sentence_scores import ScoredPairs
from recipes.nlp.bert.encoder import in_disorder
from recipes.nlp.bert.subwords import Subwords
from recipes.nlp.text_classification.encoding import tokenize


@dataclass
class EncodedScores:
    """Sentence pairs as numbers; asked for many at a time, it pads them to the longest.

    Attributes:
        firsts, seconds: N tensors (pieces,) each.
        scores: (N,) from 0 to 1, as the train part's lowest and highest score.
        vocabulary: of the pieces.
        pairs: as they were read.
        config: of the encoder that reads them, see `encoder_from`.
    """

    firsts: list[Tensor]
    seconds: list[Tensor]
    scores: Tensor
    vocabulary: Subwords
    pairs: ScoredPairs
    config: dict[str, Any]

    def __len__(self) -> int:
        return len(self.firsts)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = [side[index] for index in indices for side in (self.firsts, self.seconds)]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.vocabulary.pad)
        return ids.unflatten(0, (-1, 2)), self.scores[list(indices)]  # (batch, 2, pieces), (batch,)

    def with_words_shuffled(self, seed: int) -> "EncodedScores":
        """The same pairs, the pieces of each sentence in random order."""
        generator = torch.Generator().manual_seed(seed)
        firsts, seconds = ([in_disorder(ids, generator) for ids in side] for side in (self.firsts, self.seconds))
        return replace(self, firsts=firsts, seconds=seconds)


def encode_pairs(
    part: ScoredPairs, subwords: Subwords, max_pieces: int, scale: tuple[float, float], config: dict[str, Any]
) -> EncodedScores:
    """The pairs as numbers, their scores brought from `scale`, (lowest, highest), to 0 to 1."""
    firsts, seconds = ([subwords.encode(text, max_pieces) for text in side] for side in (part.firsts, part.seconds))
    lowest, highest = scale
    return EncodedScores(firsts, seconds, (part.scores - lowest) / (highest - lowest), subwords, part, config)


def ranks(values: Tensor) -> Tensor:
    """The place of each value in their order, from 0; equal values share the mean of their places."""
    _, number, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(dim=0).double()
    return (last - (counts + 1) / 2)[number]


def spearman(one: Tensor, other: Tensor) -> float:
    """Spearman's correlation, that of the ranks: 1 if both order alike, 0 if one says nothing of the other."""
    first, second = (ranks(values) - ranks(values).mean() for values in (one, other))
    return ((first * second).sum() / (first.norm() * second.norm()).clamp(min=1e-12)).item()


def word_overlap(part: ScoredPairs) -> Tensor:
    """The share of the words of either sentence that stand in both (Jaccard): (N,)."""
    shares = []
    for first, second in zip(part.firsts, part.seconds, strict=True):
        one, other = set(tokenize(first)), set(tokenize(second))
        shares.append(len(one & other) / max(len(one | other), 1))
    return torch.tensor(shares)


def rare_overlap(train_part: ScoredPairs, part: ScoredPairs) -> Tensor:
    """The cosine of TF-IDF, in which rare words that are shared count for more: (N,)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(tokenizer=tokenize, token_pattern=None, lowercase=False)
    vectorizer.fit([*train_part.firsts, *train_part.seconds])
    products = vectorizer.transform(part.firsts).multiply(vectorizer.transform(part.seconds))
    return torch.from_numpy(products.sum(axis=1).A1)
