"""Quantization: eight bits for a number instead of thirty-two.

A number becomes the nearest of 256 evenly spaced values, and is stored as that value's index: q = x / s + z,
rounded, with a scale s and the zero point z, the index that stands for zero. Weights get a scale for every
output channel, an embedding's for every row. Inputs of a layer get one for all: static, from the range seen
in a few training pictures, or dynamic, one for each sample, from its own range. That needs no pictures beforehand
and never clips, whatever arrives, but every number must be looked at first.

Here it is written out in floating point, which shows what rounding costs and makes the file small, but gains
no time. For that the products must be integers too: torchao finds the places in the network's graph, and the
compiler turns them into the processor's instructions for 8-bit numbers, where it has them. Half precision, and
the integers of onnxruntime and OpenVINO where these are installed, stand in the same table.

Notes: 86
Paper: Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam, Kalenichenko (2018), "Quantization and Training of
    Neural Networks for Efficient Integer-Arithmetic-Only Inference", https://arxiv.org/abs/1712.05877
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import functools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from recipes.compression.calls import each_tensor, named_call
from recipes.compression.files import file_bytes, read_tensors, save_dense
from recipes.compression.inductor import accuracy_of, missing_for_integers, quiet_and_single
from recipes.compression.layers import (
    CONVOLUTIONS,
    TRANSPOSED,
    Weight,
    copy_for_cpu,
    find_weights,
    is_conv1d,
    load_dense,
    stored_as,
    tell_reached,
)
from recipes.compression.report import Version, check_counts, compare, in_subfolder
from recipes.compression.runtimes import installed_ways
from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import map_tensors
from recipes.core.figures import new_figure
from recipes.core.old import Engine, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.vision.classification.old import FAST, build_model, train
from recipes.vision.classification.scoring import evaluate, majority

Observer = Callable[[Tensor], tuple[Tensor, Tensor]]  # from numbers to the smallest and largest not to be clipped
TAKING_ONE = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)  # input, which is rounded, too


def to_integers(values: Tensor, scale: Tensor, zero_point: Tensor | int, low: int, high: int) -> Tensor:
    """q = round(x / s) + z, kept between `low` and `high`: whole numbers, in floating point."""
    return ((values / scale).round() + zero_point).clamp(low, high)


def to_numbers(integers: Tensor, scale: Tensor, zero_point: Tensor | int) -> Tensor:
    """x ≈ s (q - z): at most s / 2 from what it was, where nothing was cut off."""
    return scale * (integers - zero_point)


def weight_scale(weight: Tensor, bits: int, dim: int = 0) -> Tensor:
    """A scale for each output channel, along `dim`, whose largest weight gets the largest integer; z is 0."""
    largest = weight.float().abs().amax([other for other in range(weight.ndim) if other != dim], keepdim=True)
    return (largest / (2 ** (bits - 1) - 1)).clamp(min=torch.finfo(torch.float).tiny)


def input_scale(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point that spread this range over 0 to 255.

    The range is widened to hold zero, which then is met exactly: padding and ReLU give many zeros.
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / 255).clamp(min=torch.finfo(low.dtype).tiny)
    return scale, (-low / scale).round()


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

    def error(part: float) -> float:
        scale, zero_point = input_scale(part * low, part * high)
        rounded = to_numbers(to_integers(numbers, scale, zero_point, 0, 255), scale, zero_point)
        return float((rounded - numbers).square().mean())

    part = min((twentieth / 20 for twentieth in range(20, 0, -1)), key=error)
    return part * low, part * high


class Integers(nn.Module):
    """A weight as integers and a scale for each output channel.

    With integers, a layer's sum is Σ s_x (q_x - z_x) s_w q_w = s_x s_w Σ (q_x - z_x) q_w: products of small whole
    numbers, and one multiplication by the scales at the end.
    """

    def __init__(self, weight: Weight, bits: int) -> None:
        super().__init__()
        self.bits, self.dim, self.dtype = bits, weight.dim, weight.value.dtype

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        scale, largest = weight_scale(weight, self.bits, self.dim), 2 ** (self.bits - 1) - 1
        return to_integers(weight.float(), scale, 0, -largest, largest).to(torch.int8), scale

    def forward(self, integers: Tensor, scale: Tensor) -> Tensor:
        return to_numbers(integers, scale, 0).to(self.dtype)


def round_inputs(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before a layer is called: its input becomes the numbers that 8-bit integers stand for."""
    given = args[0] if args else next(iter(kwargs.values()))
    numbers, scale, zero_point = given.float(), layer.input_scale, layer.zero_point
    if not scale.numel():  # found anew, for each sample
        dims = list(range(min(1, given.ndim - 1), given.ndim))
        scale, zero_point = input_scale(numbers.amin(dims, keepdim=True), numbers.amax(dims, keepdim=True))
    rounded = to_numbers(to_integers(numbers, scale, zero_point, 0, 255), scale, zero_point).to(given.dtype)
    return ((rounded, *args[1:]), kwargs) if args else (args, kwargs | {next(iter(kwargs)): rounded})


def with_rounded_inputs(layer: nn.Module, scale: Tensor, zero_point: Tensor) -> None:
    """The layer's inputs are rounded from now on; in place. An empty scale is found anew for each sample."""
    layer.register_buffer("input_scale", scale)
    layer.register_buffer("zero_point", zero_point)
    layer.register_forward_pre_hook(round_inputs, with_kwargs=True)


def quantize(
    model: nn.Module, inputs: Any = None, *, bits: int = 8, dynamic: bool = False, observer: Observer = minmax
) -> nn.Module:
    """A copy of the model on the CPU with integer weights, for evaluation.

    Args:
        model: any network; weights of linear, convolutional and recurrent layers, of attention and embeddings
            become integers, other parts stay in floating point.
        inputs: a batch it can take, a tuple of them or a dict of named ones, whose ranges set the scales of the
            inputs of linear and convolutional layers; these get 8 bits. If not given, only weights are quantized.
        bits: of a weight, 2 to 8; each is stored in a byte.
        dynamic: these inputs get 8 bits by the range they have in the sample at hand; none is fixed.
        observer: what range the inputs set: `minmax`, `percentile` or `least_error`.

    Raises:
        InputError: an option is out of range, inputs are given for dynamic ranges, there is no such layer, none
            has a plain weight, or one cannot take what it is given; names the layer.
    """
    if bits not in range(2, 9):
        raise InputError(f"option bits: expected a whole number from 2 to 8, got {bits!r}")
    if dynamic and inputs is not None:
        raise InputError("option dynamic: expected no inputs beside it, as it takes the ranges from each batch")
    model = copy_for_cpu(model)
    weights = find_weights(model)
    tell_reached("quantize", model, (weight.value for weight in weights.values()))
    layers = [layer for layer in model.modules() if isinstance(layer, TAKING_ONE) or is_conv1d(layer)]
    ranges = {} if inputs is None else input_ranges(model, layers, map_tensors(Tensor.cpu, inputs), observer)
    for weight in weights.values():
        stored_as(weight, Integers(weight, bits))
    for layer in layers if dynamic else ranges:
        with_rounded_inputs(layer, *(input_scale(*ranges[layer]) if ranges else torch.empty(2, 0)))
    return model


@torch.no_grad()
def input_ranges(
    model: nn.Module, layers: list[nn.Module], inputs: Any, observer: Observer
) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """The range of what each of the layers is given while the model answers."""
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def observe(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        low, high = observer(next(each_tensor([args, kwargs])).float())
        before = seen.get(layer, (low, high))
        seen[layer] = torch.minimum(low, before[0]), torch.maximum(high, before[1])

    hooks = [layer.register_forward_pre_hook(observe, with_kwargs=True) for layer in layers]
    named_call(model, inputs)
    for hook in hooks:
        hook.remove()
    return seen


def load_quantized(model: nn.Module, path: str | Path) -> nn.Module:
    """The quantized network in a file that `save_dense` wrote of it.

    Args:
        model: the network before it was quantized, whatever its weights.
        path: of the file.

    Raises:
        InputError: the file is no safetensors file, or is another network's.
    """
    model = quantize(model)
    layers = dict(model.named_modules())
    for name, tensor in read_tensors(path).items():
        owner, _, last = name.rpartition(".")
        if last == "input_scale" and owner in layers:
            with_rounded_inputs(layers[owner], torch.empty_like(tensor), torch.empty_like(tensor))
    return load_dense(model, path, "a quantized file of this network")


def draw_quantization(by_bits: dict[int, float], dense: float, rows: list[dict[str, Any]]) -> Any:
    """Accuracy against the bits of a weight, and the time that each version takes."""
    figure, axes = new_figure(1, 2, width=4.6, height=3.4)
    axes[0, 0].plot(list(by_bits), list(by_bits.values()), marker="o")
    axes[0, 0].axhline(dense, color="black", linewidth=0.8, linestyle="--", label="32 bits")
    axes[0, 0].set(xlabel="bits of a weight", ylabel="accuracy", xticks=list(by_bits))
    axes[0, 0].legend(frameon=False, loc="lower right")
    timed = [row for row in rows if row["latency_ratio_1"] is not None]
    for shift, batch_size in ((-0.2, 1), (0.2, 32)):
        ratios = [row[f"latency_ratio_{batch_size}"] for row in timed]
        places = [place + shift for place in range(len(timed))]
        bars = axes[0, 1].barh(places, ratios, height=0.4, label=f"batch of {batch_size}")
        axes[0, 1].bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axes[0, 1].set_yticks(range(len(timed)), [row["version"] for row in timed])
    axes[0, 1].set(xlabel="time, as a share of fp32's", ylim=(len(timed) - 0.5, -0.5))
    axes[0, 1].legend(frameon=False, fontsize=8)
    for place in axes.flatten():
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    model: str = "small_cnn",
    width: int = 64,
    epochs: int = 4,
    batch_size: int = 64,
    lr: float = 1e-2,
    seeds: int = 3,
    libraries: bool = True,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Quantizes a trained classifier by hand and by torchao, and measures accuracy, bytes and time on the CPU.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        model: small_cnn, timm:NAME or torchvision:NAME.
        width: channels of the small_cnn's first convolution; its others have two and four times as many.
        epochs: passes over the training pictures, in floating point.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        seeds: trainings that every accuracy by hand is the mean of; the libraries get the first network.
        libraries: also measure what is installed, torchao's compiled integers before all, which takes most of the time.
        device: auto, cpu, cuda or mps, for the training alone.
        seed: of the first training's weights and order of pictures, from which the others count up, and of the
            pictures that ranges are taken from.
        out: folder for result.json, figure.png and model.safetensors, the quantized network's file.
    """
    check_counts(width=width, seeds=seeds)
    place, cpu = setup(device, seed), torch.device("cpu")
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    options: Engine = {**FAST, **engine}
    fit = functools.partial(train, train_set=train_set, test_set=test_set, batch_size=batch_size, lr=lr, device=place)
    sample = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(seed))[:512]
    pictures, _ = train_set.__getitems__(sample)  # that ranges are taken from
    lit, labels = test_set.__getitems__(torch.randperm(len(test_set))[:512])
    lit = lit + 1  # brighter by as much as pixels differ from each other, their standard deviation
    accuracies: dict[str, list[float]] = {}
    networks: dict[str, nn.Module] = {}  # of the first seed
    history: list[dict[str, float]] = []
    static, dynamic = "int8 by hand", "int8 by hand, dynamic"

    for number in range(seed, seed + seeds):
        torch.manual_seed(number)
        network = build_model(model, train_set.shape[0], len(train_set.classes), width=width)
        loop = fit(network, epochs=epochs, seed=number, **in_subfolder(options, f"fp32-{number}"))
        history = history or loop.history
        network = network.cpu().to(memory_format=torch.contiguous_format).eval()
        ways = {"fp32": network, static: quantize(network, pictures), dynamic: quantize(network, dynamic=True)}
        for way, one in (ways | {f"{bits} bits": quantize(network, bits=bits) for bits in range(2, 9)}).items():
            accuracies.setdefault(way, []).append(evaluate(one, test_set, cpu)["accuracy"])
        for way, one in ways.items():
            with torch.no_grad():
                right = one(lit).argmax(dim=1) == labels
            accuracies.setdefault(f"{way}, brighter", []).append(right.double().mean().item())
        networks = networks or ways
    mean = {way: sum(values) / seeds for way, values in accuracies.items()}
    network, quantized = networks["fp32"], networks[static]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save_dense(quantized, Path(folder) / "model.safetensors")
        loaded = load_quantized(network, Path(folder) / "model.safetensors")
        changed = int((quantized(pictures) != loaded(pictures)).sum())

    versions = [Version(way, one, mean[way], file_bytes(one, save_dense), one) for way, one in networks.items()]
    lacking = missing_for_integers() if libraries else "the option libraries"
    with quiet_and_single(), tempfile.TemporaryDirectory() as folder:
        for name, call, size in installed_ways(network, pictures, Path(folder)) if libraries else ():
            right = accuracy_of(call, test_set) if call else math.nan
            versions.append(Version(name, network, right, size, call))
        if lacking:
            versions.append(Version(f"int8, compiled: needs {lacking}", network, math.nan, 0, None))
        rows = compare(versions, pictures[0], rounds=5)

    def cost(way: str, light: str = "") -> float:  # in points
        return 100 * (mean[f"fp32{light}"] - mean[f"{way}{light}"])

    claims = [
        claim("points that int8 costs", cost(static), "<=", 1),
        claim("points that it costs with dynamic ranges", cost(dynamic), "<=", 1),
        claim("on brighter pictures: points that dynamic ranges cost", cost(dynamic, ", brighter"), "<=", 1),
        claim("and that static ones cost, which cut them off", cost(static, ", brighter"), ">", 1),
        claim("points that weights of 4 bits cost, without rounding the inputs", cost("4 bits"), "<=", 1),
        claim("the int8 file as a share of fp32's", versions[1].bytes / versions[0].bytes, "<=", 0.27),
        claim("answers that change when the file is read back", changed, "<=", 0),
        claim("computed by hand it takes longer: share of fp32's time, 1 picture", rows[1]["latency_ratio_1"], ">", 1),
    ]
    if not lacking:
        integers, floats = (
            next(row for row in rows if row["version"] == f"{kind}, compiled") for kind in ("int8", "fp32")
        )
        lost, size = accuracies["fp32"][0] - integers["accuracy"], integers["bytes"] / floats["bytes"]
        time = integers["latency_ratio_32"]
        claims += [
            claim("points that int8 by torchao costs the first network", 100 * lost, "<=", 1),
            claim("compiled to integers it takes a share of fp32's time, 32 pictures", time, "<", 1),
            claim("and of the time of compiled fp32", time / floats["latency_ratio_32"], "<", 1),
            claim("bytes of its program, which is code, too, as a share of compiled fp32's", size, "<", 1),
        ]
    return Result(
        metrics={"accuracy": mean[static], "bytes": versions[1].bytes, "macs": rows[1]["macs"]},
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.96},
        claims=claims,
        history=history,
        rows=rows,
        model=quantized,
        draw=lambda: draw_quantization({bits: mean[f"{bits} bits"] for bits in range(2, 9)}, mean["fp32"], rows),
    )


if __name__ == "__main__":
    main(run)
