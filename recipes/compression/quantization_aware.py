"""Quantization-aware training: weights of few bits, learned with the rounding in place.

A weight becomes the nearest of a few evenly spaced values. Rounded after training, eight bits cost nothing
and two bits a lot. Trained on with the rounding in its forward pass, the network finds weights that bear it.
Rounding has a slope of zero almost everywhere, so its gradient is passed straight through, as if nothing had been
rounded: the weights beneath keep moving in small steps, and the rounded ones follow when a step leads over a border.
What the layers are given is rounded to eight bits in the same way, by ranges that follow the batches.

With few values a weight's scale matters, so every group of neighboring weights has its own. Four weights of two bits
share a byte. Only the file gets smaller: to compute, the weights become floating point again.

What is rounded after training needs a second look at batch norm, whose means and variances are those of the network
before. Measured again in the rounded one, they give back much of what was lost: that is the baseline here.

Notes: 86
Paper: Bengio, Léonard, Courville (2013), "Estimating or Propagating Gradients Through Stochastic Neurons for
    Conditional Computation", https://arxiv.org/abs/1308.3432; Jacob and others (2018), "Quantization and Training of
    Neural Networks for Efficient Integer-Arithmetic-Only Inference", https://arxiv.org/abs/1712.05877
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from recipes.compression.grouped_weights import in_groups, out_of_groups, pack, require_bits, unpack
from recipes.compression.layers import (
    Weight,
    copy_for_cpu,
    find_weights,
    load_dense,
    parametrized,
    plain_copy,
    stored_as,
    tell_reached,
    with_plain_weights,
)
from recipes.compression.modes import measuring_norms
from recipes.compression.observing import calibration, input_ranges, takes_one_input, with_changed_input
from recipes.compression.quantization import input_scale, minmax, to_8_bits, to_integers, train
from recipes.compression.report import compare, version
from recipes.compression.shipping import Shipped, shipped_files
from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Options, Precision, Result, main, option, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN
from recipes.vision.pixels import linear_classifier


@dataclass(kw_only=True)
class QuantizationAwareOptions(Options):
    bits: int = option(2, "of a weight: 2 to 8, or 32 for no rounding", least=2, most=32)
    group: int = option(256, "most weights of an output channel that share a scale, a multiple of 4", least=4)
    round_inputs: bool = option(True, "what layers are given gets 8 bits, too")
    rounded_epochs: int = option(6, "further passes, with the rounding in place, at a fifth of lr", least=1)
    width: int = option(20, "channels of the first convolution", least=1)
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = 4
    batch_size: int = 64
    precision: Precision = "auto"
    channels_last: bool = True


def group_scales(groups: Tensor, bits: int) -> Tensor:
    """A scale for each group (out, groups, 1): its largest weight gets the largest integer, 2^(bits-1) - 1."""
    largest = groups.abs().amax(dim=2, keepdim=True)
    scales = (largest / (2 ** (bits - 1) - 1)).bfloat16()  # as the file will hold them: as far as float32 reaches
    return scales.clamp(min=torch.finfo(torch.bfloat16).tiny).float()


def rounded_groups(weight: Tensor, bits: int, size: int, dim: int) -> tuple[Tensor, Tensor]:
    """The weight's integers (out, groups, size), between -(2^(bits-1) - 1) and 2^(bits-1) - 1, and the scales."""
    groups, largest = in_groups(weight, size, dim, 8 // bits), 2 ** (bits - 1) - 1
    scales = group_scales(groups, bits)
    return to_integers(groups, scales, 0, -largest, largest), scales


class Rounding(nn.Module):
    """Gives the rounded weight, and to the weight beneath it the gradient of the rounded one."""

    def __init__(self, bits: int, group: int, dim: int = 0) -> None:
        super().__init__()
        self.bits, self.group, self.dim = bits, group, dim

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            integers, scales = rounded_groups(weight, self.bits, self.group, self.dim)
            rounded = out_of_groups(integers * scales, weight.shape, self.dim).to(weight.dtype)
        # w + (round(w) - w): the value of the rounded weight, and the slope of w.
        return weight + (rounded - weight).detach()


def round_in_training(layer: Any, numbers: Tensor) -> Tensor:
    """The layer's input, rounded to 8 bits; its gradient passes straight through where it was not clipped."""
    if layer.training:  # the range moves a tenth of the way to the batch's, where that is finite
        for kept, seen in zip((layer.low, layer.high), minmax(numbers.detach()), strict=True):
            kept.lerp_(torch.where(seen.isfinite(), seen, kept), 0.1)
    clipped = numbers.clamp(layer.low, layer.high)
    return clipped + (to_8_bits(numbers, *input_scale(layer.low, layer.high)) - clipped).detach()


def with_rounding(model: nn.Module, bits: int, group: int = 32, inputs: Any = None) -> nn.Module:
    """A copy of the model whose layers, embeddings too, round their weights when called; `without_rounding` ends it.

    Args:
        model: any network with layers that `find_weights` knows.
        bits, group: 2 to 8 for a weight; at most how many neighbors in an output channel share a scale.
        inputs: a batch, by whose ranges what linear and convolutional layers are given is rounded to 8 bits, too;
            in training the ranges follow. If not given, only weights are rounded.

    Raises:
        InputError: an option is out of range, or no layer has a plain weight; names one.
    """
    if not (isinstance(group, int) and group >= 1):
        raise InputError(f"option group: expected a whole number of at least 1, got {group!r}")
    require_bits(bits)
    if any(isinstance(layer, Rounding) for layer in model.modules()):
        raise InputError("model: expected one without rounding, which `without_rounding` ends")
    model = plain_copy(model)
    weights = find_weights(model).values()
    tell_reached("with_rounding", model, (weight.value for weight in weights))
    layers = [layer for layer in model.modules() if takes_one_input(layer)]
    ranges = {} if inputs is None else input_ranges(model, layers, inputs, minmax)
    for weight in weights:
        for layer, name in weight.holders:
            parametrized(layer, name, Rounding(bits, group, weight.dim))
    for layer, (low, high) in ranges.items():
        with_changed_input(layer, round_in_training, low=low.clone(), high=high.clone())
    return model


def without_rounding(model: nn.Module) -> nn.Module:
    """The same model from `with_rounding`, its rounded weights now plain ones."""
    return with_plain_weights(model, Rounding)


@torch.no_grad()
def measure_norms(model: nn.Module, pictures: Tensor) -> None:
    """Batch norm's means and variances become those that the model, as it is now, has on the pictures; in place."""
    with measuring_norms(model):
        model(pictures)


def build(options: QuantizationAwareOptions, data: Images | ImageFiles) -> nn.Module:
    """The network for pictures and classes like these."""
    return SmallCNN(data.shape[0], len(data.classes), width=options.width)


def rounding(network: nn.Module, options: QuantizationAwareOptions, pictures: Tensor) -> nn.Module:
    """A copy of the network with the rounding that the options ask for."""
    if options.bits == 32:
        return plain_copy(network)
    return with_rounding(network, options.bits, options.group, pictures if options.round_inputs else None)


@recipe(QuantizationAwareOptions)
def run(options: QuantizationAwareOptions) -> Result:
    """Trains a classifier on with the rounding in place; the baseline is trained as long, and rounded afterwards."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    pictures = calibration(train_set, options.seed).to(options.device)
    network = build(options, train_set).to(options.device)
    train(network, train_set, options, "in full precision")
    more = replace(options, epochs=options.rounded_epochs, lr=options.lr / 5)
    aware = rounding(network, options, pictures)
    loop = train(aware, train_set, more, "with rounding")
    train(network, train_set, more, "without rounding")
    after = rounding(network, options, pictures)
    measure_norms(after, pictures)
    model = copy_for_cpu(without_rounding(aware))
    return Result(
        metrics=evaluate(model, test_set, torch.device("cpu")),
        baseline=evaluate(after, test_set, options.device),
        baseline_name="rounded after training",
        bars={"accuracy": 0.95},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    group, test_set, versions = result.options["group"], result.test_set, []
    by_bits = {bits: result if bits == result.options["bits"] else run(bits=bits) for bits in (32, 2, 3, 4)}
    for bits, one in by_bits.items():
        model = one.model if bits == 32 else packed_model(one.model, group, bits)
        versions.append(version(f"{bits} bits", model, test_set))
    result.rows = compare(versions, test_set[0][0].cpu())
    for row, one in zip(result.rows, by_bits.values(), strict=True):
        row["rounded after training"] = one.baseline["accuracy"]
    seeds = [result.options["seed"] + more for more in (1, 2)]
    trained = {bits: [by_bits[bits], *(run(bits=bits, seed=seed) for seed in seeds)] for bits in (2, 4, 32)}
    reached = {bits: mean(one["accuracy"] for one in ones) for bits, ones in trained.items()}
    after = {bits: mean(one.baseline["accuracy"] for one in ones) for bits, ones in trained.items()}
    yield Claim("2 bits: rounded in training, against after it (3 seeds)", reached[2], ">", after[2], margin=0.02)
    yield Claim("and gains more than at 4 bits", reached[2] - after[2], ">", reached[4] - after[4], margin=0.015)
    least = max(reached[32] - 0.025, linear_classifier(result.train_set, test_set)["accuracy"])
    text = "4 bits cost at most 1.5 points (3 seeds), and stay above a linear classifier on pixels"
    yield Claim(text, reached[4], ">", least, margin=0.01)
    yield Claim("4 bits: file as a share of fp32's", versions[3].bytes / versions[0].bytes, "<=", 0.16, kind="fact")


class FewBits(nn.Module):
    """A weight as integers of few bits, several to a byte, and a scale for each group."""

    def __init__(self, weight: Weight, bits: int, group: int) -> None:
        super().__init__()
        self.bits, self.group, self.dim, self.dtype = bits, group, weight.dim, weight.value.dtype

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        self.shape, (integers, scales) = weight.shape, rounded_groups(weight, self.bits, self.group, self.dim)
        return pack(integers, self.bits), scales.bfloat16()

    def forward(self, packed: Tensor, scales: Tensor) -> Tensor:
        return out_of_groups(unpack(packed, self.bits) * scales.float(), self.shape, self.dim).to(self.dtype)


def packed_model(model: nn.Module, group: int = 32, bits: int = 4) -> nn.Module:
    """A copy of the model on the CPU, for evaluation, whose layers hold weights of few bits, as they are rounded.

    Raises:
        InputError: an option is out of range, or no layer has a plain weight; names one.
    """
    require_bits(bits)
    if group < 1 or group % (8 // bits):
        raise InputError(f"option group: expected a multiple of {8 // bits}, got {group!r}")
    model = copy_for_cpu(model)
    weights = find_weights(model).values()
    tell_reached("packed_model", model, (weight.value for weight in weights))
    for weight in weights:
        stored_as(weight, FewBits(weight, bits, group))
    return model


def load_packed(model: nn.Module, path: str | Path, group: int = 32, bits: int = 4) -> nn.Module:
    """The packed network in a file that `save_dense` wrote of it; `model` is the network, whatever its weights."""
    return load_dense(packed_model(model, group, bits), path, f"a file of this network in {bits} bits")


@run.figure
def figure(result: Result) -> Any:
    """Accuracy against the bits of a weight, each way, and the sizes of the files."""
    drawing, axes = new_figure(1, 2, width=4.6, height=3.4)
    names, rows = [row["version"] for row in result.rows], result.rows[1:]
    for way, label in {"accuracy": "rounded in training", "rounded after training": "rounded afterwards"}.items():
        axes[0, 0].plot([row["version"] for row in rows], [row[way] for row in rows], marker="o", label=label)
    axes[0, 0].set(ylabel="accuracy")
    axes[0, 0].legend(frameon=False, fontsize=8)
    axes[0, 1].bar_label(axes[0, 1].bar(names, [row["bytes"] / 1000 for row in result.rows]), fmt="%.0f", fontsize=8)
    axes[0, 1].set_ylabel("kilobytes of the file")
    return drawing


class Packed(Shipped):
    """The same, shipped with its weights packed."""

    def files(self, result: Result) -> dict[str, Callable[[Path], object]]:
        bits, group = (result.options[name] for name in ("bits", "group"))
        model = result.model if bits == 32 else packed_model(result.model, group, bits)
        return shipped_files(model, calibration(result.train_set, count=256))


def build_rounded(options: QuantizationAwareOptions, data: Images | ImageFiles) -> nn.Module:
    """The network in few bits for pictures and classes like these, its weights and ranges still to be loaded."""
    return without_rounding(rounding(build(options, data), options, torch.zeros(1, *data.shape)))


run.predicts(Packed, build_rounded)


if __name__ == "__main__":
    main(run)
