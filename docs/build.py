"""Builds the site: `python -m docs.build` writes it to docs/_build/html, English first, Chinese below zh/.

`python -m docs.build links` asks every address that the pages name, papers above all, whether it is there: with
a network alone, so no test does it. A line for each goes to docs/_build/links/output.txt; one that is broken is
printed, and the command's status is not 0.

Sphinx makes the pages, with the theme Furo: it is well kept, searches offline in both languages, and shows light and
dark on a phone, so that what is left to write here is what no generator knows: pages made of the recipes' sources and
of what `recipes prove` measured. Nothing is trained.
"""

import ast
import html
import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.cmd.build import build_main

from docs import labels, texts
from docs.texts import HERE, ROOT, Translate, table, title_of, with_links
from recipes import catalog, copying
from recipes.core.options import Options
from recipes.core.result import short

BUILD = HERE / "_build"
GUIDES = ("using", "photographs", "texts_guide", "shipping", "scaling", "adding")
NOTES = tuple(sorted(int(page.stem) for page in (HERE / "notes").glob("*.md")))
BASE = {"torch", "numpy", "PIL", "safetensors", "matplotlib"}  # brought by the library without any extra


def filled(text: str) -> str:
    """The text with numbers of results/ for {result:NAME:metric}, {baseline:…}, {claim:NAME:0} and {reference:…}."""

    def number(match: re.Match[str]) -> str:
        kind, name, key = match.groups()
        proof = texts.result_of(name)
        if kind in ("result", "baseline"):
            value = proof["metrics"][key]["mean" if kind == "result" else "baseline"]
        else:
            value = proof["claims"][int(key)]["measured" if kind == "claim" else "reference"]
        return f"{value:.3g}" if abs(value) < 1000 else short(value)

    return re.sub(r"\{(result|baseline|claim|reference):([\w.]+):(\w+)\}", number, text)


# Code


def origin(module: str, name: str) -> str:
    """The module of this package that defines the name which `module` has."""
    found = copying.module_source(module).imports.get(name)
    if found is None or found.attribute is None or not found.module.startswith("recipes"):
        return module
    return origin(found.module, found.attribute)


@cache
def definitions(module: str) -> dict[str, int]:
    """The line of each name that the module defines."""
    found: dict[str, int] = {}
    for node in copying.module_source(module).tree.body:
        found |= dict.fromkeys(copying.defined_names(node), node.lineno)
    return found


@cache
def links_of(module: str) -> dict[str, str]:
    """Where each name leads that the module imports from this package: the page of a source, and the line in it."""
    links = {}
    for name, found in copying.module_source(module).imports.items():
        if found.attribute is not None and found.module.startswith("recipes."):
            home = origin(found.module, found.attribute)
            if line := definitions(home).get(found.attribute):
                links[name] = f"{home}.html#L-{line}"
    return links


@cache
def highlighted(text: str, marked: tuple[int, ...] = (), anchors: str = "") -> str:
    return highlight(
        text, PythonLexer(), HtmlFormatter(hl_lines=list(marked), cssclass="highlight", lineanchors=anchors)
    )


def code(text: str, links: dict[str, str], *, marked: Iterable[int] = (), anchors: str = "", up: str = "") -> str:
    """Python as HTML; the imported names are links, from a page for which `up` is the way to the sources."""
    shown = highlighted(text, tuple(marked), anchors)

    def linked(match: re.Match[str]) -> str:
        before, span, name = match.groups()
        return (
            f'{before}<a class="name" href="{up}{links[name]}">{span}{name}</span></a>' if name in links else match[0]
        )

    shown = re.sub(r'((?<!<span class="o">\.</span>))(<span class="n[a-z]*">)(\w+)</span>', linked, shown)
    return f'<div class="highlight-python notranslate">{shown}</div>'


def raw(text: str) -> str:
    """HTML as Markdown takes it, blank lines included."""
    return f"``````{{raw}} html\n{text}\n``````"


PRE = '<pre tabindex="0">'  # a block that scrolls can be reached by the keyboard


def lesson_and_evidence(entry: catalog.Entry) -> tuple[str, str]:
    """The source below its docstring, in two: what is read, and what proves it."""
    body = entry.source.split('"""', 2)[2].strip("\n")
    lesson, mark, evidence = body.partition("\n@run.claims")
    if not mark:
        lesson, mark, evidence = body.partition("\n@run.figure")
    return lesson.rstrip(), (mark + evidence).strip("\n")


def loop_lines(text: str) -> list[int]:
    """The lines of the loops in `train` that step the optimizer."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == "train":
            loops = [one for one in ast.walk(node) if isinstance(one, ast.For) and ".step(" in ast.unparse(one)]
            return [line for one in loops[:1] for line in range(one.lineno, (one.end_lineno or one.lineno) + 1)]
    return []


@cache
def plain_copy(name: str) -> str:
    return copying.stand_alone(name)[0]


# Pages


def recipe_page(entry: catalog.Entry, language: str) -> str:
    say = texts.translator(language, entry.name)
    proof = texts.result_of(entry.name)
    short_name, task = catalog.short_name(entry.name), catalog.load(entry.name).run.recipe.task
    fields = texts.fields_of(entry.docstring)
    notes = [f"[{number}](../notes/{number}.md)" for number in entry.notes]
    lesson, evidence = lesson_and_evidence(entry)
    links = links_of(entry.module)
    plain = plain_copy(entry.name)
    title = title_of(entry, language)
    up = f"../{ONCE[language]}"
    about = [f"`{entry.name}`", f'<a href="{up}source/{entry.module}.html">{say(labels.SOURCE)}</a>']
    about += [f"{say(labels.NOTE)} {', '.join(notes)}"] if notes else []
    pieces = [
        f"# {title}",
        " · ".join(about),
        *(with_links(say(part)) for part in texts.paragraphs_of(entry.docstring)),
    ]
    if has_figure(entry.name):
        told = say(labels.FIGURE).format(title=title)
        pieces.append(f"![{told}](../figures/{entry.name}.png){{.figure}}")
    if "Data" in fields:
        pieces.append(f"**{say(labels.DATA)}**: {say(fields['Data'])}")
    pieces += measured(proof, say)
    if proof["claims"]:
        pieces += [f"## {say(labels.CLAIMS)}", say(labels.ABOUT_CLAIMS), claims_table(proof, say)]
    pieces += [
        f"## {say(labels.LESSON)}",
        say(labels.ABOUT_LESSON),
        raw(code(lesson, links, marked=loop_lines(lesson), up=f"{up}source/")),
        folded(say(labels.EVIDENCE), code(evidence, links, up=f"{up}source/")),
        f"## {say(labels.RUN_IT)}",
        f"```bash\nrecipes run {short_name} --out out/{short_name}\n```",
        f"### {say(labels.OPTIONS)}",
        options_table(entry, say),
        f"## {say(labels.COPY_IT)}",
        say(labels.ABOUT_COPY).format(lines=plain.count("\n")),
        f"```bash\nrecipes copy {short_name} mine.py && python mine.py\n```",
        raw(
            f'<p>{say(labels.DOWNLOAD)} <a href="{up}copies/{entry.name}.py" download>{entry.name}.py</a> · '
            f'<a href="{up}copies/{entry.name}.ipynb" download>{entry.name}.ipynb</a></p>'
        ),
        folded(say(labels.READ_COPY), code(plain, {})),
    ]
    if task is not None:
        use = f"recipes predict out/{short_name} {INPUTS[task.takes]}"
        export = f"recipes export out/{short_name} model.onnx  # or model.pt2"
        pieces += [f"## {say(labels.USE_IT)}", say(labels.ABOUT_USE), f"```bash\n{use}\n{export}\n```"]
    if "Paper" in fields:
        pieces += [f"## {say(labels.PAPER)}", with_links(fields["Paper"])]
    return "\n\n".join(pieces) + "\n"


ONCE = {"en": "", "zh": "../"}  # the way to sources, copies and thumbnails, which stand once for both languages
INPUTS = {
    "pictures": "photo.png more/photos --draw out/seen",
    "sequences": "sequence/ --draw out/seen",
    "texts": "texts.txt --json",
    "recordings": "recording.wav",
}


def measured(proof: dict[str, Any], say: Translate) -> list[str]:
    """The table of metrics, and how they were measured."""
    rows = [
        [f"`{name}`", f"{short(one['mean'])} ± {one['std']:.2g}", short(one["baseline"]), short(one["bar"])]
        for name, one in proof["metrics"].items()
    ]
    told = labels.SPREAD if proof["baseline"] else labels.NO_BASELINE
    seeds = {"last": proof["seeds"] - 1, "seeds": proof["seeds"], "learned": proof["learned"]}
    versions = ", ".join(f"{name} {version.partition('+')[0]}" for name, version in proof["versions"].items())
    machine = {key: proof[key] for key in ("threads", "hardware")} | {"seconds": round(proof["seconds"])}
    return [
        f"## {say(labels.MEASURED)}",
        table(map(say, (labels.METRIC, labels.OVER_SEEDS, labels.BASELINE, labels.BAR)), rows),
        say(told).format(baseline=say(proof["baseline"] or ""), **seeds),
        *others_measured(proof, say),
        say(labels.SECONDS).format(versions=versions, **machine),
    ]


def others_measured(proof: dict[str, Any], say: Translate) -> Iterator[str]:
    """A sentence for each of the other plain methods."""
    for name, scores in proof.get("others", {}).items():
        reached = ", ".join(f"{short(value)} (`{metric}`)" for metric, value in scores.items())
        yield say(labels.OTHER).format(name=say(name), reached=reached)


def claims_table(proof: dict[str, Any], say: Translate) -> str:
    rows = []
    for one in proof["claims"]:
        compared = f"{one['relation']} {short(one['reference'])}".replace("<", "&lt;")
        if one["margin"]:
            compared += ", " + say(labels.MARGIN).format(margin=short(one["margin"]))
        rows.append([say(one["text"]), short(one["measured"]), compared, f"{one['held']} / {proof['seeds']}"])
    return table(map(say, (labels.CLAIM, labels.NUMBER, labels.COMPARED, labels.HELD)), rows)


def options_table(entry: catalog.Entry, say: Translate) -> str:
    """The recipe's own options, and those that all have, in a table that can be unfolded."""
    kind = catalog.load(entry.name).run.recipe.options
    told, shared, defaults = texts.sentences_of(kind), texts.sentences_of(Options), kind().to_dict()
    head = [say(labels.OPTION), say(labels.DEFAULT), say(labels.MEANING)]

    rows = {name: (f"--{name.replace('_', '-')}", str(defaults[name]), say(told[name])) for name in told}
    own = [name for name in told if told[name] != shared.get(name)]
    mine = [[f"`{name}`", f"`{default}`", meaning] for name, default, meaning in (rows[name] for name in own)]
    common = "".join(
        "<tr><td><code>{}</code></td><td><code>{}</code></td><td>{}</td></tr>".format(*map(html.escape, rows[name]))
        for name in told
        if name not in own
    )
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    others = f"<table class='docutils'><thead><tr>{heads}</tr></thead><tbody>{common}</tbody></table>"
    return "\n\n".join([*([table(head, mine)] if own else []), folded(say(labels.SHARED_OPTIONS), others)])


def folded(summary: str, content: str) -> str:
    return raw(f"<details><summary>{summary}</summary>\n{content}\n</details>")


def source_page(module: str) -> str:
    source = copying.module_source(module)
    shown = code(source.text, links_of(module), anchors="L")
    return f"---\norphan: true\nno-search: true\n---\n\n# {module}\n\n{raw(shown)}\n"


def reached(modules: Iterable[str]) -> set[str]:
    """The modules whose names the pages link to, and those that they link to in turn."""
    seen: set[str] = set()
    left = list(modules)
    while left:
        module = left.pop()
        if module not in seen:
            seen.add(module)
            left += [link.partition(".html")[0] for link in links_of(module).values()]
    return seen


@cache
def needs_of(entry: catalog.Entry) -> set[str]:
    """The packages beyond torch's own that a copy of the recipe imports."""
    plain = plain_copy(entry.name)
    names = re.findall(r"^\s*(?:from|import) (\w+)", plain, flags=re.MULTILINE)
    return {name for name in names if name not in BASE and name not in sys.stdlib_module_names}


def card(entry: catalog.Entry, language: str) -> str:
    """A thumbnail with the title and the main number; what the filter looks for stands in its data."""
    proof = texts.result_of(entry.name)
    title = html.escape(title_of(entry, language))
    metric, one = next(iter(proof["metrics"].items()))
    look = f"{entry.name} {entry.title} {entry.title_zh}".lower()
    data = {"task": f"{entry.name}.", "notes": " ".join(map(str, entry.notes)), "look": look}
    data["needs"] = " ".join(sorted(needs_of(entry)))
    given = " ".join(f'data-{key}="{html.escape(value)}"' for key, value in data.items())
    picture = f'<img src="{ONCE[language]}thumbnails/{entry.name}.png" alt="" loading="lazy">' * has_figure(entry.name)
    return (
        f'<a class="card" href="recipes/{entry.name}.html" {given}>{picture}<span class="title">{title}</span>'
        f'<span class="number"><code>{metric}</code> {short(one["mean"])}</span></a>'
    )


def thumbnail(path: Path) -> Image.Image:
    """The part of a figure that its file names for it, at most 480 pixels wide."""
    with Image.open(path) as figure:
        part = figure.convert("RGB").crop(
            json.loads(figure.info.get("thumbnail", f"[0, 0, {figure.width}, {figure.height}]"))
        )
    part.thumbnail((480, 480))
    return part.quantize(255, dither=Image.Dither.NONE)


def has_figure(name: str) -> bool:
    return (ROOT / "results" / f"{name}.png").exists()


def chosen(label: str, key: str, values: dict[str, str], every: str) -> str:
    options = f'<option value="">{every}</option>'
    options += "".join(f'<option value="{value}">{html.escape(text)}</option>' for value, text in values.items())
    return f'<label>{label} <select data-filter="{key}">{options}</select></label>'


def front_page(language: str) -> str:
    say = texts.translator(language, "shared")
    entries = catalog.entries()
    tasks = {name: say(text) for name, text in labels.TASKS.items()}
    families = {name: heading for name, heading in tasks.items() if "." not in name}
    needs = {"-": say(labels.TORCH_ALONE)} | {
        name: f"{say(labels.TORCH_ALONE)}, {name}" for name in sorted(set().union(*map(needs_of, entries)))
    }
    every = say(labels.ANY)
    controls = "".join(
        [
            f'<label>{say(labels.FILTER_TEXT)} <input type="search" data-filter="look"></label>',
            chosen(say(labels.FILTER_TASK), "task", tasks, every),
            chosen(say(labels.FILTER_NOTE), "notes", {str(n): f"{n} {note_title(n, language)}" for n in NOTES}, every),
            chosen(say(labels.FILTER_NEEDS), "needs", needs, every),
        ]
    )
    grid = ""
    for family, heading in families.items():
        own = [card(entry, language) for entry in entries if entry.name.partition(".")[0] == family]
        grid += f'<section class="family"><h3>{heading}</h3><div class="cards">{"".join(own)}</div></section>'
    count = f'<p class="count" aria-live="polite"><span>{len(entries)}</span> {say(labels.SHOWN)}</p>'
    command = next(
        line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if "recipes run vision" in line
    )
    trees = [
        toctree(say(labels.GUIDES), list(GUIDES)),
        toctree(say(labels.NOTES), ["notes/index"]),
    ]
    for family, heading in families.items():
        own = [page for page in in_order() if page.startswith(f"recipes/{family}.")]
        trees.append(toctree(heading, own))
    return "\n\n".join(
        [
            f"# {say(labels.TITLE)}",
            say(labels.WHAT),
            say(labels.START),
            f"```bash\n{command}\n```",
            f"## {say(labels.GALLERY)}",
            raw(f'<div class="gallery"><form class="filter">{controls}</form>{count}{grid}</div>'),
            *trees,
        ]
    )


def toctree(caption: str, names: list[str]) -> str:
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```"


@cache
def note_title(number: int, language: str) -> str:
    text = (HERE / "notes" / f"{number}.md").read_text("utf-8")
    heading = texts.blocks_of(text)[0]
    return texts.translator(language, f"notes.{number}")(heading).lstrip("# ").partition(".")[2].strip()


def notes_page(language: str) -> str:
    say = texts.translator(language, "shared")
    rows = [f"- [{number}](../notes/{number}.md) {note_title(number, language)}" for number in NOTES]
    tree = toctree(say(labels.NOTES), [str(number) for number in NOTES])
    return "\n\n".join([f"# {say(labels.ALL_NOTES)}", say(labels.ABOUT_NOTES), "\n".join(rows), tree])


def written(page: str, language: str) -> str:
    """A page written by hand: a note or a guide."""
    text = (HERE / f"{page}.md").read_text("utf-8")
    return filled(texts.translated(text, texts.translator(language, page.replace("/", "."))))


def write_sources(language: str) -> Path:
    """Writes the Markdown of all pages in that language, in place of what an earlier build left."""
    folder = BUILD / "source" / language
    shutil.rmtree(folder, ignore_errors=True)
    pages = {"index": front_page(language), "notes/index": notes_page(language)}
    pages |= {name: written(name, language) for name in GUIDES}
    pages |= {f"notes/{number}": written(f"notes/{number}", language) for number in NOTES}
    pages |= {f"recipes/{entry.name}": recipe_page(entry, language) for entry in catalog.entries()}
    if not ONCE[language]:
        modules = reached(entry.module for entry in catalog.entries())
        pages |= {f"source/{module}": source_page(module) for module in modules}
        write_files(folder / "extra")
    for name, text in pages.items():
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (folder / "order.json").write_text(json.dumps(in_order()), "utf-8")
    shutil.copytree(ROOT / "results", folder / "figures", ignore=shutil.ignore_patterns("*.json"), dirs_exist_ok=True)
    (folder / "extra").mkdir(exist_ok=True)
    return folder


def write_files(folder: Path) -> None:
    """Writes what the pages show or offer beside themselves: the copies, and the thumbnails."""
    copies, thumbnails = folder / "copies", folder / "thumbnails"
    copies.mkdir(parents=True)
    thumbnails.mkdir()
    for entry in catalog.entries():
        (copies / f"{entry.name}.py").write_text(plain_copy(entry.name), "utf-8")
        (copies / f"{entry.name}.ipynb").write_text(copying.notebook(entry.name, f"{entry.name}.ipynb")[0], "utf-8")
    for picture in (ROOT / "results").glob("*.png"):
        thumbnail(picture).save(thumbnails / picture.name)


def in_order() -> list[str]:
    """The recipes' pages as the notes follow each other; those without a note come last."""
    found = sorted(catalog.entries(), key=lambda entry: (min(entry.notes, default=100), entry.name))
    return [f"recipes/{entry.name}" for entry in found]


THEME = {  # what Furo says in English alone
    "<span>Next</span>": "<span>下一页</span>",
    "<span>Previous</span>": "<span>上一页</span>",
    "<span>Back to top</span>": "<span>回到顶部</span>",
    "            On this page\n": "            本页内容\n",
    "Copyright &#169; the authors of PyTorch Recipes, MIT license": "PyTorch Recipes 的作者，MIT 许可",
    "Made with \n": "主题：\n",
}


def mend(folder: Path) -> None:
    """Puts right what Sphinx and Furo leave: headings without a level, code that no key scrolls, a lost stemmer."""
    for path in folder.rglob("*.html"):
        text = path.read_text("utf-8")
        text = text.replace('role="heading">', 'role="heading" aria-level="2">').replace("<pre>", PRE)
        if path.is_relative_to(folder / "zh"):
            for english, chinese in THEME.items():
                text = text.replace(english, chinese)
        path.write_text(text, "utf-8")
    for path in folder.rglob("language_data.js"):  # Sphinx 9.0 names a ChineseStemmer, and brings the English one
        path.write_text(path.read_text("utf-8").replace("= ChineseStemmer", "= EnglishStemmer"), "utf-8")


def sphinx(language: str, builder: str, target: Path) -> int:
    """Runs that builder of Sphinx on the pages in that language; gives its status, which is not 0 after a warning."""
    folder = write_sources(language)
    arguments = ["-q", "-W", "--keep-going", "-b", builder, "-c", str(HERE), "-d", str(BUILD / "trees" / language)]
    code = "zh_CN" if language == "zh" else "en"
    return build_main([*arguments, "-D", f"language={code}", str(folder), str(target)])


def build_language(language: str) -> int:
    return sphinx(language, "html", BUILD / "pages" / language)


def build() -> int:
    """Builds both languages, each in a process; gives the exit status."""
    shutil.rmtree(BUILD, ignore_errors=True)
    with ProcessPoolExecutor(len(texts.LANGUAGES)) as processes:
        status = max(processes.map(build_language, texts.LANGUAGES))
    (BUILD / "pages" / "en").rename(BUILD / "html")
    (BUILD / "pages" / "zh").rename(BUILD / "html" / "zh")
    mend(BUILD / "html")
    print(f"open {BUILD / 'html' / 'index.html'}")
    return status


def check_links() -> int:
    """Asks every address on the English pages, which the Chinese ones share, whether it is there."""
    return sphinx("en", "linkcheck", BUILD / "links")


if __name__ == "__main__":
    raise SystemExit(check_links() if sys.argv[1:] == ["links"] else build())
