"""Semantic segmentation with U-Net: an encoder, a decoder, and skips that join them.

The encoder halves the picture three times to see what is there, and loses where exactly. The decoder doubles it
back, and at each size takes in the encoder's features of that size, concatenated with its own: they still know
where. Without these skips, the network finds the objects but smears their borders.

Weights are initialized as in the paper, to preserve variance from layer to layer, and the head's bias to the
logarithms of the classes' frequencies: nearly all pixels are background, and a network that has to learn this first
can stay for most of a short training on the plateau of answering nothing else.

Notes: 87
Paper: Ronneberger, Fischer and Brox (2015), "U-Net: Convolutional Networks for Biomedical Image Segmentation",
    https://arxiv.org/abs/1505.04597
Data: handwritten digits of four kinds on cluttered backgrounds, 64×64 pixels; yours as COCO, Pascal VOC,
    or PNG masks beside pictures.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, Loop, Options, Precision, Result, batches, main, option, recipe
from recipes.datasets.scenes import VOID, Masks, open_masks
from recipes.vision.backbones import Features, open_backbone, parameter_groups
from recipes.vision.segmentation.biomedical import border_weights, deform
from recipes.vision.segmentation.photos import augment, photo_defaults
from recipes.vision.segmentation.scoring import commonest_class, draw, evaluate, near_borders, trees_on_pixels
from recipes.vision.segmentation.task import dice_loss
from recipes.vision.segmentation.using import Segmentation


@dataclass(kw_only=True)
class UNetOptions(Options):
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    width: int = option(8, "channels at full size; every halving of the picture doubles them", least=1)
    depth: int = option(3, "how often the picture is halved", least=1)
    skips: bool = option(True, "join the encoder's features to the decoder's")
    backbone: str | None = option(None, "timm:NAME or torchvision:NAME as the encoder, for photographs")
    weights: str | None = option(None, "of the backbone: pretrained, a file, or torchvision's name")
    augment: bool = option(False, "mirror, crop and recolor the training pictures at random; done with a backbone")
    elastic: float = option(0.0, "pixels that training pictures are bent by; the paper has 10, for 512 a side", least=0)
    borders: bool = option(False, "weigh classes equally, and gaps between objects more, as the paper does for cells")
    epochs: int = 7
    batch_size: int = 8
    precision: Precision = "auto"
    channels_last: bool = True
    clip: float | None = 1.0


def two_convolutions(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


class Encoder(nn.ModuleList):
    """Pictures (N, channels, H, W) to maps (N, widths[level], H / 2^level, W / 2^level)."""

    def forward(self, features: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for block in self:
            maps.append(block(F.max_pool2d(maps[-1], 2) if maps else features))
        return maps


class UNet(nn.Module):
    """Pictures (N, channels, H, W) of any size to logits (N, num_classes, H, W); `backbone` may be the encoder."""

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        width: int = 8,
        depth: int = 3,
        skips: bool = True,
        backbone: Features | None = None,
    ) -> None:
        super().__init__()
        widths = backbone.channels if backbone is not None else [width * 2**level for level in range(depth + 1)]
        strides = backbone.strides if backbone is not None else [2**level for level in range(depth + 1)]
        self.skips, self.finest, self.coarsest = skips, strides[0], strides[-1]
        self.encoder = backbone or Encoder(two_convolutions(*pair) for pair in pairwise([channels, *widths]))
        self.upsamplings = nn.ModuleList(  # without skips they make the channels that the skips would have brought
            nn.ConvTranspose2d(deep, wide if skips else 2 * wide, 2, stride=2) for deep, wide in pairwise(widths[::-1])
        )
        self.decoder = nn.ModuleList(two_convolutions(2 * wide, wide) for wide in widths[-2::-1])
        self.head = nn.Conv2d(widths[0], num_classes, 1)
        for layer in (one for name, one in self.named_modules() if backbone is None or "encoder" not in name):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)  # standard deviation √(2 / fan-in)
            elif isinstance(layer, nn.ConvTranspose2d):  # stride 2: an output sees one of the kernel's four places
                nn.init.normal_(layer.weight, std=(2 / layer.in_channels) ** 0.5)

    def forward(self, images: Tensor) -> Tensor:
        (height, width), step = images.shape[2:], self.coarsest
        *kept, features = self.encoder(F.pad(images, (0, -width % step, 0, -height % step)))  # sides that can be halved
        for upsampling, block in zip(self.upsamplings, self.decoder, strict=True):
            features = upsampling(features)  # twice the height and width
            if self.skips:
                features = torch.cat([kept.pop(), features], dim=1)
            features = block(features)
        logits = self.head(features)
        if self.finest > 1:
            logits = F.interpolate(logits, scale_factor=float(self.finest), mode="bilinear")
        return logits[:, :, :height, :width]


def build(options: UNetOptions, data: Masks) -> UNet:
    """The network for classes like these."""
    backbone = None
    if options.backbone is not None:
        weights = options.weights if isinstance(data, Masks) else None  # a trained network brings its own
        backbone = open_backbone(options.backbone, weights, strides=(2, 4, 8, 16, 32))
    sizes = {"width": options.width, "depth": options.depth}
    return UNet(3, len(data.classes), skips=options.skips, backbone=backbone, **sizes)


def train(model: UNet, train_set: Masks, test_set: Masks, options: UNetOptions) -> Loop:
    """Minimizes cross-entropy plus Dice loss with AdamW, from a head that answers with the classes' frequencies."""
    counts = torch.bincount(train_set.masks[train_set.masks != VOID], minlength=len(train_set.classes)).clamp(min=1)
    model.head.bias = nn.Parameter((counts / counts.sum()).log().to(options.device))
    loop = Loop(
        model,
        torch.optim.AdamW(parameter_groups(model, options.lr)),
        batches(train_set, options),
        options,
        evaluate=lambda: evaluate(model, test_set, options.device),
    )
    for images, masks in loop:
        if options.augment or options.backbone is not None:
            images, masks = augment(images, masks)
        if options.elastic:
            images, masks = deform(images, masks, options.elastic)
        logits = loop.model(images)  # (batch, classes, height, width)
        entropy = F.cross_entropy(logits, masks, ignore_index=VOID, reduction="none" if options.borders else "mean")
        if options.borders:
            entropy = (border_weights(masks) * entropy).mean()
        loop.step(entropy + dice_loss(logits, masks))
    return loop


@recipe(UNetOptions)
def run(options: UNetOptions) -> Result:
    """Trains a U-Net and measures it on held-out pictures."""
    photo_defaults(options)
    train_set, test_set = open_masks(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=trees_on_pixels(train_set, test_set),
        baseline_name="randomized trees on the colors around a pixel",
        others={"commonest class": commonest_class(train_set, test_set)},
        bars={"mean_iou": 0.8},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, plain = run(), run(skips=False)
    yield Claim("without the skips it does worse", plain["mean_iou"], "<", full["mean_iou"], margin=0.03)
    lost, lost_at_borders = full["mean_iou"] - plain["mean_iou"], at_borders(full) - at_borders(plain)
    yield Claim("and loses more within 2 pixels of the borders", lost_at_borders, ">", lost, margin=0.01)


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
