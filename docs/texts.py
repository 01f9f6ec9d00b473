"""What the pages say, in English as the sources have it, and in Chinese from the catalogs in `docs/zh`.

A catalog holds one recipe, note or guide: each paragraph, claim and option sentence with its Chinese. A sentence that
changes loses its Chinese, and a test says so. `python -m docs.texts` writes the sentences that are new into the
catalogs, and takes out those that are gone.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

from docs import labels
from recipes import catalog
from recipes.core.options import Options, field_metadata, field_types

HERE = Path(__file__).parent
ROOT = HERE.parent
LANGUAGES = ("en", "zh")
Translate = Callable[[str], str]


def paragraphs_of(docstring: str) -> list[str]:
    """The paragraphs below the title, each in one line, as each item of a list; without the fields at the end."""
    blocks = [block for block in docstring.split("\n\n")[1:] if not re.match(r"(Notes|Paper|Papers|Data): ", block)]
    return [re.sub(r" ?\n\s*(?!- |\d+\. )", " ", block.strip()) for block in blocks]


def fields_of(docstring: str) -> dict[str, str]:
    """`Notes`, `Paper` and `Data` from a recipe's docstring, each in one line."""
    found = re.findall(r"^(Notes|Papers?|Data): (.*(?:\n[ \t]+.*)*)", docstring, flags=re.MULTILINE)
    return {name.replace("Papers", "Paper"): " ".join(text.split()) for name, text in found}


def sentences_of(options: type[Options]) -> dict[str, str]:
    """The name of each option, and what it is."""
    return {name: field_metadata(options)[name].get("help", "") for name in field_types(options)}


@cache
def result_of(name: str) -> dict[str, Any]:
    """What `recipes prove` measured."""
    return json.loads((ROOT / "results" / f"{name}.json").read_text("utf-8"))


def messages_of(entry: catalog.Entry) -> Iterator[str]:
    """All that the recipe's page says of it, but for the title (`recipes/titles.zh.json` has these)."""
    yield from paragraphs_of(entry.docstring)
    if data := fields_of(entry.docstring).get("Data"):
        yield data
    shared = sentences_of(Options)
    recipe = catalog.load(entry.name).run.recipe
    yield from (text for name, text in sentences_of(recipe.options).items() if text and text != shared.get(name))
    proof = result_of(entry.name)
    yield from (claim["text"] for claim in proof["claims"])
    if proof["baseline"]:
        yield proof["baseline"]
    yield from proof.get("others", {})


def title_of(entry: catalog.Entry, language: str) -> str:
    return entry.title_zh if language == "zh" else entry.title


def with_links(text: str) -> str:
    """The text with its addresses as links, without what ends a clause behind them."""
    return re.sub(r"(?<!<)(?<!\]\()(https?://[^\s,;)]+[^\s,;.)])", r"<\1>", text)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def blocks_of(markdown: str) -> list[str]:
    """A page in its paragraphs, tables and lists; what is fenced is one block."""
    return re.findall(r"(?:^```[^\n]*\n.*?^```$|^[^\n]+(?:\n(?!```)[^\n]+)*)", markdown, flags=re.MULTILINE | re.DOTALL)


def translated(markdown: str, translate: Translate) -> str:
    """The page, each block of it in the other language; code stays as it is."""
    blocks = blocks_of(markdown)
    return "\n\n".join(block if block.startswith("```") else translate(block) for block in blocks) + "\n"


def pages() -> list[Path]:
    """The pages that are written by hand: guides, notes, and what is said around the recipes."""
    return sorted([*HERE.glob("*.md"), *HERE.glob("notes/*.md")])


def sources() -> dict[str, list[str]]:
    """The sentences of every catalog."""
    found = {entry.name: list(messages_of(entry)) for entry in catalog.entries()}
    for page in pages():
        name = ".".join(page.relative_to(HERE).with_suffix("").parts)
        found[name] = [block for block in blocks_of(page.read_text("utf-8")) if not block.startswith("```")]
    found["shared"] = [*labels.sentences(), *filter(None, sentences_of(Options).values())]
    return found


@cache
def read(name: str) -> dict[str, str]:
    """The catalog of that name, without what is still to be translated."""
    path = HERE / "zh" / f"{name}.po"
    if not path.exists():
        return {}
    with path.open("rb") as file:
        found = read_po(file, locale="zh_CN")
    return {str(one.id): str(one.string) for one in found if one.id and one.string and not one.fuzzy}


def translator(language: str, name: str) -> Translate:
    """Gives a sentence of that catalog in the language; English stands in for what has no Chinese yet."""
    if language == "en":
        return lambda text: text
    known = read("shared") | read(name)
    return lambda text: known.get(text, text)


def missing() -> dict[str, list[str]]:
    """The sentences without Chinese, by catalog."""
    lacking = {name: [one for one in texts if one not in read(name)] for name, texts in sources().items()}
    return {name: texts for name, texts in lacking.items() if texts}


def update() -> None:
    """Writes each catalog anew: the sentences as they are now, with the Chinese that they had."""
    (HERE / "zh").mkdir(exist_ok=True)
    for name, texts in sources().items():
        known, made = read(name), Catalog(locale="zh_CN", charset="utf-8", header_comment=f"# {name}", fuzzy=False)
        for text in texts:
            made.add(text, known.get(text, ""))
        with (HERE / "zh" / f"{name}.po").open("wb") as file:
            write_po(file, made, width=0, omit_header=True)


if __name__ == "__main__":
    update()
    left = missing()
    print(f"{sum(map(len, left.values()))} sentences are without Chinese", *left, sep="\n")
