"""EfficientNet: deeper, wider and more pixels, all at once.

A network with arithmetic to spare can get more layers, more channels or larger pictures. On ImageNet each alone soon
stops paying, and compound scaling goes further: for each doubling of the arithmetic, 1.2 times the depth, 1.1 times
the width and 1.15 times the resolution. Here, with about four times a small network's multiply-accumulates, more
layers alone end clearly behind all three together. More channels alone, or more pixels, are too close to it to call,
and so is the small network itself: enlarged digits hold no more detail than before. Larger pictures of your own are
the fairer test.

The blocks are MobileNet's inverted residuals with squeeze-and-excitation: the mean of each channel over the picture
decides, through two small layers, how much of every channel passes.

Notes: 81
Paper: Tan, Le (2019), "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
    https://arxiv.org/abs/1905.11946
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, Loop, Options, Result, batches, main, option, recipe
from recipes.core.measure import macs, parameter_count
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate, result_of
from recipes.vision.classification.using import Classification


@dataclass(kw_only=True)
class EfficientNetOptions(Options):
    model: Literal["small", "efficientnet_b0"] = option("small", "what is scaled: small for sides of 6 to 64 pixels")
    depth: float = option(1.2**2, "factor on the number of blocks in each stage, rounded up", above=0)
    width: float = option(1.1**2, "factor on all channels", above=0)
    resolution: float = option(1.15**2, "factor on the sides of the pictures", above=0)
    image_size: int | None = option(None, "side of the pictures before scaling, in pixels", least=1)
    epochs: int = 8
    batch_size: int = 64
    lr: float = 1e-2


# The paper's table 1: expansion, kernel, stride of the first block, channels, blocks; and a small network.
SETTINGS = [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3)]
SETTINGS += [(6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)]
SMALL_SETTINGS = [(1, 3, 1, 8, 1), (4, 3, 2, 12, 2), (4, 3, 2, 20, 2)]


def convolution(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with batch norm and SiLU, x * sigmoid(x)."""
    layer = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.SiLU())


class SqueezeExcitation(nn.Module):
    """Squeeze: a mean for each channel. Excitation: from these, a factor between 0 and 1 on each channel."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)  # on maps of 1×1 pixel these are linear layers
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, height, width)
        means = x.mean(dim=(2, 3), keepdim=True)  # (batch, channels, 1, 1)
        return x * self.fc2(F.silu(self.fc1(means))).sigmoid()


class MBConv(nn.Module):
    """Widen by 1×1, look at neighbors depthwise, weigh channels, narrow by 1×1; add the input where shapes agree.

    There are `expansion` channels in between for each going in. In training, a picture skips the block with the
    probability `dropped` (stochastic depth).
    """

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int, dropped: float) -> None:
        super().__init__()
        wide = channels * expansion
        self.block = nn.Sequential(
            *([convolution(channels, wide, 1)] if expansion > 1 else []),
            convolution(wide, wide, kernel, stride, groups=wide),
            SqueezeExcitation(wide, max(1, channels // 4)),
            convolution(wide, out, 1)[:2],  # no activation
        )
        self.residual, self.dropped = stride == 1 and channels == out, dropped

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, height, width)
        f = self.block(x)  # (batch, out, height / stride, width / stride)
        if not self.residual:
            return f
        if self.training and self.dropped > 0:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.dropped
            f = f * kept / (1 - self.dropped)  # what is kept counts more: the mean stays
        return x + f


def divisible(channels: float, by: int = 8) -> int:
    """The nearest multiple, at least `by`, and no more than a tenth below: what the paper's own code does."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


class EfficientNet(nn.Module):
    """A convolution, stages of MBConv, a 1×1, the mean over the picture, and one linear layer.

    By default it is B0, with torchvision's names. `width` and `depth` are factors on channels and on blocks.
    """

    def __init__(
        self,
        settings: list[tuple[int, int, int, int, int]] = SETTINGS,
        *,
        channels: int = 3,
        num_classes: int = 1000,
        width: float = 1.0,
        depth: float = 1.0,
        stem: int = 32,  # channels of the first convolution
        by: int = 8,  # numbers of channels are multiples of this
        dropout: float = 0.2,
        stochastic_depth: float = 0.2,  # of the last block; it rises from 0 at the first
        small_pictures: bool = False,  # start without halving the picture
    ) -> None:
        super().__init__()
        reached = divisible(stem * width, by)
        layers = [convolution(channels, reached, 3, stride=1 if small_pictures else 2)]
        total, number = sum(math.ceil(blocks * depth) for *_, blocks in settings), 0
        for expansion, kernel, stride, out, blocks in settings:
            stage = []
            for block in range(math.ceil(blocks * depth)):
                first, dropped = (stride if block == 0 else 1), stochastic_depth * number / total
                stage.append(MBConv(reached, divisible(out * width, by), kernel, first, expansion, dropped))
                reached, number = divisible(out * width, by), number + 1
            layers.append(nn.Sequential(*stage))
        layers.append(convolution(reached, 4 * reached, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * reached, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:  # (batch, channels, height, width)
        features = self.features(images)  # (batch, 4 * the last stage's channels, height / 32, width / 32)
        return self.classifier(features.mean(dim=(2, 3)))  # (batch, num_classes)


def build(options: EfficientNetOptions, data: Images | ImageFiles) -> EfficientNet:
    """The network, scaled in depth and width, for channels and classes like these."""
    make = partial(EfficientNet, depth=options.depth, width=options.width)
    if options.model == "small":
        make = partial(make, SMALL_SETTINGS, stem=8, by=2, dropout=0.1, stochastic_depth=0.1, small_pictures=True)
    return make(channels=data.shape[0], num_classes=len(data.classes))


def train(
    model: nn.Module, train_set: Images | ImageFiles, test_set: Images | ImageFiles, options: EfficientNetOptions
) -> Loop:
    """Minimizes the cross-entropy with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05)
    measure = partial(evaluate, model, test_set, options.device)
    loop = Loop(model, optimizer, batches(train_set, options), options, evaluate=measure)
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(images), labels))
    return loop


@recipe(EfficientNetOptions)
def run(options: EfficientNetOptions) -> Result:
    """Trains a scaled network and measures it on held-out pictures."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    side = round(options.resolution * (options.image_size or min(train_set.shape[1:])))
    train_set, test_set = open_images(options.data, image_size=side, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return result_of(model, loop, train_set, test_set, bar=0.96)


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    one = {"depth": 1.0, "width": 1.0, "resolution": 1.0}
    runs = {"all together": run(), "base": run(**one)}
    alone = {"deeper": {"depth": 4.25}, "wider": {"width": 2.15}, "more pixels": {"resolution": 2.0}}
    runs |= {name: run(**one | changed) for name, changed in alone.items()}
    run().rows = []
    for name, result in runs.items():
        image = result.test_set.__getitems__([0])[0].to(next(result.model.parameters()).device)
        cost = {"parameters": parameter_count(result.model), "macs": macs(result.model, image)}
        run().rows.append({"network": name, "side": image.shape[2]} | cost | result.metrics)
    costs = [row["macs"] / run().rows[1]["macs"] for row in run().rows if row["network"] != "base"]
    if run().options["data"] is None:
        text = "the four larger networks cost the same arithmetic: the dearest over the cheapest"
        yield Claim(text, max(costs) / min(costs), "<", 1.15, kind="fact")
    others = [run().options["seed"] + more for more in (1, 2)]
    compared = {"all together": {}, "deeper": one | alone["deeper"]}
    together, deeper = (
        mean([runs[name]["loss"], *(run(**how, seed=seed)["loss"] for seed in others)])
        for name, how in compared.items()
    )
    text = "scaled in all three, held-out loss is lower than with more layers alone, means of three networks"
    chance = math.log(len(run().train_set.classes))
    yield Claim(text, together, "<", min(deeper, 0.5 * chance), margin=0.01)


@run.figure
def figure(result: Result) -> Any:
    """Held-out loss over the epochs of each network, and at the end over its arithmetic."""
    drawn, axes = new_figure(1, 2, width=4.6)
    for row, one in zip(result.rows, [result, *result.runs.values()], strict=False):
        axes[0, 0].plot([step["epoch"] for step in one.history], [step["loss"] for step in one.history])
        axes[0, 1].scatter(row["macs"] / 1e6, row["loss"], label=row["network"])
    axes[0, 0].set(title="held-out loss", xlabel="epoch", yscale="log")
    axes[0, 1].set(title="at the end", xlabel="million multiply-accumulates", xlim=(0, None), ylim=(0, None))
    axes[0, 1].legend(frameon=False, fontsize=8, loc="lower left")
    return drawn


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
