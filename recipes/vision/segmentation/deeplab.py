"""Semantic segmentation with DeepLab: dilated convolutions, a pyramid of them, and a local CRF.

A network must see far around a pixel to know what it belongs to. A dilated convolution skips pixels between those it
looks at, and so sees far at full resolution with no more weights. ASPP ("atrous spatial pyramid pooling") looks with
several dilations at once, and at the mean over the picture, and a 1×1 convolution chooses among them.

A conditional random field (CRF) then looks at the picture once more. Neighboring pixels pull each other towards the
same class, the more strongly the more alike their colors are, so borders move to where colors change. The papers join
every pixel with every other; this is a local CRF, of the neighbors within a window. A window as wide as the picture
makes it theirs. How hard neighbors pull is chosen on a fifth of the train part. The CRF is of the first two papers
(v1, v2); the third (v3), which has the pyramid as it is here, dropped it.

Notes: 87
Paper: Chen et al. (2015) (v1, with the CRF), https://arxiv.org/abs/1412.7062; Chen et al. (2018), "DeepLab" (v2, with
    the pyramid), https://arxiv.org/abs/1606.00915; Chen et al. (2017) (v3), https://arxiv.org/abs/1706.05587;
    Krähenbühl and Koltun (2011), on the CRF, https://arxiv.org/abs/1210.5644
Data: handwritten digits of four kinds on cluttered backgrounds, 64×64 pixels; yours as COCO, Pascal VOC,
    or PNG masks beside pictures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, Loop, Options, Precision, Result, batches, hold_out, main, option, recipe
from recipes.datasets.scenes import VOID, Masks, open_masks
from recipes.vision.backbones import open_backbone, parameter_groups
from recipes.vision.segmentation.photos import SummedMaps, augment, photo_defaults
from recipes.vision.segmentation.scoring import commonest_class, draw, evaluate, near_borders, trees_on_pixels
from recipes.vision.segmentation.task import dice_loss
from recipes.vision.segmentation.torchvision_segmenters import torchvision_segmenter
from recipes.vision.segmentation.using import Segmentation

NEAR, ALIKE, CLOSE = 2.0, 0.2, 1.0  # standard deviations of positions in pixels, of colors, and of positions again
STRENGTHS = [(0.0, 0.0), (0.5, 0.05), (1.0, 0.1), (2.0, 0.2), (4.0, 0.4)]  # of the CRF; none is among them


@dataclass(kw_only=True)
class DeepLabOptions(Options):
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    width: int = option(16, "channels of every layer", least=1)
    dilated: bool = option(True, "skip pixels in the convolutions before the pyramid")
    pyramid: bool = option(True, "skip pixels in ASPP, each branch more than the one before; else none does")
    backbone: str | None = option(None, "timm:NAME or torchvision:NAME as the encoder, for photographs")
    weights: str | None = option(None, "of the backbone: pretrained, a file, or torchvision's name")
    model: str | None = option(
        None, "torchvision:NAME, a segmenter in this one's place, whose `weights` are given", copied=False
    )
    batch_size: int = 8
    precision: Precision = "auto"
    channels_last: bool = True
    clip: float | None = 1.0


def convolution(channels: int, width: int, size: int, dilation: int = 1) -> nn.Sequential:
    """A convolution that keeps height and width, batch norm and ReLU; `dilation` is the distance of its pixels."""
    layer = nn.Conv2d(channels, width, size, padding=dilation * (size // 2), dilation=dilation, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(width), nn.ReLU())


class ASPP(nn.Module):
    """Features (N, channels, h, w) seen at several distances at once, (N, width, h, w); torchvision's weights load."""

    def __init__(self, channels: int, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        branches = [convolution(channels, width, 3, dilation) for dilation in dilations]
        mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), *convolution(channels, width, 1))
        self.convs = nn.ModuleList([convolution(channels, width, 1), *branches, mean])
        self.project = nn.Sequential(*convolution(len(self.convs) * width, width, 1), nn.Dropout(0.1))

    def forward(self, features: Tensor) -> Tensor:
        *seen, mean = (branch(features) for branch in self.convs)
        return self.project(torch.cat([*seen, mean.expand_as(seen[0])], dim=1))


class DilatedEncoder(nn.Module):
    """Pictures (N, channels, H, W) to features (N, width, H / 2, W / 2), a 3×3 convolution for each dilation."""

    def __init__(self, channels: int, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        halving = nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False)
        self.stem = nn.Sequential(halving, nn.BatchNorm2d(width), nn.ReLU())
        self.layers = nn.ModuleList(convolution(width, width, 3, dilation) for dilation in dilations)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        for layer in self.layers:
            features = features + layer(features)
        return features


class DeepLab(nn.Module):
    """Pictures (N, 3, H, W) to logits (N, num_classes, H, W), from an encoder's features (N, channels, h, w)."""

    def __init__(self, encoder: nn.Module, channels: int, num_classes: int, pyramid: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.aspp = ASPP(channels, channels, pyramid)
        self.last = convolution(channels, channels, 3)
        self.head = nn.Conv2d(channels, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.last(self.aspp(self.encoder(images))))  # (batch, num_classes, h, w)
        return F.interpolate(logits, size=images.shape[2:], mode="bilinear")


def local_crf(
    logits: Tensor, images: Tensor, bilateral: Any, smoothness: Any, *, steps: int = 3, radius: int = 3
) -> Tensor:
    """Mean-field inference: the log-probability of each class at each pixel, (N, classes, H, W).

    Each pixel i asks the pixels j within `radius` for their q, weighted by how near and how alike in color they are:

        k(i, j) = bilateral · exp(-|pᵢ - pⱼ|² / 2 NEAR² - |cᵢ - cⱼ|² / 2 ALIKE²)
                  + smoothness · exp(-|pᵢ - pⱼ|² / 2 CLOSE²)
        qᵢ = softmax(logitsᵢ + Σⱼ k(i, j) qⱼ), for a number of steps
    """
    side, height = 2 * radius + 1, logits.shape[2]
    columns = torch.arange(-radius, radius + 1, dtype=logits.dtype, device=logits.device)

    def rows(maps: Tensor) -> list[Tensor]:  # for each row of the window (N, C, H, W, columns), zeros outside
        padded = F.pad(maps, [radius] * 4)
        return [padded[:, :, row : row + height].unfold(3, side, 1) for row in range(side)]

    kernels = []
    for row, neighbors in enumerate(rows(images)):
        distance = (row - radius) ** 2 + columns.square()
        difference = (images.unsqueeze(4) - neighbors).square().sum(dim=1, keepdim=True)  # (N, 1, H, W, columns)
        kernel = bilateral * torch.exp(-distance / (2 * NEAR**2) - difference / (2 * ALIKE**2))
        kernel = kernel + smoothness * torch.exp(-distance / (2 * CLOSE**2))
        kernels.append(kernel * (distance > 0))  # a pixel is not its own neighbor
    q = logits.log_softmax(dim=1)
    for _ in range(steps):
        energy = logits
        for kernel, neighbors in zip(kernels, rows(q.exp()), strict=True):
            energy = energy + (kernel * neighbors).sum(dim=4)  # (N, classes, H, W)
        q = energy.log_softmax(dim=1)
    return q


class WithCRF(nn.Module):
    """A network and the CRF after it: pictures (N, 3, H, W) to log-probabilities (N, num_classes, H, W)."""

    def __init__(self, network: DeepLab) -> None:
        super().__init__()
        self.network, self.strength = network, nn.Buffer(torch.zeros(2))

    def forward(self, images: Tensor) -> Tensor:
        return local_crf(self.network(images), images, self.strength[0], self.strength[1])


def build(options: DeepLabOptions, data: Masks) -> WithCRF:
    """The network for classes like these, and a CRF that does nothing yet."""
    width, gaps = options.width, (1, 2, 4) if options.dilated else (1, 1, 1)
    encoder: nn.Module = DilatedEncoder(3, width, gaps)
    if options.backbone is not None:
        weights = options.weights if isinstance(data, Masks) else None  # a trained network brings its own
        width = 3 * width
        encoder = SummedMaps(open_backbone(options.backbone, weights), width)
    return WithCRF(DeepLab(encoder, width, len(data.classes), (2, 4, 8) if options.pyramid else (1, 1, 1)))


def train(model: DeepLab, train_set: Masks, test_set: Masks, options: DeepLabOptions) -> Loop:
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
        if options.backbone is not None:
            images, masks = augment(images, masks)
        logits = loop.model(images)  # (batch, classes, height, width)
        loop.step(F.cross_entropy(logits, masks, ignore_index=VOID) + dice_loss(logits, masks))
    return loop


@torch.no_grad()
def tune(model: WithCRF, held_out: Masks, options: DeepLabOptions) -> None:
    """Gives the CRF the strength that serves held-out pictures best."""

    def score(strength: tuple[float, float]) -> float:
        model.strength.copy_(torch.tensor(strength))
        return evaluate(model, held_out, options.device)["mean_iou"]

    score(max(STRENGTHS, key=score))


@recipe(DeepLabOptions)
def run(options: DeepLabOptions) -> Result:
    """Trains a DeepLab, tunes a CRF after it, and measures both on held-out pictures."""
    photo_defaults(options)
    train_set, test_set = open_masks(options.data, image_size=options.image_size, seed=options.seed)
    fit, held_out = hold_out(train_set, 0.2, options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model.network, fit, test_set, options)
    tune(model, held_out, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=trees_on_pixels(train_set, test_set),
        baseline_name="randomized trees on the colors around a pixel",
        others={"commonest class": commonest_class(train_set, test_set)},
        bars={"mean_iou": 0.78},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, plain, aspp = run(), run(dilated=False, pyramid=False), run(dilated=False)
    text = "with as many parameters, the gaps of dilation let the network see wider, in pixels"
    yield Claim(text, receptive_field(full), ">", receptive_field(plain), kind="fact")
    alone = [evaluate(one.model.network, one.test_set, device_of(one))["mean_iou"] for one in (full, plain, aspp)]
    yield Claim("without gaps anywhere, mean IoU before the CRF is lower", alone[1], "<", alone[0], margin=0.015)
    yield Claim("gaps in ASPP alone are enough to raise it", alone[2], ">", alone[1], margin=0.015)
    gain, gain_at_borders = full["mean_iou"] - alone[0], at_borders(full, full.model)
    gain_at_borders -= at_borders(full, full.model.network)
    yield Claim("the CRF raises mean IoU within 2 pixels of the borders", gain_at_borders, ">", 0, margin=0.02)
    yield Claim("and by more than it does everywhere", gain_at_borders, ">", gain, margin=0.003)


def device_of(result: Result) -> torch.device:
    return next(result.model.parameters()).device


def at_borders(result: Result, model: nn.Module) -> float:
    """Mean IoU over the pixels near a border between classes."""
    borders = replace(result.test_set, masks=near_borders(result.test_set.masks))
    return evaluate(model, borders, device_of(result))["mean_iou"]


def receptive_field(result: Result) -> int:
    """Height in pixels of what ASPP's widest branch sees at one position: where its gradient is not zero."""
    network = result.model.network.eval()
    images = torch.rand(1, 3, 160, 160, device=device_of(result), requires_grad=True)
    seen = network.aspp.convs[-2][0](network.encoder(images))[0, :, 40, 40].sum()
    (gradient,) = torch.autograd.grad(seen, images)
    rows = gradient.abs().sum(dim=(0, 1, 3)).nonzero()
    return int(rows.max() - rows.min() + 1)


@run.figure
def figure(result: Result) -> Any:
    return draw(result.model, result.test_set, device_of(result), result.history)


run.predicts(Segmentation, build, torchvision_segmenter)


if __name__ == "__main__":
    main(run)
