"""Finds the recipes by reading the source tree, without importing one."""

import ast
import difflib
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from recipes.core.errors import InputError

ROOT = Path(__file__).parent
FAMILIES = ("training", "vision", "nlp", "audio", "compression")


@dataclass(frozen=True)
class Entry:
    """A recipe as its file describes it."""

    name: str  # "vision.segmentation.unet"
    path: Path

    @cached_property
    def source(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def docstring(self) -> str:
        return self.source.partition('"""')[2].partition('"""')[0].strip()

    @property
    def title(self) -> str:
        return self.docstring.partition("\n")[0].rstrip(".")

    @property
    def notes(self) -> list[int]:
        """Numbers of the knowledge points, from the docstring's line `Notes: 42, 81`."""
        line = re.search(r"^Notes: (.*)$", self.docstring, flags=re.MULTILINE)
        return [int(number) for number in re.findall(r"\d+", line[1])] if line else []

    @property
    def module(self) -> str:
        """The module the recipe is written in: a package keeps its own recipe in `task`."""
        return ".".join(("recipes", *self.path.relative_to(ROOT).with_suffix("").parts))

    @property
    def options(self) -> dict[str, str]:
        """Defaults of `run`'s keyword options, as they are written."""
        run = next(node for node in ast.parse(self.source).body if getattr(node, "name", "") == "run")
        assert isinstance(run, ast.FunctionDef)
        pairs = zip(run.args.kwonlyargs, run.args.kw_defaults, strict=True)
        return {option.arg: ast.unparse(default) for option, default in pairs if default is not None}


def entries() -> list[Entry]:
    """All recipes, family by family: every module of a family with a `run`."""
    found = []
    for family in FAMILIES:
        for path in sorted((ROOT / family).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "task" else parts)
            if path.name != "__init__.py" and "\ndef run(" in path.read_text("utf-8"):
                found.append(Entry(name, path))
    order = {family: place for place, family in enumerate(FAMILIES)}
    return sorted(found, key=lambda entry: (order[entry.name.partition(".")[0]], entry.name))


def names() -> list[str]:
    """The names of all recipes."""
    return [entry.name for entry in entries()]


def find(name: str) -> Entry:
    """The recipe of that name.

    Raises:
        InputError: there is none; names the nearest.
    """
    known = {entry.name: entry for entry in entries()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        near += [other for other in known if other.rpartition(".")[2] == name]
        hint = f", did you mean {near[-1]}?" if near else ""
        raise InputError(f"unknown recipe {name!r}{hint} `recipes list` names them all")
    return known[name]


def load(name: str) -> Any:
    """Imports the recipe of that name: a module with a `run`."""
    return importlib.import_module(find(name).module)


def submodules(package: str) -> Callable[[str], ModuleType]:
    """A `__getattr__` for a package, which imports its modules when they are first asked for."""

    def get(name: str) -> ModuleType:
        try:
            return importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":
                raise
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    return get
