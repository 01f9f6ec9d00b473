"""What counts say of sound as codes: the plain method that a network has to beat."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.core.counting import chances_by_counts
from recipes.core.loading import holdout
from recipes.datasets.speech import by_speaker

WORDS_BEFORE = ["before", "class", "two before"]
CHAINS = (["before", "class"], WORDS_BEFORE, ["class", *WORDS_BEFORE[::2]], ["before", "class", "quarter"])
WEIGHTS = (5, 15, 45, 135)


def bits_by_counts(train_set: Any, test_set: Any, seed: int) -> float:
    """Bits a held-out frame, by the best chain of counts, chosen on train voices that are held out from it."""
    recordings = train_set.recordings
    counted, chosen = by_speaker(recordings, seed) or holdout(recordings.labels, seed=seed)
    fit = torch.isin(train_set.rows, counted).nonzero().flatten()
    first = torch.full((len(recordings),), len(train_set))  # the sample of each that is no copy
    first = first.scatter_reduce(0, train_set.rows, torch.arange(len(train_set)), "amin")
    known, asked = contexts(train_set, fit), contexts(train_set, first[chosen])
    size = train_set.end + 1

    def bits(known: Any, asked: Any, chain: list[str], weight: float) -> float:
        return -chances_by_counts(*known, *asked, chain=["", *chain], weight=weight, size=size).log2().mean().item()

    best = min(((chain, weight) for chain in CHAINS for weight in WEIGHTS), key=lambda way: bits(known, asked, *way))
    known, asked = (contexts(part, torch.arange(len(part))) for part in (train_set, test_set))
    return bits(known, asked, *best)


def contexts(dataset: Any, rows: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What is known of each code of these samples before it is heard, by name, and the code: (codes,) each."""
    codes = [dataset.codes[row].long() for row in rows.tolist()]
    after = pad_sequence(codes, batch_first=True, padding_value=-1)  # (samples, longest)
    nothing = torch.full((len(codes), 2), dataset.end + 1)
    before = torch.cat([nothing, after], dim=1)
    time, label = torch.arange(after.shape[1]), dataset.labels[rows, None]
    known = {"": torch.zeros(1, 1).long(), "before": before[:, 1:-1], "two before": before[:, :-2], "class": label}
    known["quarter"] = (time // 4).unsqueeze(0)  # of how many frames are behind it
    there = after >= 0
    return {name: one.expand_as(after)[there] for name, one in known.items()}, after[there]
