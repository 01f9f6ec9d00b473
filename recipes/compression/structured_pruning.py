"""Structured pruning: whole channels and branches go, and the network really is smaller.

Without a convolution's output channel, the norm after it loses an entry and the next layer an input: what
remains is an ordinary, narrower network, faster on any processor. But layers hang together. The convolutions
whose outputs a residual sum adds must lose the same channels; a depthwise convolution loses those it reads;
a linear layer behind a flattened map loses a column for each position of the map, and behind a concatenation
just the columns of that part; the neurons of linear layers are channels, too. To find out, every channel is given
a label, the labels are followed through one forward pass, and those that meet become one
(`recipes.compression.channels`). A residual block can lose its branch whole, and hands its input on.

From each group of layers the channels of smallest weights go. Batch norm's statistics are then those of another
network: measuring them anew, without a step of training, wins much back. A few more steps do the rest, where a
fresh network as narrow has hardly begun. But trained for as long in all, the fresh one is as good: what pruning
saves is time, if there was a large network to start from.

Notes: 86
Paper: Li, Kadav, Durdanovic, Samet, Graf (2016), "Pruning Filters for Efficient ConvNets",
    https://arxiv.org/abs/1608.08710; Fang, Ma, Song, Mi, Wang (2023), "DepGraph: Towards Any Structural
    Pruning", https://arxiv.org/abs/2301.12900; Liu, Sun, Zhou, Huang, Darrell (2018), "Rethinking the Value
    of Network Pruning", https://arxiv.org/abs/1810.05270
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import chain
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression.channels import prune_channels
from recipes.compression.files import file_bytes, save_dense
from recipes.compression.layers import plain_copy
from recipes.compression.modes import in_mode, measuring_norms
from recipes.compression.moved import Moved, evaluate_moved, for_longer
from recipes.compression.report import Version, compare
from recipes.compression.shipping import Shipped
from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, main, option, recipe
from recipes.core.measure import macs, parameter_count
from recipes.datasets.images import open_images
from recipes.vision.classification.resnet import BasicBlock, ResNet
from recipes.vision.classification.scoring import evaluate


@dataclass(kw_only=True)
class StructuredOptions(Options):
    share: float = option(0.5, "of the channels to remove", least=0, below=1)
    recalibrated: bool = option(True, "measure batch norm's statistics anew after pruning")
    later: int = option(2, "passes over the training part after pruning; 0 trains no more", least=0)
    width: int = option(32, "channels of the first stage; the other two have two and four times as many", least=1)
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = 12
    batch_size: int = 64


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Any, device: torch.device) -> None:
    """Batch norm's means and variances become those of these batches, all of them counting as much; in place."""
    each = iter(batches)
    first = next(each, None)
    if first is None:
        raise InputError("recalibrate: expected at least one batch, got none")
    with measuring_norms(model):
        for images, _ in chain([first], each):
            model(images.to(device))


def train(model: nn.Module, train_set: Any, options: Options, *, evaluate: Any = dict, name: str = "large") -> Loop:
    """Minimizes the cross-entropy."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05)
    loop = Loop(model, optimizer, batches(train_set, options), options, evaluate=evaluate, name=name)
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(images), labels))
    return loop


def build_large(options: StructuredOptions, data: Any) -> nn.Module:
    """A residual network for pictures and classes like these."""
    sizes = {"channels": data.shape[0], "num_classes": len(data.classes), "width": options.width}
    return ResNet(BasicBlock, [2, 1, 1], small_pictures=True, **sizes)


def build(options: StructuredOptions, data: Any) -> nn.Module:
    """The same without a share of its channels, and untrained."""
    return prune_channels(build_large(options, data), torch.zeros(1, *data.shape), options.share)


@recipe(StructuredOptions)
def run(options: StructuredOptions) -> Result:
    """Trains a network, prunes it and trains on; the baseline is as narrow, fresh, and trained for the later steps."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    large, moved = build_large(options, train_set).to(options.device), Moved(train_set)
    loop = train(large, moved, options, evaluate=lambda: evaluate(large, test_set, options.device))
    images, _ = train_set.__getitems__([0])
    model = prune_channels(large, images.to(options.device), options.share)
    fresh = build(options, train_set).to(options.device)
    if options.recalibrated:
        recalibrate(model, batches(moved, options), options.device)
    if options.later:
        train(model, moved, for_longer(options, options.later / options.epochs), name="pruned")
        train(fresh, moved, for_longer(options, options.later / options.epochs), name="fresh")

    def costs(network: nn.Module) -> dict[str, float]:
        size = {"parameters": parameter_count(network), "macs": macs(network, images.to(options.device))}
        return evaluate_moved(network, test_set, options.device) | size

    return Result(
        metrics=costs(model),
        baseline=costs(fresh),
        baseline_name="a fresh network as narrow, trained for the later steps alone",
        bars={"accuracy": 0.86},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    options = StructuredOptions(**result.options | {"out": None, "checkpoint": None})
    seeds = [options.seed + number for number in range(3)]
    runs = [result, *(run(seed=seed) for seed in seeds[1:])]
    untrained, raw, dense = run(later=0), run(later=0, recalibrated=False), run(share=0.0)
    device = next(result.model.parameters()).device
    chosen, fresh = for_longer(replace(options, device=device), 1 + options.later / options.epochs), []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            network = build(options, result.train_set).to(device)
            train(network, Moved(result.train_set), replace(chosen, seed=seed), name="fresh for longer")
            fresh.append(evaluate_moved(network, result.test_set, device)["accuracy"])
    images = result.train_set.__getitems__(range(min(256, len(result.train_set))))[0].to(device)
    shorter = remove_blocks(dense.model, images, 1)
    accuracy = [
        mean(scores)
        for scores in ([one["accuracy"] for one in runs], [one.baseline["accuracy"] for one in runs], fresh)
    ]
    networks = {"large": (dense.model, dense["accuracy"]), "pruned, few steps": (result.model, accuracy[0])}
    networks |= {"as narrow, fresh, as many steps in all": (network, accuracy[2])}
    networks |= {"large, without a branch": (shorter, evaluate_moved(shorter, result.test_set, device)["accuracy"])}
    versions = [Version(name, one, score, file_bytes(one, save_dense), one) for name, (one, score) in networks.items()]
    rows = result.rows = compare(versions, images[0], rounds=5)
    text = "after few steps it is ahead of a fresh network as narrow: means of 3 trainings"
    yield Claim(text, accuracy[0], ">", accuracy[1], margin=0.05)
    text = "but trained for as long in all, the fresh one makes up for three quarters of that and more"
    yield Claim(text, accuracy[2], ">", 0.75 * accuracy[0] + 0.25 * accuracy[1], margin=0.02)
    text = "batch norm measured anew wins much back, without a step of training"
    yield Claim(text, untrained["accuracy"], ">", raw["accuracy"], margin=0.1)
    text = "and a residual branch less costs less than half of the channels, both as they are removed"
    yield Claim(text, rows[3]["accuracy"], ">", raw["accuracy"], margin=0.1)
    yield Claim("multiply-accumulates left, as a share", rows[1]["macs"] / rows[0]["macs"], "<", 0.5, kind="fact")
    if find_spec("torch_pruning"):
        theirs = macs(prune_by_library(dense.model, images[:1], options.share), images[:1])
        text = "difference to the arithmetic that Torch-Pruning leaves, as a share"
        yield Claim(text, abs(rows[1]["macs"] / theirs - 1), "<", 0.05, kind="fact")


@torch.no_grad()
def block_changes(model: nn.Module, images: Tensor) -> dict[str, float]:
    """How much each block with parts of its own changes what it is given, where its outputs always have that shape.

    Measured as the norm of the change over that of the input: 0 if the block hands on its input as it is.
    """
    changes: dict[str, float] = {}

    def observe(name: str) -> Any:
        def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = HandsOn()(*args, **kwargs)
            alike = isinstance(given, Tensor) and isinstance(output, Tensor) and given.shape == output.shape
            change = float((output - given).norm() / given.norm()) if alike else torch.inf
            changes[name] = max(change, changes.get(name, change))  # it may be called more than once

        return hook

    blocks = {name: block for name, block in model.named_modules() if name and any(True for _ in block.children())}
    hooks = [block.register_forward_hook(observe(name), with_kwargs=True) for name, block in blocks.items()]
    with in_mode(model, training=False):
        model(images)
    for hook in hooks:
        hook.remove()
    return {name: change for name, change in changes.items() if change < torch.inf}


class HandsOn(nn.Identity):
    """Takes the place of a block, and whatever that was called with; returns the first."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return next(iter((*args, *kwargs.values())), None)


def remove_blocks(model: nn.Module, images: Tensor, count: int) -> nn.Module:
    """A copy of the model in which the `count` blocks that change their input least hand it on as it is.

    An InputError if fewer blocks give what has the shape of their input; the images are a batch it can take.
    """
    model = plain_copy(model)
    for done in range(count):
        changes = block_changes(model, images)
        for name in sorted(changes, key=lambda name: changes[name]):
            shorter = copy.deepcopy(model)
            shorter.set_submodule(name, HandsOn())
            with contextlib.suppress(Exception), in_mode(shorter, training=False):  # some read a block's parts
                shorter(images)
                break
        else:
            raise InputError(f"option blocks: expected at most {done}, so many blocks can go, got {count}")
        model = shorter
    return model


def prune_by_library(model: nn.Module, example: Tensor, share: float) -> nn.Module:
    """The same by Torch-Pruning; it must be told to keep the last layer's outputs."""
    import torch_pruning

    model = copy.deepcopy(model)
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    importance = torch_pruning.importance.MagnitudeImportance()
    torch_pruning.pruner.MagnitudePruner(
        model, example, importance=importance, pruning_ratio=share, ignored_layers=[last]
    ).step()
    return model


@run.figure
def figure(result: Result) -> Any:
    """The accuracy of each run, and beside it that of the plain method in the same place."""
    runs = {"as given": result} | result.runs
    drawing, axes = new_figure(1, 1, width=6.0, height=1.2 + 0.5 * len(runs))
    for shift, label, scores in (
        (-0.2, "pruned", [one.metrics["accuracy"] for one in runs.values()]),
        (0.2, result.baseline_name, [one.baseline["accuracy"] for one in runs.values()]),
    ):
        bars = axes[0, 0].barh(torch.arange(len(runs)) + shift, scores, height=0.38, label=label)
        axes[0, 0].bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    names = [f"{name}\n{one.metrics['macs'] / 1e6:.2f} million MACs" for name, one in runs.items()]
    axes[0, 0].set_yticks(range(len(runs)), names, fontsize=8)
    axes[0, 0].set(xlabel="accuracy", xlim=(0, 1.1))
    axes[0, 0].invert_yaxis()
    axes[0, 0].legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    return drawing


run.predicts(Shipped, build)


if __name__ == "__main__":
    main(run)
