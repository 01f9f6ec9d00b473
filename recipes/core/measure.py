"""Measuring models: parameters, arithmetic, and time side by side."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def parameter_count(model: nn.Module) -> int:
    """Trainable and frozen parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def macs(model: nn.Module, *inputs: Any) -> int:
    """Multiply-accumulates of one forward pass: matrix products and convolutions, as torch counts them."""
    was_training = model.training
    model.eval()
    with unfused(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    model.train(was_training)
    return counter.get_total_flops() // 2


@contextmanager
def unfused() -> Iterator[None]:
    """Attention and recurrent layers are made of the products that torch counts, in place of one fused call."""
    fused, mkldnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        torch.backends.mkldnn.enabled = mkldnn


def interleaved(
    functions: dict[str, Callable[[], Any]], *, rounds: int = 15, warmup: int = 2, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each function in turn, round after round, so that a slow moment slows them all.

    On the CPU one thread works and its processor time counts, which a busy neighbor does not change;
    on an accelerator the wall clock counts, once the device is done.
    """
    threads, on_cpu = torch.get_num_threads(), device.startswith("cpu")
    clock = time.process_time if on_cpu else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    torch.set_num_threads(1)
    try:
        for turn in range(warmup + rounds):
            for name, function in functions.items():
                start = clock()
                function()
                if not on_cpu:
                    torch.accelerator.synchronize()
                if turn >= warmup:
                    seconds[name].append(clock() - start)
    finally:
        torch.set_num_threads(threads)
    return seconds


def ratio(seconds: list[float], reference: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of the round-by-round ratios to a reference."""
    ratios = [mine / other for mine, other in zip(seconds, reference, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return low, middle, high
