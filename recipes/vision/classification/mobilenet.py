"""MobileNet v2: a convolution taken apart into a depthwise and a pointwise one.

A 3×3 convolution looks at neighbors and mixes channels, both at once: 9 C C' weights for C channels in and C' out.
Taken apart, a depthwise 3×3 looks at neighbors within each channel, and a pointwise 1×1 mixes channels: 9 C + C C'
weights, about nine times fewer. Version 2 widens the channels before the depthwise one, narrows them after, and adds
the input where shapes agree. Time is saved less than arithmetic: a depthwise convolution does little with each number
that it fetches from memory. And a network half as wide with full convolutions, which costs about as much, reads the
bundled digits as well: what taking apart buys is width, which matters where there is more to tell apart.

Notes: 81
Paper: Sandler, Howard, Zhu, Zhmoginov, Chen (2018), "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    https://arxiv.org/abs/1801.04381; depthwise-separable: Howard et al. (2017), "MobileNets: Efficient
    Convolutional Neural Networks for Mobile Vision Applications", https://arxiv.org/abs/1704.04861
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, Loop, Options, Result, batches, main, option, recipe
from recipes.core.measure import interleaved, macs, parameter_count, ratio
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate, result_of, shifted
from recipes.vision.classification.using import Classification


@dataclass(kw_only=True)
class MobileNetOptions(Options):
    model: Literal["small", "mobilenet_v2"] = option("small", "small for sides of 8 to 64 pixels")
    width: float = option(0.5, "factor on all channels; 1 is the paper's network", above=0)
    separable: bool = option(True, "depthwise and pointwise convolutions; full 3×3 ones if not")
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = 12
    lr: float = 1e-2


# The paper's table 2: expansion, channels, blocks, stride of the first of them; and the same idea for small pictures.
SETTINGS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
SMALL_SETTINGS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2)]


def convolution(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with batch norm and ReLU6, which is min(max(x, 0), 6)."""
    layer = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Widen by 1×1, look at neighbors, narrow by 1×1 without an activation; add the input where shapes agree.

    If not `separable`, one full 3×3 looks and narrows. There are `expansion` channels in between for each going in.
    """

    def __init__(self, channels: int, out: int, *, stride: int, expansion: int, separable: bool = True) -> None:
        super().__init__()
        wide = channels * expansion
        layers: list[nn.Module] = [convolution(channels, wide, 1)] if expansion > 1 else []
        if separable:
            layers += [convolution(wide, wide, 3, stride, groups=wide), nn.Conv2d(wide, out, 1, bias=False)]
        else:
            layers.append(nn.Conv2d(wide, out, 3, stride, padding=1, bias=False))
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(out))
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, height, width)
        f = self.conv(x)  # (batch, out, height / stride, width / stride)
        return x + f if self.residual else f


def divisible(channels: float, by: int = 8) -> int:
    """The nearest multiple, at least `by`, and no more than a tenth below: what the paper's own code does."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


class MobileNetV2(nn.Module):
    """A convolution, stages of inverted residuals, a 1×1, the mean over the picture, and one linear layer.

    Its parts have torchvision's names; `settings` has a row for each stage.
    """

    def __init__(
        self,
        settings: list[tuple[int, int, int, int]] = SETTINGS,
        *,
        channels: int = 3,
        num_classes: int = 1000,
        width: float = 1.0,
        last: int = 1280,  # channels of the last convolution, which only a factor above 1 changes
        small_pictures: bool = False,  # start without halving the picture
        separable: bool = True,
    ) -> None:
        super().__init__()
        reached = divisible(32 * width)
        layers: list[nn.Module] = [convolution(channels, reached, 3, stride=1 if small_pictures else 2)]
        for expansion, out, blocks, stride in settings:
            for block in range(blocks):
                step, narrow = (stride if block == 0 else 1), divisible(out * width)
                layers += [InvertedResidual(reached, narrow, stride=step, expansion=expansion, separable=separable)]
                reached = narrow
        final = divisible(last * max(1.0, width))
        layers.append(convolution(reached, final, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(final, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:  # (batch, channels, height, width)
        features = self.features(images)  # (batch, last, height / 32, width / 32)
        return self.classifier(features.mean(dim=(2, 3)))  # (batch, num_classes)


def build(options: MobileNetOptions, data: Images | ImageFiles) -> MobileNetV2:
    """The network for channels and classes like these."""
    make = partial(MobileNetV2, width=options.width, separable=options.separable)
    if options.model == "small":
        make = partial(make, SMALL_SETTINGS, last=128, small_pictures=True)
    return make(channels=data.shape[0], num_classes=len(data.classes))


def train(
    model: MobileNetV2, train_set: Images | ImageFiles, test_set: Images | ImageFiles, options: MobileNetOptions
) -> Loop:
    """Minimizes the cross-entropy with AdamW, on pictures that are shifted at random."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05)
    measure = partial(evaluate, model, test_set, options.device)
    loop = Loop(model, optimizer, batches(train_set, options), options, evaluate=measure)
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(shifted(images)), labels))
    return loop


@recipe(MobileNetOptions)
def run(options: MobileNetOptions) -> Result:
    """Trains a MobileNet v2 and measures it on held-out pictures."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return result_of(model, loop, train_set, test_set, bar=0.96)


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    apart, full = run(), run(separable=False)
    narrow = run(separable=False, width=apart.options["width"] / 2)
    image = apart.test_set.__getitems__([0])[0].to(next(apart.model.parameters()).device)
    runs = {"depthwise-separable": apart, "full": full, "full, half as wide": narrow}
    apart.rows = [
        {"convolutions": name, "parameters": parameter_count(one.model), "macs": macs(one.model, image)}
        | {"accuracy": one["accuracy"], "loss": one["loss"]}
        for name, one in runs.items()
    ]
    least = max(full["accuracy"] - 0.03, apart.baseline["accuracy"])
    text = "taken apart, they recognize as many pictures, within three points, and more than a linear classifier"
    yield Claim(text, apart["accuracy"], ">", least, margin=0.005)
    text = "so does a network with full convolutions that is half as wide"
    yield Claim(text, narrow["accuracy"], ">", least, margin=0.005)
    shares = left_by_separating()
    apart.rows.append({"convolutions": "separable / full, the paper's network"} | shares)
    text = "of the paper's network, at most a quarter of the multiply-accumulates is left"
    yield Claim(text, shares["macs"], "<", 0.25, kind="fact")
    text = "of its time on a CPU more is left than of its multiply-accumulates"
    yield Claim(text, shares["seconds"], ">", shares["macs"], kind="fact")


@torch.inference_mode()
def left_by_separating() -> dict[str, float]:
    """Multiply-accumulates and seconds on a CPU that the paper's network has left of those with full convolutions."""
    with torch.random.fork_rng(devices=[]):
        images, models = torch.randn(1, 3, 224, 224), [MobileNetV2(separable=one).eval() for one in (True, False)]
    seconds = interleaved({str(number): partial(one, images) for number, one in enumerate(models)}, rounds=7)
    return {"macs": macs(models[0], images) / macs(models[1], images), "seconds": ratio(seconds["0"], seconds["1"])[1]}


@run.figure
def figure(result: Result) -> Any:
    """Held-out loss and accuracy over the epochs of the three networks, and what each costs."""
    drawn, axes = new_figure(1, 3, width=3.8)
    variants = ("separable=False", f"separable=False, width={result.options['width'] / 2}")
    found = [result, *(result.runs.get(name) for name in variants)]
    runs = dict(zip(("separable", "full", "full, half as wide"), found, strict=True))
    for name, one in runs.items():
        history = [] if one is None else one.history
        for panel, metric in zip(axes[0], ("loss", "accuracy"), strict=False):
            panel.plot([row["epoch"] for row in history], [row[metric] for row in history], label=name)
    axes[0, 0].set(title="held-out loss", xlabel="epoch", yscale="log")
    axes[0, 1].set(title="held-out accuracy", xlabel="epoch")
    axes[0, 0].legend(frameon=False)
    for number, (name, row) in enumerate(zip(runs, result.rows, strict=False)):
        axes[0, 2].scatter(row["macs"] / 1e6, row["accuracy"], color=f"C{number}", label=name)
    axes[0, 2].set(title="accuracy", xlabel="million multiply-accumulates", xlim=(0, None), ylim=(0.9, 1))
    return drawn


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
