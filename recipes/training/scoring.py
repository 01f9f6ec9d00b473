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


def least_squares(train_set: Images | ImageFiles, test_set: Images | ImageFiles) -> dict[str, float]:
    """The baseline that needs no optimizer: a linear classifier on the pixels, solved by ridge regression.

    Of train parts larger than that it sees 10,000 pictures, in full size.
    """
    step = -(-len(train_set) // 10_000)
    images, labels = train_set.__getitems__(range(0, len(train_set), step))
    pixels = F.pad(images.flatten(1).double(), (0, 1), value=1.0)  # (N, pixels + 1)
    wanted = F.one_hot(labels, len(train_set.classes)).double()
    penalty = 0.01 * len(pixels) * torch.eye(pixels.shape[1], dtype=torch.double, device=pixels.device)
    weights = torch.linalg.solve(pixels.T @ pixels + penalty, pixels.T @ wanted)  # (pixels + 1, classes)
    right = 0
    for indices in torch.arange(len(test_set)).split(1000):
        images, labels = test_set.__getitems__(indices)
        scores = F.pad(images.flatten(1).double(), (0, 1), value=1.0) @ weights
        right += int((scores.argmax(dim=1) == labels).sum())
    return {"accuracy": right / len(test_set)}
