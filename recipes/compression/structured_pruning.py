"""Structured pruning: whole channels and blocks go, and the network really is smaller.

Without a convolution's output channel, the norm after it loses an entry and the next layer an input: what
remains is an ordinary, narrower network, faster on any processor. But layers hang together. The convolutions
whose outputs a residual sum adds must lose the same channels; a depthwise convolution loses those it reads;
a linear layer behind a flattened map loses a column for each place of the map, and behind a concatenation
just the columns of that part. To find out, every channel is given a label, the labels are followed through
one forward pass, and those that meet become one (`recipes.compression.channels`).

From each group of layers the channels of smallest weights go, all at once, and the others are trained on.
Whether the weights they start from are worth more than fresh ones is measured, too.

Notes: 86
Paper: Li, Kadav, Durdanovic, Samet, Graf (2016), "Pruning Filters for Efficient ConvNets",
    https://arxiv.org/abs/1608.08710; Fang, Ma, Song, Mi, Wang (2023), "DepGraph: Towards Any Structural
    Pruning", https://arxiv.org/abs/2301.12900; Liu, Sun, Zhou, Huang, Darrell (2018), "Rethinking the Value
    of Network Pruning", https://arxiv.org/abs/1810.05270
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import copy
import functools
from importlib.util import find_spec
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from recipes.compression.channels import channel_groups, prune_channels
from recipes.compression.files import file_bytes, save_dense
from recipes.compression.report import Version, check_counts, compare, in_subfolder
from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.measure import macs
from recipes.core.old import Engine, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.vision.classification.old import FAST, train
from recipes.vision.classification.resnet import BasicBlock, ResNet
from recipes.vision.classification.scoring import evaluate


@torch.no_grad()
def block_changes(model: nn.Module, images: Tensor) -> dict[str, float]:
    """How much each block with parts of its own changes what it is given, where its output has that shape.

    Measured as the norm of the change over that of the input: 0 if the block hands on its input as it is.
    """
    changes: dict[str, float] = {}

    def observe(name: str) -> Any:
        def hook(block: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            given = inputs[0] if inputs else None
            if isinstance(given, Tensor) and isinstance(output, Tensor) and given.shape == output.shape:
                changes[name] = float((output - given).norm() / given.norm())

        return hook

    blocks = {name: block for name, block in model.named_modules() if name and any(True for _ in block.children())}
    hooks = [block.register_forward_hook(observe(name)) for name, block in blocks.items()]
    was_training = model.training
    model.eval()
    model(images)
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return changes


def remove_blocks(model: nn.Module, images: Tensor, count: int) -> nn.Module:
    """A copy of the model in which the blocks that change their input least hand it on as it is.

    Args:
        model: any network with blocks whose outputs have the shape of their inputs.
        images: a batch it can take, on which the change is measured.
        count: of blocks to remove, one after the other.

    Raises:
        InputError: there are fewer such blocks.
    """
    model = copy.deepcopy(model)
    for done in range(count):
        changes = block_changes(model, images)
        if not changes:
            raise InputError(f"option blocks: expected at most {done}, so many blocks keep the shape, got {count}")
        model.set_submodule(min(changes, key=lambda name: changes[name]), nn.Identity())
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


def draw_channels(rows: list[dict[str, Any]], untuned: list[tuple[float, float]]) -> Any:
    """Accuracy against arithmetic, and what each version saves of parameters, arithmetic and time."""
    figure, axes = new_figure(1, 2, width=5.2, height=3.6)
    dense = rows[0]
    axes[0, 0].plot(*zip(*untuned, strict=True), color="gray", marker=".", label="channels removed, not trained on")
    for row, marker in zip(rows, "osv^D", strict=False):
        size = 100 * row["macs"] / dense["macs"]
        axes[0, 0].plot(size, row["accuracy"], linestyle="", marker=marker, fillstyle="none", label=row["version"])
    axes[0, 0].set(xlabel="multiply-accumulates, % of the dense network's", ylabel="accuracy")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower right")
    places = range(len(rows))
    for shift, (label, values) in enumerate(
        {
            "parameters": [row["parameters"] / dense["parameters"] for row in rows],
            "multiply-accumulates": [row["macs"] / dense["macs"] for row in rows],
            "time, batch of 32": [row["latency_ratio_32"] for row in rows],
        }.items()
    ):
        bars = axes[0, 1].barh([place + 0.27 * (shift - 1) for place in places], values, height=0.27, label=label)
        axes[0, 1].bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axes[0, 1].set_yticks(list(places), [row["version"] for row in rows])
    axes[0, 1].set(xlabel="share of the dense network's", xlim=(0, 1.15), ylim=(len(rows) + 0.4, -0.5))
    axes[0, 1].legend(frameon=False, fontsize=8, loc="lower center", ncols=3, columnspacing=0.8, handlelength=1)
    for place in axes.flatten():
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    width: int = 32,
    share: float = 0.5,
    blocks: int = 1,
    epochs: int = 4,
    batch_size: int = 64,
    lr: float = 1e-2,
    fine_tune_lr: float = 5e-3,
    seeds: int = 3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Removes channels, or blocks, of a trained residual network, and measures what that saves and costs.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        width: channels of the first stage; the other two have two and four times as many.
        share: of the channels to remove, above 0 and below 1.
        blocks: of the network's three, to remove in a version of its own; only the first keeps the shape.
        epochs: passes over the training pictures before pruning; half as many follow it.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule before pruning.
        fine_tune_lr: the same for what follows.
        seeds: trainings that every accuracy is the mean of.
        device: auto, cpu, cuda or mps.
        seed: of the first training's weights and order of pictures; the others count up from it.
        out: folder for result.json, figure.png and model.safetensors, the network with fewer channels.
    """
    if not 0 < share < 1:
        raise InputError(f"option share: expected a share above 0 and below 1, got {share!r}")
    check_counts(width=width, seeds=seeds, blocks=blocks)
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    images = train_set.__getitems__(range(min(256, len(train_set))))[0].to(place)
    options: Engine = {**FAST, **engine}
    fit = functools.partial(train, train_set=train_set, test_set=test_set, batch_size=batch_size, device=place)
    make = functools.partial(ResNet, BasicBlock, [1, 1, 1], num_classes=len(train_set.classes), small_pictures=True)
    later = max(1, epochs // 2)
    fewer, fresh, fewer_blocks = (
        f"{share:.0%} fewer channels",
        "as narrow, from scratch",
        f"{blocks} of 3 blocks removed",
    )
    accuracies: dict[str, list[float]] = {}
    networks: dict[str, nn.Module] = {}  # of the first seed
    histories: list[list[dict[str, float]]] = []

    def learn(name: str, model: nn.Module, epochs: int, lr: float, number: int) -> nn.Module:
        torch.manual_seed(number)
        loop = fit(model, epochs=epochs, lr=lr, seed=number, **in_subfolder(options, f"{name}-{number}"))
        histories.append(loop.history)
        return model.to(memory_format=torch.contiguous_format)

    def note(name: str, model: nn.Module) -> None:
        accuracies.setdefault(name, []).append(evaluate(model, test_set, place)["accuracy"])
        networks.setdefault(name, model)

    for number in range(seed, seed + seeds):
        torch.manual_seed(number)
        dense = learn("first", make(channels=train_set.shape[0], width=width).to(place), epochs, lr, number)
        note("before", dense)
        narrow = prune_channels(dense, images[:1], share)
        note("not trained on", narrow)
        versions = {
            "dense": copy.deepcopy(dense),  # trains on just as long
            fewer: copy.deepcopy(narrow),
            fewer_blocks: remove_blocks(dense, images, blocks),
        }
        if find_spec("torch_pruning"):
            versions["the same by Torch-Pruning"] = prune_by_library(dense, images[:1], share)
        for name, model in versions.items():
            note(name, learn(name, model, later, fine_tune_lr, number))
        torch.manual_seed(number)
        small = make(channels=train_set.shape[0], width=width - int(share * width)).to(place)
        note(fresh, learn(fresh, small, epochs + later, lr, number))

    mean = {name: sum(values) / len(values) for name, values in accuracies.items()}
    rows = compare(
        [
            Version(name, networks[name], mean[name], file_bytes(networks[name], save_dense), networks[name])
            for name in mean
            if name not in ("before", "not trained on")
        ],
        images[0],
        rounds=5,
    )
    untuned = []  # of the first seed, for the figure
    for removed in torch.arange(10) / 10:
        model = prune_channels(networks["before"], images[:1], float(removed))
        untuned.append((100 * macs(model, images[:1]) / rows[0]["macs"], evaluate(model, test_set, place)["accuracy"]))
    by_name = {row["version"]: row for row in rows}
    saved = {key: by_name[fewer][key] / rows[0][key] for key in ("parameters", "macs", "latency_ratio_32")}
    groups = channel_groups(networks["dense"], images[:1])
    claims = [
        claim(f"points that {fewer} cost after fine-tuning", 100 * (mean["dense"] - mean[fewer]), "<=", 1),
        claim("fine-tuning wins back what removing them had cost", mean[fewer], ">", mean["not trained on"]),
        claim("parameters left, as a share", saved["parameters"], "<=", 0.5),
        claim("multiply-accumulates left, as a share", saved["macs"], "<=", 0.5),
        claim("time that 32 pictures take, as a share", saved["latency_ratio_32"], "<=", 1 / 1.6),
        claim("time of one picture, as a share", by_name[fewer]["latency_ratio_1"], "<", 1),
        claim("layers that lose the same channels, in the largest group", max(map(len, groups)), ">=", 4),
        claim(f"points that {fewer_blocks} cost", 100 * (mean["dense"] - mean[fewer_blocks]), "<=", 1),
        claim(
            "points that the old weights are ahead of fresh ones, trained as long",
            100 * (mean[fewer] - mean[fresh]),
            "<=",
            1,
        ),
    ]
    if "the same by Torch-Pruning" in by_name:
        theirs = by_name["the same by Torch-Pruning"]["macs"] / rows[0]["macs"]
        claims.append(
            claim("difference to the arithmetic that Torch-Pruning leaves", abs(saved["macs"] / theirs - 1), "<=", 0.05)
        )
    return Result(
        metrics={"accuracy": mean[fewer], "parameters": by_name[fewer]["parameters"], "macs": by_name[fewer]["macs"]},
        baseline={"accuracy": mean["not trained on"], "parameters": rows[0]["parameters"], "macs": rows[0]["macs"]},
        baseline_name="not trained on, and dense",
        bars={"accuracy": 0.96},
        claims=claims,
        history=histories[0],
        rows=rows,
        model=networks[fewer],
        draw=lambda: draw_channels(rows, untuned),
    )


if __name__ == "__main__":
    main(run)
