"""The command `recipes`: list, show, run, bench, smoke, copy, doctor."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from recipes import catalog
from recipes.core.errors import InputError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Runnable PyTorch recipes."
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """Lists every recipe: its name, its title, its notes."""
    found = catalog.entries()
    if as_json:
        print(json.dumps([{"name": one.name, "title": one.title, "notes": one.notes} for one in found]))
        return
    width = max(len(one.name) for one in found)
    for one in found:
        notes = f"  (notes {', '.join(map(str, one.notes))})" if one.notes else ""
        print(f"{one.name:<{width}}  {one.title}{notes}")


@app.command()
def show(name: str) -> None:
    """Shows what a recipe teaches, its options and its source."""
    entry = catalog.find(name)
    if not sys.stdout.isatty():
        print(entry.source, end="")
        return
    from rich.console import Console
    from rich.syntax import Syntax

    console = Console()
    console.print(f"[bold]{entry.name}[/bold]  {entry.path}")
    console.print("options: " + "  ".join(f"--{key.replace('_', '-')} {value}" for key, value in entry.options.items()))
    console.print(Syntax(entry.source, "python", theme="ansi_dark", line_numbers=True))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    options_metavar="[--help] [OPTIONS OF THE RECIPE]",
)
def run(context: typer.Context, name: str) -> None:
    """Runs a recipe and prints its result; `recipes run NAME --help` lists its options."""
    if name == "--help":
        print(context.get_help())
        return
    from recipes.options import main as run_main

    run_main(catalog.load(name).run, context.args, program=f"recipes run {name}")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    options_metavar="[--seconds S] [--json] [OPTIONS OF THE RECIPE]",
)
def bench(
    context: typer.Context,
    name: str,
    seconds: Annotated[float, typer.Option(help="How long each row is watched.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Measures how fast a recipe trains here, and which options of the loop pay on this device."""
    from recipes.bench import bench as measure
    from recipes.bench import table
    from recipes.options import parse

    options = parse(catalog.load(name).run, context.args, f"recipes bench {name}")
    del options["json"]
    rows = measure(name, options, seconds)
    print(json.dumps(rows) if as_json else table(rows))


@app.command()
def smoke(
    only: Annotated[str, typer.Option(help="Only recipes whose name starts so.")] = "",
    as_json: AsJson = False,
) -> None:
    """Runs all recipes; exits with code 1 if one fails, misses its bar or does not beat its baseline."""
    chosen = [entry for entry in catalog.entries() if entry.name.startswith(only)]
    if not chosen:
        raise InputError(f"option only: no recipe's name starts with {only!r}")
    results, failed = [], 0
    for entry in chosen:
        started = time.perf_counter()
        try:
            result = catalog.load(entry.name).run().to_dict()
        except Exception as error:  # one broken recipe must not hide the others
            reason = str(error).partition("\n")[0]
            result = {
                "recipe": entry.name,
                "shortfalls": [f"{type(error).__name__}: {reason}"],
                "metrics": {},
            }
        failed += bool(result["shortfalls"])
        results.append(result)
        if not as_json:
            print(smoke_line(result, time.perf_counter() - started), flush=True)
    if as_json:
        print(json.dumps(results, default=str))
    else:
        print(smoke_table(results))
    raise typer.Exit(int(failed > 0))


def smoke_line(result: dict, seconds: float) -> str:
    verdict = "; ".join(result["shortfalls"]) or "passed"
    return f"{result['recipe']:<40} {seconds:6.1f} s  {verdict}"


def smoke_table(results: list[dict]) -> str:
    from recipes.core.result import columns, short

    rows = [["recipe", "metric", "measured", "baseline", "bar", "claims held"]]
    for result in results:
        metric, value = next(iter(result["metrics"].items()), ("failed", None))
        claims = result.get("claims", [])
        held = f"{sum(claim['holds'] for claim in claims)} of {len(claims)}"
        baseline, bar = (short(result.get(part, {}).get(metric)) for part in ("baseline", "bars"))
        rows.append([result["recipe"], metric, short(value), baseline, bar, held])
    passed = sum(not result["shortfalls"] for result in results)
    return f"\n{columns(rows, left={0, 1})}\n\n{passed} passed, {len(results) - passed} failed"


@app.command()
def copy(
    name: str,
    target: Path,
    force: Annotated[bool, typer.Option(help="Overwrite what is there.")] = False,
) -> None:
    """Makes one stand-alone file of a recipe: FILE.py, or FILE.ipynb for a notebook."""
    from recipes.copying import copy as copy_recipe

    for path in copy_recipe(name, target, force=force):
        print(path)


@app.command()
def doctor() -> None:
    """Says what is here (Python, torch, devices, optional packages) and what would mend what is not."""
    from recipes.doctor import report

    text, healthy = report()
    print(text)
    raise typer.Exit(int(not healthy))


def main() -> None:
    """Entry point: input that cannot be used is answered with one line and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False))
    except (typer.Abort, KeyboardInterrupt) as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `recipes list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if isinstance(error, InputError):
            message = str(error)
        elif hasattr(error, "format_message"):  # the command line itself is wrong
            message = error.format_message()
        else:
            raise
        if message:  # none where the help was printed instead
            print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
