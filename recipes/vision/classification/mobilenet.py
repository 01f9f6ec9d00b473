"""MobileNet v2: a convolution taken apart into a depthwise and a pointwise one.

A 3×3 convolution looks around each place and mixes the channels, both at once: 9 C C' weights for C channels in
and C' out. Taken apart, a depthwise 3×3 looks around within each channel, and a pointwise 1×1 mixes them: 9 C + C C'
weights, about nine times fewer. Version 2 widens the channels before the depthwise one, narrows them after, and
adds the input where shapes agree. The recipe trains the network with and without the taking apart. Arithmetic that
is saved is not time saved to the same degree: a depthwise convolution does little with each number it fetches.

Notes: 81
Paper: Sandler, Howard, Zhu, Zhmoginov, Chen (2018), "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    https://arxiv.org/abs/1801.04381; depthwise-separable: Howard et al. (2017), "MobileNets: Efficient
    Convolutional Neural Networks for Mobile Vision Applications", https://arxiv.org/abs/1704.04861
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

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
from recipes.core.measure import interleaved, macs, parameter_count, ratio
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate, majority, shifted

# The paper's table 2: expansion, channels, blocks, stride of the first of them.
SETTINGS = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]
# The same idea for pictures of 8 to 64 pixels.
SMALL_SETTINGS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2)]


def convolution(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with batch norm and ReLU6, which is min(max(x, 0), 6)."""
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Widen by 1×1, look around, narrow by 1×1 without an activation; and add the input where shapes agree.

    Args:
        channels, out: going in and coming out.
        stride: 2 halves the picture.
        expansion: channels in between, for each one going in.
        separable: look around by a depthwise 3×3 and narrow by a 1×1; if not, one full 3×3 does both.
    """

    def __init__(self, channels: int, out: int, stride: int, expansion: int, *, separable: bool = True) -> None:
        super().__init__()
        wide = channels * expansion
        layers: list[nn.Module] = [convolution(channels, wide, 1)] if expansion > 1 else []
        if separable:
            layers.append(convolution(wide, wide, 3, stride, groups=wide))
            layers.append(nn.Conv2d(wide, out, 1, bias=False))
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

    The parts bear torchvision's names, so that its weights load.

    Args:
        settings: for each stage expansion, channels, blocks and the first block's stride.
        channels: of the pictures.
        num_classes: of the last layer.
        width: factor on all channels.
        last: channels of the last convolution, which only a factor above 1 changes.
        small_pictures: start without halving the picture.
        separable: False puts full convolutions in the place of depthwise and pointwise ones.
    """

    def __init__(
        self,
        settings: list[tuple[int, int, int, int]] = SETTINGS,
        *,
        channels: int = 3,
        num_classes: int = 1000,
        width: float = 1.0,
        last: int = 1280,
        small_pictures: bool = False,
        separable: bool = True,
    ) -> None:
        super().__init__()
        reached = divisible(32 * width)
        layers: list[nn.Module] = [convolution(channels, reached, 3, stride=1 if small_pictures else 2)]
        for expansion, out, blocks, stride in settings:
            for block in range(blocks):
                first = stride if block == 0 else 1
                going_out = divisible(out * width)
                layers.append(InvertedResidual(reached, going_out, first, expansion, separable=separable))
                reached = going_out
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


def train(
    model: MobileNetV2,
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
        loss = F.cross_entropy(loop.model(shifted(images)), labels)
        loop.step(loss)
    return loop


def time_ratio(networks: dict[str, nn.Module], images: Tensor) -> float:
    """Seconds of the first network over those of the second, in evaluation mode: the median of rounds in turn."""
    with torch.no_grad():
        seconds = interleaved(
            {name: partial(network.eval(), images) for name, network in networks.items()},
            rounds=7,
            device=images.device.type,
        )
    return ratio(*seconds.values())[1]


def draw(histories: dict[str, list[dict[str, float]]], shares: dict[str, dict[str, float]]) -> Any:
    """Both networks' loss and accuracy over the epochs; what taking apart leaves of parameters, MACs and time."""
    figure, axes = new_figure(1, 3, width=3.6, height=3.0)
    for name, color in zip(histories, ("tab:blue", "tab:orange"), strict=True):
        epochs = [row["epoch"] for row in histories[name]]
        for place, metric in zip(axes[0], ("loss", "accuracy"), strict=False):
            place.plot(epochs, [row[metric] for row in histories[name]], color=color, label=name)
    for place, title in zip(axes[0], ("training loss", "held-out accuracy"), strict=False):
        place.set(title=title, xlabel="epoch")
        place.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].legend(frameon=False)
    bars = axes[0, 2]
    for number, (name, own) in enumerate(shares.items()):
        places = [position + 0.4 * number for position in range(len(own))]
        bars.bar(places, list(own.values()), width=0.36, label=name, color=("tab:blue", "tab:cyan")[number])
        bars.set_xticks([place - 0.2 for place in places], list(own))
    bars.axhline(1, color="tab:orange", linewidth=1)
    bars.set(title="depthwise-separable, share of full")
    bars.legend(frameon=False, fontsize=8)
    for place in axes[0]:
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    model: Literal["small", "mobilenet_v2"] = "small",
    width: float = 0.5,
    image_size: int | None = None,
    epochs: int = 8,
    batch_size: int = 32,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a MobileNet v2 with depthwise-separable and with full convolutions; measures both on held-out pictures.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        model: small for pictures of 8 to 64 pixels, mobilenet_v2 for larger ones.
        width: factor on all channels; 1 is the paper's network.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        epochs: passes over the training pictures, for each of the two networks.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the pictures and of how they are shifted.
        out: folder for result.json, figure.png and model.safetensors, the depthwise-separable network's.
    """
    if width <= 0:
        raise InputError(f"option width: expected a number above 0, got {width}")
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    make = partial(MobileNetV2, channels=train_set.shape[0], num_classes=len(train_set.classes), width=width)
    if model == "small":
        make = partial(make, SMALL_SETTINGS, last=128, small_pictures=True)
    networks: dict[str, nn.Module] = {}
    histories: dict[str, list[dict[str, float]]] = {}
    scores: dict[str, dict[str, float]] = {}
    for name in ("depthwise-separable", "full"):
        torch.manual_seed(seed)
        network = networks[name] = make(separable=name == "depthwise-separable").to(place)
        options: dict[str, Any] = {"epochs": epochs, "device": place, "name": name, **engine}
        histories[name] = train(network, train_set, test_set, batch_size, lr, seed, **options).history
        scores[name] = evaluate(network, test_set, place)

    own = test_set.__getitems__([0])[0].to(place)
    paper = {name: MobileNetV2(separable=name != "full").to(place) for name in networks}
    measured: list[tuple[str, dict[str, Any], Tensor]] = [
        ("trained", networks, own.expand(32, -1, -1, -1)),
        ("the paper's, 224 pixels", paper, torch.randn(1, 3, 224, 224, device=place)),
    ]
    rows: list[dict[str, Any]] = []
    shares: dict[str, dict[str, float]] = {}
    for which, pair, images in measured:
        counts = {
            name: {"parameters": parameter_count(network), "macs": macs(network, images[:1])}
            for name, network in pair.items()
        }
        taken_apart, full = counts.values()
        shares[which] = {key: taken_apart[key] / full[key] for key in full} | {"time": time_ratio(pair, images)}
        for name, one in counts.items():
            times = {"latency_ratio": shares[which]["time"] if name != "full" else 1.0}
            held_out = {"accuracy": scores[name]["accuracy"] if pair is networks else None}
            rows.append({"network": which, "convolutions": name} | one | times | held_out)
    large = shares["the paper's, 224 pixels"]
    accuracy, reference = (scores[name]["accuracy"] for name in ("depthwise-separable", "full"))
    return Result(
        metrics=scores["depthwise-separable"],
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.95},
        claims=[
            claim("taken apart: share of the parameters", shares["trained"]["parameters"], "<", 0.5),
            claim("share of the multiply-accumulates", shares["trained"]["macs"], "<", 0.5),
            claim("held-out accuracy is at most two points less", accuracy, ">=", reference - 0.02),
            claim("the paper's network: share of the multiply-accumulates", large["macs"], "<", 0.5),
            claim("share of the time, one picture of 224 pixels", large["time"], "<", 1),
            claim("which is less of a saving than the arithmetic's", large["time"], ">", large["macs"]),
        ],
        history=histories["depthwise-separable"],
        rows=rows,
        model=networks["depthwise-separable"],
        draw=lambda: draw(histories, shares),
    )


if __name__ == "__main__":
    main(run)
