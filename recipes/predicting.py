"""What `recipes predict` takes and prints."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from recipes.core.errors import InputError, tell
from recipes.core.files import own_path, write_whole
from recipes.core.result import columns, short
from recipes.core.task import Task
from recipes.datasets.reading import PICTURE_SUFFIXES, file_or_folder, files_in, is_folder
from recipes.datasets.text_files import known_encoding, lines_of

SUFFIXES = {
    "pictures": PICTURE_SUFFIXES,
    "recordings": (".wav",),
    "texts": (".txt",),
    "sequences": (),
}


def gathered(task: Task, items: Sequence[str], texts: Sequence[str], encoding: str = "utf-8") -> Iterator[Any]:
    """The texts, the files, those in the folders in natural order, and the lines of standard input for "-".

    Raises:
        InputError: nothing is given, a file is missing, or texts are given to a model of something else.
    """
    if texts and task.takes != "texts":
        raise InputError(f"option text: this model takes {task.takes}")
    if not all(text.strip() for text in texts):
        raise InputError("option text: expected a text, got none")
    if not texts and not items:
        wanted = "--text or a file with a text a line" if task.takes == "texts" else f"files of {task.takes}"
        raise InputError(f"nothing to answer: expected {wanted}, a folder of them, or - for standard input")
    yield from texts
    for item in items:
        if item == "-":
            lines = standard_lines(known_encoding(encoding), "strict" if task.takes == "texts" else "surrogateescape")
            yield from told_if_empty(lines, "standard input") if task.takes == "texts" else map(own_path, lines)
        else:
            yield from files_of(task, own_path(item), encoding)


def standard_lines(codec: str, errors: str) -> Iterator[str]:
    """The lines of standard input, whatever the terminal's encoding; names of files may hold any bytes."""
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            text = line.decode(codec, errors)
        except UnicodeDecodeError:
            raise InputError(f"standard input, line {number}: expected text in {codec}; see --encoding") from None
        yield (text.removeprefix("\ufeff") if number == 1 else text).rstrip("\r\n")


def told_if_empty(lines: Iterable[str], source: str) -> Iterator[str]:
    """The lines that hold a text; how many do not is told, since answers no longer go with line numbers then."""
    empty = 0
    for line in lines:
        if line.strip():
            yield line
        else:
            empty += 1
    if empty:
        tell(f"{source}: {empty} empty lines left out")


def files_of(task: Task, path: Path, encoding: str) -> Iterator[Any]:
    file_or_folder(path)
    if task.takes == "sequences":
        yield path
        return
    files = files_in(path, SUFFIXES[task.takes], deep=True) if is_folder(path) else [path]
    if not files:
        raise InputError(f"{path}: expected {task.takes} ({' '.join(SUFFIXES[task.takes])}), found none")
    for file in files:
        if task.takes == "texts":
            yield from told_if_empty(lines_of(file, encoding=encoding), str(file))
        else:
            yield file


def answer_line(answer: dict[str, Any]) -> str:
    """An answer for people: its short values and names in one line, a list of objects below it."""
    words = []
    for name, value in answer.items():
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            words.append(f"{name}: {', '.join(value) or 'none'}")
        elif isinstance(value, (str, int, float)):
            words.append(value if isinstance(value, str) else f"{name} {short(value)}")
    lists = [value for value in answer.values() if isinstance(value, list)]
    tables = [one for value in lists for one in (value if value and isinstance(value[0], list) else [value])]
    tables = [rows for rows in tables if rows and isinstance(rows[0], dict)]
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
    """Draws an item with its answer into the folder, under the item's name, and writes what the task puts beside it.

    What is there already stays; the name then gets a number.
    """
    stem = Path(answer["file"]).stem if "file" in answer else f"{number + 1}"
    path = folder / f"{stem}.png"
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.png"
    figure = task.draw(item, answer)
    write_whole(path, lambda target: figure.savefig(target, dpi=120))
    for ending, write in task.beside(answer).items():
        write_whole(path.with_suffix(ending), write)
