"""Quantization-aware training: weights of few bits, learned with the rounding in place.

A weight becomes the nearest of a few evenly spaced values. Rounded after training, eight bits cost nothing
and two bits ruin the network. Trained on with the rounding in its forward pass, the network finds weights
that bear it. Rounding has a slope of zero almost everywhere, so its gradient is passed straight through, as
if nothing had been rounded: the weights beneath keep moving in small steps, and the rounded ones follow when
a step leads over a border.

With few values a weight's scale matters, so every group of neighbouring weights has its own. Two weights of
four bits share a byte. Only the file gets smaller: to compute, the weights become floating point again.

Notes: 86
Paper: Bengio, Léonard, Courville (2013), "Estimating or Propagating Gradients Through Stochastic Neurons for
    Conditional Computation", https://arxiv.org/abs/1308.3432 (straight-through gradients); Jacob and others
    (2018), "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    https://arxiv.org/abs/1712.05877
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import copy
import functools
import math
import tempfile
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression.files import file_bytes, save_dense
from recipes.compression.layers import (
    Weight,
    copy_for_cpu,
    find_weights,
    load_dense,
    parametrized,
    stored_as,
    tell_reached,
    with_plain_weights,
)
from recipes.compression.report import Version, check_counts, compare, in_subfolder
from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.old import Engine, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.vision.classification.old import FAST, train
from recipes.vision.classification.scoring import evaluate, majority
from recipes.vision.classification.task import SmallCNN


def in_groups(weight: Tensor, size: int, dim: int = 0) -> Tensor:
    """Weights of the output channels, along `dim`, in groups of `size`, the last one filled up with zeros.

    Returns:
        (out, groups, size).
    """
    rows = weight.float().movedim(dim, 0).flatten(1)  # (out, in)
    return F.pad(rows, (0, -rows.shape[1] % size)).unflatten(1, (-1, size))


def out_of_groups(groups: Tensor, shape: torch.Size, dim: int) -> Tensor:
    """The weight of that shape which `in_groups` was given."""
    sizes = [shape[dim], *shape[:dim], *shape[dim + 1 :]]
    return groups.flatten(1)[:, : math.prod(sizes[1:])].view(sizes).movedim(0, dim)


def group_scales(groups: Tensor, bits: int) -> Tensor:
    """A scale for each group (out, groups, 1): its largest weight gets the largest integer, 2^(bits-1) - 1."""
    largest = groups.abs().amax(dim=2, keepdim=True)
    scales = (largest / (2 ** (bits - 1) - 1)).bfloat16()  # as the file will hold them: as far as float32 reaches
    return scales.clamp(min=torch.finfo(torch.bfloat16).tiny).float()


def to_integers(groups: Tensor, scales: Tensor, bits: int) -> Tensor:
    """q = round(w / s), between -(2^(bits-1) - 1) and 2^(bits-1) - 1."""
    largest = 2 ** (bits - 1) - 1
    return (groups / scales).round().clamp(-largest, largest)


class Rounding(nn.Module):
    """Gives the rounded weight, and to the weight beneath it the gradient of the rounded one."""

    def __init__(self, bits: int, group: int, dim: int = 0) -> None:
        super().__init__()
        self.bits, self.group, self.dim = bits, group, dim

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            groups = in_groups(weight, self.group, self.dim)
            scales = group_scales(groups, self.bits)
            rounded = out_of_groups(to_integers(groups, scales, self.bits) * scales, weight.shape, self.dim)
            rounded = rounded.to(weight.dtype)
        # w + (round(w) - w): the value of the rounded weight, and the slope of w.
        return weight + (rounded - weight).detach()


def with_rounding(model: nn.Module, bits: int, group: int = 32) -> nn.Module:
    """A copy of the model whose layers, embeddings too, round their weights when called.

    Train it as any model; `without_rounding` ends it.

    Args:
        model: any network with layers that `find_weights` knows.
        bits: of a weight, 2 to 8.
        group: neighbouring weights of an output channel that share a scale.

    Raises:
        InputError: an option is out of range, or no layer has a plain weight; names one.
    """
    check_counts(group=group)
    if bits not in range(2, 9):
        raise InputError(f"option bits: expected a whole number from 2 to 8, got {bits!r}")
    model = copy.deepcopy(model)
    weights = find_weights(model).values()
    tell_reached("with_rounding", model, (weight.value for weight in weights))
    for weight in weights:
        for layer, name in weight.holders:
            parametrized(layer, name, Rounding(bits, group, weight.dim))
    return model


def without_rounding(model: nn.Module) -> nn.Module:
    """The same model from `with_rounding`, its rounded weights now plain ones."""
    return with_plain_weights(model, Rounding)


def pack(integers: Tensor) -> Tensor:
    """Integers from -8 to 7, two to a byte: (…, 2 n) to (…, n) of uint8, the first of a pair in the low bits."""
    low, high = (integers.to(torch.int16) + 8).unflatten(-1, (-1, 2)).unbind(-1)
    return (low + 16 * high).to(torch.uint8)


def unpack(packed: Tensor) -> Tensor:
    """The integers that `pack` was given, as float32."""
    return torch.stack([packed % 16, packed // 16], dim=-1).flatten(-2).float() - 8


class FourBits(nn.Module):
    """A weight as integers of four bits, two to a byte, and a scale for each group."""

    def __init__(self, weight: Weight, group: int) -> None:
        super().__init__()
        self.group, self.dim, self.dtype, self.shape = group, weight.dim, weight.value.dtype, weight.value.shape

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        groups = in_groups(weight, self.group, self.dim)
        scales = group_scales(groups, bits=4)
        return pack(to_integers(groups, scales, bits=4)), scales.bfloat16()  # (out, groups, group / 2)

    def forward(self, packed: Tensor, scales: Tensor) -> Tensor:
        return out_of_groups(unpack(packed) * scales.float(), self.shape, self.dim).to(self.dtype)


def packed_model(model: nn.Module, group: int = 32) -> nn.Module:
    """A copy of the model on the CPU, for evaluation, whose layers hold weights of four bits.

    Args:
        model: any network with layers that `find_weights` knows; other parts stay as they are.
        group: an even number of weights that share a scale.

    Raises:
        InputError: the group is out of range, or no layer has a plain weight; names one.
    """
    if group < 2 or group % 2:
        raise InputError(f"option group: expected an even number of at least 2, got {group!r}")
    model = copy_for_cpu(model)
    weights = find_weights(model).values()
    tell_reached("packed_model", model, (weight.value for weight in weights))
    for weight in weights:
        stored_as(weight, FourBits(weight, group))
    return model


def load_packed(model: nn.Module, path: str | Path, group: int = 32) -> nn.Module:
    """The network of four-bit weights in a file that `save_dense` wrote of it.

    Args:
        model: the network before it was packed, whatever its weights.
        path: of the file.
        group: weights that share a scale, as it was packed.

    Raises:
        InputError: the file is no safetensors file, or is another network's.
    """
    return load_dense(packed_model(model, group), path, "a file of this network in four bits")


def draw_bits(accuracies: dict[str, dict[int, float]], dense: float, rows: list[dict[str, Any]]) -> Any:
    """Accuracy against the bits of a weight, each way, and the sizes of the files."""
    figure, axes = new_figure(1, 2, width=4.6, height=3.4)
    for name, by_bits in accuracies.items():
        axes[0, 0].plot(list(by_bits), list(by_bits.values()), marker="o", label=name)
    axes[0, 0].axhline(dense, color="black", linewidth=0.8, linestyle="--", label="32 bits")
    axes[0, 0].set(xlabel="bits of a weight", ylabel="accuracy", xticks=[2, 3, 4, 8])
    axes[0, 0].legend(frameon=False, fontsize=8)
    bars = axes[0, 1].bar([row["version"] for row in rows], [row["bytes"] / 1000 for row in rows])
    axes[0, 1].bar_label(bars, fmt="%.0f", fontsize=8)
    axes[0, 1].set_ylabel("kilobytes of the file")
    for place in axes.flatten():
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    width: int = 32,
    group: int = 32,
    epochs: int = 4,
    batch_size: int = 64,
    lr: float = 1e-2,
    seeds: int = 3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Rounds a trained classifier's weights to few bits, before and after training it with the rounding.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        width: channels of the first convolution; the others have two and four times as many.
        group: weights of an output channel that share a scale, an even number.
        epochs: passes over the training pictures, in full precision; with rounding half as many more.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the first training; a fifth of it with rounding.
        seeds: trainings that every accuracy is the mean of.
        device: auto, cpu, cuda or mps, for the training alone.
        seed: of the first training's weights and order of pictures; the others count up from it.
        out: folder for result.json, figure.png and model.safetensors, the file of four-bit weights.
    """
    check_counts(width=width, seeds=seeds)
    place, cpu = setup(device, seed), torch.device("cpu")
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    options: Engine = {**FAST, **engine}
    fit = functools.partial(train, train_set=train_set, test_set=test_set, batch_size=batch_size, device=place)
    more = max(1, epochs // 2)
    accuracies: dict[str, list[float]] = {}
    networks: dict[str, nn.Module] = {}  # of the first seed
    history: list[dict[str, float]] = []

    def trained(name: str, model: nn.Module, epochs: int, lr: float, number: int) -> nn.Module:
        torch.manual_seed(number)
        loop = fit(model, epochs=epochs, lr=lr, seed=number, **in_subfolder(options, f"{name}-{number}"))
        history[:] = history or loop.history
        return model.cpu().to(memory_format=torch.contiguous_format).eval()

    def note(name: str, model: nn.Module) -> None:
        accuracies.setdefault(name, []).append(evaluate(model, test_set, cpu)["accuracy"])
        networks.setdefault(name, model)

    for number in range(seed, seed + seeds):
        torch.manual_seed(number)
        fresh = SmallCNN(train_set.shape[0], len(train_set.classes), width=width)
        network = trained("dense", fresh, epochs, lr, number)
        note("fp32", network)
        for bits in (2, 3, 4, 8):
            note(f"{bits} bits after training", with_rounding(network, bits, group))
        aware = {bits: with_rounding(network, bits, group) for bits in (2, 3, 4)}
        for bits, model in aware.items():
            note(f"{bits} bits in training", trained(f"bits{bits}", model, more, lr / 5, number))
        note("int4, packed", packed_model(without_rounding(aware[4]), group))
        longer = trained("longer", copy.deepcopy(network), more, lr / 5, number)
        note("2 bits after longer training", with_rounding(longer, 2, group))

    mean = {name: sum(values) / seeds for name, values in accuracies.items()}
    after = {bits: mean[f"{bits} bits after training"] for bits in (2, 3, 4, 8)}
    through = {bits: mean[f"{bits} bits in training"] for bits in (2, 3, 4)}
    network, packed, plain = (networks[name] for name in ("fp32", "int4, packed", "4 bits in training"))
    pictures, _ = test_set.__getitems__(list(range(min(64, len(test_set)))))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save_dense(packed, Path(folder) / "model.safetensors")
        loaded = load_packed(network, Path(folder) / "model.safetensors", group)
        changed = int((packed(pictures) != loaded(pictures)).sum())
        unlike = (packed(pictures) - plain(pictures)).abs().max().item()
    versions = [
        Version(name, networks[name], mean[name], file_bytes(networks[name], save_dense), networks[name])
        for name in ("fp32", "int4, packed")
    ]
    rows = compare(versions, pictures[0])
    share, dense = versions[1].bytes / versions[0].bytes, mean["fp32"]
    longer_rounded = mean["2 bits after longer training"]
    return Result(
        metrics={"accuracy": versions[1].accuracy, "bytes": versions[1].bytes, "macs": rows[1]["macs"]},
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.96},
        claims=[
            claim("points that weights of 4 bits cost", 100 * (dense - versions[1].accuracy), "<=", 1),
            claim("their file as a share of fp32's", share, "<=", 0.16),
            claim("answers that change when the file is read back", changed, "<=", 0),
            claim("largest difference of packed and trained logits", unlike, "<=", 1e-4),
            claim("2 bits: accuracy trained with rounding, against rounded after training", through[2], ">", after[2]),
            claim("and against as long a training, rounded after it", through[2], ">", longer_rounded),
            claim("int4 saves bytes, not time: share of fp32's, 1 picture", rows[1]["latency_ratio_1"], ">", 1),
        ],
        history=history,
        rows=rows,
        model=packed,
        draw=lambda: draw_bits({"rounded after training": after, "trained with rounding": through}, dense, rows),
    )


if __name__ == "__main__":
    main(run)
