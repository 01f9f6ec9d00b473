"""What counts alone know of the next character: the baseline of language models."""

import torch
from torch import Tensor
from torch.nn import functional as F

LONGEST = 8  # characters of an n-gram
MOST = 10_000_000  # characters that are counted


def ngram_losses(train_ids: Tensor, test_ids: Tensor, vocabulary_size: int, longest: int = LONGEST) -> Tensor:
    """Loss (nats) of each test character under n-grams with modified Kneser-Ney smoothing, for n = 1 to `longest`.

    With c for counts, D for discounts, and sums over all that followed the context:

        p(w | context) = (c(context, w) - D) / Σ c + (Σ D / Σ c) · p(w | context without its first character)

    Counts are of the longest n-grams alone; below them, what counts is how many different characters came before.

    Source: Chen, Goodman (1998), "An Empirical Study of Smoothing Techniques for Language Modeling", TR-10-98.

    Args:
        train_ids: numbers of the characters that are counted, (characters,); of a very long text the last part is.
        test_ids: characters to predict; the first of them follow the last of the train text.
        vocabulary_size: different characters.
        longest: characters in the longest n-grams.

    Returns:
        (longest, test characters), the row n - 1 for n-grams.
    """
    ids, train = torch.cat([train_ids[-MOST:], test_ids]), min(len(train_ids), MOST)
    uniform = torch.full(ids.shape, 1 / vocabulary_size, dtype=torch.double)
    shorter, losses = uniform, []
    context = torch.zeros_like(ids)  # number of the (n - 1)-gram before each position
    for n in range(1, longest + 1):
        gram = numbered(context * vocabulary_size + ids)  # number of the n-gram that ends there
        after = F.pad(gram, (1, 0))[:-1]
        longer = numbered(after * vocabulary_size + ids)
        everywhere = torch.arange(n - 1, train)
        different = torch.empty(int(longer.max()) + 1, dtype=torch.long)
        different.fill_(-1).scatter_(0, longer[n:train], torch.arange(n, train))  # a position of each (n + 1)-gram
        losses.append(-smoothed(gram, context, everywhere, shorter)[train:].log())
        shorter = smoothed(gram, context, different[different >= 0], shorter)
        context = after
    return torch.stack(losses)


def numbered(keys: Tensor) -> Tensor:
    """A number from 0 for each different key."""
    return keys.unique(return_inverse=True)[1]


def smoothed(gram: Tensor, context: Tensor, positions: Tensor, shorter: Tensor) -> Tensor:
    """The probability of each character, (characters,), with the n-grams at those positions counted.

    Args:
        gram, context: number of the n-gram that ends at each position, and of its first n - 1 characters.
        positions: that are counted.
        shorter: the probabilities by shorter n-grams, (characters,).
    """
    size = int(max(gram.max(), context.max())) + 1
    counts, totals = gram[positions].bincount(minlength=size), context[positions].bincount(minlength=size)
    discounts = discounts_of(counts)
    example = torch.zeros(size, dtype=torch.long).scatter_(0, gram[positions], positions)
    seen = counts.nonzero().flatten()
    freed = torch.zeros(size, dtype=torch.double).index_add_(0, context[example[seen]], discounts[seen])
    mixed = ((counts - discounts)[gram] + freed[context] * shorter) / totals[context].clamp(min=1)
    return torch.where(totals[context] > 0, mixed, shorter)


def discounts_of(counts: Tensor) -> Tensor:
    """What is taken from each count: nothing from 0, and one of three amounts from 1, 2, and 3 or more."""
    once, twice = ((counts == count).sum().item() for count in (1, 2))
    share, amounts = once / max(once + 2 * twice, 1), [0.0]
    for count in (1, 2, 3):
        here, above = ((counts == number).sum().item() for number in (count, count + 1))
        amount = count - (count + 1) * share * above / max(here, 1)
        amounts.append(min(max(amount, 0.1), count - 0.1))
    return torch.tensor(amounts, dtype=torch.double)[counts.clamp(max=3)]


def best_order(train_ids: Tensor, vocabulary_size: int) -> int:
    """The n that does best on the last tenth of the train text, counted on the rest."""
    cut = max(1, len(train_ids) * 9 // 10)
    return int(ngram_losses(train_ids[:cut], train_ids[cut:], vocabulary_size).mean(dim=1).argmin()) + 1
