"""What counts say of pictures drawn a pixel after the other: the plain method that a network has to beat."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.core.loading import hold_out


def bits_by_counts(train_set: Any, test_set: Any, seed: int) -> float:
    """Of held-out pictures, by the best of some chains of counts, chosen on a fifth of the train part."""
    fit, chosen = hold_out(train_set, 0.2, seed)
    place = ["row", "column", "class"]
    chains = [*place, "up", "left"], ["row", "column", "up", "left", "class"], ["left", "up", *place]
    ways = [(chain, weight) for chain in chains for weight in (5, 15, 45)]
    return counted(train_set, test_set, *min(ways, key=lambda way: counted(fit, chosen, *way)))


def counted(train_set: Any, test_set: Any, chain: Sequence[str], weight: float) -> float:
    """Bits a pixel by counts: each link of the chain knows one thing more, and weighs what the links before it say.

    Witten, Bell (1991), https://doi.org/10.1109/18.87000, with a weight of its own in place of the number of kinds.
    """
    (known, levels), (asked, truths) = (contexts(part) for part in (train_set, test_set))
    chances = torch.full((len(truths), train_set.levels), 1 / train_set.levels, dtype=torch.double)
    keys, asked_keys = torch.zeros_like(levels), torch.zeros_like(truths)
    for name in chain:
        keys, asked_keys = keys * 1009 + known[name], asked_keys * 1009 + asked[name]
        kinds, index = torch.cat([keys, asked_keys]).unique(return_inverse=True)
        keys, asked_keys = index.split([len(levels), len(truths)])  # small again
        table = torch.zeros(len(kinds) * train_set.levels, dtype=torch.double)
        table += torch.bincount(keys * train_set.levels + levels, minlength=len(table))
        counts = table.view(len(kinds), -1)[asked_keys]
        chances = (counts + weight * chances) / (counts.sum(dim=1, keepdim=True) + weight)
    return -chances[torch.arange(len(truths)), truths].log2().mean().item()


def contexts(dataset: Any) -> tuple[dict[str, Tensor], Tensor]:
    """What is known of each pixel before it is seen, by name, and its level: (pictures · pixels,) each."""
    height, across = dataset.shape[1:]
    levels = dataset.pixels(torch.arange(len(dataset))).view(-1, height, across)
    around = F.pad(levels, (1, 0, 1, 0), value=dataset.levels)
    row, column = torch.meshgrid(torch.arange(height), torch.arange(across), indexing="ij")
    known = {"left": around[:, 1:, :-1], "up": around[:, :-1, 1:], "class": dataset.labels.cpu()[:, None, None]}
    known |= {"row": row, "column": column}
    return {name: one.expand_as(levels).flatten() for name, one in known.items()}, levels.flatten()
