"""Runs every recipe: as it comes, against its bar; or in a few seconds on a part of its data, to see it go through."""

import inspect
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from recipes import catalog
from recipes.core.result import Result, columns, short
from recipes.datasets.bundled import INSTEAD, bundled
from recipes.datasets.tiny import write_tiny

LEAST = {"epochs": 1, "base_steps": 20, "seeds": 1, "repeats": 1, "trainings": 1, "workers": 1, "limit": 50_000}
LEAST |= {"libraries": False, "claims": False}
Watch = Callable[[dict[str, Any], float], None]


def smoke(names: Sequence[str], *, tiny: bool, device: str, watch: Watch) -> list[dict[str, Any]]:
    """Runs these recipes one after another; one that fails does not keep the others from running.

    Args:
        names: of the recipes.
        tiny: one epoch on a part of the bundled data, without claims; only errors and numbers that are not finite
            count as a shortfall.
        device: auto, cpu, cuda or mps.
        watch: called after each with its result and its seconds.

    Returns:
        Each recipe's result as `Result.to_dict` gives it, with its `shortfalls`; of one that failed, the error.
    """
    results = []
    with tempfile.TemporaryDirectory() as folder:
        instead = {}
        if tiny:
            write_tiny(bundled("digits").parent, Path(folder))
            instead = {INSTEAD: folder}
        with mock.patch.dict(os.environ, instead):
            for name in names:
                started = time.perf_counter()
                try:
                    result = outcome(name, device, tiny)
                except Exception as error:
                    reason = str(error).partition("\n")[0]
                    result = {"recipe": name, "shortfalls": [f"{type(error).__name__}: {reason}"], "metrics": {}}
                watch(result, time.perf_counter() - started)
                results.append(result)
    return results


def outcome(name: str, device: str, tiny: bool) -> dict[str, Any]:
    run = catalog.load(name).run
    if not tiny:
        return run(device=device).to_dict()
    result: Result = run(device=device, **shortened(name))
    odd = [f"{key} is {value}" for key, value in result.metrics.items() if not math.isfinite(value)]
    return result.to_dict() | {"shortfalls": odd}


def shortened(name: str) -> dict[str, Any]:
    """Options for a run of that recipe that has to go through, not to learn."""
    known = inspect.signature(catalog.load(name).run).parameters
    return {key: value for key, value in LEAST.items() if key in known}


def line(result: dict[str, Any], seconds: float) -> str:
    """A recipe in a line: its name, its seconds and what it fell short of."""
    return f"{result['recipe']:<40} {seconds:6.1f} s  {'; '.join(result['shortfalls']) or 'passed'}"


def table(results: list[dict[str, Any]]) -> str:
    """The metric, baseline and bar of each recipe, and how many passed."""
    rows = [["recipe", "metric", "measured", "baseline", "bar", "claims held"]]
    for result in results:
        metric, value = next(iter(result["metrics"].items()), ("failed", None))
        claims = result.get("claims", [])
        held = f"{sum(claim['holds'] for claim in claims)} of {len(claims)}"
        baseline, bar = (short(result.get(part, {}).get(metric)) for part in ("baseline", "bars"))
        rows.append([result["recipe"], metric, short(value), baseline, bar, held])
    return f"\n{columns(rows, left={0, 1})}\n\n{tally(results)}"


def tally(results: list[dict[str, Any]]) -> str:
    passed = sum(not result["shortfalls"] for result in results)
    return f"{passed} passed, {len(results) - passed} failed"
