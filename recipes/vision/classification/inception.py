"""Inception: branches that see different scales, side by side.

A digit's corner is small and its loop is large, so an Inception module looks with 1×1, 3×3, 5×5 and pooling at
once and lays what they find side by side. Wide convolutions over many channels are dear; a 1×1 before each first
reduces the channels. Version 2 adds batch norm. Version 3 factorises: a 5×5 becomes two 3×3, a 7×7 becomes 1×7 and
7×1, which see the same field. The recipe trains a small network of each version, and counts what each step saves.

Notes: 48, 84
Paper: Szegedy and others (2014), "Going Deeper with Convolutions", https://arxiv.org/abs/1409.4842; Ioffe, Szegedy
    (2015), "Batch Normalization", https://arxiv.org/abs/1502.03167; Szegedy and others (2015), "Rethinking the
    Inception Architecture for Computer Vision", https://arxiv.org/abs/1512.00567
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.figures import new_figure, show_picture
from recipes.core.loop import one_cycle
from recipes.core.measure import macs, parameter_count
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.receptive import centre_gradients
from recipes.vision.classification.scoring import evaluate, majority, shifted

GOAL = 0.5  # nats of training loss, that the versions' steps are counted to


class Branches(nn.Module):
    """Gives the same input to all branches, and lays their channels side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, height, width)
        return torch.cat([branch(x) for branch in self.branches], dim=1)  # (batch, sum of theirs, height, width)


def chain(channels: int, *steps: tuple[Any, ...], norm: bool = True) -> nn.Sequential:
    """Convolutions one after the other, each with batch norm, if wanted, and ReLU.

    Args:
        channels: going in.
        *steps: each (channels going out, kernel, stride, padding); stride 1 and equal size if not given.
        norm: normalise.
    """
    layers: list[nn.Module] = []
    for out, side, *rest in steps:
        kernel = side if isinstance(side, tuple) else (side, side)
        stride, padding = rest or (1, (kernel[0] // 2, kernel[1] // 2))
        convolution = nn.Conv2d(channels, out, kernel, stride, padding, bias=not norm)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(out, eps=1e-3), nn.ReLU()] if norm else [convolution, nn.ReLU()]
        channels = out
    return nn.Sequential(*layers)


def inception(
    channels: int, counts: tuple[int, ...], *, norm: bool = False, wide: tuple[int, ...] = (5,), reduced: bool = True
) -> Branches:
    """The module of version 1: 1×1, 3×3, 5×5 and pooling.

    Args:
        channels: going in.
        counts: channels of 1×1, of the reduction before 3×3, of 3×3, of the reduction before 5×5, of 5×5, of pooling.
        norm: with batch norm, as in version 2.
        wide: kernels of the third branch, (3, 3) in version 3.
        reduced: False leaves out the reductions: the naive module.
    """
    one, reduce3, three, reduce5, five, pool = counts
    return Branches(
        chain(channels, (one, 1), norm=norm),
        chain(channels, *([(reduce3, 1)] if reduced else []), (three, 3), norm=norm),
        chain(channels, *([(reduce5, 1)] if reduced else []), *((five, kernel) for kernel in wide), norm=norm),
        nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), chain(channels, (pool, 1), norm=norm)),
    )


def stages(channels: int, *rows: Sequence[tuple[int, ...]], pools: tuple[int, ...], **options: Any) -> list[nn.Module]:
    """Rows of modules, with a halving max-pooling of the given kernel between one row and the next."""
    layers: list[nn.Module] = []
    for row, pool in zip(rows, (*pools, 0), strict=True):
        for counts in row:
            layers.append(inception(channels, counts, **options))
            channels = counts[0] + counts[2] + counts[4] + counts[5]
        layers += [nn.MaxPool2d(pool, stride=2, ceil_mode=True)] if pool else []
    return layers


def head(features: int, num_classes: int, dropout: float) -> list[nn.Module]:
    """The mean over the picture, dropout, and one linear layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(features, num_classes)]


def small_inception(channels: int, num_classes: int, **options: Any) -> nn.Sequential:
    """Four modules for pictures of 8 to 64 pixels; options as of `inception`."""
    first, second = [(8, 8, 16, 4, 8, 8), (16, 16, 24, 8, 12, 12)], [(24, 24, 32, 8, 16, 16), (24, 24, 48, 12, 24, 24)]
    stem = chain(channels, (16, 3), norm=options["norm"])
    return nn.Sequential(stem, *stages(16, first, second, pools=(2,), **options), *head(120, num_classes, 0.2))


def googlenet(channels: int = 3, num_classes: int = 1000, **options: Any) -> nn.Sequential:
    """GoogLeNet without its two helping classifiers; options as of `inception`, torchvision's norm=True, wide=(3,)."""
    third = [(64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)]
    fourth = [(192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64)]
    fourth += [(112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)]
    fifth = [(256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)]
    norm = options.get("norm", False)
    return nn.Sequential(
        chain(channels, (64, 7, 2, 3), norm=norm),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        chain(64, (64, 1), (192, 3), norm=norm),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        *stages(192, third, fourth, fifth, pools=(3, 2), **options),
        *head(1024, num_classes, 0.2),
    )


def inception_v3(channels: int = 3, num_classes: int = 1000) -> nn.Sequential:
    """Inception v3, without the classifier that helps in training, for pictures of 75 pixels or more."""

    def averaged(channels: int, out: int) -> nn.Sequential:
        return nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), chain(channels, (out, 1)))

    def fives(channels: int, pool: int) -> Branches:  # the 5×5, and beside it two 3×3
        double = chain(channels, (64, 1), (96, 3), (96, 3))
        return Branches(chain(channels, (64, 1)), chain(channels, (48, 1), (64, 5)), double, averaged(channels, pool))

    def sevens(width: int) -> Branches:  # 7×7 as 1×7 and 7×1, once and twice
        across, down = (width, (1, 7)), (width, (7, 1))
        once = chain(768, (width, 1), across, (192, (7, 1)))
        twice = chain(768, (width, 1), down, across, down, (192, (1, 7)))
        return Branches(chain(768, (192, 1)), once, twice, averaged(768, 192))

    def spread(channels: int) -> Branches:  # ends in 1×3 and 3×1, side by side
        ends = [Branches(chain(384, (384, (1, 3))), chain(384, (384, (3, 1)))) for _ in range(2)]
        single = nn.Sequential(chain(channels, (384, 1)), ends[0])
        double = nn.Sequential(chain(channels, (448, 1), (384, 3)), ends[1])
        return Branches(chain(channels, (320, 1)), single, double, averaged(channels, 192))

    halve = partial(nn.MaxPool2d, 3, stride=2)
    seven_and_halve = chain(768, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, 0))
    return nn.Sequential(  # sizes for pictures of 299 pixels
        chain(channels, (32, 3, 2, 0), (32, 3, 1, 0), (64, 3)),  # (batch, 64, 147, 147)
        halve(),
        chain(64, (80, 1), (192, 3, 1, 0)),  # (batch, 192, 71, 71)
        halve(),
        *(fives(192, 32), fives(256, 64), fives(288, 64)),  # (batch, 288, 35, 35)
        Branches(chain(288, (384, 3, 2, 0)), chain(288, (64, 1), (96, 3), (96, 3, 2, 0)), halve()),
        *(sevens(128), sevens(160), sevens(160), sevens(192)),  # (batch, 768, 17, 17)
        Branches(chain(768, (192, 1), (320, 3, 2, 0)), seven_and_halve, halve()),
        *(spread(1280), spread(2048)),  # (batch, 2048, 8, 8)
        *head(2048, num_classes, 0.5),
    )


def from_torchvision(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """torchvision's state_dict under the names of `network`: its order is the same, but for the helping classifiers."""
    values = [value for name, value in weights.items() if not name.lower().startswith("aux")]
    return dict(zip(network.state_dict(), values, strict=True))


def train(
    model: nn.Module,
    train_set: Images | ImageFiles,
    test_set: Images | ImageFiles,
    batch_size: int,
    lr: float,
    seed: int,
    *,
    device: torch.device,
    **loop_options: Any,
) -> tuple[OldLoop, list[float]]:
    """Minimises the cross-entropy with AdamW; gives the loop, and the loss of every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    loader = old_batches(train_set, batch_size, seed=seed, workers=2 if isinstance(train_set, ImageFiles) else 0)
    measure = partial(evaluate, model, test_set, device)
    loop = OldLoop(model, optimizer, loader, device=device, schedule=one_cycle, evaluate=measure, **loop_options)
    losses: list[float] = []
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(shifted(images)), labels)
        loop.step(loss)
        losses.append(loss.item())
    return loop, losses


def steps_to(losses: list[float], goal: float) -> int:
    """Steps until the mean loss of the last 20 is below the goal; one more than there were, if it never is."""
    means = torch.tensor(losses).unfold(0, min(20, len(losses)), 1).mean(dim=1)
    reached = (means < goal).nonzero()
    return int(reached[0]) + min(20, len(losses)) if len(reached) else len(losses) + 1


def arithmetic() -> dict[str, tuple[nn.Module, nn.Module, Tensor]]:
    """For each saving: the layers before, those after, and what they are given."""
    counts, picture = (64, 96, 128, 16, 32, 32), torch.zeros(1, 192, 28, 28)  # GoogLeNet's first module
    channels = torch.zeros(1, 64, 17, 17)
    return {
        "1×1 reductions": (inception(192, counts, reduced=False), inception(192, counts), picture),
        "5×5 as two 3×3": (chain(64, (64, 5)), chain(64, (64, 3), (64, 3)), channels),
        "7×7 as 1×7, 7×1": (chain(64, (64, 7)), chain(64, (64, (1, 7)), (64, (7, 1))), channels),
    }


def draw(losses: dict[str, list[float]], shares: dict[str, float], fields: list[Tensor]) -> Any:
    """Each version's training loss, the share of the arithmetic that is left, and what each branch sees."""
    figure, axes = new_figure(1, 6, width=2.5, height=2.6)
    for name, values in losses.items():
        axes[0, 0].plot(torch.tensor(values).unfold(0, min(20, len(values)), 1).mean(dim=1).tolist(), label=name)
    axes[0, 0].set(title="training loss", xlabel="step", ylim=(0, None))
    axes[0, 0].legend(frameon=False, fontsize=8)
    axes[0, 1].bar(range(len(shares)), list(shares.values()), color="tab:blue")
    axes[0, 1].set_xticks(range(len(shares)), [name.replace(" ", "\n") for name in shares], fontsize=7)
    axes[0, 1].set(title="share of the MACs left", ylim=(0, 1))
    for place, name, seen in zip(axes[0, 2:], ("1×1", "3×3", "5×5", "pooling"), fields, strict=True):
        show_picture(place, 1 - seen[None] / seen.max(), f"what {name} sees")
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    model: Literal["small", "large"] = "small",
    image_size: int | None = None,
    epochs: int = 6,
    batch_size: int = 64,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains versions 1, 2 and 3, measures them on held-out pictures, and counts what each step saves.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        model: small for pictures of 8 to 64 pixels; large for GoogLeNet, the same with batch norm, and v3.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        epochs: passes over the training pictures, for each of the three networks.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule; version 1, without batch norm, takes a third of it.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the pictures and of how they are shifted.
        out: folder for result.json, figure.png and model.safetensors, version 3's.
    """
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    build = small_inception if model == "small" else googlenet
    third = partial(small_inception, norm=True, wide=(3, 3)) if model == "small" else inception_v3
    versions = {"v1": partial(build, norm=False), "v2, batch norm": partial(build, norm=True), "v3, factorised": third}
    rows: list[dict[str, Any]] = []
    losses: dict[str, list[float]] = {}
    image = test_set.__getitems__([0])[0].to(place)
    for name, make in versions.items():
        torch.manual_seed(seed)
        network = make(train_set.shape[0], len(train_set.classes)).to(place)
        options: dict[str, Any] = {"epochs": epochs, "device": place, "name": name[:2], **engine}
        rate = lr / 3 if name == "v1" else lr
        loop, losses[name] = train(network, train_set, test_set, batch_size, rate, seed, **options)
        size = {"parameters": parameter_count(network), "macs": macs(network, image)}
        size[f"steps to {GOAL} nats"] = steps_to(losses[name], GOAL)
        rows.append({"network": name} | size | evaluate(network, test_set, place))

    savings = arithmetic()
    shares = {name: macs(after, given) / macs(before, given) for name, (before, after, given) in savings.items()}
    left = parameter_count(savings["1×1 reductions"][1]) / parameter_count(savings["1×1 reductions"][0])
    fields = [centre_gradients(branch, 8) for branch in inception(8, (8, 8, 8, 8, 8, 8)).branches]
    one, three, five, _ = (int((field > 0).any(dim=0).sum()) for field in fields)
    plain, normed, _ = (steps_to(values, GOAL) for values in losses.values())
    return Result(
        metrics={key: rows[-1][key] for key in ("accuracy", "loss")},
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.95},
        claims=[
            claim("1×1 reductions: share of the parameters", left, "<", 1),
            *(claim(f"{name}: share of the MACs", share, "<", 1) for name, share in shares.items()),
            claim("with batch norm, fewer steps to the loss", normed, "<", plain),
            claim("the 3×3 branch sees more than the 1×1, pixels", three, ">", one),
            claim("and the 5×5 branch more than the 3×3", five, ">", three),
        ],
        history=loop.history,
        rows=rows,
        model=network,
        draw=lambda: draw(losses, shares, fields),
    )


if __name__ == "__main__":
    main(run)
