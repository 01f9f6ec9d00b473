"""What a recipe returns: metrics beside a plain baseline's, the claims, and what was trained."""

import io
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from recipes.core.checkpoints import require_finite
from recipes.core.claims import RELATIONS, Claim
from recipes.core.device import rank_and_world
from recipes.core.errors import tell
from recipes.core.files import own_path, write_folder
from recipes.core.task import Task, model_files

LOWER_IS_BETTER = {"loss", "perplexity", "bits_per_pixel", "bits_per_frame", "word_error_rate"}
LOWER_IS_BETTER |= {"bytes", "macs", "parameters", "latency_ratio"}
NOT_WRITTEN = {"model", "draw", "train_set", "test_set", "runs", "task", "by_default"}


@dataclass
class Result:
    """Metrics on held-out data beside a plain baseline's, the claims, and what was trained.

    The first metric is the one the recipe is judged by; `result["accuracy"]` is `result.metrics["accuracy"]`.
    `@recipe` fills in the second half.
    """

    metrics: dict[str, float]
    baseline: dict[str, float]
    baseline_name: str = "baseline"
    others: dict[str, dict[str, float]] = field(default_factory=dict)  # more plain methods, by name: shown, not judged
    bars: dict[str, float] = field(default_factory=dict)  # to be met by the default run on the bundled data
    history: list[dict[str, float]] = field(default_factory=list)  # one row an epoch
    rows: list[dict[str, Any]] = field(default_factory=list)  # a table of what was compared
    model: Any = None
    train_set: Any = None
    test_set: Any = None

    claims: list[Claim] = field(default_factory=list)
    runs: "dict[str, Result]" = field(default_factory=dict)  # the variants that claims trained, by what they changed
    variants: list[dict[str, Any]] = field(default_factory=list)  # their metrics, as a table
    draw: Callable[[], Any] | None = None  # returns a matplotlib Figure
    task: Task | None = None  # what using the model needs
    recipe: str = ""
    title: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    by_default: bool = True  # a run that bars are for: default options on the bundled data
    seed: int = 0
    device: str = ""
    threads: int = 0
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, metric: str) -> float:
        return self.metrics[metric]

    def missed_bars(self) -> list[str]:
        return [
            f"{name} {short(self.metrics[name])} misses the bar {better(name)}= {short(bar)}"
            for name, bar in self.bars.items()
            if not RELATIONS[better(name) + "="](self.metrics[name], bar)
        ]

    def not_above_baseline(self) -> list[str]:
        name, value = next(iter(self.metrics.items()))
        if name not in self.baseline or RELATIONS[better(name)](value, self.baseline[name]):
            return []
        return [f"{name} {short(value)} does not beat {self.baseline_name}, {short(self.baseline[name])}"]

    def ahead(self) -> list[str]:
        """A line for each of the other plain methods that does as well as this recipe, or better."""
        name, value = next(iter(self.metrics.items()))
        better_ones = {
            plain: scores[name]
            for plain, scores in self.others.items()
            if name in scores and not RELATIONS[better(name)](value, scores[name])
        }
        return [f"{plain} does as well or better: {name} {short(one)}" for plain, one in better_ones.items()]

    def shortfalls(self) -> list[str]:
        """What keeps this run from counting as learned: bars missed (by a default run), the baseline not beaten."""
        bars = self.missed_bars() if self.by_default and self.options.get("data") is None else []
        return bars + self.not_above_baseline()

    def learned(self) -> bool:
        """Whether learned claims count: above the baseline and, on the bundled data, above the bars."""
        bars = self.missed_bars() if self.options.get("data") is None else []
        return not bars and not self.not_above_baseline()

    def require_finite(self) -> None:
        """Raises FloatingPointError if a weight or a metric is not finite; a metric may be what the baseline's is."""
        if isinstance(self.model, torch.nn.Module):
            require_finite(self.model)
        for name, value in self.metrics.items():
            if not math.isfinite(value) and math.isfinite(self.baseline.get(name, 0.0)):
                raise FloatingPointError(f"the metric {name} became {value}: it is no result, and nothing is saved")

    def figure(self) -> Any:
        """The recipe's picture, a matplotlib Figure drawn without a display."""
        if self.draw is None:
            raise ValueError(f"{self.recipe or 'this result'} has no figure")
        from recipes.core.figures import tidy

        with warnings.catch_warnings():  # a legend of variants may have none to name
            warnings.filterwarnings("ignore", "No artists with labels")
            return tidy(self.draw(), self.history)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model, the data and the figure, as JSON will have it: NaN is null."""
        fields = {key: value for key, value in vars(self).items() if key not in NOT_WRITTEN}
        fields["claims"] = [
            {"text": claim.text, "measured": claim.measured, "expected": expected(claim), "holds": claim.holds}
            | {"kind": claim.kind, "margin": claim.margin, "verdict": claim.verdict}
            for claim in self.claims
        ]
        fields["shortfalls"] = self.shortfalls()
        return json.loads(json.dumps(fields, default=str), parse_constant=lambda _: None)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def save(self, out: str | Path) -> None:
        """Writes result.json, figure.png, the weights and what using them needs into the folder `out`, or nothing.

        A figure that cannot be drawn is left out, and a line says why. Under torchrun every process calls it, since
        figure and weights may need them all, and the main one writes.

        Raises:
            FloatingPointError: a metric or a weight is not finite.
            InputError: the folder cannot be written.
        """
        self.require_finite()
        picture = io.BytesIO()
        try:
            if self.draw:
                self.figure().savefig(picture, dpi=120)
        except Exception as error:  # whatever it is, it must not cost what was trained
            picture = io.BytesIO()
            reason = str(error).strip().partition("\n")[0]
            tell(f"{Path(out) / 'figure.png'}: could not be drawn ({type(error).__name__}: {reason})")
        files: dict[str, Callable[[Path], object]] = {
            "result.json": lambda path: path.write_text(self.to_json() + "\n", "utf-8")
        }
        if picture.getvalue():
            files["figure.png"] = lambda path: path.write_bytes(picture.getvalue())
        if isinstance(self.model, torch.nn.Module):
            files |= model_files(self)
        if rank_and_world()[0] == 0:
            write_folder(own_path(out), files)

    def __str__(self) -> str:
        names = list(self.metrics)
        table = [["", *names], ["this recipe", *(short(self.metrics[name]) for name in names)]]
        for plain, scores in {self.baseline_name: self.baseline, **self.others}.items():
            table.append([plain, *(short(scores.get(name)) for name in names)])
        if self.options.get("data") is None and self.bars:
            table.append(["bar", *(f"{better(n)}= {short(self.bars[n])}" if n in self.bars else "" for n in names)])
        parts = [f"{self.recipe}: {self.title}", columns(table)]
        for rows in filter(None, (self.rows, self.variants)):
            header = list(dict.fromkeys(name for row in rows for name in row))
            parts.append(columns([header, *([short(row.get(name)) for name in header] for row in rows)]))
        if self.claims:
            lines = [[c.verdict, short(c.measured), expected(c), c.text] for c in self.claims]
            parts.append(columns([["claim", "measured", "expected", ""], *lines], left={0, 2, 3}))
        if not self.by_default and self.options.get("data") is None and self.bars:
            parts.append("bars are for the default run; this one had other options")
        place = f"{self.device} in {self.threads} thread{'s' * (self.threads != 1)}"
        return "\n\n".join(
            [*parts, *self.shortfalls(), *self.ahead(), f"{self.seconds:.1f} s on {place}, seed {self.seed}"]
        )


def expected(claim: Claim) -> str:
    """What a claim's number is held to: "< 0.9 - 0.03" where there is a margin of 0.03."""
    sign = "+" if claim.relation.startswith(">") else "-"
    margin = f" {sign} {short(claim.margin)}" if claim.margin else ""
    return f"{claim.relation} {short(claim.reference)}{margin}"


def better(metric: str) -> str:
    return "<" if metric in LOWER_IS_BETTER else ">"


def short(value: Any) -> str:
    """A number in four significant digits, whole ones in full; a dash for what is missing."""
    if isinstance(value, float) and not (value.is_integer() and abs(value) >= 1000):
        return f"{value:.4g}"
    return "–" if value is None else f"{value:,.0f}" if type(value) in (int, float) else str(value)


def columns(rows: list[list[str]], left: set[int] | None = None) -> str:
    """Rows of text under each other, the columns in `left` (the first, if not said) flush left."""
    placed = []
    for number, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        placed.append([cell.ljust(width) if number in (left or {0}) else cell.rjust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*placed, strict=True))
