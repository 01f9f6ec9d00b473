"""Finds the recipes by reading the source tree, without importing one."""

import ast
import difflib
import importlib
import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from recipes.core.errors import InputError, missing_package

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
    def title_zh(self) -> str:
        """The title in Chinese."""
        return titles_zh().get(self.name, self.title)

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
        """Defaults of the recipe's own options, as they are written."""
        nodes = ast.parse(self.source).body
        chosen = next((n for n in nodes if isinstance(n, ast.ClassDef) and n.name.endswith("Options")), None)
        if chosen is not None:
            fields = [one for one in chosen.body if isinstance(one, ast.AnnAssign) and one.value is not None]
            values = {ast.unparse(one.target): one.value for one in fields}
            return {
                name: ast.unparse(value.args[0] if isinstance(value, ast.Call) and value.args else value)
                for name, value in values.items()
                if value is not None
            }
        run = next(node for node in nodes if getattr(node, "name", "") == "run")
        assert isinstance(run, ast.FunctionDef)
        pairs = zip(run.args.kwonlyargs, run.args.kw_defaults, strict=True)
        return {option.arg: ast.unparse(default) for option, default in pairs if default is not None}


@cache
def titles_zh() -> dict[str, str]:
    return json.loads((ROOT / "titles.zh.json").read_text("utf-8"))


def listing(found: list[Entry], *, chinese: bool) -> str:
    """The recipes by family, in at most 80 columns: the name within its family, and the title below what is long."""
    lines = []
    for family in dict.fromkeys(one.name.partition(".")[0] for one in found):
        lines += ["", family]
        own = [one for one in found if one.name.partition(".")[0] == family]
        for one in own:
            short, notes = one.name.partition(".")[2], ", ".join(map(str, one.notes))
            title = one.title_zh if chinese else one.title
            told = f"{title}  ({notes})" if notes else title
            if len(short) <= 24 and 28 + columns_of(told) <= 80:
                lines.append(f"  {short:<24}  {told}")
            else:
                lines += [f"  {short}", *(f"{'':28}{line}" for line in folded(told, 52))]
    return "\n".join(lines[1:])


def columns_of(text: str) -> int:
    """The width of a text on a terminal, where a Chinese character takes two columns."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def folded(text: str, width: int) -> list[str]:
    """The text in lines of at most that width: broken between words, and between Chinese characters."""
    lines, line = [], ""
    for piece in re.findall(r"[\u2e80-\uffff]|[^\u2e80-\uffff\s]+|\s+", text):
        if columns_of(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = piece.lstrip()
        else:
            line += piece
    return [*lines, line.rstrip()]


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
    """The recipe of that name; its last part will do where it names one recipe alone.

    Raises:
        InputError: there is none; names the nearest.
    """
    known = {entry.name: entry for entry in entries()}
    named = [entry for entry in known.values() if entry.name.rpartition(".")[2] == name]
    if name not in known and len(named) == 1:
        return named[0]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        near += [other for other in known if other.rpartition(".")[2] == name]
        hint = f", did you mean {near[-1]}?" if near else ";"
        raise InputError(f"unknown recipe {name!r}{hint} `recipes list` names them all")
    return known[name]


def short_name(name: str) -> str:
    """The last part of a recipe's name, if it names this one alone, as `find` takes it; else the whole name."""
    last = name.rpartition(".")[2]
    return last if sum(one.rpartition(".")[2] == last for one in names()) == 1 else name


def load(name: str) -> Any:
    """Imports the recipe of that name: a module with a `run`.

    Raises:
        InputError: there is none, or a package that it needs is not installed.
    """
    try:
        return importlib.import_module(find(name).module)
    except ModuleNotFoundError as error:
        raise missing_package(error) from None


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
