"""What copies get in place of longer parts of this task."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """One minus the Dice overlap (2 · shared + 1) / (true + predicted + 1), the mean over classes, without VOID."""
    counts = (masks != VOID).unsqueeze(1)
    truth = F.one_hot(masks.where(masks != VOID, 0), logits.shape[1]).movedim(3, 1) * counts
    answer = logits.softmax(dim=1) * counts  # (N, classes, H, W)
    shared, sizes = (truth * answer).sum(dim=(0, 2, 3)), truth.sum(dim=(0, 2, 3)) + answer.sum(dim=(0, 2, 3))
    return 1 - ((2 * shared + 1) / (sizes + 1)).mean()


def photo_defaults(options: Any) -> None:
    """With a backbone: pictures of 192 pixels and 150 steps, unless others are given."""
    if options.backbone is not None:
        options.image_size, options.steps = options.image_size or 192, options.steps or 150


def augment(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Half of the pictures and masks mirrored, contrast and brightness changed by up to 30 %."""
    draw = torch.rand(3, len(images), 1, 1, 1, device=images.device)
    mirrored, mean = draw[0] < 0.5, images.mean(dim=(1, 2, 3), keepdim=True)
    images, masks = images.flip(3).where(mirrored, images), masks.flip(2).where(mirrored[:, 0], masks)
    images = (mean + (0.7 + 0.6 * draw[1]) * (images - mean)) * (0.7 + 0.6 * draw[2])
    return images.clamp(0, 1), masks
