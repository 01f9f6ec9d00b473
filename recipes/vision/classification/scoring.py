"""How classifiers of pictures are measured and shown, and the baselines that look at pixels alone."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.evaluation import predict
from recipes.core.figures import draw_confusion, draw_curves, new_figure, show_picture
from recipes.core.loop import Loop
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images


def evaluate(model: nn.Module, dataset: Images | ImageFiles, device: torch.device) -> dict[str, float]:
    """Accuracy and mean cross-entropy (nats) over the whole set."""
    logits = torch.stack(predict(model, dataset, device))  # (N, num_classes)
    labels = dataset.labels.cpu()
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


def linear_classifier(train_set: Images | ImageFiles, test_set: Images | ImageFiles) -> dict[str, float]:
    """The baseline without a network: one linear layer on the pixels, fitted to the classes by ridge regression."""
    features = _pixels(train_set)  # (N, pixels)
    labels = train_set.labels.cpu()[: len(features)]
    wanted = F.one_hot(labels, len(train_set.classes)).double() - 1 / len(train_set.classes)
    penalty = 1e-2 * len(features) * torch.eye(features.shape[1], dtype=torch.double)
    weights = torch.linalg.solve(features.T @ features + penalty, features.T @ wanted)  # (pixels, classes)
    scores = _pixels(test_set) @ weights
    truth = test_set.labels.cpu()[: len(scores)]
    return {"accuracy": (scores.argmax(dim=1) == truth).double().mean().item()}


def result_of(
    model: nn.Module, loop: Loop, train_set: Images | ImageFiles, test_set: Images | ImageFiles, *, bar: float
) -> Result:
    """What a trained classifier reaches on held-out pictures, beside a linear classifier on pixels.

    Args:
        model: classifies pictures.
        loop: in which it was trained.
        train_set: what it was trained on.
        test_set: what it is measured on.
        bar: accuracy that the default run reaches.
    """
    return Result(
        metrics=evaluate(model, test_set, loop.device),
        baseline=linear_classifier(train_set, test_set),
        baseline_name="linear classifier on pixels",
        bars={"accuracy": bar},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


def nearest_neighbor(train_set: Images | ImageFiles, images: Tensor) -> Tensor:
    """The class of the train picture whose pixels differ least from each of these: (B, C, H, W) to (B,)."""
    known, labels = train_set.__getitems__(range(min(len(train_set), 10_000)))
    return labels[torch.cdist(images.flatten(1), known.flatten(1)).argmin(dim=1)]


def _pixels(dataset: Images | ImageFiles, most: int = 10_000, side: int = 28) -> Tensor:
    """Normalized pixels of the first pictures, shrunk to `side`, and a 1: (N, features) float64."""
    rows = []
    for chunk in torch.arange(min(len(dataset), most)).split(500):
        images, _ = dataset.__getitems__(chunk)
        size = (min(side, images.shape[2]), min(side, images.shape[3]))
        rows.append(F.adaptive_avg_pool2d(images.cpu(), size).flatten(1).double())
    return F.pad(torch.cat(rows), (0, 1), value=1.0)


def shifted(images: Tensor) -> Tensor:
    """Each picture (B, C, H, W) moved at random by up to an eighth of its side: padded with black, and cropped."""
    count, _, height, width = images.shape
    y, x = -(-height // 8), -(-width // 8)
    black = images.amin()
    padded = F.pad(images - black, (x, x, y, y)) + black
    top = torch.randint(0, 2 * y + 1, (count, 1), device=images.device)
    left = torch.randint(0, 2 * x + 1, (count, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)  # (B, H)
    columns = left + torch.arange(width, device=images.device)  # (B, W)
    picture = torch.arange(count, device=images.device)
    return padded[picture[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def draw(model: nn.Module, dataset: Images | ImageFiles, device: torch.device, history: list[dict[str, float]]) -> Any:
    """The curve, the confusion matrix, and the pictures the model is least right about."""
    logits = torch.stack(predict(model, dataset, device))
    labels, predicted = dataset.labels.cpu(), logits.argmax(dim=1)
    count = len(dataset.classes)
    confusion = torch.bincount(labels * count + predicted, minlength=count * count).view(count, count)
    figure, axes = new_figure(2, 4, width=2.6, height=2.6)
    draw_curves(axes[0, 0], history, ["loss", "accuracy"])
    draw_confusion(axes[0, 1], confusion, dataset.classes)
    worst = F.cross_entropy(logits, labels, reduction="none").argsort(descending=True)
    for place, index in zip(axes.flatten()[2:], worst.tolist(), strict=False):
        answer, truth = dataset.classes[predicted[index]], dataset.classes[labels[index]]
        show_picture(
            place,
            dataset.pixels(torch.tensor([index]))[0],
            f"{truth}, taken for {answer}" if answer != truth else truth,
        )
    return figure
