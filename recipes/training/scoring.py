"""How the recipes of this family score a classifier of pictures, and the plain baseline beside it."""

import torch
from torch import nn
from torch.nn import functional as F

from recipes.core.evaluation import predict
from recipes.datasets.images import ImageFiles, Images


def evaluate(model: nn.Module, dataset: Images | ImageFiles, device: torch.device) -> dict[str, float]:
    """Accuracy and mean cross-entropy (nats) over the whole set."""
    logits, labels = torch.stack(predict(model, dataset, device)), dataset.labels.cpu()  # (N, num_classes), (N,)
    return {
        "accuracy": (logits.argmax(dim=1) == labels).double().mean().item(),
        "loss": F.cross_entropy(logits, labels).item(),
    }


def majority(train_set: Images | ImageFiles, test_set: Images | ImageFiles) -> dict[str, float]:
    """The baseline that looks at no picture: the commonest class, and the loss of the classes' shares."""
    shares = torch.bincount(train_set.labels.cpu(), minlength=len(train_set.classes)) / len(train_set)
    labels = test_set.labels.cpu()
    return {
        "accuracy": (labels == shares.argmax()).double().mean().item(),
        "loss": -shares.clamp(min=1e-9).log()[labels].mean().item(),
    }
