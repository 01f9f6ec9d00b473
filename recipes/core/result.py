"""What a recipe returns, and the decorator that completes it."""

import functools
import inspect
import json
import math
import operator
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import torch

from recipes.core.device import pick_device, rank_and_world
from recipes.core.errors import InputError
from recipes.core.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RELATIONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
LOWER_IS_BETTER = {"loss", "perplexity", "word_error_rate", "bytes", "macs", "parameters", "latency_ratio"}


@dataclass(frozen=True)
class Claim:
    """A sentence a learner is told, with the number that this run measured for it.

    `Claim("ReLU needs fewer steps than tanh", relu_steps, "<", tanh_steps)`
    """

    text: str
    measured: float
    relation: str
    reference: float

    @property
    def holds(self) -> bool:
        return bool(RELATIONS[self.relation](self.measured, self.reference))

    @property
    def expected(self) -> str:
        return f"{self.relation} {short(self.reference)}"

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "measured": self.measured, "expected": self.expected, "holds": self.holds}


@dataclass
class Result:
    """Metrics on held-out data beside a plain baseline's, the claims, and what was trained.

    The first metric is the one the recipe is judged by. `@recipe` fills in the second half.
    """

    metrics: dict[str, float]
    baseline: dict[str, float]
    baseline_name: str = "baseline"
    bars: dict[str, float] = field(default_factory=dict)  # to be met by the default run on the bundled data
    claims: list[Claim] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)  # one row an epoch
    rows: list[dict[str, Any]] = field(default_factory=list)  # a table of what was compared
    model: Any = None
    draw: "Callable[[], Figure] | None" = None

    recipe: str = ""
    title: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = ""
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)

    def shortfalls(self) -> list[str]:
        """What keeps this run from counting as learned: bars missed, the baseline not beaten.

        Bars are for the bundled data, and do not count on another's.
        """
        name, value = next(iter(self.metrics.items()))
        missed = [
            f"{metric} {short(self.metrics[metric])} misses the bar {bar_relation(metric)} {bar}"
            for metric, bar in (self.bars if self.options.get("data") is None else {}).items()
            if not RELATIONS[bar_relation(metric)](self.metrics[metric], bar)
        ]
        if name in self.baseline and not RELATIONS[bar_relation(name)[0]](value, self.baseline[name]):
            missed.append(f"{name} {short(value)} does not beat {self.baseline_name} ({short(self.baseline[name])})")
        return missed

    def figure(self, path: str | Path | None = None) -> "Figure":
        """The recipe's picture; with a path, also saved there (PNG, PDF, SVG, by its ending)."""
        if self.draw is None:
            raise ValueError(f"{self.recipe or 'this result'} has no figure")
        figure = self.draw()
        if path is not None:
            write_whole(Path(path), lambda target: figure.savefig(target, dpi=120))
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model and the figure, in types that JSON knows (NaN becomes null)."""
        names = "recipe title metrics baseline baseline_name bars history rows seconds seed options device versions"
        return finite(
            {name: getattr(self, name) for name in names.split()}
            | {"claims": [claim.to_dict() for claim in self.claims], "shortfalls": self.shortfalls()}
        )

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False, default=str)

    def save(self, out: str | Path) -> None:
        """Writes result.json, figure.png and the weights (model.safetensors) into the folder `out`."""
        folder = Path(out)
        write_whole(folder / "result.json", lambda path: path.write_text(self.to_json() + "\n", "utf-8"))
        if self.draw is not None:
            self.figure(folder / "figure.png")
        if isinstance(self.model, torch.nn.Module):
            from safetensors.torch import save_model

            write_whole(folder / "model.safetensors", lambda path: save_model(self.model, str(path)))

    def __str__(self) -> str:
        names = list(self.metrics)
        measured = [["this recipe", *(short(self.metrics[name]) for name in names)]]
        if self.baseline:
            measured.append([self.baseline_name, *(short(self.baseline.get(name)) for name in names)])
        if self.bars and self.options.get("data") is None:
            bars = {name: f"{bar_relation(name)} {short(bar)}" for name, bar in self.bars.items()}
            measured.append(["bar", *(bars.get(name, "") for name in names)])
        parts = [f"{self.recipe}: {self.title}", columns([["", *names], *measured])]
        if self.rows:
            header = list(self.rows[0])
            parts.append(columns([header, *([short(row.get(name)) for name in header] for row in self.rows)]))
        if self.claims:
            lines = [
                [
                    "holds" if claim.holds else "does NOT hold",
                    short(claim.measured),
                    claim.expected,
                    claim.text,
                ]
                for claim in self.claims
            ]
            parts.append(columns([["claim", "measured", "expected", ""], *lines], left={0, 2, 3}))
        parts += self.shortfalls()
        parts.append(f"{self.seconds:.1f} s on {self.device}, seed {self.seed}")
        return "\n\n".join(parts)


P = ParamSpec("P")


def recipe(run: Callable[P, Result]) -> Callable[P, Result]:
    """Completes what `run` returns: times it, notes its options, and saves it where `out` says.

    The options that all recipes share are checked before anything is read, and torch's random state
    is left as it was found.
    """
    signature = inspect.signature(run)

    @functools.wraps(run)
    def completed(*args: P.args, **given: P.kwargs) -> Result:
        bound = signature.bind(*args, **given)
        bound.apply_defaults()
        options = bound.arguments | bound.arguments.get("engine", {})
        options.pop("engine", None)
        check_shared_options(options)
        gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
        started = time.perf_counter()
        with torch.random.fork_rng(devices=gpus):
            result = run(*args, **given)
        result.seconds = time.perf_counter() - started
        module = sys.modules[run.__module__]
        file = Path(module.__file__ or "recipe")
        result.recipe = run.__module__.removeprefix("recipes.").removesuffix(".task").replace("__main__", file.stem)
        result.title = (module.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        result.options = options
        result.seed = options.get("seed", 0)
        result.device = str(pick_device(options.get("device", "cpu")))
        result.versions = {"python": platform.python_version()} | {
            name: sys.modules[name].__version__
            for name in ("torch", "torchvision", "timm", "transformers", "sklearn", "torchao")
            if hasattr(sys.modules.get(name), "__version__")
        }
        if options.get("out") is not None and rank_and_world()[0] == 0:
            result.save(options["out"])
        return result

    return completed


def check_shared_options(options: dict[str, Any]) -> None:
    """Holds `epochs`, `batch_size`, `lr` and `out` against what every recipe can use."""
    for name in ("epochs", "batch_size"):
        if name in options and not (isinstance(options[name], int) and options[name] >= 1):
            raise InputError(f"option {name}: expected a whole number of at least 1, got {options[name]!r}")
    if "lr" in options and not (options["lr"] > 0 and math.isfinite(options["lr"])):
        raise InputError(f"option lr: expected a number above 0, got {options['lr']!r}")
    out = options.get("out")
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise InputError(f"option out: {out} is a file, expected a folder")


def bar_relation(metric: str) -> str:
    return "<=" if metric in LOWER_IS_BETTER else ">="


def short(value: Any) -> str:
    """A number in four significant digits, whole numbers whole; a dash for what is missing."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def columns(rows: list[list[str]], left: set[int] | None = None) -> str:
    """Rows of text under each other, the columns in `left` (the first, if not said) flush left."""
    placed = []
    for number, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        placed.append([cell.ljust(width) if number in (left or {0}) else cell.rjust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*placed, strict=True))


def finite(value: Any) -> Any:
    """The same structure with numbers that JSON cannot write (NaN, infinity) as None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
