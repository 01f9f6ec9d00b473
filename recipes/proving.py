"""What `recipes prove` measures: a recipe over several seeds, written to a small file that tables are made of."""

import ast
import hashlib
import io
import json
import os
import platform
import statistics
import tokenize
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from recipes import catalog
from recipes.copying import Source, gather
from recipes.core.claims import Claim
from recipes.core.command_line import parse
from recipes.core.errors import InputError
from recipes.core.files import require_writable, write_whole
from recipes.core.result import better, columns, expected, short


def prove(name: str, seeds: int, folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Runs the recipe with the seeds 0, 1, 2 …, and writes FOLDER/NAME.json, and FOLDER/NAME.png of the first.

    Args:
        name: of the recipe.
        seeds: how many.
        folder: to write to.
        arguments: options of the recipe, as on its command line.
    """
    require_writable(folder)
    entry = catalog.find(name)
    run = catalog.load(name).run
    options = {key: value for key, value in parse(run, arguments, f"recipes prove {name}").items() if key != "json"}
    results = [run(**options | {"seed": seed}) for seed in range(seeds)]
    first = results[0]
    proof: dict[str, Any] = {
        "recipe": entry.name,
        "title": first.title,
        "seeds": seeds,
        "options": {key: value for key, value in first.options.items() if not defaults(run, key, value)},
        "metrics": {
            metric: spread([result.metrics[metric] for result in results])
            | {"bar": first.bars.get(metric), "baseline": mean([result.baseline.get(metric) for result in results])}
            for metric in first.metrics
        },
        "baseline": first.baseline_name,
        "others": others_of(results),
        "learned": sum(not result.shortfalls() for result in results),
        "claims": claims_of(results),
        "seconds": round(min(result.seconds for result in results), 1),  # other work on the machine slows some
        "device": first.device,
        "threads": first.threads,
        "hardware": hardware(first.device),
        "versions": first.versions,
        "code": code_of(name),
    }
    if learns_by_gradient(name) and not proof["options"]:
        proof["null"] = null_run(name)
    proof["bars"] = {metric: far_enough(one) for metric, one in proof["metrics"].items() if one["bar"] is not None}
    write_proof(proof, folder / f"{entry.name}.json")
    save_figure(first, folder / f"{entry.name}.png")
    return proof


def confirm(name: str, folder: Path) -> list[str]:
    """Trains once with the seed 0, and not at all: what no longer holds of FOLDER/NAME.json.

    If all holds, the file names this code as the one that was measured; the spread over seeds stays as it was.

    Raises:
        InputError: there is no such file yet.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; recipes prove {name} writes it")
    proof = json.loads(path.read_text("utf-8"))
    result = catalog.load(name).run(device="cpu")
    wrong = result.shortfalls()
    for claim in (claim for claim in result.claims if not claim.holds):
        wrong.append(f"does not hold: {claim.text}: {short(claim.measured)}, expected {expected(claim)}")
    if learns_by_gradient(name):
        proof["null"] = null_run(name)
        wrong += [] if proof["null"]["missed"] else ["the null run meets every bar"]
        wrong += [f"in the null run holds: {text}" for text in proof["null"]["held"]]
    if not wrong:
        proof["code"] = code_of(name)
        others = others_of([result])
        if others.keys() != proof.get("others", {}).keys():
            proof["others"] = others
        if (proof["hardware"], proof["threads"]) == (hardware(result.device), result.threads):
            proof["seconds"] = min(proof["seconds"], round(result.seconds, 1))
        write_proof(proof, path)
    return wrong


def others_of(results: list[Any]) -> dict[str, dict[str, float | None]]:
    """The means of the other plain methods that the recipe shows, by name and metric."""
    return {
        name: {metric: mean([result.others[name][metric] for result in results]) for metric in scores}
        for name, scores in results[0].others.items()
    }


def best_plain(proof: dict[str, Any], metric: str) -> float | None:
    """What the best plain method that the recipe shows reaches of this metric, on average; None if none has it."""
    found = [proof["metrics"][metric]["baseline"], *(one.get(metric) for one in proof.get("others", {}).values())]
    known = [value for value in found if value is not None]
    return (min if better(metric) == "<" else max)(known, default=None)


def is_due(name: str, folder: Path, today: date) -> bool:
    """Whether claims are to be measured again: the code has changed since, or it is the recipe's day of two weeks."""
    path = folder / f"{name}.json"
    known = json.loads(path.read_text("utf-8")).get("code") if path.exists() else None
    return known != code_of(name) or catalog.names().index(name) % 14 == today.toordinal() % 14


def write_proof(proof: dict[str, Any], path: Path) -> None:
    text = json.dumps(proof, ensure_ascii=False, indent=1) + "\n"
    write_whole(path, lambda path: path.write_text(text, "utf-8"))


def code_of(name: str) -> str:
    """A digest of the code that a recipe's numbers come from, in its file and in the modules of its family."""
    entry = catalog.find(name)
    return digest(Source(entry.module, entry.path))


def digest(recipe: Source) -> str:
    """The same without what changes no number: docstrings, comments, the figure, and what serves a trained model.

    The engine and the readers of data are left out too: they have tests of their own.
    """
    parts = [part for part in recipe.parts if not part.text.startswith(("@run.figure", "run."))]
    modules = gather(recipe, parts).parts
    modules = {one: found for one, found in modules.items() if not one.startswith(("recipes.core", "recipes.datasets"))}
    text = "\n".join(part.text for module in sorted(modules) for part in modules[module])
    lines = text.split("\n")  # compared as text, since every version of Python has another tree
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            start, end = node.lineno - 1, node.end_lineno or node.lineno
            lines[start:end] = [""] * (end - start)
    kept = "\n".join(line.rstrip() for line in lines if line.strip())
    return hashlib.sha256(kept.encode()).hexdigest()[:16]


def learns_by_gradient(name: str) -> bool:
    return any(step in catalog.find(name).source for step in (" Loop(", " = train(", ".backward("))


def null_run(name: str) -> dict[str, list[str]]:
    """What an untrained network shows, at a learning rate of 1e-9: the bars it misses, and learned claims that hold."""
    result = catalog.load(name).run(device="cpu", lr=1e-9, epochs=1)
    learned = [claim.text for claim in result.claims if claim.kind == "learned" and claim.relation_holds]
    return {"missed": result.missed_bars(), "held": learned}


def save_figure(result: Any, path: Path) -> None:
    """Draws what the recipe shows of a run, as a picture of 255 colors that names the part fit for a thumbnail."""
    if result.draw is None:
        return
    from PIL import Image, PngImagePlugin

    figure, drawn, about = result.figure(), io.BytesIO(), PngImagePlugin.PngInfo()
    figure.savefig(drawn, format="png", dpi=120)
    about.add_text("thumbnail", json.dumps(thumbnail_of(figure, dpi=120)))
    small = Image.open(drawn).convert("RGB").quantize(255, dither=Image.Dither.NONE)
    write_whole(path, lambda path: small.save(path, format="png", optimize=True, pnginfo=about))


def thumbnail_of(figure: Any, dpi: int) -> list[int]:
    """The pixels (left, top, right, bottom) around the first axes that fill a fifth of the figure and make no strip."""
    from matplotlib.transforms import Bbox

    scale, (width, height) = dpi / figure.dpi, figure.get_size_inches() * dpi
    boxes = [one.get_tightbbox().expanded(1.02, 1.02) for one in figure.axes]
    for count in range(1, len(boxes) + 1):
        box = Bbox.union(boxes[:count])
        if box.width * box.height * scale**2 >= 0.2 * width * height and box.width <= 2.5 * box.height:
            break
    left, right = max(0, box.x0 * scale), min(width, box.x1 * scale)
    top, bottom = max(0, height - box.y1 * scale), min(height, height - box.y0 * scale)
    return [round(float(one)) for one in (left, top, right, bottom)]


def hours(folder: Path, seeds: int) -> str:
    """How long all recipes will take, by what the results in the folder say of the last time."""
    proofs = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    seconds = sum(proof["seconds"] for proof in proofs) * seeds
    return f": about {seconds / 3600:.1f} hours, as the {len(proofs)} results in {folder} took" if proofs else ""


def defaults(run: Any, key: str, value: Any) -> bool:
    recipe = getattr(run, "recipe", None)
    return key in ("seed", "device", "out") or (recipe is not None and recipe.options().to_dict().get(key) == value)


def spread(values: list[float]) -> dict[str, Any]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "std": deviation, "values": values}


def mean(values: list[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def far_enough(metric: dict[str, Any]) -> float | None:
    """How many standard deviations the bar stands from the mean: two or more are wanted."""
    return round(abs(metric["mean"] - metric["bar"]) / metric["std"], 1) if metric["std"] else None


def claims_of(results: list[Any]) -> list[dict[str, Any]]:
    """Each claim with how often it held, the mean of what it measured, and its room, by its place."""
    told = []
    for same in zip(*(result.claims for result in results), strict=True):
        told.append(
            {
                "text": same[0].text,
                "kind": same[0].kind,
                "held": sum(claim.holds for claim in same),
                "measured": statistics.mean(claim.measured for claim in same),
                "relation": same[0].relation,
                "reference": statistics.mean(claim.reference for claim in same),
                "margin": same[0].margin,
                "room": room(same),
            }
        )
    return told


def room(claims: Sequence[Claim]) -> float | None:
    """How many standard deviations a learned claim lies beyond its margin: two or more are wanted."""
    sign = 1 if claims[0].relation.startswith(">") else -1
    beyond = spread([sign * (claim.measured - claim.reference) - claim.margin for claim in claims])
    return round(beyond["mean"] / beyond["std"], 1) if claims[0].kind == "learned" and beyond["std"] else None


def hardware(device: str) -> str:
    """The device's name; of a processor also its cores and the widest instructions that torch uses there."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def table(proof: dict[str, Any]) -> str:
    rows = [["metric", "mean", "std", "bar", "baseline"]]
    rows += [[m, *(short(one[key]) for key in rows[0][1:])] for m, one in proof["metrics"].items()]
    claims = [["held", "measured", "room", ""]]
    claims += [
        [f"{c['held']} of {proof['seeds']}", short(c["measured"]), short(c["room"]), c["text"]] for c in proof["claims"]
    ]
    told = f"{proof['learned']} of {proof['seeds']} seeds met the bars and beat {proof['baseline']}"
    return "\n\n".join([f"{proof['recipe']}: {proof['title']}", columns(rows), columns(claims, left={0, 3}), told])
