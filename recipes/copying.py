"""Makes one stand-alone file of a recipe: the recipe, preceded by just those parts it uses.

A part is a top-level definition of another module of this package, with the comment above it. Names
are followed from the recipe through imports to their definitions, and through those to all that they
name in turn; what is reached is written down in the order of the modules' dependence.
"""

import ast
import filecmp
import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from recipes import catalog
from recipes.core.errors import InputError
from recipes.core.files import require_writable, write_whole
from recipes.datasets.bundled import bundled

LINE_LENGTH = 120


@dataclass(frozen=True)
class Part:
    """A top-level statement: its text with the comment above it, what it defines and what it names."""

    text: str
    defines: frozenset[str]
    uses: frozenset[str]


@dataclass(frozen=True)
class Import:
    """Where an imported name comes from; `attribute` is None for `import module`."""

    module: str
    attribute: str | None
    name: str
    for_types: bool = False  # under `if TYPE_CHECKING:`


@dataclass(frozen=True)
class Source:
    """A module of this package, taken apart."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def imports(self) -> dict[str, Import]:
        found: dict[str, Import] = {}
        for node in self.tree.body:
            checked = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for statement in node.body if checked and isinstance(node, ast.If) else [node]:
                if isinstance(statement, ast.Import):
                    for alias in statement.names:
                        name = alias.asname or alias.name.partition(".")[0]
                        found[name] = Import(alias.name, None, name, checked)
                elif isinstance(statement, ast.ImportFrom):
                    for alias in statement.names:
                        name = alias.asname or alias.name
                        found[name] = Import(statement.module or "", alias.name, name, checked)
        return found

    @cached_property
    def parts(self) -> list[Part]:
        """All that is not the docstring, an import or the main guard."""
        lines = self.text.splitlines()
        found, above = [], 0
        for node in self.tree.body:
            start = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))]) - 1
            while start > above and lines[start - 1].startswith("#"):
                start -= 1
            above = node.end_lineno or node.lineno
            text = "\n".join(lines[start:above])
            skipped = isinstance(node, (ast.Import, ast.ImportFrom)) or (
                isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
            )
            if not skipped and not (node is self.tree.body[0] and ast.get_docstring(self.tree) is not None):
                found.append(Part(text, defined_names(node), used_names(node)))
        return found


def defined_names(node: ast.stmt) -> frozenset[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
        return frozenset({node.name})
    return frozenset(one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store))


def used_names(node: ast.AST) -> frozenset[str]:
    """Every name read in it, those in quoted annotations too."""
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and len(one.value) < 100:
            names |= set(re.findall(r"\b[A-Z]\w*\b", one.value))  # a type in quotes begins with a capital
    return frozenset(names)


@dataclass
class Gathered:
    """What a recipe needs: parts by module, and imports from outside this package."""

    parts: dict[str, list[Part]] = field(default_factory=dict)
    imports: set[Import] = field(default_factory=set)


@cache
def module_source(module: str) -> Source:
    base = catalog.ROOT.parent.joinpath(*module.split("."))
    path = base.with_suffix(".py")
    return Source(module, path if path.is_file() else base / "__init__.py")


def gather(
    recipe: Source,
    parts: Sequence[Part] | None = None,
    twins: "Twins | None" = None,
    methods: frozenset[str] | None = None,
) -> Gathered:
    """Follows every name the recipe uses to its definition.

    Args:
        recipe: the module it is written in.
        parts: of the recipe that are wanted; all of them if not given.
        twins: where definitions of the library are replaced by lean ones.
        methods: that classes of data keep; all of them if not given.
    """
    parts = recipe.parts if parts is None else parts
    sources: dict[str, Source] = {recipe.name: recipe}
    wanted: dict[str, set[str]] = {}  # module: names of its parts that are used
    imports: set[Import] = set()
    order: list[str] = []

    def need(source: Source, name: str) -> None:
        part = next((one for one in source.parts if name in one.defines), None)
        if part is not None:
            if source is not recipe and name not in wanted.setdefault(source.name, set()):
                wanted[source.name] |= part.defines
                for used in sorted(with_methods(part, methods, source.name).uses - part.defines):
                    need(source, used)
        elif name in source.imports:
            found = source.imports[name]
            if found.module.partition(".")[0] != "recipes":
                imports.add(found)
            else:
                if found.attribute != found.name:
                    raise ValueError(f"{source.path}: recipes.{name} must be imported by its own name to be copied")
                module = twins.module_for(found) if twins is not None else found.module
                target = sources.setdefault(module, module_source(module))
                need(target, name)
                if not any(name in one.defines for one in target.parts) and name not in target.imports:
                    raise ValueError(f"{source.path}: imports {name} from {module}, which does not define it")
        if source.name not in order and source is not recipe:
            order.append(source.name)

    for part in parts:
        for name in sorted(part.uses):
            need(recipe, name)
    for name in sorted(used_names(main_guard(recipe))):
        need(recipe, name)

    gathered = Gathered(imports=imports)
    for module in by_dependence(order, sources, wanted, twins):
        chosen = [part for part in sources[module].parts if part.defines & wanted[module]]
        gathered.parts[module] = [with_methods(part, methods, module) for part in chosen]
    gathered.parts[recipe.name] = list(parts)
    refuse_collisions(gathered)
    return gathered


def lean(recipe: Source, parts: Sequence[Part], twins: "Twins") -> Gathered:
    """The same with the lean twins, and without methods of data that nothing calls."""
    gathered = gather(recipe, parts, twins)
    trees = [ast.parse(part.text) for module in gathered.parts.values() for part in module]
    named = frozenset(one.attr for tree in trees for one in ast.walk(tree) if isinstance(one, ast.Attribute))
    gathered = gather(recipe, parts, twins, named)
    twins.require_format(gathered)
    gathered.parts = {module: [without_options(part) for part in found] for module, found in gathered.parts.items()}
    return gathered


def without_options(part: Part) -> Part:
    """A class of options without those that are for the library alone, of which `option` is told `copied=False`."""
    if "copied=False" not in part.text:
        return part
    (kind,), lines = ast.parse(part.text).body, part.text.split("\n")
    fields = [one for one in getattr(kind, "body", []) if "copied=False" in ast.unparse(one)]
    for one in reversed(fields):
        del lines[one.lineno - 1 : one.end_lineno]
    return with_text(part, lines)


@cache
def with_methods(part: Part, methods: frozenset[str] | None, module: str) -> Part:
    """The part; of a class of data only the methods of these names, and those with underscores, which torch calls."""
    tree = ast.parse(part.text)
    if methods is None or ".datasets." not in module or not isinstance(tree.body[0], ast.ClassDef):
        return part
    lines = part.text.split("\n")
    for node in reversed(tree.body[0].body):
        if isinstance(node, ast.FunctionDef) and node.name not in methods and not node.name.startswith("__"):
            start = min([node.lineno, *(one.lineno for one in node.decorator_list)]) - 1
            while not lines[start - 1].strip() or lines[start - 1].strip().startswith("#"):
                start -= 1  # with the blank line and the comment above it
            del lines[start : node.end_lineno]
    return with_text(part, lines)


PLAIN = "recipes.core.plain"
# Each kind of data, and the format that the bundled ones are in.
FORMATS = {
    "images": "idx",
    "scenes": "coco",
    "sequences": "otb",
    "speech": "wav",
    "texts": "csv",
    "several_labels": "csv",
    "tagged_words": "conll",
}
FORMATS |= {"running_text": "txt", "sentence_scores": "tsv", "questions": "squad", "parallel": "tsv"}


@dataclass(frozen=True)
class Twins:
    """Where the library's definitions have lean twins: the frame's, and one opener of data for a format."""

    format: str | None = None
    families: bool = True  # also those beside a task's modules

    def module_for(self, found: Import) -> str:
        """The module to take an imported name from."""
        family, _, kind = found.module.removeprefix("recipes.").partition(".")
        module = found.module
        if family == "core":
            module = PLAIN
        elif family == "datasets" and kind in FORMATS:
            module = self.opener(kind)
        elif family == "datasets":
            module = f"recipes.datasets.plain.{kind}"  # what has one format alone
        elif self.families:
            module = f"{found.module.rpartition('.')[0]}.plain"  # beside the modules of the same task
        return module if found.name in defined_in(module) else found.module

    def opener(self, kind: str) -> str:
        """The module for data of this kind, in the format that is asked for if it has that one."""
        return f"recipes.datasets.plain.{kind}_{self.format if self.format in formats_of(kind) else FORMATS[kind]}"

    def require_format(self, gathered: Gathered) -> None:
        """Raises InputError where nothing that opens data knows the format."""
        known = sorted({format for kind in kinds_of(gathered) for format in formats_of(kind)})
        if self.format is not None and self.format not in known:
            raise InputError(f"option format: expected one of {', '.join(known) or 'none'}, got {self.format!r}")


def formats_of(kind: str) -> list[str]:
    """The formats that lean copies can open data of a kind in."""
    folder = catalog.ROOT / "datasets" / "plain"
    return sorted(path.stem.removeprefix(f"{kind}_") for path in folder.glob(f"{kind}_*.py"))


def kinds_of(gathered: Gathered) -> list[str]:
    """The kinds of data that a lean copy opens."""
    modules = [module.rpartition(".")[2] for module in gathered.parts if ".datasets.plain." in module]
    return [kind for kind in FORMATS if any(module.rpartition("_")[0] == kind for module in modules)]


@cache
def defined_in(module: str) -> frozenset[str]:
    """The names a module has: those it defines, and those it takes from another opener or another package."""
    source = module_source(module)
    if not source.path.exists():
        return frozenset()
    ours = re.compile(r"recipes\.(?!datasets\.plain\.)")
    taken = {name for name, found in source.imports.items() if not ours.match(found.module)}
    return frozenset(name for part in source.parts for name in part.defines) | taken


def lesson_parts(recipe: Source) -> list[Part]:
    """The parts above `@run.claims`, which a copy takes."""
    end = next((i for i, part in enumerate(recipe.parts) if part.text.startswith("@run.")), len(recipe.parts))
    return recipe.parts[:end]


EVIDENCE = {"baseline", "baseline_name", "others", "bars"}  # of a result: a copy's metrics stand alone


def without_evidence(parts: list[Part]) -> list[Part]:
    """A lesson whose `run` measures no baseline, and without what it was measured with."""
    (run,) = [part for part in parts if "run" in part.defines]
    trimmed = without_rivals(*without_keywords(run, EVIDENCE))
    kept = [trimmed if part is run else part for part in parts]
    dropped = reached("run", parts) - reached("run", kept)
    return [part for part in kept if not part.defines or not part.defines <= dropped]


def without_keywords(part: Part, names: set[str]) -> tuple[Part, set[str]]:
    """The part without these arguments of its call of `Result`, each of which has lines of its own; what they read."""
    lines, read = part.text.split("\n"), set[str]()
    calls = [one for one in ast.walk(ast.parse(part.text)) if isinstance(one, ast.Call)]
    results = [one for one in calls if isinstance(one.func, ast.Name) and one.func.id == "Result"]
    found = [one for call in results for one in call.keywords if one.arg in names]
    for one in sorted(found, key=lambda one: -one.lineno):
        end = one.end_lineno or one.lineno
        if lines[one.lineno - 1].strip().startswith(f"{one.arg}=") and lines[end - 1].endswith(","):
            del lines[one.lineno - 1 : end]
            read |= read_names(one)
    return with_text(part, lines), read


def without_rivals(part: Part, names: set[str]) -> Part:
    """The function without those of these names that are no longer read, and the calls that only change one of them.

    So goes a rival that is made and trained to be measured. What it was made from goes if nothing else reads it.
    """
    function = ast.parse(part.text).body[0]
    assert isinstance(function, ast.FunctionDef)
    bare = [node for node in function.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    read = set().union(*(read_names(node) for node in function.body if node not in bare))
    for node in function.body:
        made = {one.id for one in names_of(node.targets[0])} if isinstance(node, ast.Assign) else set()
        if made and made <= names - read:
            lines = part.text.split("\n")
            for idle in sorted([node, *(one for one in bare if read_names(one) & made)], key=lambda one: -one.lineno):
                del lines[idle.lineno - 1 : idle.end_lineno]
            return without_rivals(with_text(part, lines), names | read_names(node))
    return part


def with_text(part: Part, lines: list[str]) -> Part:
    text = "\n".join(lines)
    return replace(part, text=text, uses=used_names(ast.parse(text)))


def read_names(node: ast.AST) -> set[str]:
    return {one.id for one in names_of(node) if isinstance(one.ctx, ast.Load)}


def names_of(node: ast.AST) -> list[ast.Name]:
    return [one for one in ast.walk(node) if isinstance(one, ast.Name)]


def reached(name: str, parts: list[Part]) -> frozenset[str]:
    """That name, and all that the part which defines it needs of the others."""
    found, ahead = set[str](), {name}
    while ahead:
        name = ahead.pop()
        for part in parts:
            if name in part.defines and not part.defines <= found:
                found |= part.defines
                ahead |= part.uses
    return frozenset(found)


def with_helpers(parts: list[Part], recipe: Source) -> list[Part]:
    """The parts, after those of the recipe's own functions below the lesson that they call."""
    below = [part for part in recipe.parts[len(lesson_parts(recipe)) :] if not part.text.startswith(("@run.", "run."))]
    chosen: list[Part] = []

    def add(part: Part) -> None:
        for other in below:
            if other not in chosen and other.defines & part.uses and other is not part:
                chosen.append(other)
                add(other)

    for part in parts:
        add(part)
    return [*(part for part in below if part in chosen), *parts]


def main_guard(recipe: Source) -> ast.AST:
    guards = [node for node in recipe.tree.body if "__main__" in ast.unparse(node) and isinstance(node, ast.If)]
    return guards[-1] if guards else ast.Module(body=[], type_ignores=[])


def by_dependence(
    modules: list[str], sources: dict[str, Source], wanted: dict[str, set[str]], twins: "Twins | None"
) -> list[str]:
    """Modules with wanted parts, each after those it imports from."""
    done: list[str] = []

    seen: set[str] = set()

    def visit(module: str) -> None:
        if module in seen or module not in sources:
            return
        seen.add(module)
        for found in (one for one in sources[module].imports.values() if not one.for_types):
            origin = twins.module_for(found) if twins is not None else found.module
            if origin != module:
                visit(origin)
        if module in wanted and module not in done:
            done.append(module)

    for module in modules:
        visit(module)
    return done


def refuse_collisions(gathered: Gathered) -> None:
    owner: dict[str, str] = {found.name: found.module for found in gathered.imports}
    for module, parts in gathered.parts.items():
        for name in {name for part in parts for name in part.defines}:
            if owner.setdefault(name, module) != module:
                raise ValueError(
                    f"{name} is defined in both {owner[name]} and {module}: one of them needs another name"
                )


def import_lines(imports: set[Import]) -> str:
    """Sorted import statements, the standard library's first."""
    groups: dict[bool, list[str]] = {True: [], False: []}
    types = sorted({f"    from {one.module} import {one.name}" for one in imports if one.for_types})
    plain = sorted((one for one in imports if not one.for_types), key=lambda one: (one.module, one.name))
    for module in dict.fromkeys(one.module for one in plain):
        group = groups[module.partition(".")[0] in sys.stdlib_module_names]
        here = [one for one in plain if one.module == module]
        for one in here:
            if one.attribute is None:
                renamed = one.name != module.partition(".")[0]
                group.append(f"import {module} as {one.name}" if renamed else f"import {module}")
        names = [
            one.attribute if one.attribute == one.name else f"{one.attribute} as {one.name}"
            for one in here
            if one.attribute is not None
        ]
        if names:
            line = f"from {module} import {', '.join(map(str, names))}"
            wrapped = f"from {module} import (\n    " + ",\n    ".join(map(str, names)) + ",\n)"
            group.append(line if len(line) <= LINE_LENGTH else wrapped)
    order = lambda line: (line.startswith("from"), line)  # noqa: E731
    text = "\n\n".join("\n".join(sorted(groups[first], key=order)) for first in (True, False) if groups[first])
    return text + ("\n\nif TYPE_CHECKING:\n" + "\n".join(types) if types else "")


def stand_alone(name: str, *, full: bool = False, format: str | None = None) -> tuple[str, set[str]]:
    """The text of a stand-alone file of that recipe, and the names of the bundled data it reads.

    Args:
        name: of the recipe.
        full: with the whole engine, every format of data, the claims and the figure.
        format: of the data that the file opens; that of the bundled ones if not given.
    """
    entry = catalog.find(name)
    recipe = Source(entry.module, entry.path)
    if format is not None and full:
        raise InputError("option format: a full copy opens every format")
    parts = recipe.parts if full else without_evidence(lesson_parts(recipe))
    gathered = gather(recipe) if full else lean(recipe, parts, Twins(format))
    opening = f'"""{entry.docstring}\n\n{provenance(name, lean=not full)}\n"""'
    pieces = [f"{opening}\n\n{import_lines(with_type_checking(gathered.imports))}"]
    for heading, group in groupby(gathered.parts.items(), lambda item: label(item[0], recipe)):
        parts = [part for _, parts in group for part in parts]
        if not full and heading != "the recipe":
            parts = [replace(part, text=with_short_docstrings(part.text)) for part in parts]
        pieces.append(f"# {heading}\n\n\n" + joined(parts))
    pieces.append('if __name__ == "__main__":\n    main(run)')
    data = data_names(gathered, format)
    text = "\n\n\n".join(pieces) + "\n"
    return (text if data or format is None else asking_for_data(text)), data


def asking_for_data(text: str) -> str:
    """A lean copy that no bundled data go with: `--data` has to be given."""
    default = 'how |= {"default": one.default} | ('
    asked = 'how |= {"default": one.default, "required": one.name == "data"}\n        how |= ('
    return text.replace("your data; the bundled ones if not given", "your data").replace(default, asked)


def with_short_docstrings(text: str) -> str:
    """The text with the first paragraph of each docstring alone; what is longer stands in the library."""
    lines = text.split("\n")
    for node in reversed(
        [one for one in ast.walk(ast.parse(text)) if isinstance(one, (ast.FunctionDef, ast.ClassDef))]
    ):
        told = ast.get_docstring(node, clean=False)
        if told and "\n\n" in told:
            start, end = node.body[0].lineno, node.body[0].end_lineno
            first = told.partition("\n\n")[0].split("\n")
            indent = " " * node.body[0].col_offset
            lines[start - 1 : end] = [f'{indent}"""{first[0]}', *first[1:]]
            lines[start + len(first) - 2] += '"""'
    return "\n".join(lines)


def label(module: str, recipe: Source) -> str:
    if module == recipe.name:
        return "the recipe"
    if module == PLAIN:
        return "the frame"
    return "the data" if ".datasets." in module else f"from {module.rpartition('.')[0]}"


def provenance(name: str, *, lean: bool) -> str:
    made = f"Made by `recipes copy {name}` of PyTorch Recipes (MIT license)"
    if lean:
        added = "the baseline, claims\nand the figure, processes, checkpoints and every format of data"
        return f"{made}; `--full` adds {added}."
    return f"{made} to stand alone: first the parts of that\nlibrary which the recipe uses, then the recipe."


def with_type_checking(imports: set[Import]) -> set[Import]:
    if any(one.for_types for one in imports):
        return imports | {Import("typing", "TYPE_CHECKING", "TYPE_CHECKING")}
    return imports


def joined(parts: list[Part]) -> str:
    """The parts' texts: functions and classes two lines apart, constants under each other."""
    text = parts[0].text
    for before, after in pairwise(parts):
        plain = not any(re.match(r"(#.*\n)*(@|def |class )", part.text) for part in (before, after))
        text += ("\n" if plain else "\n\n\n") + after.text
    return text


def data_names(gathered: Gathered, format: str | None) -> set[str]:
    """The bundled data that the copy reads: none if it opens another format than theirs."""
    if format is not None and format not in [FORMATS[kind] for kind in kinds_of(gathered)]:
        return set()
    texts = [part.text for parts in gathered.parts.values() for part in parts]
    return {name for text in texts for name in re.findall(r'\bbundled\("([\w-]+)"\)', text)}


# Figures that compare what the claims have trained: a notebook that trains one model has none.
FIGURES_OF_CLAIMS: set[str] = set()
# What a figure looks at of a result; what only the claims fill stays empty.
NOTEBOOK_RESULT = '''class Result(SimpleNamespace):
    """What a run measured, and what it made; result["accuracy"] is one of its metrics."""

    history, rows, runs = (), (), {}

    def __getitem__(self, metric):
        return self.metrics[metric]'''


def for_notebook(frame: str) -> str:
    """The frame of lean copies with results as figures take them, which know the options of their run."""
    kept = re.sub(r"^Result = SimpleNamespace.*$", lambda _: NOTEBOOK_RESULT + "\n", frame, flags=re.M)
    run = "result = body(options)\n"
    return kept.replace(run, f"{run}            result.options, result.seed = vars(options), options.seed\n")


def notebook(name: str, file_name: str, *, full: bool = False, format: str | None = None) -> tuple[str, set[str]]:
    """The same as a Jupyter notebook (nbformat 4.5): a lesson to be read, its steps in cells with their sentences."""
    entry = catalog.find(name)
    recipe = Source(entry.module, entry.path)
    lesson = recipe.parts if full else [without_options(part) for part in lesson_parts(recipe)]
    figures = [] if full else [part for part in recipe.parts if part.text.startswith("@run.figure")]
    shown = with_helpers([replace(part, text=part.text.partition("\n")[2]) for part in figures], recipe)
    shown = [] if name in FIGURES_OF_CLAIMS else shown
    measuring = [] if full else [part for part in with_helpers(lesson, recipe) if part not in lesson]
    shown = [part for part in shown if part not in measuring]
    wanted = [*lesson, *measuring, *shown]
    gathered = gather(recipe, wanted) if full else lean(recipe, wanted, Twins(format, families=False))
    title, body = entry.title, entry.docstring.partition("\n")[2]
    place = f"__doc__, __file__ = {title!r}, {file_name!r}  # which scripts have, and notebooks lack"
    helpers = [
        f"# {label(module, recipe)}\n\n{joined(parts)}"
        for module, parts in gathered.parts.items()
        if module != recipe.name
    ]
    frame = "\n\n\n".join([f"{import_lines(with_type_checking(gathered.imports))}\n\n{place}", *helpers])
    frame = frame if full else for_notebook(frame)
    cells: list[tuple[str, str]] = [("markdown", f"# {title}\n{body}\n\n{provenance(name, lean=not full)}")]
    cells += [
        ("markdown", "## What it stands on\n\nImports, the training loop, and what opens the data."),
        ("folded", frame),
    ]
    for part in lesson:
        if told := step_of(part):
            cells.append(("markdown", told))
        cells.append(("code", part.text))
    if measuring:
        cells.append(("code", joined(measuring)))
    data = data_names(gathered, format)
    given = "" if data or format is None else 'data="path/to/your/data"'
    cells += [("markdown", "## Run it"), ("code", f"result = run({given})\nresult.metrics, result.baseline")]
    if shown:
        cells += [("markdown", "## Look at it"), ("code", joined(shown)), ("code", "figure(result)")]
    elif full:
        cells.append(("code", "result.figure()"))
    content = {
        "cells": [as_cell(number, kind, text) for number, (kind, text) in enumerate(cells)],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n", data


def step_of(part: Part) -> str:
    """The Markdown above a part of the lesson: its name as a heading, and the sentence of its docstring."""
    (node,) = ast.parse(part.text).body[:1]
    if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return ""
    sentences = (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ")
    heading = "Options" if node.name.endswith("Options") else node.name
    return f"## {heading}\n\n{sentences}".strip()


def as_cell(number: int, kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"id": f"cell-{number}", "cell_type": "markdown" if kind == "markdown" else "code"}
    cell |= {"metadata": {"jupyter": {"source_hidden": True}} if kind == "folded" else {}}
    cell |= {"source": text.splitlines(keepends=True)}
    return cell if kind == "markdown" else cell | {"execution_count": None, "outputs": []}


def copy(
    name: str, target: str | Path, *, force: bool = False, full: bool = False, format: str | None = None
) -> list[Path]:
    """Writes a stand-alone copy of a recipe, and beside it the bundled data it reads.

    Args:
        name: of the recipe.
        target: file to write, ending in .py or .ipynb.
        force: overwrite what is there.
        full: with the whole engine, every format of data, the claims and the figure.
        format: of the data that the file opens, such as voc; that of the bundled ones if not given.

    Returns:
        The file, and the folders of data.

    Raises:
        InputError: there is no such recipe, the file's ending is another, or something is there already.
    """
    target = Path(target)
    if target.suffix not in (".py", ".ipynb"):
        raise InputError(f"{target}: expected a file that ends in .py or .ipynb")
    if target.is_dir():
        raise InputError(f"{target}: is a folder, expected a file")
    require_writable(target.parent)
    if target.suffix == ".py":
        text, data = stand_alone(name, full=full, format=format)
    else:
        text, data = notebook(name, target.name, full=full, format=format)
    if target.exists() and not force:
        raise InputError(f"{target}: is there already; --force overwrites it")
    folders = {target.parent / "data" / one: bundled(one) for one in sorted(data)}
    for folder, source in folders.items():
        if not force and folder.exists() and not same_files(source, folder):
            raise InputError(f"{folder}: is there already, with other content; --force overwrites it")
    for folder, source in folders.items():
        if folder.resolve() != source.resolve():
            shutil.copytree(source, folder, dirs_exist_ok=True)
    write_whole(target, lambda path: path.write_text(text, "utf-8"))
    return [target, *folders]


def same_files(source: Path, folder: Path) -> bool:
    """Whether all of `source` is in `folder` unchanged."""
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    equal, _, _ = filecmp.cmpfiles(source, folder, [str(path) for path in files], shallow=False)
    return len(equal) == len(files)
