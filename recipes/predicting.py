"""What `recipes predict` takes and prints."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recipes.core.errors import InputError
from recipes.core.files import write_whole
from recipes.core.result import columns, short
from recipes.core.task import Task

SUFFIXES = {
    "pictures": {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"},
    "recordings": {".wav"},
    "texts": {".txt"},
    "sequences": set[str](),
}


def gathered(task: Task, items: Sequence[str], texts: Sequence[str]) -> Iterator[Any]:
    """The texts, the files, those in the folders in natural order, and the lines of standard input for "-".

    Raises:
        InputError: nothing is given, a file is missing, or texts are given to a model of something else.
    """
    if texts and task.takes != "texts":
        raise InputError(f"option text: this model takes {task.takes}")
    if not texts and not items:
        wanted = "--text or a file with a text a line" if task.takes == "texts" else f"files of {task.takes}"
        raise InputError(f"nothing to answer: expected {wanted}, a folder of them, or - for standard input")
    yield from texts
    for item in items:
        if item == "-":
            lines = (line.rstrip("\n") for line in sys.stdin if line.strip())
            yield from lines if task.takes == "texts" else (Path(line).expanduser() for line in lines)
        else:
            yield from files_of(task, Path(item).expanduser())


def files_of(task: Task, path: Path) -> Iterator[Any]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if task.takes == "sequences":
        yield path
        return
    files = [path] if path.is_file() else within(path, SUFFIXES[task.takes])
    if not files:
        raise InputError(f"{path}: expected {task.takes} ({' '.join(sorted(SUFFIXES[task.takes]))}), found none")
    for file in files:
        if task.takes != "texts":
            yield file
            continue
        try:
            yield from (line for line in file.read_text("utf-8").splitlines() if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: expected a text in UTF-8 a line ({error})") from None


def within(folder: Path, suffixes: set[str]) -> list[Path]:
    """The files with such a suffix in a folder and those below it, in natural order; hidden names are left out."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file()]
    shown = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return sorted(shown, key=lambda path: [int(w) if w.isdecimal() else w for w in re.split(r"(\d+)", str(path))])


def answer_line(answer: dict[str, Any]) -> str:
    """An answer for people: its short values in one line, a list of objects below it."""
    words = [
        value if isinstance(value, str) else f"{name} {short(value)}"
        for name, value in answer.items()
        if isinstance(value, (str, int, float))
    ]
    tables = [value for value in answer.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    lines = ["  ".join(words)]
    for rows in tables:
        header = list(rows[0])
        cells = [
            [short(row.get(name)) if not isinstance(row.get(name), list) else shown(row[name]) for name in header]
            for row in rows
        ]
        lines += ["  " + line for line in columns([header, *cells]).splitlines()]
    return "\n".join(lines)


def shown(value: Any) -> str:
    return " ".join(short(one) for one in value) if isinstance(value, list) else short(value)


def draw_answer(task: Task, item: Any, answer: dict[str, Any], folder: Path, number: int) -> None:
    """Draws an item with its answer into the folder, under the item's name."""
    stem = Path(answer["file"]).stem if "file" in answer else f"{number + 1}"
    path = folder / f"{stem}.png"
    if path.exists():
        path = folder / f"{stem}-{number + 1}.png"
    figure = task.draw(item, answer)
    write_whole(path, lambda target: figure.savefig(target, dpi=120))
