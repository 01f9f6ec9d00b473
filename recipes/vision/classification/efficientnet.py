"""EfficientNet: deeper, wider and more pixels, all at once.

A network with arithmetic to spare can get more layers, more channels or larger pictures. On ImageNet each alone
soon stops paying, and compound scaling, which raises all three together, by 1.2, 1.1 and 1.15 for each doubling of
the arithmetic, goes further. The recipe spends four times a small network's multiply-accumulates in the four ways
and prints what came of it: on pictures that hold no more detail however far they are enlarged, more channels alone
can win. Your own pictures, larger ones, are the fairer test.
The blocks are MobileNet's inverted residuals with squeeze-and-excitation: the mean of each channel over the
picture decides, through two small layers, how much of every channel passes.

Notes: 81
Paper: Tan, Le (2019), "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
    https://arxiv.org/abs/1905.11946
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import math
from functools import partial
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.loop import one_cycle
from recipes.core.measure import macs, parameter_count
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate, majority

# The paper's table 1: expansion, kernel, stride of the first block, channels, blocks.
SETTINGS = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
]
# A small network for pictures of 6 to 64 pixels.
SMALL_SETTINGS = [(1, 3, 1, 8, 1), (4, 3, 2, 12, 1), (4, 3, 2, 20, 1)]
# Factors on depth, width and resolution; each costs the small network 3.4 to 3.7 times its arithmetic.
SCALINGS = {
    "base": (1.0, 1.0, 1.0),
    "deeper": (4.0, 1.0, 1.0),
    "wider": (1.0, 2.0, 1.0),
    "more pixels": (1.0, 1.0, 2.0),
    "all together": (1.44, 1.13, 1.32),
}


def convolution(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with batch norm and SiLU, x * sigmoid(x)."""
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.SiLU(),
    )


class SqueezeExcitation(nn.Module):
    """Squeeze: a mean for each channel. Excitation: from these, a factor between 0 and 1 on each channel."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)  # on a picture of one place, 1×1 is a linear layer
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, height, width)
        means = x.mean(dim=(2, 3), keepdim=True)  # (batch, channels, 1, 1)
        return x * self.fc2(F.silu(self.fc1(means))).sigmoid()


class MBConv(nn.Module):
    """Widen by 1×1, look around depthwise, weigh the channels, narrow by 1×1; add the input where shapes agree.

    Args:
        channels, out: going in and coming out.
        kernel, stride: of the depthwise convolution.
        expansion: channels in between, for each one going in.
        dropped: chance that a picture in training skips the block (stochastic depth).
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

    Without arguments it is B0. The parts bear torchvision's names, so that its weights load.

    Args:
        settings: for each stage expansion, kernel, the first block's stride, channels and blocks.
        channels: of the pictures.
        num_classes: of the last layer.
        width: factor on all channels.
        depth: factor on the blocks of each stage, rounded up.
        stem: channels of the first convolution.
        by: numbers of channels are multiples of this.
        dropout: share of the last layer's inputs that is left out.
        stochastic_depth: chance to skip the last block; it rises from 0 at the first.
        small_pictures: start without halving the picture.
    """

    def __init__(
        self,
        settings: list[tuple[int, int, int, int, int]] = SETTINGS,
        *,
        channels: int = 3,
        num_classes: int = 1000,
        width: float = 1.0,
        depth: float = 1.0,
        stem: int = 32,
        by: int = 8,
        dropout: float = 0.2,
        stochastic_depth: float = 0.2,
        small_pictures: bool = False,
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


def train(
    model: EfficientNet,
    train_set: Images | ImageFiles,
    test_set: Images | ImageFiles,
    batch_size: int,
    lr: float,
    seed: int,
    *,
    device: torch.device,
    **loop_options: Any,
) -> OldLoop:
    """Minimises the cross-entropy with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    loop = OldLoop(
        model,
        optimizer,
        old_batches(train_set, batch_size, seed=seed, workers=2 if isinstance(train_set, ImageFiles) else 0),
        device=device,
        schedule=one_cycle,
        evaluate=lambda: evaluate(model, test_set, device),
        **loop_options,
    )
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(images), labels)
        loop.step(loss)
    return loop


def draw(histories: dict[str, list[dict[str, float]]], scores: dict[str, list[dict[str, float]]]) -> Any:
    """The first seed's held-out loss over the epochs, and every seed's at the end."""
    figure, axes = new_figure(1, 2, width=4.6, height=3.2)
    for number, (name, history) in enumerate(histories.items()):
        color = f"C{number}"
        axes[0, 0].plot([row["epoch"] for row in history], [row["loss"] for row in history], color=color, label=name)
        losses = [score["loss"] for score in scores[name]]
        axes[0, 1].bar(number, sum(losses) / len(losses), 0.7, color=color, alpha=0.4)
        axes[0, 1].plot([number] * len(losses), losses, ".", color=color)
    axes[0, 0].set(title="held-out loss", xlabel="epoch", yscale="log")
    axes[0, 0].xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].legend(frameon=False, fontsize=8)
    axes[0, 1].set(title="at the end: mean, and each training")
    axes[0, 1].set_xticks(range(len(histories)), [name.replace(" ", "\n") for name in histories], fontsize=8)
    for place in axes[0]:
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    model: Literal["small", "efficientnet_b0"] = "small",
    image_size: int | None = None,
    epochs: int = 6,
    batch_size: int = 64,
    lr: float = 1e-2,
    seeds: int = 2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a small EfficientNet and four larger ones, scaled in depth, width, resolution or all; compares them.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        model: base to scale: small for pictures of 6 to 64 pixels, efficientnet_b0 for larger ones.
        image_size: side in pixels of the base's pictures; three quarters of their own size if not given.
        epochs: passes over the training pictures, for each training.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        seeds: trainings of each network that every accuracy and loss is the mean of.
        device: auto, cpu, cuda or mps.
        seed: of the first training's weights and order of pictures; the others count up from it.
        out: folder for result.json, figure.png and model.safetensors, those of the network scaled in all three.
    """
    if seeds < 1:
        raise InputError(f"option seeds: expected a whole number of at least 1, got {seeds}")
    place = setup(device, seed)
    side = image_size or round(0.75 * min(open_images(data, seed=seed)[0].shape[1:]))
    networks: dict[str, EfficientNet] = {}  # of the first seed, as the histories are
    histories: dict[str, list[dict[str, float]]] = {}
    scores: dict[str, list[dict[str, float]]] = {}
    rows: list[dict[str, Any]] = []
    for name, (depth, width, resolution) in SCALINGS.items():
        pixels = round(side * resolution)
        train_set, test_set = open_images(data, image_size=pixels, seed=seed)
        make = partial(EfficientNet, channels=train_set.shape[0], num_classes=len(train_set.classes))
        if model == "small":
            make = partial(make, SMALL_SETTINGS, stem=8, by=2, dropout=0.1, stochastic_depth=0.1, small_pictures=True)
        scores[name] = []
        for number in range(seed, seed + seeds):
            torch.manual_seed(number)
            network = make(depth=depth, width=width).to(place)
            options: dict[str, Any] = {"epochs": epochs, "device": place, "name": f"{name}-{number}", **engine}
            loop = train(network, train_set, test_set, batch_size, lr, number, **options)
            scores[name].append(evaluate(network, test_set, place))
            networks.setdefault(name, network)
            histories.setdefault(name, loop.history)
        image = test_set.__getitems__([0])[0].to(place)
        size = {"pixels": pixels, "parameters": parameter_count(network), "macs": macs(network, image)}
        means = {key: sum(score[key] for score in scores[name]) / seeds for key in ("accuracy", "loss")}
        rows.append({"network": name, "depth": depth, "width": width} | size | means)

    *single, together = rows[1:]
    spread = max(row["macs"] for row in rows[1:]) / min(row["macs"] for row in rows[1:])
    return Result(
        metrics={key: together[key] for key in ("accuracy", "loss")},
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.95},
        claims=[
            claim("the four cost the same arithmetic, largest over smallest", spread, "<", 1.1),
            *(
                claim(f"held-out loss of all together, against {row['network']}", together["loss"], "<", row["loss"])
                for row in single
            ),
        ],
        history=histories["all together"],
        rows=rows,
        model=networks["all together"],
        draw=lambda: draw(histories, scores),
    )


if __name__ == "__main__":
    main(run)
