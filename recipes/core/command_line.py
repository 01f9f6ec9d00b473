"""A recipe run from a command line."""

import argparse
import dataclasses
import difflib
import inspect
import os
import re
import sys
import time
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, Union

from recipes.core.errors import InputError
from recipes.core.options import Options, field_metadata, field_types


def option_sentences(docstring: str) -> dict[str, str]:
    """The sentences under `Args:` in a docstring, by the option's name, line breaks folded."""
    _, _, section = inspect.cleandoc(docstring).partition("\nArgs:\n")
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section.partition("\n\n")[0], flags=re.MULTILINE)
    return {name: " ".join(sentence.split()) for name, sentence in entries}


def add_options(parser: argparse.ArgumentParser, run: Callable[..., Any]) -> None:
    """An option of the command line for each option of a recipe's `run`."""
    recipe = run.recipe  # type: ignore[attr-defined]
    hints, told = field_types(recipe.options), field_metadata(recipe.options)
    defaults = {one.name: one.default for one in dataclasses.fields(recipe.options)}
    own = parser.add_argument_group("options of this recipe")
    shared = parser.add_argument_group("options of all recipes")
    for name, hint in hints.items():
        group = own if name in recipe.options.__annotations__ and name not in Options.__annotations__ else shared
        add_option(group, name, hint, defaults[name], told[name].get("help", ""))


def add_option(parser: Any, name: str, hint: Any, default: Any, sentence: str) -> None:
    flag, sentence = f"--{name.replace('_', '-')}", sentence.replace("%", "%%")
    if default is not None:
        sentence += f" (default: {default})"
    if typing.get_origin(hint) in (Union, types.UnionType):  # X | None
        hint = next(choice for choice in typing.get_args(hint) if choice is not types.NoneType)
    if hint is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=sentence)
    elif typing.get_origin(hint) is Literal:
        parser.add_argument(flag, choices=typing.get_args(hint), default=default, help=sentence)
    else:
        kind = hint if hint in (int, float) else str
        parser.add_argument(flag, type=kind, default=default, help=sentence, metavar=kind.__name__.upper())


class OneLineParser(argparse.ArgumentParser):
    """Answers a wrong command line with one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        if unknown:
            near = difflib.get_close_matches(unknown[1], self._option_string_actions, n=1)
            message = f"unknown option {unknown[1]}" + (f", did you mean {near[0]}?" if near else "; --help lists them")
        self.exit(2, f"error: {message}\n")


def parse(run: Callable[..., Any], arguments: Sequence[str] | None, program: str | None) -> dict[str, Any]:
    """The options of `run` as a command line gives them, and whether `json` is wanted."""
    title = (inspect.getdoc(run) or "").partition("\n")[0]
    parser = OneLineParser(prog=program, description=title, allow_abbrev=False)
    add_options(parser, run)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return vars(parser.parse_args(arguments))


def main(run: Callable[..., Any], arguments: Sequence[str] | None = None, *, program: str | None = None) -> None:
    """Runs a recipe from a command line, and prints its result: the last line of every recipe's file.

    Exits with code 2 and one line on standard error where the input cannot be used.

    Args:
        run: the recipe.
        arguments: the command line's words; this process's by default.
        program: name of the command in its help.
    """
    options = parse(run, arguments, program)
    as_json = options.pop("json")
    try:
        result = run(**options)
    except (InputError, FloatingPointError) as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(3)  # the first process has most often told the same, and torchrun ends this one
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        sys.exit(130)
    if os.environ.get("RANK", "0") == "0":  # one voice under torchrun
        print(result.to_json() if as_json else result)
