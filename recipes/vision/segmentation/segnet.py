"""Semantic segmentation with SegNet: a decoder that puts back where the encoder's pooling took from.

Pooling keeps the largest of four pixels and forgets which one it was; upsampling can only spread the value over all
four, and borders smear. SegNet keeps the index of the largest. Its decoder has no weights for upsampling: unpooling
puts each value back at its index and leaves zeros around it, which the convolutions then fill. Two bits a pooled pixel
are carried over, where U-Net carries whole feature maps.

This is the paper's small variant, SegNet-Basic: one 7×7 convolution at each size, as many channels everywhere, and no
ReLU in the decoder. The paper has 64 channels and four sizes; here the width is scaled to 24 and there are two.

The study notes behind this library call the decoder a deconvolution, and say that the indices serve downsampling. It
has none: a deconvolution learns how to upsample, unpooling learns nothing. And the indices are recorded where the
encoder downsamples, and serve the decoder's upsampling.

Notes: 87
Paper: Badrinarayanan, Kendall and Cipolla (2017), "SegNet: A Deep Convolutional Encoder-Decoder Architecture for
    Image Segmentation", https://arxiv.org/abs/1511.00561
Data: handwritten digits of four kinds on cluttered backgrounds, 64×64 pixels; yours as COCO, Pascal VOC,
    or PNG masks beside pictures.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, Loop, Options, Precision, Result, batches, main, option, recipe
from recipes.datasets.scenes import VOID, Masks, open_masks
from recipes.vision.segmentation.photos import augment
from recipes.vision.segmentation.scoring import commonest_class, draw, evaluate, near_borders, trees_on_pixels
from recipes.vision.segmentation.task import dice_loss
from recipes.vision.segmentation.using import Segmentation


@dataclass(kw_only=True)
class SegNetOptions(Options):
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    width: int = option(24, "channels of every layer", least=1)
    depth: int = option(2, "how often the picture is halved", least=1)
    indices: bool = option(True, "upsample by the pooling's indices, not bilinearly")
    augment: bool = option(False, "mirror, crop and recolor the training pictures at random")
    epochs: int = 4
    batch_size: int = 8
    precision: Precision = "auto"
    channels_last: bool = True
    clip: float | None = 1.0


def wide_convolution(channels: int, width: int) -> list[nn.Module]:
    """7×7, with batch norm: wide enough to fill what unpooling leaves empty."""
    return [nn.Conv2d(channels, width, 7, padding=3, bias=False), nn.BatchNorm2d(width)]


class SegNet(nn.Module):
    """Pictures (N, channels, H, W), of sides of 2^depth or more, to logits (N, num_classes, H, W)."""

    def __init__(
        self, channels: int, num_classes: int, *, width: int = 24, depth: int = 2, indices: bool = True
    ) -> None:
        super().__init__()
        self.indices = indices
        self.encoder = nn.ModuleList(
            nn.Sequential(*wide_convolution(width if level else channels, width), nn.ReLU()) for level in range(depth)
        )
        self.decoder = nn.ModuleList(nn.Sequential(*wide_convolution(width, width)) for _ in range(depth))
        self.head = nn.Conv2d(width, num_classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        nn.init.normal_(self.head.weight, std=0.01)  # at first its bias decides

    def forward(self, images: Tensor) -> Tensor:
        features, kept = images, []
        for block in self.encoder:
            features = block(features)  # (batch, width, height / 2^level, width / 2^level)
            size = features.shape[2:]
            features, indices = F.max_pool2d(features, 2, return_indices=True)  # index of each largest in its map
            kept.append((size, indices))
        for block in self.decoder:
            size, indices = kept.pop()
            if self.indices:
                features = F.max_unpool2d(features, indices, (2, 2), output_size=size)  # zeros but at the indices
            else:
                features = F.interpolate(features, size=size, mode="bilinear")
            features = block(features)
        return self.head(features)


def build(options: SegNetOptions, data: Masks) -> SegNet:
    """The network for classes like these."""
    return SegNet(3, len(data.classes), width=options.width, depth=options.depth, indices=options.indices)


def train(model: SegNet, train_set: Masks, test_set: Masks, options: SegNetOptions) -> Loop:
    """Minimizes cross-entropy plus Dice loss with AdamW, from a head that answers with the classes' frequencies."""
    counts = torch.bincount(train_set.masks[train_set.masks != VOID], minlength=len(train_set.classes)).clamp(min=1)
    model.head.bias = nn.Parameter((counts / counts.sum()).log().to(options.device))
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
        loop.step(F.cross_entropy(logits, masks, ignore_index=VOID) + dice_loss(logits, masks))
    return loop


@recipe(SegNetOptions)
def run(options: SegNetOptions) -> Result:
    """Trains a SegNet and measures it on held-out pictures."""
    train_set, test_set = open_masks(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=trees_on_pixels(train_set, test_set),
        baseline_name="randomized trees on the colors around a pixel",
        others={"commonest class": commonest_class(train_set, test_set)},
        bars={"mean_iou": 0.74},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, smooth = run(), run(indices=False)
    yield Claim("upsampled bilinearly it does worse", smooth["mean_iou"], "<", full["mean_iou"], margin=0.02)
    text = "and so it does within 2 pixels of the borders"
    yield Claim(text, at_borders(smooth), "<", at_borders(full), margin=0.02)


def at_borders(result: Result) -> float:
    """Mean IoU over the pixels near a border between classes."""
    borders = replace(result.test_set, masks=near_borders(result.test_set.masks))
    return evaluate(result.model, borders, next(result.model.parameters()).device)["mean_iou"]


@run.figure
def figure(result: Result) -> Any:
    return draw(result.model, result.test_set, next(result.model.parameters()).device, result.history)


run.predicts(Segmentation, build)


if __name__ == "__main__":
    main(run)
