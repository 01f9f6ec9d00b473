"""Controls that every classifier of pictures has to stand."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from recipes.core.options import Options
from recipes.datasets.images import open_images


def accuracy_after_shuffled_labels(
    train: Callable[..., Any], model: nn.Module, options: Options, image_size: int | None = None
) -> float:
    """Held-out accuracy of a model that learned the bundled digits with their labels in random order."""
    torch.manual_seed(0)
    train_set, test_set = open_images(image_size=image_size)
    train_set.labels = train_set.labels[torch.randperm(len(train_set))]
    return train(model, train_set, test_set, options).history[-1]["accuracy"]


def require_that_all_counts(network: nn.Module, images: Tensor, least: float) -> tuple[Tensor, ...]:
    """Other logits for other pictures, by `least` in the deviation of each, and a gradient for every parameter.

    Gives the outputs.
    """
    outputs = network(images)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert outputs[0].std(dim=0).min() > least
    sum(logits.square().sum() for logits in outputs).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    return outputs
