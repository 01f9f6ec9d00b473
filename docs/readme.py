"""Writes the tables of recipes in README.md and README.zh-CN.md from results/: `python -m docs.readme`."""

import re
from pathlib import Path

from docs import labels, texts
from docs.texts import ROOT
from recipes import catalog
from recipes.core.result import short
from recipes.proving import best_plain

FILES = {"en": ROOT / "README.md", "zh": ROOT / "README.zh-CN.md"}
BEGIN, END = "<!-- recipes: written by docs.readme -->", "<!-- end of recipes -->"


def rows_of(language: str) -> str:
    """A row a recipe: its title, what it and the best plain method reached over seeds, and the seconds with claims."""
    say = texts.translator(language, "shared")
    head = (labels.RECIPE, labels.WHAT_IT_IS, labels.OVER_SEEDS, labels.BEST_PLAIN, labels.SHORT_SECONDS)
    rows = []
    for entry in catalog.entries():
        proof = texts.result_of(entry.name)
        metric, one = next(iter(proof["metrics"].items()))
        value = f"{metric} {one['mean']:.3g} ± {one['std']:.1g}"
        link = f"[{entry.name}]({entry.path.relative_to(ROOT)})"
        rows.append(
            [link, texts.title_of(entry, language), value, short(best_plain(proof, metric)), f"{proof['seconds']:.0f}"]
        )
    return texts.table(map(say, head), rows)


def with_table(text: str, language: str) -> str:
    """The README's text with the table between its two marks."""
    parts = re.split(f"({re.escape(BEGIN)}|{re.escape(END)})", text)
    if len(parts) != 5:
        raise ValueError(f"expected {BEGIN!r} and then {END!r}, once each")
    parts[2] = f"\n\n{rows_of(language)}\n\n"
    return "".join(parts)


def write(path: Path, language: str) -> None:
    path.write_text(with_table(path.read_text("utf-8"), language), "utf-8")


if __name__ == "__main__":
    for language, path in FILES.items():
        write(path, language)
