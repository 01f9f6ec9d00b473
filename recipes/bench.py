"""How fast a recipe trains here, where its time goes, and which options of the loop pay on this device.

Each row is a process of its own, which runs the recipe until its first training loop has worked for some
seconds: the options as given, then each arithmetic, memory order and compilation that `Loop` offers.
"""

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from recipes import catalog
from recipes.core.errors import InputError

VARIANTS: list[dict[str, Any]] = [
    {"precision": "fp32"},
    {"precision": "bf16"},
    {"channels_last": True},
    {"channels_last": False},
    {"compile": True},
]
WARMUP = 3  # steps; the first is counted, operation by operation
# Dense bf16 operations a second, from the makers' data sheets; fp32 through TF32 is half of it.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "RTX 4090": 165e12}


class Enough(Exception):
    """Raised inside the training loop when it has been watched for long enough."""


@dataclass
class Watch:
    """Stands between a `Loop` and its batches, and notes when each was asked for, got and done with."""

    batches: Any
    seconds: float
    waits: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)  # the waits included
    samples: int = 0
    operations: int = 0  # in the forward and backward pass of one batch
    compiled: bool = False

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)

    def __iter__(self) -> Iterator[Any]:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        def now() -> float:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            return time.perf_counter()

        source = iter(self.batches)
        while True:
            asked = now()
            batch = next(source, None)
            if batch is None:
                return
            got = time.perf_counter()
            if not self.steps and not self.compiled:
                with FlopCounterMode(display=False) as counter:
                    yield batch
                self.operations = counter.get_total_flops()
            else:
                yield batch
            self.waits.append(got - asked)
            self.steps.append(now() - asked)
            self.samples = samples_in(batch)
            if sum(self.steps[WARMUP:]) > self.seconds:
                raise Enough


def samples_in(batch: Any) -> int:
    """Samples in a batch: the length of the first tensor or list in it."""
    first = next(iter(batch.values())) if isinstance(batch, dict) else batch[0] if isinstance(batch, tuple) else batch
    return samples_in(first) if isinstance(first, (tuple, dict)) else len(first)


def watch(name: str, options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """One row: the recipe run with these options, in this process, for so many seconds of its first loop."""
    import torch

    from recipes.core.loop import Loop

    started: Callable[..., None] = Loop.__init__
    watches: list[Watch] = []

    def watched(self: Loop, model: Any, optimizer: Any, batches: Any, options: Any, **given: Any) -> None:
        watches.append(Watch(batches, seconds, compiled=options.compile))
        started(self, model, optimizer, watches[-1], options, **given)

    with mock.patch.object(Loop, "__init__", watched):
        try:
            catalog.load(name).run(**options)
        except Enough:
            pass
        except InputError:
            raise
        except Exception as error:  # an option that this recipe cannot take is an answer, too
            return {"error": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:80]}"}
    measured = next((one for one in watches if len(one.steps) > WARMUP), None)
    if measured is None:
        raise InputError(f"recipe {name}: expected a training of more than {WARMUP} steps to measure")
    step = statistics.median(measured.steps[WARMUP:])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    row = {
        "samples a second": measured.samples / step,
        "waiting for data": sum(measured.waits[WARMUP:]) / sum(measured.steps[WARMUP:]),
        "peak MiB": (torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else memory) / 2**20,
        "GFLOP/s": measured.operations / step / 1e9 if measured.operations else None,
    }
    if torch.cuda.is_initialized() and measured.operations:
        device = torch.cuda.get_device_name()
        peak = next((peak for part, peak in PEAKS.items() if part in device), None)
        row["of the peak in bf16"] = measured.operations / step / peak if peak else None
    return row


def as_typed(option: str, value: str | bool) -> str:
    """The option as it stands on a command line."""
    flag = option.replace("_", "-")
    return f"--{flag} {value}" if isinstance(value, str) else f"--{'' if value else 'no-'}{flag}"


def bench(name: str, options: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """The options as given, then each variant of the loop: a row each, with its speed against the first."""
    rows: list[dict[str, Any]] = []
    processes = multiprocessing.get_context("spawn")
    for variant in [{}, *VARIANTS]:
        with ProcessPoolExecutor(1, mp_context=processes) as fresh:  # so that peak memory is this variant's
            row = fresh.submit(watch, name, {**options, **variant}, seconds).result()
        words = [as_typed(key, value) for key, value in variant.items()]
        row = {"options": " ".join(words) or "as given", **row}
        if "error" not in row:
            row["speed"] = row["samples a second"] / (rows[0] if rows else row)["samples a second"]
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows under each other; what a variant could not do stands in its place."""
    from recipes.core.result import columns, short

    header = list(rows[0])
    shares = {"waiting for data", "of the peak in bf16"}
    lines = [header]
    for row in rows:
        told = [
            f"{row[key]:.1%}" if key in shares and row.get(key) is not None else short(row.get(key)) for key in header
        ]
        lines.append(told if "error" not in row else [row["options"], row["error"], *[""] * (len(header) - 2)])
    return columns(lines)
