"""The decorator that makes a recipe of a function from options to a result."""

import dataclasses
import functools
import inspect
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast

import torch

from recipes.core.claims import Claim
from recipes.core.device import pick_device, setup
from recipes.core.errors import in_one_line
from recipes.core.files import own_path, require_writable
from recipes.core.options import Options, field_metadata, field_types
from recipes.core.progress import announce
from recipes.core.result import Result

P = ParamSpec("P")
O = TypeVar("O", bound=Options)
PACKAGES = ("torch", "torchvision", "timm", "transformers", "sklearn", "torchao", "torch_pruning")
# Options that leave what is learned as it is: a run that differs in these alone is still the default one.
HARMLESS = {"device", "seed", "out", "claims", "checkpoint", "save_every", "override"}
one_at_a_time = threading.RLock()  # torch has one random state, which two runs at once would share


@dataclass(eq=False)
class Recipe:
    """What is known of a recipe: its options, its body, and what was hung below it."""

    options: type[Options]
    body: Callable[[Any], Result]
    claims: Callable[[Any], Iterable[Claim]] | None = None
    figure: Callable[[Result], Any] | None = None
    task: Any = None  # the kind of Task that uses its model
    build: Callable[[Any, Any], torch.nn.Module] | None = None
    other: "Callable[[Any], Recipe | None]" = lambda options: None  # what takes its place with these options

    @property
    def name(self) -> str:
        module = sys.modules[self.body.__module__]
        script = Path(getattr(module, "__file__", None) or "recipe").stem
        name = self.body.__module__.removeprefix("recipes.").removesuffix(".task")
        return name.replace("__main__", script)

    def options_from(self, saved: dict[str, Any]) -> Options:
        """The options that a model was trained with, as `model.json` holds them."""
        known = field_types(self.options)
        return self.options(**{name: value for name, value in saved.items() if name in known and name != "device"})

    def chosen(self, options: Options) -> "Recipe":
        """The recipe whose parts serve these options: where they name another library's network, the one for that."""
        return self.other(options) or self

    def once(self, options: Options, variant: str = "") -> Result:
        """Trains and measures the one model that the options ask for, and leaves torch's random state as it was."""
        gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices=gpus):
            chosen = dataclasses.replace(options, device=setup(options.device, options.seed))
            chosen.variant = variant
            result = self.chosen(options).body(chosen)
        result.options, result.seed = options.to_dict(), options.seed
        return result

    def __call__(self, options: Options) -> Result:
        for folder in filter(None, (options.out, options.checkpoint)):
            require_writable(own_path(folder))
        started = time.perf_counter()
        announce(f"{self.name}: opening the data")
        result = self.once(options)
        if options.claims and self.chosen(options).claims is not None:
            self.measure_claims(options, result)
        self.complete(options, result)
        result.seconds = time.perf_counter() - started
        result.require_finite()
        if options.out is not None:
            result.save(options.out)
        return result

    def measure_claims(self, options: Options, result: Result) -> None:
        assert self.claims is not None
        runs = {"": result}

        def run(**changed: Any) -> Result:
            label = ", ".join(f"{name}={value}" for name, value in changed.items())
            if label not in runs:
                announce(f"{self.name}: once more with {label} (run {len(runs) + 1})")
                runs[label] = self.once(dataclasses.replace(options, out=None, **changed), label)
            return runs[label]

        claims = list(self.claims(run))
        learned = result.learned()
        result.claims = [dataclasses.replace(c, shown=c.kind == "fact" or learned) for c in claims]
        result.runs = {label: one for label, one in runs.items() if label}
        if result.runs:
            result.variants = [{"run": label or "as given"} | one.metrics for label, one in runs.items()]

    def complete(self, options: Options, result: Result) -> None:
        defaults = self.options().to_dict()
        result.recipe = self.name
        result.title = (sys.modules[self.body.__module__].__doc__ or "").strip().partition("\n")[0].rstrip(".")
        result.by_default = all(defaults[key] == value for key, value in result.options.items() if key not in HARMLESS)
        result.device, result.threads = result.device or str(pick_device(options.device)), torch.get_num_threads()
        loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in PACKAGES}
        result.versions = {"python": platform.python_version()} | {k: str(v) for k, v in loaded.items() if v}
        chosen = self.chosen(options)
        if (figure := chosen.figure) is not None:
            result.draw = lambda: figure(result)
        if chosen.task is not None and isinstance(result.model, torch.nn.Module):
            result.task = chosen.task.of(result, options)


class Run(Generic[P]):
    """The type of a recipe's `run`, for type checkers: it takes the fields of the recipe's options by name."""

    recipe: Recipe

    def __call__(self, *args: P.args, **given: P.kwargs) -> Result:
        """Runs the recipe."""
        raise NotImplementedError

    def claims(self, measure: Callable[[Any], Iterable[Claim]]) -> Callable[[Any], Iterable[Claim]]:
        """Decorates the recipe's claims: from `run(**changes)`, which trains each variant once, to `Claim`s."""
        raise NotImplementedError

    def figure(self, draw: Callable[[Result], Any]) -> Callable[[Result], Any]:
        """Decorates the recipe's picture: from a `Result` to a matplotlib Figure."""
        raise NotImplementedError

    def predicts(self, task: Any, build: Callable[[Any, Any], torch.nn.Module], other: Any = None) -> None:
        """Says how the trained model is used: a kind of `Task`, and what builds the network from options and task.

        `other` gives for options either None or a recipe's `run`, whose parts then take the place of this one's.
        """
        raise NotImplementedError


def recipe(options: Callable[P, O]) -> Callable[[Callable[[O], Result]], Run[P]]:
    """Makes `run(**options)` of a function from options to a result; see `Run` for what is hung below it.

    `run` checks its options, repeats to the bit with the same seed and number of threads, measures the claims, and
    writes what `out` asks for.
    """

    def decorate(body: Callable[[O], Result]) -> Run[P]:
        kind = cast(type[Options], options)
        made = Recipe(kind, body)

        @functools.wraps(body)
        def run(**given: Any) -> Result:
            known = field_types(kind)
            for name in given:
                if name not in known:
                    raise TypeError(f"{made.name} has no option {name!r}; help(run) lists them all")
            with one_at_a_time, in_one_line():
                return made(kind(**given))

        def keep(name: str) -> Callable[[Any], Any]:
            def hung(function: Any) -> Any:
                setattr(made, name, function)
                return function

            return hung

        def predicts(task: Any, build: Any, other: Any = None) -> None:
            made.task, made.build = task, build
            if other is not None:
                made.other = lambda options: getattr(other(options), "recipe", None)

        extra: Any = run
        extra.recipe, extra.claims, extra.figure, extra.predicts = made, keep("claims"), keep("figure"), predicts
        extra.__signature__ = signature(kind)
        extra.__doc__ = f"{inspect.cleandoc(body.__doc__ or '')}\n\nArgs:\n{sentences(kind)}"
        return extra

    return decorate


def signature(options: type[Options]) -> inspect.Signature:
    defaults = {one.name: one.default for one in dataclasses.fields(options)}
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=hint)
        for name, hint in field_types(options).items()
    ]
    return inspect.Signature(parameters, return_annotation=Result)


def sentences(options: type[Options]) -> str:
    told = field_metadata(options)
    return "\n".join(f"    {name}: {told[name].get('help', '')}." for name in field_types(options))
