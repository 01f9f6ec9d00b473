"""What a recipe returns, and the decorator that completes it."""

import functools
import inspect
import json
import operator
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec

import torch

from recipes.core.device import pick_device, rank_and_world
from recipes.core.errors import InputError
from recipes.core.files import write_whole

RELATIONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
LOWER_IS_BETTER = {"loss", "perplexity", "word_error_rate", "bytes", "macs", "parameters", "latency_ratio"}
PACKAGES = ("torch", "torchvision", "timm", "transformers", "sklearn", "torchao", "torch_pruning")


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
    draw: Callable[[], Any] | None = None  # gives a matplotlib Figure

    recipe: str = ""
    title: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = ""
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)

    def shortfalls(self) -> list[str]:
        """What keeps this run from counting as learned: bars missed (on the bundled data), the baseline not beaten."""
        missed = []
        for name, bar in self.bars.items() if self.options.get("data") is None else []:
            if not RELATIONS[better(name) + "="](self.metrics[name], bar):
                missed.append(f"{name} {short(self.metrics[name])} misses the bar {better(name)}= {short(bar)}")
        name, value = next(iter(self.metrics.items()))
        if name in self.baseline and not RELATIONS[better(name)](value, self.baseline[name]):
            missed.append(f"{name} {short(value)} does not beat {self.baseline_name}, {short(self.baseline[name])}")
        return missed

    def figure(self) -> Any:
        """The recipe's picture, a matplotlib Figure drawn without a display."""
        if self.draw is None:
            raise ValueError(f"{self.recipe or 'this result'} has no figure")
        return self.draw()

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model and the figure, as JSON will have it: NaN is null."""
        fields = {key: value for key, value in vars(self).items() if key not in ("model", "draw")}
        told = ("text", "measured", "expected", "holds")
        fields["claims"] = [{key: getattr(claim, key) for key in told} for claim in self.claims]
        fields["shortfalls"] = self.shortfalls()
        return json.loads(json.dumps(fields, default=str), parse_constant=lambda _: None)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def save(self, out: str | Path) -> None:
        """Writes result.json, figure.png and the weights (model.safetensors) into the folder `out`.

        Under torchrun every process calls it, since figure and weights may need them all, and the main one writes.
        """
        from safetensors.torch import save_file

        figure = self.draw() if self.draw else None
        weights = whole_weights(self.model) if isinstance(self.model, torch.nn.Module) else None
        if rank_and_world()[0] > 0:
            return
        write_whole(Path(out) / "result.json", lambda path: path.write_text(self.to_json() + "\n", "utf-8"))
        if figure is not None:
            write_whole(Path(out) / "figure.png", lambda path: figure.savefig(path, dpi=120))
        if weights is not None:
            write_whole(Path(out) / "model.safetensors", lambda path: save_file(weights, path))

    def __str__(self) -> str:
        names = list(self.metrics)
        table = [["", *names], ["this recipe", *(short(self.metrics[name]) for name in names)]]
        table.append([self.baseline_name, *(short(self.baseline.get(name)) for name in names)])
        if self.options.get("data") is None:
            table.append(["bar", *(f"{better(n)}= {short(self.bars[n])}" if n in self.bars else "" for n in names)])
        parts = [f"{self.recipe}: {self.title}", columns(table)]
        if self.rows:
            header = list(self.rows[0])
            parts.append(columns([header, *([short(row.get(name)) for name in header] for row in self.rows)]))
        if self.claims:
            lines = [[("DOES NOT HOLD", "holds")[c.holds], short(c.measured), c.expected, c.text] for c in self.claims]
            parts.append(columns([["claim", "measured", "expected", ""], *lines], left={0, 2, 3}))
        return "\n\n".join([*parts, *self.shortfalls(), f"{self.seconds:.1f} s on {self.device}, seed {self.seed}"])


P = ParamSpec("P")


def recipe(run: Callable[P, Result]) -> Callable[P, Result]:
    """Completes what `run` returns: times it, notes its options, and saves it where `out` says.

    The options that recipes share are checked first; torch's random state is left as it was found.
    """

    @functools.wraps(run)
    def completed(*args: P.args, **given: P.kwargs) -> Result:
        bound = inspect.signature(run).bind(*args, **given)
        bound.apply_defaults()
        options = dict(bound.arguments)
        options |= options.pop("engine", {})
        check_shared_options(options)
        gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
        started = time.perf_counter()
        with torch.random.fork_rng(devices=gpus):
            result = run(*args, **given)
        result.seconds = time.perf_counter() - started
        module = sys.modules[run.__module__]
        script = Path(getattr(module, "__file__", None) or "recipe").stem
        result.recipe = run.__module__.removeprefix("recipes.").removesuffix(".task").replace("__main__", script)
        result.title = (module.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        result.options, result.seed = options, options.get("seed", 0)
        result.device = str(pick_device(options.get("device", "cpu")))
        loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in PACKAGES}
        result.versions = {"python": platform.python_version()} | {k: str(v) for k, v in loaded.items() if v}
        if options.get("out") is not None:
            result.save(options["out"])
        return result

    return completed


def check_shared_options(options: dict[str, Any]) -> None:
    for name in {"epochs", "batch_size"} & options.keys():
        if not isinstance(options[name], int) or options[name] < 1:
            raise InputError(f"option {name}: expected a whole number of at least 1, got {options[name]!r}")
    if not 0 < options.get("lr", 1) < float("inf"):
        raise InputError(f"option lr: expected a number above 0, got {options['lr']!r}")
    if options.get("out") is not None and Path(options["out"]).is_file():
        raise InputError(f"option out: {options['out']} is a file, expected a folder")


def whole_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The model's state, gathered where it is sharded; what two names share stands under the first."""
    whole: dict[str, torch.Tensor] = {}
    first: dict[int, str] = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        if not tensor.numel() or first.setdefault(tensor.data_ptr(), name) == name:
            whole[name] = tensor.detach().cpu().contiguous()
    return whole


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
