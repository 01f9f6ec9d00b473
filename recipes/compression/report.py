"""What all compression recipes print: one table, the same numbers before and after."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recipes.core.errors import InputError
from recipes.core.measure import interleaved, macs, parameter_count, ratio
from recipes.core.old import Engine


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
            "parameters": parameter_count(version.model),
            "non-zero": nonzero_count(version.model),
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


def nonzero_count(model: nn.Module) -> int:
    """Parameters that are not zero, shared ones once."""
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters())


def in_subfolder(engine: Engine, name: str) -> Engine:
    """The same options, with the checkpoints of one training among several in a folder of its own."""
    inside: Engine = {**engine}
    if engine.get("checkpoint") is not None:
        inside["checkpoint"] = str(Path(engine["checkpoint"]) / name)
    return inside


def check_counts(**options: int) -> None:
    """Raises an InputError for the first option that is no whole number of at least 1."""
    for name, value in options.items():
        if not (isinstance(value, int) and value >= 1):
            raise InputError(f"option {name}: expected a whole number of at least 1, got {value!r}")


def logarithmic(axes: Any, label: str) -> None:
    """Axes of accuracy over a quantity of several orders, with plain numbers along it."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(xscale="log", xlabel=label, ylabel="accuracy")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.spines[["top", "right"]].set_visible(False)
