"""What all compression recipes print: one table, the same numbers before and after."""

import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from recipes.compression.files import file_bytes, save_dense
from recipes.core.measure import interleaved, macs, ratio
from recipes.datasets.images import ImageFiles, Images
from recipes.vision.classification.scoring import evaluate


@dataclass
class Version:
    """One version of a network, as it would be shipped.

    Attributes:
        name: its row in the table.
        model: whose parameters and multiply-accumulates are counted.
        accuracy: on held-out data, between 0 and 1; not a number where it cannot run.
        bytes: of its file, 0 if there is none.
        call: what is timed, where that is not the model itself (a compiled one); None leaves it untimed.
    """

    name: str
    model: nn.Module
    accuracy: float
    bytes: int
    call: Callable[[Tensor], Any] | None


def version(name: str, model: nn.Module, test_set: Images | ImageFiles, *, timed: bool = True) -> Version:
    """A network on the CPU as a version, its file with every number in full."""
    measured = costs(model, test_set)
    return Version(name, model, measured["accuracy"], int(measured["bytes"]), model if timed else None)


def costs(model: nn.Module, test_set: Images | ImageFiles) -> dict[str, float]:
    """Bytes of a network's file, every number in full, and its accuracy; on the CPU, what is in halves as floats."""
    size = file_bytes(model, save_dense)
    if any(value.dtype == torch.half for value in model.parameters()):
        model = copy.deepcopy(model).float()
    return {"bytes": size, "accuracy": evaluate(model, test_set, torch.device("cpu"))["accuracy"]}


def compare(versions: Sequence[Version], picture: Tensor, *, rounds: int = 9) -> list[dict[str, Any]]:
    """A row for each version. Latencies are ratios to the first version's: below 1 is faster.

    Each latency is the median over rounds in which all versions run in turn, with its quartiles.

    Args:
        versions: the dense network first.
        picture: one input (C, H, W), on the device where the versions live.
        rounds: how often each version runs at each batch size.
    """
    was_training = [version.model.training for version in versions]
    for version in versions:
        version.model.eval()
    rows: list[dict[str, Any]] = [
        {
            "version": version.name,
            "accuracy": None if math.isnan(version.accuracy) else version.accuracy,
            "bytes": version.bytes or None,
            "parameters": sum(value.numel() for value in parameters(version.model)),
            "non-zero": sum(int(value.count_nonzero()) for value in parameters(version.model)),
            "macs": macs(version.model, picture.unsqueeze(0).to(next(version.model.parameters()).device)),
        }
        for version in versions
    ]
    for batch_size in (1, 32):
        images = picture.expand(batch_size, *picture.shape).contiguous()
        timed = {version.name: functools.partial(version.call, images) for version in versions if version.call}
        dense, device = versions[0].name, picture.device.type
        with torch.no_grad():
            # As many calls as take the dense network 20 milliseconds: short runs are lost in the clock's noise.
            once = min(interleaved({dense: timed[dense]}, rounds=5, device=device)[dense])
            times = max(1, math.ceil(0.02 / once))
            calls = {name: repeated(call, times) for name, call in timed.items()}
            seconds = interleaved(calls, rounds=rounds, device=device)
        for row in rows:
            low, median, high = (None,) * 3
            if row["version"] in seconds:
                low, median, high = ratio(seconds[row["version"]], seconds[dense])
            row[f"latency_ratio_{batch_size}"] = median
            row[f"quartiles_{batch_size}"] = None if low is None else f"{low:.2f}–{high:.2f}"
    for version, training in zip(versions, was_training, strict=True):
        version.model.train(training)
    return rows


def repeated(call: Callable[[], Any], times: int) -> Callable[[], None]:
    """A function that makes the call so many times."""

    def repeat() -> None:
        for _ in range(times):
            call()

    return repeat


@torch.no_grad()
def parameters(model: nn.Module) -> Iterator[Tensor]:
    """The model's parameters, those that are computed from integers as they come out of it, shared ones once."""
    seen: set[int] = set()
    for layer in model.modules():
        forms: Any = getattr(layer, "parametrizations", {})
        found = [(form, getattr(layer, name)) for name, form in forms.items()]
        found += [(value, value) for value in layer._parameters.values() if not isinstance(layer, ParametrizationList)]
        for key, value in found:
            if value is not None and id(key) not in seen:
                seen.add(id(key))
                yield value.detach()


def draw_latencies(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Bars of the time that each row of `compare` takes, for batches of 1 and 32."""
    timed = [row for row in rows if row["latency_ratio_1"] is not None]
    for shift, batch_size in ((-0.2, 1), (0.2, 32)):
        ratios = [row[f"latency_ratio_{batch_size}"] for row in timed]
        positions = [index + shift for index in range(len(timed))]
        bars = axes.barh(positions, ratios, height=0.4, label=f"batch of {batch_size}")
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axes.set_yticks(range(len(timed)), [row["version"] for row in timed])
    axes.set(xlabel="time, as a share of fp32's", ylim=(max(1, len(timed)) - 0.5, -0.5))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def logarithmic(axes: Any, label: str) -> None:
    """Axes of accuracy over a quantity of several orders, with plain numbers along it."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(xscale="log", xlabel=label, ylabel="accuracy")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.spines[["top", "right"]].set_visible(False)
