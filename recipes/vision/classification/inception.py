"""Inception: branches that see different scales, side by side.

What tells pictures apart may be small or large, so an Inception module looks at the same maps with 1×1, 3×3 and 5×5
convolutions and with pooling, and concatenates what they find. Wide kernels over many channels are expensive; a 1×1
convolution before each of them first reduces the channels. Version 2 adds batch norm. Version 3 factorizes: a 5×5
becomes two 3×3, a 7×7 becomes 1×7 and 7×1, and 1×3 and 3×1 stand side by side; convolutions beside a pooling, all
with a stride, halve the maps; and the labels are smoothed. Versions 1 and 3 add the loss of auxiliary heads in
training. All of them read the bundled digits equally well: the gain is in arithmetic, and by batch norm in steps.

Notes: 48, 84
Paper: Szegedy and others (2014), "Going Deeper with Convolutions", https://arxiv.org/abs/1409.4842; Ioffe, Szegedy
    (2015), "Batch Normalization", https://arxiv.org/abs/1502.03167; Szegedy and others (2015), "Rethinking the
    Inception Architecture for Computer Vision", https://arxiv.org/abs/1512.00567
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, main, option, predict, recipe
from recipes.core.measure import macs, parameter_count
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate, result_of, shifted
from recipes.vision.classification.using import Classification
from recipes.vision.classification.vgg import field_of_view


@dataclass(kw_only=True)
class InceptionOptions(Options):
    model: Literal["small", "googlenet", "inception_v3"] = option("small", "small for sides of 8 to 64 pixels")
    reductions: bool = option(True, "a 1×1 convolution to few channels before each wider one")
    factorized: bool = option(True, "two 3×3 for a 5×5, and 1×7 and 7×1 for a 7×7, as in version 3")
    batch_norm: bool = option(True, "normalize after every convolution, as in version 2")
    auxiliary: float = option(0.4, "weight of each auxiliary head's loss; 0 leaves these heads out", least=0)
    smoothing: float = option(0.1, "share of every label that is spread over all classes", least=0, below=1)
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = 8
    batch_size: int = 64


class Branches(nn.Module):
    """Gives the same input to all branches, each the steps of a `chain`, and concatenates their channels."""

    def __init__(self, options: InceptionOptions, channels: int, *branches: list[Any]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([chain(options, channels, *steps) for steps in branches])

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, height, width)
        return torch.cat([branch(x) for branch in self.branches], dim=1)  # (batch, sum of theirs, height, width)


def chain(options: InceptionOptions, channels: int, *steps: Any) -> nn.Sequential:
    """One step after the other: a convolution, a layer, or a list of branches, which comes last.

    A convolution is (channels going out, kernel, stride, padding); it keeps the maps' size if the last two are left
    out. Batch norm, if wanted, and ReLU follow it.
    """
    if len(steps) > 1 and isinstance(steps[0], tuple) and steps[0][1:] == (1,) and not options.reductions:
        steps = steps[1:]
    layers: list[nn.Module] = []
    for step in steps:
        if isinstance(step, tuple):
            out, side, *rest = step
            kernel = side if isinstance(side, tuple) else (side, side)
            stride, padding = rest or (1, (kernel[0] // 2, kernel[1] // 2))
            convolution = nn.Conv2d(channels, out, kernel, stride, padding, bias=not options.batch_norm)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [convolution, *([nn.BatchNorm2d(out, eps=1e-3)] if options.batch_norm else []), nn.ReLU()]
            channels = out
        else:
            layers.append(step if isinstance(step, nn.Module) else Branches(options, channels, *step))
    return nn.Sequential(*layers)


def fives(options: InceptionOptions, channels: int, counts: tuple[int, ...], wide: int = 5) -> Branches:
    """Version 1's module; counts: 1×1, reduction and 3×3, reduction and 5×5, pooling."""
    one, reduce3, three, reduce5, five, pool = counts
    steps = [(five, 3), (five, 3)] if options.factorized else [(five, wide)]
    pooling = [nn.MaxPool2d(3, stride=1, padding=1), (pool, 1)]
    return Branches(options, channels, [(one, 1)], [(reduce3, 1), (three, 3)], [(reduce5, 1), *steps], pooling)


def sevens(options: InceptionOptions, channels: int, width: int, out: int) -> Branches:
    """Version 3's module for maps of medium size: one 7×7, and two in a row; every branch has `out` channels."""
    once: list[Any] = [(out, 7)]
    twice: list[Any] = [(width, 7), (out, 7)]
    if options.factorized:
        once = [(width, (1, 7)), (out, (7, 1))]
        twice = [(width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (out, (1, 7))]
    pooling = [nn.AvgPool2d(3, stride=1, padding=1), (out, 1)]
    return Branches(options, channels, [(out, 1)], [(width, 1), *once], [(width, 1), *twice], pooling)


def threes(options: InceptionOptions, channels: int, one: int, two: int, three: int, pool: int) -> Branches:
    """Version 3's module for coarse maps: 1×3 and 3×1 side by side, each with `two` channels, for a 3×3."""
    ends: Any = [[(two, (1, 3))], [(two, (3, 1))]] if options.factorized else (2 * two, 3)
    pooling = [nn.AvgPool2d(3, stride=1, padding=1), (pool, 1)]
    return Branches(options, channels, [(one, 1)], [(two, 1), ends], [(three, 1), (two, 3), ends], pooling)


class Inception(nn.Module):
    """Parts, the last of them the classifier; in training, auxiliary heads follow the parts of their numbers."""

    def __init__(self, parts: list[nn.Module], heads: dict[int, nn.Module]) -> None:
        super().__init__()
        self.parts, self.heads = nn.Sequential(*parts), nn.ModuleDict({str(key): one for key, one in heads.items()})

    def forward(self, x: Tensor) -> Any:  # (batch, channels, height, width)
        auxiliary = []
        for name, part in self.parts.named_children():
            x = part(x)
            if self.training and name in self.heads:
                auxiliary.append(self.heads[name](x))
        return (x, *auxiliary) if auxiliary else x  # logits: (batch, classes) each


def head(features: int, num_classes: int, dropout: float = 0.0) -> list[nn.Module]:
    """The mean over the picture, and one linear layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(features, num_classes)]


def small_inception(options: InceptionOptions, channels: int = 3, num_classes: int = 1000) -> Inception:
    """A module of each kind, for small pictures."""
    parts = [
        chain(options, channels, (16, 3)),
        fives(options, 16, (12, 12, 16, 6, 8, 8)),  # to 44 channels
        sevens(options, 44, 12, 12),  # to 48
        Branches(options, 48, [(24, 1), (32, 3, 2, 0)], [(12, 1), (16, 3), (16, 3, 2, 0)], [nn.MaxPool2d(3, stride=2)]),
        threes(options, 96, 32, 16, 24, 16),  # to 112
        chain(options, 112, *head(112, num_classes, 0.2)),
    ]
    side = chain(options, 48, nn.AvgPool2d(2), (24, 1), *head(24, num_classes))
    return Inception(parts, {2: side} if options.auxiliary else {})


def googlenet(options: InceptionOptions, channels: int = 3, num_classes: int = 1000, wide: int = 5) -> Inception:
    """GoogLeNet, for pictures of 32 pixels or more; torchvision has a 3×3 (`wide`) where the paper has a 5×5."""
    rows = [(64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (192, 96, 208, 16, 48, 64)]
    rows += [(160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64)]
    rows += [(256, 160, 320, 32, 128, 128), (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)]
    halve = [nn.MaxPool2d(kernel, stride=2, ceil_mode=True) for kernel in (3, 3, 3, 2)]
    parts: list[nn.Module] = [chain(options, channels, (64, 7, 2, 3), halve[0], [[(64, 1), (192, 3)]], halve[1])]
    reached = 192
    for number, counts in enumerate(rows):
        parts += {2: halve[2:3], 7: halve[3:]}.get(number, [])
        parts.append(fives(options, reached, counts, wide))
        reached = counts[0] + counts[2] + counts[4] + counts[5]
    parts.append(chain(options, 1024, *head(1024, num_classes, 0.2)))
    sides: dict[int, nn.Module] = {}
    for number, width in ((4, 512), (7, 528)) if options.auxiliary else ():
        hidden = [nn.Flatten(), nn.Linear(2048, 1024), nn.ReLU(), nn.Dropout(0.7), nn.Linear(1024, num_classes)]
        sides[number] = chain(options, width, nn.AdaptiveAvgPool2d(4), (128, 1), *hidden)
    return Inception(parts, sides)


def inception_v3(options: InceptionOptions, channels: int = 3, num_classes: int = 1000) -> Inception:
    """Inception v3, for pictures of 299 pixels or more, whose sizes the comments tell."""
    halve, average = nn.MaxPool2d(3, stride=2), nn.AvgPool2d(3, stride=1, padding=1)
    both = [(64, 1)], [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)]  # a 5×5, and beside it two 3×3
    last = [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, 0)]
    parts = [
        chain(options, channels, (32, 3, 2, 0), (32, 3, 1, 0), (64, 3), halve),  # (batch, 64, 73, 73)
        chain(options, 64, (80, 1), (192, 3, 1, 0), halve),  # (batch, 192, 35, 35)
        *(Branches(options, given, *both, [average, (out, 1)]) for given, out in ((192, 32), (256, 64), (288, 64))),
        Branches(options, 288, [(384, 3, 2, 0)], [(64, 1), (96, 3), (96, 3, 2, 0)], [halve]),
        *(sevens(options, 768, width, 192) for width in (128, 160, 160, 192)),  # (batch, 768, 17, 17)
        Branches(options, 768, [(192, 1), (320, 3, 2, 0)], last, [halve]),
        *(threes(options, given, 320, 384, 448, 192) for given in (1280, 2048)),  # (batch, 2048, 8, 8)
        chain(options, 2048, *head(2048, num_classes, 0.5)),
    ]
    side = chain(options, 768, nn.AvgPool2d(5, stride=3), (128, 1), (768, 5, 1, 0), *head(768, num_classes))
    return Inception(parts, {9: side} if options.auxiliary else {})


NETWORKS = {"small": (small_inception, 4), "googlenet": (googlenet, 32), "inception_v3": (inception_v3, 299)}


def build(options: InceptionOptions, data: Images | ImageFiles) -> Inception:
    """The network for pictures and classes like these."""
    make, least = NETWORKS[options.model]
    if min(data.shape[1:]) < least:
        raise InputError(f"option model: {options.model} expects pictures of at least {least} pixels a side")
    return make(options, data.shape[0], len(data.classes))


def train(
    model: nn.Module, train_set: Images | ImageFiles, test_set: Images | ImageFiles, options: InceptionOptions
) -> Loop:
    """Minimizes the cross-entropy of the classifier and of the auxiliary heads, on smoothed labels."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05, fused=True),
        batches(train_set, options),
        options,
        evaluate=lambda: {"accuracy": evaluate(model, test_set, options.device)["accuracy"]},
    )
    for images, labels in loop:
        outputs = loop.model(shifted(images))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        losses = [F.cross_entropy(logits, labels, label_smoothing=options.smoothing) for logits in outputs]
        loop.step(losses[0] + options.auxiliary * sum(losses[1:]))
    return loop


@recipe(InceptionOptions)
def run(options: InceptionOptions) -> Result:
    """Trains an Inception network and measures it on held-out pictures."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return result_of(model, loop, train_set, test_set, bar=0.97)


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    networks = {"without reductions": run(reductions=False), "not factorized": run(factorized=False)}
    image = result.test_set.__getitems__([0])[0].to(next(result.model.parameters()).device)
    for name, one in (networks | {"as it is": result}).items():
        size = {"parameters": parameter_count(one.model), "macs": macs(one.model, image)}
        result.rows.append({"network": name} | size | one.metrics)
    result.rows += branches_of(result)
    for row, share in zip(result.rows[:2], (0.65, 0.6), strict=True):
        if result.options["model"] == "small":
            text = f"multiply-accumulates, as a share of those of the same network {row['network']}"
            yield Claim(text, result.rows[2]["macs"] / row["macs"], "<", share, kind="fact")
        text = f"more accurate than a linear classifier, and within three points of the network {row['network']}"
        least = max(row["accuracy"] - 0.025, result.baseline["accuracy"])
        yield Claim(text, result["accuracy"], ">", least, margin=0.005)
    rates, half = (result.options["lr"], 3 * result.options["lr"]), max(1, result.options["epochs"] // 2)
    plain = min(run(lr=lr, epochs=half, batch_norm=False).history[-1]["loss"] for lr in rates)
    normed = min(run(lr=lr, epochs=half).history[-1]["loss"] for lr in rates)
    text = "after half the epochs, at the better of two learning rates, training loss is lower with batch norm"
    yield Claim(text, normed, "<", plain, margin=0.2)
    answers = (torch.stack(predict(one.model, one.test_set, image.device)) for one in (run(smoothing=0.0), result))
    sure, smoothed = (logits.softmax(dim=1).amax(dim=1).mean().item() for logits in answers)
    yield Claim("without smoothed labels, the network is surer of its answers", sure, ">", smoothed, margin=0.03)


def branches_of(result: Result) -> list[dict[str, Any]]:
    """Each branch of the first module: the width of the field it depends on, and the accuracy when it is silenced."""
    module = next(part for part in result.model.parts if isinstance(part, Branches))
    rows = []
    for name, branch in zip(("1×1", "3×3", "5×5", "pooling"), module.branches, strict=True):
        field = field_of_view(nn.Sequential(deepcopy(branch).cpu()))
        silenced = branch.register_forward_hook(lambda _branch, _inputs, maps: torch.zeros_like(maps))
        left = evaluate(result.model, result.test_set, next(module.parameters()).device)["accuracy"]
        silenced.remove()
        rows.append({"branch": name, "sees pixels": int((field > 0).any(dim=0).sum()), "accuracy without it": left})
    return rows


@run.figure
def figure(result: Result) -> Any:
    """Training loss with and without batch norm, and what is left when a branch of the first module is silenced."""
    drawn, axes = new_figure(1, 2, width=4.2)
    for name, one in {"lr as given": result, **result.runs}.items():
        if name.startswith("lr"):
            losses, style = [row["loss"] for row in one.history], "--" if "batch_norm=False" in name else "-"
            axes[0, 0].plot(range(1, len(losses) + 1), losses, style, label=name)
    axes[0, 0].set(title="training loss", xlabel="epoch")
    axes[0, 0].legend(frameon=False, fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    for row in (row for row in result.rows if "branch" in row):
        axes[0, 1].bar(f"{row['branch']}\nsees {row['sees pixels']}", row["accuracy without it"], color="tab:blue")
    axes[0, 1].set(title="accuracy without this branch", ylim=(0, 1))
    return drawn


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
