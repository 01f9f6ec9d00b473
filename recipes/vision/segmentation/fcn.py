"""Semantic segmentation with a fully convolutional network, and sums over skips.

A classifier ends in fully connected layers, which expect one size of picture. Such a layer is a convolution whose
kernel is as large as its input: with the same weights it gives the same scores, and slides over larger pictures. So
the network takes pictures of any size, and gives a coarse map of scores for each class. The deepest map knows what is
there and is too coarse to say where exactly. So the shallower, finer maps are scored too: each sum upsamples the
coarser scores and adds the finer ones. The upsampling is learned, by a transposed convolution ("deconvolution") that
starts as bilinear interpolation; the last one, to the picture's size, stays that.

In the paper the maps are 32, 16 and 8 times smaller than the picture; here, for pictures of 64 pixels, 8, 4 and 2
times. The paper starts from a trained VGG-16, this network from nothing; for photographs, --backbone scores
the maps of a trained classifier.

Notes: 87
Paper: Long, Shelhamer and Darrell (2015), "Fully Convolutional Networks for Semantic Segmentation",
    https://arxiv.org/abs/1411.4038
Data: handwritten digits of four kinds on cluttered backgrounds, 64×64 pixels; yours as COCO, Pascal VOC,
    or PNG masks beside pictures.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, Loop, Options, Precision, Result, batches, main, option, recipe
from recipes.datasets.scenes import VOID, Masks, open_masks
from recipes.vision.segmentation.photos import augment
from recipes.vision.segmentation.scored_maps import on_a_backbone
from recipes.vision.segmentation.scoring import commonest_class, draw, evaluate, trees_on_pixels
from recipes.vision.segmentation.task import dice_loss
from recipes.vision.segmentation.using import Segmentation


@dataclass(kw_only=True)
class FCNOptions(Options):
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    width: int = option(16, "channels at half the picture's size; every halving doubles them", least=1)
    skips: int = option(2, "how many finer maps of scores are added to the coarsest", least=0, most=2)
    augment: bool = option(False, "mirror, crop and recolor the training pictures at random")
    model: str | None = option(
        None, "torchvision:NAME, a segmenter in this one's place, whose `weights` are given", copied=False
    )
    backbone: str | None = option(
        None, "timm:NAME or torchvision:NAME, whose maps are scored in place of these layers', for photos", copied=False
    )
    weights: str | None = option(
        None, "of the backbone or the model: pretrained, a file, or torchvision's name", copied=False
    )
    batch_size: int = 8
    precision: Precision = "auto"
    channels_last: bool = True
    clip: float | None = 1.0


def convolution(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def as_convolution(layer: nn.Linear, side: int) -> nn.Conv2d:
    """The fully connected layer of features (channels, side, side), to be slid over larger ones."""
    channels = layer.in_features // side**2
    slid = nn.Conv2d(channels, layer.out_features, side, padding=side // 2)
    slid.weight = nn.Parameter(layer.weight.detach().view(-1, channels, side, side).clone())
    slid.bias = nn.Parameter(layer.bias.detach().clone())
    return slid


def bilinear_upsampling(channels: int) -> nn.ConvTranspose2d:
    """To twice the height and width, each channel for itself, at first by bilinear interpolation."""
    layer = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False)
    weights = torch.tensor([0.25, 0.75, 0.75, 0.25])  # of the four pixels that a pixel goes to
    kernel = weights.outer(weights) * torch.eye(channels).view(channels, channels, 1, 1)
    layer.weight = nn.Parameter(kernel)
    return layer


class FCN(nn.Module):
    """Pictures (N, channels, H, W) of any size from 2×2 to logits (N, num_classes, H, W)."""

    def __init__(self, channels: int, num_classes: int, *, width: int = 16, skips: int = 2) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stages = nn.ModuleList([nn.Sequential(stem, convolution(width, width))])
        for wide in (width, 2 * width):
            pool = nn.MaxPool2d(2, ceil_mode=True)
            self.stages.append(nn.Sequential(pool, convolution(wide, 2 * wide), convolution(2 * wide, 2 * wide)))
        self.hidden = as_convolution(nn.Linear(9 * 4 * width, 4 * width), 3)  # the classifier of 3×3 positions
        self.coarsest = as_convolution(nn.Linear(4 * width, num_classes), 1)
        self.finer = nn.ModuleList(nn.Conv2d(wide, num_classes, 1) for wide in (2 * width, width)[:skips])
        self.upsamplings = nn.ModuleList(bilinear_upsampling(num_classes) for _ in range(skips))

    def forward(self, images: Tensor) -> Tensor:
        maps, features = [], images
        for stage in self.stages:
            features = stage(features)
            maps.append(features)  # (batch, width · 2^level, height / 2^(level + 1), width / 2^(level + 1))
        hidden = F.dropout(self.hidden(maps.pop()).relu(), 0.1, self.training)
        logits = self.coarsest(hidden)  # (batch, num_classes, height / 8, width / 8)
        for score, upsampling in zip(self.finer, self.upsamplings, strict=True):
            finer = score(maps.pop())  # (batch, num_classes, height / 4, width / 4), then / 2
            logits = finer + upsampling(logits)[:, :, : finer.shape[2], : finer.shape[3]]
        return F.interpolate(logits, size=images.shape[2:], mode="bilinear")


def build(options: FCNOptions, data: Masks) -> FCN:
    """The network for classes like these."""
    return FCN(3, len(data.classes), width=options.width, skips=options.skips)


def train(model: FCN, train_set: Masks, test_set: Masks, options: FCNOptions) -> Loop:
    """Minimizes cross-entropy plus Dice loss with AdamW, from a head that answers with the classes' frequencies."""
    counts = torch.bincount(train_set.masks[train_set.masks != VOID], minlength=len(train_set.classes)).clamp(min=1)
    model.coarsest.bias = nn.Parameter((counts / counts.sum()).log().to(options.device))
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


@recipe(FCNOptions)
def run(options: FCNOptions) -> Result:
    """Trains a fully convolutional network and measures it on held-out pictures."""
    train_set, test_set = open_masks(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=trees_on_pixels(train_set, test_set),
        baseline_name="randomized trees on the colors around a pixel",
        others={"commonest class": commonest_class(train_set, test_set)},
        bars={"mean_iou": 0.77},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, options = run(), run().options
    layer, features = nn.Linear(64 * 8 * 8, 5), torch.rand(1, 64, 8, 8)
    slid = as_convolution(layer, 8)(features)[:, :, 4, 4]  # where its kernel lies on all of the features
    text = "a fully connected layer and the convolution made of it give the same scores: the largest difference"
    yield Claim(text, (layer(features.flatten(1)) - slid).abs().max().item(), "<=", 1e-4, kind="fact")
    for fewer in range(options["skips"] - 1, -1, -1):
        less, more = run(skips=fewer), full if fewer + 1 == options["skips"] else run(skips=fewer + 1)
        text = f"skips: {fewer} do worse than {fewer + 1}"
        yield Claim(text, less["mean_iou"], "<", more["mean_iou"], margin=0.02)
    large = mosaics(full.test_set)
    if len(large):
        found = evaluate(full.model, large, next(full.model.parameters()).device)["mean_iou"]
        text = "on pictures larger than any in training, four joined to one, it does far better than the trees on one"
        yield Claim(text, found, ">", full.baseline["mean_iou"], margin=0.3)


def mosaics(dataset: Masks) -> Masks:
    """Every four pictures as one of twice the height and width; up to three at the end are left out."""

    def joined(pictures: Tensor) -> Tensor:  # (4 · n, …, height, width) to (n, …, 2 · height, 2 · width)
        quarters = pictures[: len(pictures) // 4 * 4].unflatten(0, (-1, 4)).unbind(dim=1)
        return torch.cat([torch.cat(quarters[:2], dim=-1), torch.cat(quarters[2:], dim=-1)], dim=-2)

    return Masks(joined(dataset.images), joined(dataset.masks), dataset.classes, dataset.files[3::4])


@run.figure
def figure(result: Result) -> Any:
    return draw(result.model, result.test_set, next(result.model.parameters()).device, result.history)


run.predicts(Segmentation, build, on_a_backbone)


if __name__ == "__main__":
    main(run)
