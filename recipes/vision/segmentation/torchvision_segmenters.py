"""Segmenters of torchvision in place of a recipe's own: the same pictures, losses, scores and uses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Loop, Options, Result, batches, recipe
from recipes.datasets.scenes import VOID, Masks, open_masks
from recipes.vision.backbones import IMAGENET
from recipes.vision.segmentation.photos import augment
from recipes.vision.segmentation.scoring import commonest_class, draw, evaluate, trees_on_pixels
from recipes.vision.segmentation.task import dice_loss
from recipes.vision.segmentation.using import Segmentation
from recipes.vision.torchvision_models import TorchvisionModel, names_a_model, open_model


class TorchvisionSegmenter(TorchvisionModel):
    """Pictures (N, 3, H, W) in 0 to 1 to logits (N, num_classes, H, W)."""

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(IMAGENET[key]).view(3, 1, 1) for key in ("mean", "std"))
        return self.network((images - mean) / std)["out"]


def build_torchvision_segmenter(options: Any, data: Any) -> TorchvisionSegmenter:
    """The network that the options name, for classes like these; a trained one brings its own weights."""
    weights = options.weights if isinstance(data, Masks) else None
    network, new = open_model(options.model, "segmentation", len(data.classes), weights)
    return TorchvisionSegmenter(network, new, pretrained=weights not in (None, "none"))


@recipe(Options)
def fit_torchvision_segmenter(options: Any) -> Result:
    """Trains a segmenter of torchvision's and measures it on held-out pictures."""
    side = options.image_size or (None if options.data is None else 320)
    train_set, test_set = open_masks(options.data, image_size=side, seed=options.seed)
    model = build_torchvision_segmenter(options, train_set).to(options.device)
    return train_in_its_place(
        model, model.parameter_groups(options.lr), train_set, test_set, options, changed=options.data is not None
    )


def train_in_its_place(
    model: nn.Module, groups: list[dict[str, Any]], train_set: Masks, test_set: Masks, options: Any, *, changed: bool
) -> Result:
    """What a network that takes a recipe's place reaches once it is trained.

    Args:
        model: from pictures (N, 3, H, W) in 0 to 1 to logits (N, num_classes, H, W).
        groups: its parameters with their learning rates, for an optimizer.
        train_set: what it is trained on.
        test_set: what it is measured on.
        options: of the run.
        changed: mirror, crop and recolor the training pictures at random.
    """
    loop = Loop(
        model,
        torch.optim.AdamW(groups),
        batches(train_set, options),
        options,
        evaluate=lambda: evaluate(model, test_set, options.device),
    )
    for images, masks in loop:
        if changed:
            images, masks = augment(images, masks)
        logits = loop.model(images)  # (batch, classes, height, width)
        loop.step(F.cross_entropy(logits, masks, ignore_index=VOID) + dice_loss(logits, masks))
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=trees_on_pixels(train_set, test_set),
        baseline_name="randomized trees on the colors around a pixel",
        others={"commonest class": commonest_class(train_set, test_set)},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@fit_torchvision_segmenter.figure
def draw_torchvision_segmenter(result: Result) -> Any:
    return draw(result.model, result.test_set, next(result.model.parameters()).device, result.history)


fit_torchvision_segmenter.predicts(Segmentation, build_torchvision_segmenter)


def torchvision_segmenter(options: Any) -> Callable[..., Result] | None:
    """What takes a recipe's place where its options name a segmenter of torchvision's."""
    return fit_torchvision_segmenter if names_a_model(options) else None
