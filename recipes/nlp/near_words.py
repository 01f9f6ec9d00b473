"""From texts to the pairs of words that stand near each other: one by one for skip-gram, counted for GloVe."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.nlp.text_classification.encoding import PAD, UNKNOWN, Vocabulary


@dataclass
class NeighbourPairs:
    """Pairs of words that stood near each other, each with neighbours drawn at random beside the true one.

    Attributes:
        pairs: (N, 2) numbers of words.
        noise: (words,), how likely each word is drawn, up to a factor.
        drawn: words drawn for each pair.
    """

    pairs: Tensor
    noise: Tensor
    drawn: int

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        words, neighbours = self.pairs[list(indices)].unbind(1)
        others = torch.multinomial(self.noise, len(words) * self.drawn, replacement=True).view(-1, self.drawn)
        return words, torch.cat([neighbours[:, None], others], dim=1)  # (batch,), (batch, 1 + drawn)


@dataclass
class CountedPairs:
    """Pairs of words (N, 2) that stood near each other, and how often each did (N,)."""

    pairs: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.pairs[list(indices)], self.counts[list(indices)]


def common_words(texts: Sequence[str], min_freq: int, *, most: int = 8000) -> Vocabulary:
    """The words that come `min_freq` times, the `most` commonest of them: a table of all their pairs fits in memory."""
    vocabulary = Vocabulary(texts, min_freq=min_freq)
    vocabulary.words = vocabulary.words[: most + 2]  # beside padding and the unknown word
    vocabulary.number = {word: number for number, word in enumerate(vocabulary.words)}
    return vocabulary


def known_words(texts: Sequence[str], vocabulary: Vocabulary) -> list[Tensor]:
    """The numbers of each text's words; those that are not known are left out, as word2vec does."""
    encoded = (vocabulary.encode(text, max_words=len(text) + 1) for text in texts)
    return [ids[ids != UNKNOWN] for ids in encoded]


def near_pairs(texts: Sequence[Tensor], window: int) -> tuple[Tensor, Tensor]:
    """All pairs of words at most `window` places apart in a text, either way round: (N, 2), and distances (N,)."""
    ids = torch.cat(list(texts))
    text = torch.repeat_interleave(torch.tensor([len(one) for one in texts]))  # which text each word stands in
    pairs, distances = [], []
    for distance in range(1, window + 1):
        together = text[distance:] == text[:-distance]
        both = torch.stack([ids[:-distance][together], ids[distance:][together]], dim=1)
        pairs += [both, both.flip(1)]
        distances += [torch.full((2 * len(both),), distance)]
    return torch.cat(pairs), torch.cat(distances)


def thinned(pairs: Tensor, distances: Tensor, counts: Tensor, *, window: int, often: float = 1e-3) -> Tensor:
    """The pairs that skip-gram learns from: fewer of distant words, and fewer of words that stand everywhere.

    A word of frequency f stays with probability √(often / f), and a pair at distance d with (window + 1 - d) / window,
    which is what word2vec's windows of random width come to.

    Args:
        pairs: (N, 2).
        distances: (N,).
        counts: (words,), how often each word comes.
        window: the largest distance.
        often: frequency above which a word is thinned.
    """
    stays = (often * counts.sum() / counts.clamp(min=1)).sqrt().clamp(max=1)
    chance = stays[pairs].prod(dim=1) * (window + 1 - distances) / window
    return pairs[torch.rand(len(pairs)) < chance]


def counted(pairs: Tensor, distances: Tensor, words: int) -> Tensor:
    """How often each two words stood near each other, (words, words); at a distance of d a pair counts 1 / d."""
    flat = pairs[:, 0] * words + pairs[:, 1]
    return torch.zeros(words * words).index_add_(0, flat, 1 / distances.float()).view(words, words)


def noise(counts: Tensor) -> Tensor:
    """How likely each word (words,) is drawn: rare words oftener than they come, padding and the unknown never."""
    chances = counts.double() ** 0.75
    chances[[PAD, UNKNOWN]] = 0
    return chances
