"""What `recipes predict` takes and prints."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recipes.core.errors import InputError
from recipes.core.files import own_path, write_whole
from recipes.core.result import columns, short
from recipes.core.task import Task
from recipes.datasets.reading import PICTURE_SUFFIXES, file_or_folder, file_text, files_in, is_folder

SUFFIXES = {
    "pictures": PICTURE_SUFFIXES,
    "recordings": (".wav",),
    "texts": (".txt",),
    "sequences": (),
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
            yield from lines if task.takes == "texts" else map(own_path, lines)
        else:
            yield from files_of(task, own_path(item))


def files_of(task: Task, path: Path) -> Iterator[Any]:
    file_or_folder(path)
    if task.takes == "sequences":
        yield path
        return
    files = files_in(path, SUFFIXES[task.takes], deep=True) if is_folder(path) else [path]
    if not files:
        raise InputError(f"{path}: expected {task.takes} ({' '.join(SUFFIXES[task.takes])}), found none")
    for file in files:
        if task.takes == "texts":
            yield from (line for line in file_text(file).splitlines() if line.strip())
        else:
            yield file


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
    """Draws an item with its answer into the folder, under the item's name, and writes what the task puts beside it."""
    stem = Path(answer["file"]).stem if "file" in answer else f"{number + 1}"
    path = folder / f"{stem}.png"
    if path.exists():
        path = folder / f"{stem}-{number + 1}.png"
    figure = task.draw(item, answer)
    write_whole(path, lambda target: figure.savefig(target, dpi=120))
    for ending, write in task.beside(answer).items():
        write_whole(path.with_suffix(ending), write)
