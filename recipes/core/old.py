"""The first frame, for recipes that have not moved to the second yet; it goes when the last one has."""

import functools
import inspect
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, ParamSpec, TypedDict, Unpack, get_args, get_type_hints

import torch
from torch import nn
from torch.utils.data import DataLoader

from recipes.core.claims import Claim
from recipes.core.device import pick_device
from recipes.core.errors import in_one_line
from recipes.core.files import own_path, require_writable
from recipes.core.loading import loader
from recipes.core.loop import Loop
from recipes.core.options import Options, checked, field_types
from recipes.core.recipe import PACKAGES, one_at_a_time
from recipes.core.result import Result


class Engine(TypedDict, total=False):
    """Options of `Loop` that every recipe takes and passes on.

    Args:
        precision: arithmetic of the forward pass; fp16 scales the loss, auto is bf16 where the device
            computes in it and fp32 elsewhere.
        channels_last: keep pictures and convolutions in the memory order (N, H, W, C).
        accumulate: batches whose gradients are summed before each optimizer step.
        clip: largest norm of the gradient; a larger one is scaled down to it.
        compile: compile the model with torch.compile.
        shard: split parameters, gradients and optimizer state over the processes of torchrun (FSDP2)
            instead of replicating them (DDP).
        checkpoint: folder to save the training in after every epoch, and to resume from if it holds one.
        save_every: also save after every so many optimizer steps.
    """

    precision: Literal["fp32", "bf16", "fp16", "auto"]
    channels_last: bool
    accumulate: int
    clip: float
    compile: bool
    shard: bool
    checkpoint: str
    save_every: int


class OldLoop(Loop):
    """The loop with its options one by one."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: Any,
        *,
        epochs: int,
        device: torch.device | str = "cpu",
        schedule: Callable[[float], float] = lambda progress: 1.0,
        evaluate: Callable[[], dict[str, float]] = dict,
        name: str = "model",
        **engine: Unpack[Engine],
    ) -> None:
        if unknown := engine.keys() - Engine.__annotations__.keys():
            raise TypeError(f"unknown options of the training loop: {', '.join(sorted(unknown))}")
        options = Options(epochs=epochs, device=device, **engine)
        super().__init__(model, optimizer, batches, options, schedule=schedule, evaluate=evaluate, name=name)


def old_batches(dataset: Any, batch_size: int, *, seed: int = 0, workers: int = 0) -> DataLoader:
    """Shuffled batches, their options one by one."""
    return loader(dataset, batch_size, seed, workers)


def claim(text: str, measured: float, relation: Any, reference: float) -> Claim:
    """A claim of the first kind: without a margin, and taken as a fact."""
    return Claim(text, measured, relation, reference, kind="fact")


P = ParamSpec("P")


@dataclass(eq=False)
class OldRecipe:
    """How the model of a recipe of the first frame is used; its options are a namespace."""

    task: Any = None
    build: Any = None

    def options_from(self, saved: dict[str, Any]) -> Any:
        return SimpleNamespace(**saved)


FROM_ZERO = {"kills", "skips", "workers"}  # whole numbers that may be 0


def checked_options(run: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The options by type and range: those that all recipes share as `Options` has them, numbers not below 1 or 0."""
    hints = get_type_hints(run)
    shared = {key: value for key, value in given.items() if key in field_types(Options) and value is not None}
    options = Options(**shared)
    found = given | {key: getattr(options, key) for key in shared}
    for name in [key for key in given if key not in field_types(Options)]:
        if name not in hints:
            raise TypeError(f"unknown option {name!r}; help(run) lists them all")
        kinds = get_args(hints[name]) or (hints[name],)
        limits = {"least": 0 if float in kinds or name in FROM_ZERO else 1} if {int, float} & {*kinds} else {}
        found[name] = checked(name, given[name], hints[name], limits)
    return found


def old_recipe(run: Callable[P, Result]) -> Any:
    """Completes what `run` returns: times it, notes its options, and saves it where `out` says."""
    made = OldRecipe()

    def predicts(task: Any, build: Any) -> None:
        made.task, made.build = task, build

    @functools.wraps(run)
    def completed(*args: P.args, **given: P.kwargs) -> Result:
        bound = inspect.signature(run).bind(*args, **given)
        bound.apply_defaults()
        options = dict(bound.arguments)
        engine = options.pop("engine", {})
        options = checked_options(run, options) | checked_options(run, engine)
        for folder in filter(None, (options.get("out"), options.get("checkpoint"))):
            require_writable(own_path(folder))
        gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
        started = time.perf_counter()
        with one_at_a_time, in_one_line(), torch.random.fork_rng(devices=gpus):
            result = run(**options)  # type: ignore[call-arg]
        result.seconds = time.perf_counter() - started
        module = sys.modules[run.__module__]
        script = Path(getattr(module, "__file__", None) or "recipe").stem
        result.recipe = run.__module__.removeprefix("recipes.").removesuffix(".task").replace("__main__", script)
        result.title = (module.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        result.options, result.seed = options, options.get("seed", 0)
        result.by_default, result.threads = options.get("data") is None, torch.get_num_threads()
        result.device = str(pick_device(options.get("device", "cpu")))
        loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in PACKAGES}
        result.versions = {"python": platform.python_version()} | {k: str(v) for k, v in loaded.items() if v}
        result.require_finite()
        if made.task is not None:
            result.task = made.task.of(result, SimpleNamespace(**options))
        if options.get("out") is not None:
            result.save(options["out"])
        return result

    hung: Any = completed
    hung.old_recipe, hung.predicts = made, predicts
    return hung
