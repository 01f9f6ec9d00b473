"""How classifiers of pictures are measured and shown."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.evaluation import predict
from recipes.core.figures import draw_confusion, draw_curves, new_figure, show_picture
from recipes.core.loop import Loop
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images
from recipes.vision.pixels import linear_classifier, nearest_neighbor


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


def result_of(
    model: nn.Module, loop: Loop, train_set: Images | ImageFiles, test_set: Images | ImageFiles, *, bar: float
) -> Result:
    """What a trained classifier reaches on held-out pictures, beside two plain methods on pixels.

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
        others={"nearest neighbor on pixels": nearest_neighbor(train_set, test_set)},
        bars={"accuracy": bar},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


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
