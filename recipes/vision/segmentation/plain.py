"""What copies get in place of longer parts of this task."""

from typing import Any

import torch
from torch import Tensor, nn

from recipes.core.frame import predict
from recipes.datasets.scenes import VOID, Masks


def evaluate(model: nn.Module, dataset: Masks, device: Any) -> dict[str, float]:
    """Mean IoU and pixel accuracy over the whole set, as if it were one large picture."""
    answers = [logits.argmax(dim=0) for logits in predict(model, dataset, device, batch_size=32)]
    return scores(torch.stack(answers), dataset)


def scores(predicted: Tensor, dataset: Masks) -> dict[str, float]:
    """The mean over classes of shared pixels by those of either, and the share of pixels that are right."""
    known, classes = dataset.masks != VOID, len(dataset.classes)
    pairs = dataset.masks[known].long() * classes + predicted[known]
    confusion = torch.bincount(pairs, minlength=classes**2).view(classes, classes)  # true classes in rows
    shared = confusion.diagonal().double()
    iou = shared / (confusion.sum(dim=0) + confusion.sum(dim=1) - shared)
    return {"mean_iou": iou.nanmean().item(), "pixel_accuracy": (confusion.trace() / confusion.sum()).item()}


def commonest_class(train_set: Masks, test_set: Masks) -> dict[str, float]:
    """The baseline that looks at no picture: every pixel is of the train part's commonest class."""
    commonest = train_set.masks[train_set.masks != VOID].mode().values
    return scores(torch.full_like(test_set.masks, int(commonest)), test_set)
