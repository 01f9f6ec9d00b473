"""One stage against two: pictures a second of the trained detectors, on the same held-out scenes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import recipes
from benchmarks.row import Row
from recipes.core.measure import interleaved
from recipes.datasets.scenes import open_boxes


def measure(rounds: int = 15) -> list[Row]:
    _, test_set = open_boxes()
    images, _ = test_set.__getitems__(list(range(16)))
    calls: dict[str, Callable[[], Any]] = {}
    for name in ("faster_rcnn", "ssd", "yolo"):
        result = recipes.run(f"vision.detection.{name}", device="cpu")
        model = result.model.to(memory_format=torch.contiguous_format).eval()
        calls[f"{name}, map_50 {result.metrics['map_50']:.2f}"] = partial(model, images)
    with torch.inference_mode():
        seconds = interleaved(calls, rounds=rounds)
    two_stages, *others = seconds
    return [
        Row(
            f"`vision.detection.{name}`",
            two_stages,
            [mine / theirs for mine, theirs in zip(seconds[name], seconds[two_stages], strict=True)],
            remark=f"{len(images) / min(seconds[name]):,.0f} pictures a second of one thread",
        )
        for name in others
    ]
