"""Parts of a data set."""

import torch
from torch import Tensor


def few_of_each(labels: Tensor, samples: int, seed: int) -> Tensor:
    """Indices of so many samples of each class, drawn with the seed."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return torch.cat([order[labels[order] == label][:samples] for label in labels.unique()])
