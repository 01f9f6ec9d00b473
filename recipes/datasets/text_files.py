"""What all openers of texts share: which file is which part, and its lines, read one by one."""

import codecs
import csv
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from recipes.core.errors import InputError, tell
from recipes.datasets.reading import SPLIT_NAMES, most_bytes, unpacked_file

PARTS = {"train": ("train",), "test": ("test", "val")}  # splits in the order in which they are taken
LONELY = re.compile("[\ud800-\udfff]")  # half characters, which JSON can hold and no file can
SHOWN = 8  # names in a message


class Unlabeled(InputError):
    """A file without labels, such as the test part of a contest."""


IDEOGRAM = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")  # Chinese and Japanese, written without spaces


def word_count(text: str) -> int:
    """Words between spaces; what is written without spaces counts by the character."""
    return len(IDEOGRAM.sub(" x ", text).split())


def listed(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def part_files(folder: Path, files: Sequence[Path], part: str, expected: str) -> list[Path]:
    """The files that a part can be read from, the best first.

    A name stands for a split if it is its name (`dev.tsv`) or has it among its words (`sts-dev.csv`, `eng.testb`);
    the test part may also be a validation part.

    Raises:
        InputError: there is none; it says what was `expected`.
    """
    found = []
    for split in PARTS[part]:
        for name in SPLIT_NAMES[split]:
            found += [file for file in files if file.stem.lower() == name]
        for name in SPLIT_NAMES[split]:
            found += [file for file in files if re.search(rf"(?<![a-z]){name}(?![c-z])", file.name.lower())]
    found += [
        file for file in files for split in PARTS[part] for name in SPLIT_NAMES[split] if name in file.name.lower()
    ]
    if not found:
        names = listed([file.name for file in files]) or "no such file"
        raise InputError(f"{folder}: expected {expected}, found {names}")
    return list(dict.fromkeys(found))


def first_labeled(files: Sequence[Path], read: Callable[[Path], Any]) -> Any:
    """What is read of the first of these files that has labels; of others it tells.

    Raises:
        InputError: none has, or a file cannot be read.
    """
    for file, following in pairwise([*files, None]):
        assert file is not None
        try:
            return read(file)
        except Unlabeled:
            if following is None:
                raise
            tell(f"{file}: has no labels; {following.name} is taken instead")
    raise AssertionError("there is a file")


def known_encoding(name: str) -> str:
    """The encoding under the name that Python gives it.

    Raises:
        InputError: it is unknown, or writes line ends in another way than with the byte 10.
    """
    try:
        if "\n".encode(name) == b"\n":
            return codecs.lookup(name).name
    except (LookupError, ValueError, TypeError):
        pass
    raise InputError(f"option encoding: expected one such as utf-8, latin-1 or gb18030, got {name!r}")


def lines_of(path: Path, unit: str = "line", encoding: str | None = None) -> Iterator[str]:
    """The lines of a text file, unpacked where its name ends in .gz, without holding it in memory.

    Lines end with a line feed, before which a carriage return may stand; within a line that is a blank. Where there
    is no line feed at all, lines end with carriage returns, as on the first Macs.

    Args:
        path: of the file.
        unit: what its lines are called in the error.
        encoding: of the text, where the user has an option for it; else UTF-8. A mark of byte order is left out.

    Raises:
        InputError: it cannot be read, is not in that encoding, or is longer than `most_bytes()`; names the line.
    """
    codec = known_encoding("utf-8" if encoding is None else encoding)
    size, limit = 0, most_bytes()
    with unpacked_file(path) as stream:
        number = 0
        while line := stream.readline(limit + 1):
            number, size = number + 1, size + len(line)
            if size > limit:
                raise InputError(f"{path}: expected at most {limit} bytes; RECIPES_MAX_BYTES allows more")
            try:
                text = line.decode(codec)
            except UnicodeDecodeError:
                told = f"expected {'UTF-8 text; save the file as UTF-8' if codec == 'utf-8' else f'text in {codec}'}"
                told += ", or name its encoding, as in --encoding latin-1" * (encoding is not None)
                raise InputError(f"{path}, {unit} {number}: {told}") from None
            if number == 1:
                text = text.removeprefix("\ufeff")
                if "\r" in text and not text.endswith("\n"):
                    yield from text.removesuffix("\r").split("\r")
                    continue
            yield text.rstrip("\r\n").replace("\r", " ")


def csv_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """A quoted field may hold line breaks, so a row is numbered by the line where it begins."""
    reader = csv.reader((line + "\n" for line in lines), strict=True)
    start, limit = 1, csv.field_size_limit(2**31 - 1)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, row {start}: expected fields quoted as in CSV, but {error}") from None
    finally:
        csv.field_size_limit(limit)
