"""Semantic segmentation with a small dilated network, and how it is measured.

A segmenter answers for every pixel which class it belongs to. Most pixels are background, so the share of pixels that
are right says little; the IoU of a class, the pixels that truth and answer share over those that either of them has,
counts a thin digit as much as a wide sky. The loss has the same trouble: cross-entropy averages over pixels. The Dice
loss, a smooth relative of IoU, averages over classes.

The network works at half the picture's size. Each of its convolutions skips pixels between those it looks at
(dilation), and so sees wider than its neighbors with the same number of parameters. Any segmenter of torchvision, or
a network of your own, takes its place.

Notes: 87
Paper: Yu and Koltun (2016), "Multi-Scale Context Aggregation by Dilated Convolutions",
    https://arxiv.org/abs/1511.07122; Milletari, Navab and Ahmadi (2016), "V-Net" (the Dice loss),
    https://arxiv.org/abs/1606.04797
Data: handwritten digits of four kinds on cluttered backgrounds, 64×64 pixels; yours as COCO, Pascal VOC,
    or PNG masks beside pictures.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, InputError, Loop, Options, Precision, Result, batches, main, option, recipe
from recipes.datasets.scenes import VOID, Masks, open_masks
from recipes.vision.segmentation.photos import augment
from recipes.vision.segmentation.scoring import commonest_class, draw, evaluate, trees_on_pixels
from recipes.vision.segmentation.using import Segmentation


@dataclass(kw_only=True)
class SegmentationOptions(Options):
    model: Any = option("dilated_cnn", "dilated_cnn, torchvision:NAME, or an nn.Module of yours")
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    width: int = option(16, "channels of every layer of the dilated_cnn", least=1)
    dilated: bool = option(True, "skip pixels in the dilated_cnn's convolutions")
    dice: bool = option(True, "add the Dice loss to the cross-entropy")
    augment: bool = option(False, "mirror, crop and recolor the training pictures at random")
    epochs: int = 6
    batch_size: int = 8
    precision: Precision = "auto"
    channels_last: bool = True
    clip: float | None = 1.0


class DilatedCNN(nn.Module):
    """Pictures (N, channels, H, W) to logits (N, num_classes, H, W), by residual convolutions at half their size.

    Args:
        channels: of the pictures.
        num_classes: of the pixels.
        width: channels of every layer.
        dilations: one 3×3 convolution each, and the distance between the pixels that it looks at.
    """

    def __init__(
        self, channels: int, num_classes: int, *, width: int = 16, dilations: Sequence[int] = (1, 2, 4, 8, 4, 2)
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            for dilation in dilations
        )
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)  # (batch, width, height / 2, width / 2)
        for layer in self.layers:
            features = features + layer(features)
        logits = self.head(features)  # (batch, num_classes, height / 2, width / 2)
        return F.interpolate(logits, size=images.shape[2:], mode="bilinear")


class Logits(nn.Module):
    """Takes the logits out of the dictionary that torchvision's segmenters answer with."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)["out"]


def torchvision_model(name: str, num_classes: int) -> nn.Module:
    """The segmenter torchvision:NAME with random weights: pictures (N, 3, H, W) to logits (N, num_classes, H, W)."""
    library, _, model = name.partition(":")
    if library != "torchvision":
        raise InputError(f"option model: expected dilated_cnn or torchvision:NAME, got {name!r}")
    from torchvision import models

    known = models.list_models(module=models.segmentation)
    if model in known:
        return Logits(models.get_model(model, weights=None, weights_backbone=None, num_classes=num_classes))
    near = difflib.get_close_matches(model, known, n=1)
    raise InputError(f"option model: torchvision has no segmenter {model!r}, did you mean {(near or known)[0]}?")


def build(options: SegmentationOptions, data: Masks) -> nn.Module:
    """The network that the options name, for classes like these."""
    if isinstance(options.model, nn.Module):
        return options.model
    if options.model != "dilated_cnn":
        return torchvision_model(options.model, len(data.classes))
    dilations = (1, 2, 4, 8, 4, 2) if options.dilated else (1, 1, 1, 1, 1, 1)
    return DilatedCNN(3, len(data.classes), width=options.width, dilations=dilations)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """One minus the Dice overlap of truth and answer, the mean over classes; 0 where they are equal.

    dice = (2 · shared + 1) / (true + predicted + 1), where the answer's share is its probability; the
    ones keep a class that this batch does not show from dividing by nothing.

    Args:
        logits: (N, classes, H, W).
        masks: (N, H, W) int64; pixels of VOID do not count.
    """
    counts = (masks != VOID).unsqueeze(1)  # (N, 1, H, W)
    truth = F.one_hot(masks.where(masks != VOID, 0), logits.shape[1]).movedim(3, 1) * counts
    answer = logits.softmax(dim=1) * counts  # (N, classes, H, W)
    shared = (truth * answer).sum(dim=(0, 2, 3))  # (classes)
    sizes = truth.sum(dim=(0, 2, 3)) + answer.sum(dim=(0, 2, 3))
    return 1 - ((2 * shared + 1) / (sizes + 1)).mean()


def train(model: nn.Module, train_set: Masks, test_set: Masks, options: SegmentationOptions) -> Loop:
    """Minimizes cross-entropy, and the Dice loss with it, with AdamW."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=options.lr),
        batches(train_set, options),
        options,
        evaluate=lambda: evaluate(model, test_set, options.device),
    )
    for images, masks in loop:
        if options.augment:
            images, masks = augment(images, masks)
        logits = loop.model(images)  # (batch, classes, height, width)
        loss = F.cross_entropy(logits, masks, ignore_index=VOID)
        loop.step(loss + dice_loss(logits, masks) if options.dice else loss)
    return loop


@recipe(SegmentationOptions)
def run(options: SegmentationOptions) -> Result:
    """Trains a segmenter and measures it on held-out pictures."""
    train_set, test_set = open_masks(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=trees_on_pixels(train_set, test_set),
        baseline_name="randomized trees on the colors around a pixel",
        others={"commonest class": commonest_class(train_set, test_set)},
        bars={"mean_iou": 0.75},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, options = run(), run().options
    blind = full.others["commonest class"]
    flattered = "pixel accuracy flatters one class everywhere: it is twice the mean IoU or more"
    yield Claim(flattered, blind["pixel_accuracy"], ">=", 2 * blind["mean_iou"], kind="fact")
    again = options["seed"] + 1

    def twice(**changed: Any) -> float:
        return (run(**changed)["mean_iou"] + run(**changed, seed=again)["mean_iou"]) / 2

    text = "without the Dice loss it does worse: means of two trainings"
    yield Claim(text, twice(dice=False), "<", twice(), margin=0.01)
    if options["model"] == "dilated_cnn":
        yield Claim("and so it does without dilation", twice(dilated=False), "<", twice(), margin=0.01)


@run.figure
def figure(result: Result) -> Any:
    return draw(result.model, result.test_set, next(result.model.parameters()).device, result.history)


run.predicts(Segmentation, build)


if __name__ == "__main__":
    main(run)
