"""What counts say of pictures drawn a pixel after the other: the plain method that a network has to beat."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.core.counting import chances_by_counts
from recipes.core.loading import hold_out


def bits_by_counts(train_set: Any, test_set: Any, seed: int) -> float:
    """Of held-out pictures, by the best of some chains of counts, chosen on a fifth of the train part."""
    fit, chosen = hold_out(train_set, 0.2, seed)
    place = ["row", "column", "class"]
    chains = [*place, "up", "left"], ["row", "column", "up", "left", "class"], ["left", "up", *place]
    ways = [(chain, weight) for chain in chains for weight in (5, 15, 45)]
    return counted(train_set, test_set, *min(ways, key=lambda way: counted(fit, chosen, *way)))


def counted(train_set: Any, test_set: Any, chain: Sequence[str], weight: float) -> float:
    """Bits a pixel by counts of what is known of it, named by the chain."""
    (known, levels), (asked, truths) = (contexts(part) for part in (train_set, test_set))
    how = {"chain": chain, "weight": weight, "size": train_set.levels}
    return -chances_by_counts(known, levels, asked, truths, **how).log2().mean().item()


def contexts(dataset: Any) -> tuple[dict[str, Tensor], Tensor]:
    """What is known of each pixel before it is seen, by name, and its level: (pictures · pixels,) each."""
    height, across = dataset.shape[1:]
    levels = dataset.pixels(torch.arange(len(dataset))).view(-1, height, across)
    around = F.pad(levels, (1, 0, 1, 0), value=dataset.levels)
    row, column = torch.meshgrid(torch.arange(height), torch.arange(across), indexing="ij")
    known = {"left": around[:, 1:, :-1], "up": around[:, :-1, 1:], "class": dataset.labels.cpu()[:, None, None]}
    known |= {"row": row, "column": column}
    return {name: one.expand_as(levels).flatten() for name, one in known.items()}, levels.flatten()
