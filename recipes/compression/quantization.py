"""Quantization: eight bits for a number instead of thirty-two.

A number becomes the nearest of 256 evenly spaced values, and is stored as that value's index: q = x / s + z,
rounded, with a scale s and the zero point z, the index that stands for zero. Weights get a scale for every
output channel, an embedding's for every row. Inputs of a layer get one for all: static, from the range that an
observer chose in a few training pictures, or dynamic, one for each sample, from its own range. That needs no pictures
beforehand and never clips, whatever arrives, but every number must be looked at first.

Here it is written out in floating point, which shows what rounding costs and makes the file small, but gains no time.
For that the products must be integers too: torchao finds the layers in the network's graph, and the compiler turns
them into the processor's instructions for 8-bit numbers. The table has these and other libraries' integers.

At 8 bits every way is accurate here; what scales and ranges are worth shows at 2 bits, and on unexpected inputs.

Notes: 86
Paper: Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam, Kalenichenko (2018), "Quantization and Training of
    Neural Networks for Efficient Integer-Arithmetic-Only Inference", https://arxiv.org/abs/1712.05877
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression.files import read_tensors
from recipes.compression.grouped_weights import require_bits
from recipes.compression.layers import copy_for_cpu, find_weights, load_dense, stored_as, tell_reached
from recipes.compression.observing import calibration, input_ranges, takes_one_input, with_changed_input
from recipes.compression.report import compare, costs, draw_latencies, version
from recipes.compression.runtimes import installed_versions
from recipes.compression.shipping import Shipped
from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, main, option, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.task import ClassificationOptions, build
from recipes.vision.pixels import evenly, linear_classifier

Observer = Callable[[Tensor], tuple[Tensor, Tensor]]  # from numbers to the smallest and largest not to be clipped


@dataclass(kw_only=True)
class QuantizationOptions(ClassificationOptions):
    bits: int = option(8, "of a weight: 2 to 8, or 32 for the network as it was trained", least=2, most=32)
    per_channel: bool = option(True, "a scale for each output channel of a weight, not one for all of it")
    inputs: Literal["static", "dynamic", "none"] = option("static", "ranges of layers' inputs: fixed, a sample's, none")
    observer: Literal["minmax", "percentile", "least_error"] = option("least_error", "what chooses static ranges")
    width: int = option(64, "channels of the small_cnn's first layer", least=1)
    libraries: bool = option(True, "in the claims, also time compiled integers and those of other libraries")
    epochs: int = 8


def to_integers(values: Tensor, scale: Tensor, zero_point: Tensor | int, low: int, high: int) -> Tensor:
    """q = round(x / s) + z, kept between `low` and `high`: whole numbers, in floating point."""
    return ((values / scale).round() + zero_point).clamp(low, high)


def to_numbers(integers: Tensor, scale: Tensor, zero_point: Tensor | int) -> Tensor:
    """x ≈ s (q - z): at most s / 2 from what it was, where nothing was clipped."""
    return scale * (integers - zero_point)


def weight_scale(weight: Tensor, bits: int, dim: int | None = 0) -> Tensor:
    """A scale for each output channel, along `dim`, whose largest weight gets the largest integer; z is 0."""
    largest = weight.float().abs().amax([other for other in range(weight.ndim) if other != dim], keepdim=True)
    return (largest / (2 ** (bits - 1) - 1)).clamp(min=torch.finfo(torch.float).tiny)


def input_scale(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point that spread this range over 0 to 255."""
    low, high = low.clamp(max=0), high.clamp(min=0)  # padding and ReLU give many zeros: they are met exactly
    scale = ((high - low) / 255).clamp(min=torch.finfo(low.dtype).tiny)
    return scale, (-low / scale).round()


def to_8_bits(numbers: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """What is left of the numbers when they are stored as integers from 0 to 255."""
    return to_numbers(to_integers(numbers, scale, zero_point, 0, 255), scale, zero_point)


def minmax(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The range of all the numbers."""
    low, high = numbers.aminmax()
    return low, high


def percentile(numbers: Tensor, share: float = 0.999) -> tuple[Tensor, Tensor]:
    """The range of this share of the numbers, without as many of the smallest as of the largest."""
    ordered = numbers.flatten().sort().values
    cut = round((1 - share) / 2 * len(ordered))
    return ordered[cut], ordered[len(ordered) - 1 - cut]


def least_error(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The range that moves the numbers least, in mean squares: a narrow one rounds less, and clips more."""
    low, high = numbers.aminmax()
    parts = [twentieth / 20 for twentieth in range(20, 0, -1)]
    rounded = (to_8_bits(numbers, *input_scale(part * low, part * high)) for part in parts)
    errors = [float((one - numbers).square().mean()) for one in rounded]
    part = parts[errors.index(min(errors))]
    return part * low, part * high


class Integers(nn.Module):
    """Computes a weight from integers and a scale for each output channel, or, if `dim` is None, one for all.

    With integers, a layer's sum is Σ s_x (q_x - z_x) s_w q_w = s_x s_w Σ (q_x - z_x) q_w: products of small whole
    numbers, and one multiplication by the scales at the end.
    """

    def __init__(self, bits: int, dim: int | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.bits, self.dim, self.dtype = bits, dim, dtype

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        scale, largest = weight_scale(weight, self.bits, self.dim), 2 ** (self.bits - 1) - 1
        return to_integers(weight.float(), scale, 0, -largest, largest).to(torch.int8), scale

    def forward(self, integers: Tensor, scale: Tensor) -> Tensor:
        return to_numbers(integers, scale, 0).to(self.dtype)


def round_inputs(layer: Any, numbers: Tensor) -> Tensor:
    """What a layer is given becomes the numbers that 8-bit integers stand for."""
    scale, zero_point = layer.input_scale, layer.zero_point
    if not scale.numel():  # found anew, for each sample
        dims = list(range(min(1, numbers.ndim - 1), numbers.ndim))
        scale, zero_point = input_scale(numbers.amin(dims, keepdim=True), numbers.amax(dims, keepdim=True))
    return to_8_bits(numbers, scale, zero_point)


def quantize(
    model: nn.Module,
    inputs: Any = None,
    bits: int = 8,
    dynamic: bool = False,
    observer: Observer = minmax,
    per_channel: bool = True,
) -> nn.Module:
    """A copy of the model on the CPU with integer weights, for evaluation.

    Args:
        model: any network; the weights of layers that `find_weights` knows become integers, the rest stays as it is.
        inputs: a batch it can take, a tuple or a dict of named ones, by whose ranges the inputs of linear and
            convolutional layers get 8 bits. If not given, only weights are quantized.
        bits: of a weight, 2 to 8; each is stored in a byte.
        dynamic: these inputs get 8 bits by the range they have in the sample at hand.
        observer, per_channel: what range `inputs` set; whether each output channel of a weight has its own scale.

    Raises:
        InputError: an option is out of range, or a layer has no plain weight or cannot take what it is given.
    """
    require_bits(bits)
    if dynamic and inputs is not None:
        raise InputError("option dynamic: expected no inputs beside it, as it takes the ranges from each batch")
    model = copy_for_cpu(model)
    weights = find_weights(model)
    tell_reached("quantize", model, (weight.value for weight in weights.values()))
    layers = [layer for layer in model.modules() if takes_one_input(layer)]
    ranges = {} if inputs is None else input_ranges(model, layers, inputs, observer)
    for weight in weights.values():
        stored_as(weight, Integers(bits, weight.dim if per_channel else None, weight.value.dtype))
    for layer in layers if dynamic else ranges:
        scale, zero_point = input_scale(*ranges[layer]) if ranges else torch.empty(2, 0)
        with_changed_input(layer, round_inputs, input_scale=scale, zero_point=zero_point)
    return model


def rounded(network: nn.Module, pictures: Tensor, options: QuantizationOptions) -> nn.Module:
    """The network quantized as the options say; static ranges are those in the pictures."""
    if options.bits == 32:
        return network
    inputs, dynamic = pictures if options.inputs == "static" else None, options.inputs == "dynamic"
    observer = {"minmax": minmax, "percentile": percentile, "least_error": least_error}[options.observer]
    return quantize(network, inputs, options.bits, dynamic, observer, options.per_channel)


def train(model: nn.Module, train_set: Images | ImageFiles, options: Options, name: str = "model") -> Loop:
    """Minimizes the cross-entropy with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05, fused=True)
    loop = Loop(model, optimizer, batches(train_set, options), options, name=name)
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(images), labels))
    return loop


@recipe(QuantizationOptions)
def run(options: QuantizationOptions) -> Result:
    """Trains a classifier, quantizes it, and measures what that costs; the baseline stores it in half precision."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    network = build(options, train_set).to(options.device)
    loop = train(network, train_set, options)
    network = network.cpu().to(memory_format=torch.contiguous_format).eval()
    quantized = rounded(network, calibration(train_set, options.seed), options)
    return Result(
        metrics=costs(quantized, test_set),
        baseline=costs(copy.deepcopy(network).half(), test_set),
        baseline_name="half precision",
        bars={"bytes": 430_000, "accuracy": 0.96},
        history=loop.history,
        model=quantized,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result, network = run(), run(bits=32).model
    test_set, pictures = result.test_set, calibration(result.train_set, result.options["seed"])
    static, dynamic = quantize(network, pictures), quantize(network, dynamic=True)
    timed = {"fp32": network, "int8 by hand": static, "int8 by hand, dynamic": dynamic}
    few = {f"weights of {bits} bits": quantize(network, bits=bits) for bits in (2, 3, 4, 6)}
    versions = [version(name, one, test_set, timed=name in timed) for name, one in (timed | few).items()]
    others = installed_versions(network, pictures, test_set) if result.options["libraries"] else ()
    result.rows = compare([*versions, *others], pictures[0], rounds=5)
    least = max(versions[0].accuracy - 0.02, linear_classifier(result.train_set, test_set)["accuracy"])
    text = "int8 costs at most a point of accuracy, and stays above a linear classifier on pixels"
    yield Claim(text, result["accuracy"], ">", least, margin=0.01)
    fine, coarse = (accuracy(quantize(network, bits=2, per_channel=one), test_set) for one in (True, False))
    yield Claim("at 2 bits, a scale for each channel beats one for all of them", fine, ">", coarse, margin=0.2)
    found = [accuracy(model, test_set, brighter=1.0) for model in (dynamic, static)]
    text = "on pictures brighter by a standard deviation, dynamic ranges beat static ones, which clip"
    yield Claim(text, found[0], ">", found[1], margin=0.1)
    pictures[0, :, 0, 0] = 1000
    found = [accuracy(quantize(network, pictures, observer=one), test_set) for one in (percentile, minmax)]
    text = "with one broken pixel among those seen beforehand, percentiles give better ranges than all numbers do"
    yield Claim(text, found[0], ">", found[1], margin=0.1)
    yield Claim("int8: file as a share of fp32's", versions[1].bytes / versions[0].bytes, "<=", 0.27, kind="fact")
    for row in (row for row in result.rows if row["version"] == "int8, compiled"):
        yield Claim("compiled to int8: share of fp32's time, 32 pictures", row["latency_ratio_32"], "<", 1, kind="fact")


@torch.no_grad()
def accuracy(model: nn.Module, test_set: Images | ImageFiles, *, brighter: float = 0.0) -> float:
    """Share of right answers to (at most 2000) test pictures, brighter by so many standard deviations of pixels."""
    images, labels = test_set.__getitems__(evenly(len(test_set), 2000).tolist())
    return (model(images.cpu() + brighter).argmax(dim=1) == labels.cpu()).double().mean().item()


def load_quantized(model: nn.Module, path: str | Path) -> nn.Module:
    """The quantized network in a file that `save_dense` wrote of it; `model` is the network, whatever its weights."""
    tensors = read_tensors(path)
    scales = [tensors.get(f"{name[:-1]}1", one) for name, one in tensors.items() if one.dtype == torch.int8]
    model = quantize(model, per_channel=any(scale.numel() > 1 for scale in scales))
    for name, layer in model.named_modules():
        if (scale := tensors.get(f"{name}.input_scale".lstrip("."))) is not None:
            with_changed_input(layer, round_inputs, input_scale=scale.clone(), zero_point=scale.clone())
    return load_dense(model, path, "a quantized file of this network")


@run.figure
def figure(result: Result) -> Any:
    """Accuracy against the bits of a weight, and the time that each version takes."""
    drawing, axes = new_figure(1, 2, width=4.6, height=3.4)
    few = [row for row in result.rows if row["version"].endswith("bits")]
    by_bits = {int(row["version"].split()[2]): row["accuracy"] for row in few}
    axes[0, 0].plot(list(by_bits), list(by_bits.values()), marker="o", label="weights alone")
    axes[0, 0].axhline(result["accuracy"], color="black", linewidth=0.8, linestyle="--", label="this recipe")
    axes[0, 0].set(xlabel="bits of a weight", ylabel="accuracy")
    axes[0, 0].legend(frameon=False)
    draw_latencies(axes[0, 1], result.rows)
    return drawing


def build_quantized(options: QuantizationOptions, data: Images | ImageFiles) -> nn.Module:
    """The quantized network for pictures and classes like these, its integers still to be loaded."""
    return rounded(build(options, data), torch.zeros(1, *data.shape), options)


run.predicts(Shipped, build_quantized)


if __name__ == "__main__":
    main(run)
