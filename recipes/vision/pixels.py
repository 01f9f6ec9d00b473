"""Plain methods that look at pixels alone: baselines that need no network."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

MOST = 10_000  # train pictures that a plain method learns from; of more, every second, third, …


def flat(images: Tensor, side: int = 28) -> Tensor:
    """Pictures (N, C, H, W) shrunk to at most `side` pixels, as rows of numbers on the CPU, (N, C · side · side)."""
    return F.adaptive_avg_pool2d(images.cpu(), (min(side, images.shape[2]), min(side, images.shape[3]))).flatten(1)


def shrunk(dataset: Any, side: int = 28, chosen: Tensor | None = None) -> Tensor:
    """The same of all pictures of a data set or of the chosen ones, read a few at a time."""
    chosen = torch.arange(len(dataset)) if chosen is None else chosen
    return torch.cat([flat(dataset.__getitems__(some.tolist())[0], side) for some in chosen.split(100)])


def evenly(count: int, most: int = MOST) -> Tensor:
    """Indices of at most so many of `count`, evenly spread over all: files may be sorted by class or by day."""
    return torch.arange(0, count, max(1, -(-count // most)))


def linear_classifier(train_set: Any, test_set: Any) -> dict[str, float]:
    """One linear layer on the pixels, fitted to the classes by ridge regression: its accuracy."""
    chosen = evenly(len(train_set))
    features = F.pad(shrunk(train_set, chosen=chosen).double(), (0, 1), value=1.0)  # (N, pixels + 1)
    wanted = F.one_hot(train_set.labels.cpu()[chosen], len(train_set.classes)).double() - 1 / len(train_set.classes)
    penalty = 1e-2 * len(features) * torch.eye(features.shape[1], dtype=torch.double)
    weights = torch.linalg.solve(features.T @ features + penalty, features.T @ wanted)  # (pixels + 1, classes)
    scores = F.pad(shrunk(test_set).double(), (0, 1), value=1.0) @ weights
    return accuracy_against(scores.argmax(dim=1), test_set)


def nearest_classes(train_set: Any, pixels: Tensor) -> Tensor:
    """The class of the train picture that differs least from each of these rows of `flat`, (N,)."""
    chosen = evenly(len(train_set))
    known, labels = shrunk(train_set, chosen=chosen), train_set.labels.cpu()[chosen]
    return torch.cat([labels[torch.cdist(some, known).argmin(dim=1)] for some in pixels.split(1000)])


def nearest_neighbor(train_set: Any, test_set: Any) -> dict[str, float]:
    """The class of the train picture whose pixels differ least: its accuracy."""
    return accuracy_against(nearest_classes(train_set, shrunk(test_set)), test_set)


def accuracy_against(predicted: Tensor, dataset: Any) -> dict[str, float]:
    return {"accuracy": (predicted == dataset.labels.cpu()).double().mean().item()}
