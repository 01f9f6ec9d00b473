"""Semantic segmentation with DeepLab: dilated convolutions, a pyramid of them, and a dense CRF.

To know what a pixel belongs to, a network must see far around it. Pooling sees far but throws places away.
A dilated convolution leaves gaps between the pixels it looks at, and so sees far at full resolution with as
few weights as ever. ASPP ("atrous spatial pyramid pooling") looks at the same features with several
dilations at once, and with the mean over the picture, and lets a 1×1 convolution choose.

The conditional random field (CRF) then reads the picture itself once more. Neighbouring pixels pull each
other towards the same class, the more strongly the more alike their colours are, so that borders move to
where the colours change. The paper joins every pixel with every other; here, those within a window.

Notes: 87
Paper: Chen, Papandreou, Schroff and Adam (2017), "Rethinking Atrous Convolution for Semantic Image
    Segmentation", https://arxiv.org/abs/1706.05587; Krähenbühl and Koltun (2011), "Efficient Inference in
    Fully Connected CRFs with Gaussian Edge Potentials", https://arxiv.org/abs/1210.5644
Data: handwritten digits of four kinds on cluttered backgrounds, 64×64 pixels; yours as COCO, Pascal VOC,
    or PNG masks beside pictures.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.measure import parameter_count
from recipes.core.old import Engine, OldLoop, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.scenes import open_masks
from recipes.vision.segmentation.scoring import commonest_class, draw, near_borders, predict_masks, scores
from recipes.vision.segmentation.task import train


def convolution(channels: int, width: int, size: int, dilation: int = 1) -> nn.Sequential:
    """A convolution that keeps height and width, batch norm and ReLU; `dilation` is the distance of its pixels."""
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(channels, width, size, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


class GlobalMean(nn.Sequential):
    """The mean over the picture, through a 1×1 convolution, at every place."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *convolution(channels, width, 1))

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).expand(-1, -1, *features.shape[2:])


class ASPP(nn.Module):
    """Features (N, channels, h, w) seen at several distances at once, (N, width, h, w).

    The layers and their names are torchvision's, so that its weights load; so are those of `DeepLabHead`.

    Args:
        channels: of the features.
        width: channels of each branch, and going out.
        dilations: one 3×3 branch each, beside a 1×1 branch and the mean over the picture.
    """

    def __init__(self, channels: int, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        branches: list[nn.Module] = [convolution(channels, width, 1)]
        branches += [convolution(channels, width, 3, dilation) for dilation in dilations]
        self.convs = nn.ModuleList([*branches, GlobalMean(channels, width)])
        self.project = nn.Sequential(*convolution(len(self.convs) * width, width, 1), nn.Dropout(0.1))

    def forward(self, features: Tensor) -> Tensor:
        return self.project(torch.cat([branch(features) for branch in self.convs], dim=1))


class DeepLabHead(nn.Sequential):
    """Features (N, channels, h, w) to scores (N, num_classes, h, w), by ASPP and a 3×3 convolution."""

    def __init__(self, channels: int, num_classes: int, width: int, dilations: Sequence[int]) -> None:
        super().__init__(
            ASPP(channels, width, dilations), *convolution(width, width, 3), nn.Conv2d(width, num_classes, 1)
        )


class DeepLab(nn.Module):
    """Pictures (N, channels, H, W) of any size from 2×2 to logits (N, num_classes, H, W).

    Args:
        channels: of the pictures.
        num_classes: of the pixels.
        width: channels of every layer; all layers work at half the picture's size.
        dilations: of the 3×3 convolutions before ASPP, one each.
        pyramid: of ASPP's 3×3 convolutions.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        width: int = 16,
        dilations: Sequence[int] = (1, 2, 4),
        pyramid: Sequence[int] = (2, 4, 8),
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.layers = nn.ModuleList(convolution(width, width, 3, dilation) for dilation in dilations)
        self.head = DeepLabHead(width, num_classes, width, pyramid)

    def features(self, images: Tensor) -> Tensor:
        features = self.stem(images)  # (batch, width, height / 2, width / 2)
        for layer in self.layers:
            features = features + layer(features)
        return features

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.features(images))  # (batch, num_classes, height / 2, width / 2)
        return F.interpolate(logits, size=images.shape[2:], mode="bilinear")


def receptive_field(model: DeepLab, device: torch.device) -> int:
    """Height in pixels of what one place of ASPP's widest branch sees: where its gradient is not zero."""
    model.eval()
    images = torch.rand(1, 3, 160, 160, device=device, requires_grad=True)
    head = model.head[0].modules()
    widest = [layer for layer in head if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)][-1]
    seen = widest(model.features(images))[0, :, 40, 40].sum()
    (gradient,) = torch.autograd.grad(seen, images)
    rows = gradient.abs().sum(dim=(0, 1, 3)).nonzero()
    return int(rows.max() - rows.min() + 1)


def dense_crf(
    logits: Tensor,
    images: Tensor,
    *,
    steps: int = 3,
    radius: int = 3,
    bilateral: float = 2.0,
    smoothness: float = 0.2,
    near: float = 2.0,
    alike: float = 0.2,
    close: float = 1.0,
) -> Tensor:
    """Mean-field inference: the probability of each class at each pixel, (N, classes, H, W).

    Each pixel i asks its neighbours j for their probabilities q, weighted by how near and how alike they are:

        k(i, j) = bilateral · exp(-|pᵢ - pⱼ|² / 2 near² - |cᵢ - cⱼ|² / 2 alike²)
                  + smoothness · exp(-|pᵢ - pⱼ|² / 2 close²)
        qᵢ = softmax(logitsᵢ + Σⱼ k(i, j) qⱼ), and so on for some steps

    Args:
        logits: (N, classes, H, W), of the network.
        images: (N, 3, H, W) in 0 to 1.
        steps: how often all pixels are updated, at the same time.
        radius: of the square window of neighbours, in pixels.
        bilateral: strength of what depends on place p and colour c.
        smoothness: strength of what depends on place alone.
        near: deviation of places in the first term, in pixels.
        alike: deviation of colours, whose channels go from 0 to 1.
        close: deviation of places in the second term, in pixels.
    """
    side, (height, width) = 2 * radius + 1, logits.shape[2:]

    def around(maps: Tensor) -> Tensor:  # (N, C, H, W) to (N, C, side², H, W), zeros outside the picture
        return F.unfold(maps, side, padding=radius).view(len(maps), -1, side * side, height, width)

    line = torch.arange(-radius, radius + 1, device=logits.device)
    distance = torch.cartesian_prod(line, line).square().sum(dim=1).view(-1, 1, 1)  # (side², 1, 1)
    difference = (around(images) - images.unsqueeze(2)).square().sum(dim=1)  # (N, side², H, W)
    kernel = bilateral * torch.exp(-distance / (2 * near**2) - difference / (2 * alike**2))
    kernel = kernel + smoothness * torch.exp(-distance / (2 * close**2))
    kernel = kernel * (distance > 0)  # a pixel is not its own neighbour
    q = logits.softmax(dim=1)
    for _ in range(steps):
        message = torch.einsum("nckhw,nkhw->nchw", around(q), kernel)  # outside the picture q is zero
        q = (logits + message).softmax(dim=1)
    return q


class WithCRF(nn.Module):
    """A network and the dense CRF after it: pictures (N, 3, H, W) to probabilities (N, classes, H, W)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.training = model, model.training

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        few = max(1, 2**15 // images[0, 0].numel())  # pictures at once: every pixel takes a window of numbers
        pairs = zip(logits.split(few), images.split(few), strict=True)
        return torch.cat([dense_crf(*pair) for pair in pairs])


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    width: int = 16,
    compare: bool = True,
    epochs: int = 5,
    batch_size: int = 8,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a DeepLab, puts a dense CRF after it, and trains the same network without dilation.

    Args:
        data: folder of your pictures and masks; the bundled scenes if not given.
        image_size: side in pixels that your pictures are brought to; their own or 128 if not given.
        width: channels of every layer.
        compare: also train without dilation.
        epochs: passes over the training pictures.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights and of the order of the pictures.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    train_set, test_set = open_masks(data, image_size=image_size, seed=seed)
    classes = len(train_set.classes)
    borders = replace(test_set, masks=near_borders(test_set.masks))
    fast: Engine = {"precision": "auto", "channels_last": True}
    options: Engine = {**fast, **engine}
    rows: list[dict[str, Any]] = []

    def measure(title: str, model: nn.Module) -> dict[str, float]:
        predicted = predict_masks(model, test_set, place)
        metrics = scores(predicted, test_set.masks, classes)
        metrics["mean_iou_at_borders"] = scores(predicted, borders.masks, classes)["mean_iou"]
        rows.append({"measured": title, "parameters": parameter_count(model), **metrics})
        return metrics

    def fit(title: str, network: DeepLab) -> OldLoop:
        loop = train(
            network,
            train_set,
            test_set,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            device=place,
            seed=seed,
            name=title.replace(" ", "_"),
            **options,
        )
        measure(title, network)
        return loop

    network = DeepLab(3, classes, width=width).to(place)
    loop = fit("dilated", network)
    history, alone = loop.history, rows[0]
    metrics = measure("dilated, then CRF", WithCRF(network))
    baseline = commonest_class(train_set, test_set)
    baseline["mean_iou_at_borders"] = commonest_class(train_set, borders)["mean_iou"]
    gain, gain_at_borders = (metrics[name] - alone[name] for name in ("mean_iou", "mean_iou_at_borders"))
    claims = [
        claim("the CRF raises mean IoU within 2 pixels of the borders", gain_at_borders, ">", 0),
        claim("and by more than it does everywhere", gain_at_borders, ">", gain),
    ]
    if compare:
        torch.manual_seed(seed)  # the same first weights
        plain = DeepLab(3, classes, width=width, dilations=(1, 1, 1), pyramid=(1, 1, 1)).to(place)
        plain_loop = fit("not dilated", plain)
        seen, seen_plain = receptive_field(network, place), receptive_field(plain, place)
        claims += [
            claim("with as many parameters, dilation lets a pixel see wider, in pixels", seen, ">", seen_plain),
            claim("which raises mean IoU, before the CRF", alone["mean_iou"], ">", rows[-1]["mean_iou"]),
        ]
        for row, other in zip(history, plain_loop.history, strict=True):
            row["mean_iou_not_dilated"] = other["mean_iou"]
    return Result(
        metrics=metrics,
        baseline=baseline,
        baseline_name="commonest class",
        bars={"mean_iou": 0.7},
        claims=claims,
        history=history,
        rows=rows,
        model=network,
        draw=lambda: draw(WithCRF(network), test_set, place, history),
    )


if __name__ == "__main__":
    main(run)
