"""The command `recipes`: list, show, run, predict, export, prove, bench, smoke, copy, doctor."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import recipes
from recipes import catalog
from recipes.core.errors import InputError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Runnable PyTorch recipes.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def complete_name(incomplete: str) -> list[str]:
    return [name for name in catalog.names() if incomplete in name]


Name = Annotated[str, typer.Argument(help="Of a recipe, or its last part.", autocompletion=complete_name)]
Folder = Annotated[
    str, typer.Argument(help="A recipe's --out; or timm:NAME or torchvision:NAME, as trained on ImageNet.")
]
Weights = Annotated[str | None, typer.Option(help="Of a network by name: a file, or torchvision's name for them.")]
OF_THE_RECIPE = {"allow_extra_args": True, "ignore_unknown_options": True}


def show_version(wanted: bool) -> None:
    if wanted:
        print(f"recipes {recipes.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Runnable PyTorch recipes."""


@app.command("list")
def list_recipes(
    word: Annotated[str, typer.Argument(help="Only recipes with this word in their name or title.")] = "",
    note: Annotated[int | None, typer.Option(help="Only recipes for this point of the notes.")] = None,
    lang: Annotated[str | None, typer.Option(help="Language of the titles: en or zh.")] = None,
    as_json: AsJson = False,
) -> None:
    """Lists the recipes, family by family."""
    chinese = (lang or spoken()).lower().startswith("zh")
    found = [one for one in catalog.entries() if note is None or note in one.notes]
    found = [one for one in found if word.lower() in f"{one.name} {one.title} {one.title_zh}".lower()]
    if as_json:
        print(json.dumps([{"name": o.name, "title": o.title, "title_zh": o.title_zh, "notes": o.notes} for o in found]))
        return
    if not found:
        raise InputError("no recipe fits; `recipes list` names them all")
    print(catalog.listing(found, chinese=chinese))


def spoken() -> str:
    return next((os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)), "en")


@app.command()
def show(name: Name) -> None:
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
    context_settings={**OF_THE_RECIPE, "help_option_names": []}, options_metavar="[--help] [OPTIONS OF THE RECIPE]"
)
def run(context: typer.Context, name: Name) -> None:
    """Runs a recipe and prints its result; `recipes run NAME --help` lists its options."""
    if name == "--help":
        print(context.get_help())
        return
    from recipes.core.command_line import main as run_main

    run_main(catalog.load(name).run, context.args, program=f"recipes run {name}")


@app.command()
def predict(
    folder: Folder,
    items: Annotated[list[str] | None, typer.Argument(help="Files, folders of them, or - for standard input.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text, for models that take texts.")] = None,
    draw: Annotated[Path | None, typer.Option(help="Folder to draw pictures of the answers into.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Items in a forward pass.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    weights: Weights = None,
    encoding: Annotated[str, typer.Option(help="Of files of texts, and of standard input.")] = "utf-8",
    as_json: AsJson = False,
) -> None:
    """Answers with a trained model: one line for each file, text or line of standard input."""
    from recipes.core.files import require_writable
    from recipes.predicting import answer_line, draw_answer, gathered
    from recipes.using import as_json as plain
    from recipes.using import trained

    if draw is not None:
        require_writable(draw)
    model = trained(folder, device=device, weights=weights)
    found = gathered(model.task, items or [], text or [], encoding)
    for number, (item, answer) in enumerate(model.stream(found, batch_size=batch_size)):
        print(json.dumps(plain(answer), ensure_ascii=False) if as_json else answer_line(answer), flush=True)
        if draw is not None:
            draw_answer(model.task, item, answer, draw, number)


@app.command()
def export(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="To write, ending in .onnx or .pt2.")],
    weights: Weights = None,
) -> None:
    """Exports a trained model for onnxruntime (.onnx) or torch alone (.pt2), and checks it against the model."""
    from recipes.using import trained

    difference = trained(folder, device="cpu", weights=weights).export(file)
    print(f"{file}: outputs as the model's on new inputs, for batches of any size (difference {difference:.1g})")


@app.command(context_settings=OF_THE_RECIPE, options_metavar="[--seeds N] [--results FOLDER] [OPTIONS OF THE RECIPE]")
def prove(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Of a recipe, or its last part.", autocompletion=complete_name)] = "",
    seeds: Annotated[int, typer.Option(min=1, help="How many trainings, with the seeds 0, 1, 2 and so on.")] = 5,
    results: Annotated[Path, typer.Option(help="Folder to write NAME.json and NAME.png to.")] = Path("results"),
    every: Annotated[bool, typer.Option("--all", help="All recipes, one after another.")] = False,
    confirm: Annotated[
        bool, typer.Option(help="After a change that should change no number: one seed, and the null run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Trains a recipe with several seeds: the spread of its metrics, and how often each claim held."""
    from recipes.proving import confirm as measure_again
    from recipes.proving import hours, table
    from recipes.proving import prove as measure

    if every == bool(name):
        raise InputError("expected the name of a recipe, or --all")
    names = catalog.names() if every else [catalog.find(name).name]
    if confirm:
        if context.args:
            raise InputError(f"--confirm measures the default run: it takes no {context.args[0]}")
        wrong = {one: measure_again(one, results) for one in names}
        print(json.dumps(wrong) if as_json else "\n".join(f"{n}: {'; '.join(w) or 'holds'}" for n, w in wrong.items()))
        raise typer.Exit(any(wrong.values()))
    if every and not as_json:
        print(f"{len(catalog.names())} recipes, {seeds} seeds each{hours(results, seeds)}", flush=True)
    for one in names:
        proof = measure(one, seeds, results, context.args)
        print(json.dumps(proof, ensure_ascii=False) if as_json else table(proof), flush=True)


@app.command(context_settings=OF_THE_RECIPE, options_metavar="[--seconds S] [--json] [OPTIONS OF THE RECIPE]")
def bench(
    context: typer.Context,
    name: Name,
    seconds: Annotated[float, typer.Option(min=0.001, help="How long each row is watched.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Measures how fast a recipe trains here, and which options of the loop pay on this device."""
    from recipes.bench import bench as measure
    from recipes.bench import table
    from recipes.core.command_line import parse

    if not 0 < seconds < float("inf"):
        raise InputError(f"option seconds: expected a number above 0, got {seconds}")
    options = parse(catalog.load(name).run, context.args, f"recipes bench {name}")
    del options["json"]
    rows = measure(name, options, seconds)
    print(json.dumps(rows) if as_json else table(rows))


@app.command()
def smoke(
    only: Annotated[str, typer.Option(help="Only recipes whose name starts with this.")] = "",
    tiny: Annotated[bool, typer.Option("--tiny", help="Short runs on part of the data: does each go through?")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Runs all recipes; exits with code 1 if one fails, misses its bar or does not beat its baseline."""
    from recipes import smoke as way
    from recipes.core.device import pick_device

    pick_device(device)
    chosen = [name for name in catalog.names() if name.startswith(only)]
    if not chosen:
        raise InputError(f"option only: no recipe's name starts with {only!r}")

    def watch(result: dict[str, Any], seconds: float) -> None:
        if not as_json:
            print(way.line(result, seconds), flush=True)

    results = way.smoke(chosen, tiny=tiny, device=device, watch=watch)
    print(json.dumps(results, default=str) if as_json else way.tally(results) if tiny else way.table(results))
    raise typer.Exit(int(any(result["shortfalls"] for result in results)))


@app.command()
def copy(
    name: Name,
    target: Path,
    force: Annotated[bool, typer.Option(help="Overwrite what is there.")] = False,
    full: Annotated[bool, typer.Option("--full", help="With the whole engine, claims and figure.")] = False,
    format: Annotated[str | None, typer.Option(help="Of your data, such as voc.")] = None,
) -> None:
    """Makes one stand-alone file of a recipe: FILE.py, or FILE.ipynb for a notebook."""
    from recipes.copying import copy as copy_recipe

    for path in copy_recipe(name, target, force=force, full=full, format=format):
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
