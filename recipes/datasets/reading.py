"""What all openers accept, decided once: which names count, what splits are called, and what can be read.

Whatever cannot be opened or read is one `InputError` that names the file. Nothing here waits for a pipe or a device,
or reads more into memory than `most_bytes()`.
"""

import gzip
import json
import math
import os
import re
import stat
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from recipes.core.errors import InputError, tell
from recipes.datasets.unicode import utf8_text

JUNK = {"__macosx", "thumbs.db", "desktop.ini"}  # besides names with a dot in front
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
# Which files of a folder are pictures; what they are is read from the files.
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
MOST_BYTES = 2**30  # of a file that is read whole, unpacked
MOST_FLOAT = 3.4028234663852886e38  # the largest float32


def tell_left_out(source: Path | str, counts: dict[str, int]) -> None:
    """Tells in one line how many records were left out or changed, by what it was: {"boxes without area": 3}."""
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if told:
        tell(f"{source}: {told}")


def is_shown(path: Path) -> bool:
    """Whether a file or folder counts: no dot in front, and none of what systems leave behind."""
    return not path.name.startswith(".") and path.name.lower() not in JUNK


def natural(path: Path | str) -> tuple[list[Any], str]:
    """The key to sort names by, so that 2.jpg comes before 10.jpg."""
    name = path if isinstance(path, str) else path.name
    words = [word if place % 2 == 0 else int(word) for place, word in enumerate(re.split(r"([0-9]+)", name))]
    return words, name


def what_is(path: Path) -> str:
    """What stands at a path, links followed: "file", "folder", "nothing", or what else there is, such as "a pipe".

    Raises:
        InputError: it cannot be told: no permission, a link that leads nowhere or to itself, a name too long.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise InputError(f"{path}: cannot be read (a link that leads nowhere)") from None
        return "nothing"
    except (OSError, ValueError) as error:  # the latter of a zero in a name
        raise unreadable(path, error) from None
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for test, name in kinds.items() if test(mode)), "a device")


def is_there(path: Path) -> bool:
    """Whether something stands at a path, readable or not: what is there is never taken as absent.

    Raises:
        InputError: it cannot be told, or it is a link that leads nowhere.
    """
    return what_is(path) != "nothing"


def file_or_folder(path: Path) -> Path:
    """The path, at which there is something.

    Raises:
        InputError: nothing is there, or it cannot be told.
    """
    if not is_there(path):
        raise InputError(f"{path}: no such file or folder")
    return path


def is_folder(path: Path) -> bool:
    """Whether there is a folder at a path.

    Raises:
        InputError: it cannot be told, or it is a link that leads nowhere.
    """
    return what_is(path) == "folder"


def unreadable(path: Path | str, error: BaseException) -> InputError:
    """The one line for a file or folder that cannot be read, to be raised."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
    return InputError(f"{path}: cannot be read ({reason})")


def require_file(path: Path) -> None:
    """Raises InputError unless there is a regular file at that path: no folder, pipe or device."""
    if (found := what_is(path)) != "file":
        told = {"nothing": "no such file", "folder": "it is a folder, expected a file"}
        raise InputError(f"{path}: {told.get(found, f'it is {found}, expected a file')}")


def require_folder(path: Path, expected: str = "a folder") -> None:
    """Raises InputError unless there is a folder at that path; `expected` says of what."""
    if (found := what_is(path)) != "folder":
        told = {"nothing": "no such folder", "file": "it is a file, not a folder"}
        raise InputError(f"{path}: {told.get(found, f'it is {found}')}: expected {expected}")


def shown_in(folder: Path) -> dict[Path, bool]:
    """What counts in a folder, in natural order, and whether it is a folder itself.

    Raises:
        InputError: the folder, or a link in it, cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            kinds = {folder / one.name: None if one.is_symlink() else one.is_dir() for one in found}
    except (OSError, ValueError) as error:
        raise unreadable(folder, error) from None
    paths = sorted(filter(is_shown, kinds), key=natural)
    return {path: what_is(path) == "folder" if kinds[path] is None else bool(kinds[path]) for path in paths}


def folders_in(folder: Path) -> list[Path]:
    """The folders that count in a folder, in natural order."""
    return [path for path, is_folder in shown_in(folder).items() if is_folder]


def files_in(folder: Path, suffixes: Collection[str] | None = None, *, deep: bool = False) -> list[Path]:
    """What counts in a folder and is no folder, in natural order: also what cannot be opened, so that opening tells.

    Args:
        folder: to look in.
        suffixes: that are wanted, in small letters with the dot; files have them in any case. None takes all.
        deep: also in the folders below, but links to folders are not followed.
    """
    found = []
    for path, is_folder in shown_in(folder).items():
        if is_folder:
            found += files_in(path, suffixes, deep=True) if deep and not path.is_symlink() else []
        elif suffixes is None or path.suffix.lower() in suffixes:
            found.append(path)
    return found


def split_named(name: str) -> str | None:
    """The split that a name stands for, in any case: "train", "val" or "test"; None if it stands for none."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def by_split(paths: Iterable[Path]) -> dict[str, Path]:
    """Files, by the split that their names without suffix stand for, or folders; others are left out.

    Raises:
        InputError: two of them stand for one split.
    """
    found: dict[str, Path] = {}
    for path in paths:
        split = split_named(path.name if os.path.isdir(path) else path.stem)
        if split is not None and split in found:
            raise InputError(f"{path}: expected one {split} part, found {found[split].name} beside it")
        if split is not None:
            found[split] = path
    return found


def tested_part(parts: Mapping[str, Any], source: Path) -> Any:
    """The part to test on: test, else val, else None. That val is not used beside test is told."""
    if parts.keys() >= {"test", "val"}:
        tell(f"{source}: the val part is left out, since there is a test part")
    return parts.get("test", parts.get("val"))


def most_bytes() -> int:
    """How many bytes of one file are read into memory, unpacked; the variable RECIPES_MAX_BYTES sets another number.

    Raises:
        InputError: the variable is no whole number.
    """
    given = os.environ.get("RECIPES_MAX_BYTES", "")
    if given and not re.fullmatch(r"[0-9]{1,18}", given):
        raise InputError(f"RECIPES_MAX_BYTES is {given!r}: expected a number of bytes")
    return int(given) if given else MOST_BYTES


@contextmanager
def opened_file(path: Path) -> Iterator[BinaryIO]:
    """A regular file to read bytes from, for what is read piece by piece.

    Raises:
        InputError: it is no regular file, or cannot be opened or read to its end.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from None


@contextmanager
def unpacked_file(path: Path) -> Iterator[BinaryIO]:
    """The same, unpacked where its name ends in .gz.

    Raises:
        InputError: see `opened_file`; or it is no whole gzip file, or does not fit in memory.
    """
    with opened_file(path) as file:
        try:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if path.suffix.lower() == ".gz" else file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{path}: expected a whole gzip file ({error})") from None
        except MemoryError:
            raise InputError(f"{path}: is too large for this machine's memory") from None


def file_content(path: Path) -> bytes:
    """The content of a file, unpacked where its name ends in .gz.

    Raises:
        InputError: it cannot be read, is no whole gzip file, or has more than `most_bytes()`.
    """
    limit = most_bytes()
    packed = path.suffix.lower() == ".gz"
    with unpacked_file(path) as file:
        pieces, size = [], 0 if packed else os.fstat(file.fileno()).st_size
        while packed and size <= limit and (piece := file.read(2**20)):
            pieces.append(piece)
            size += len(piece)
        if size > limit:
            wanted = f"expected at most {limit} bytes{', unpacked' * packed}"
            raise InputError(f"{path}: {wanted}; the environment variable RECIPES_MAX_BYTES allows more")
        return b"".join(pieces) if packed else file.read()


def file_text(path: Path, unit: str = "line", encoding: str = "utf-8") -> str:
    """The text of a file, without a mark of byte order; line ends as they are.

    Args:
        path: of the file, which may be packed (.gz).
        unit: what the file's lines are called in the error.
        encoding: that the user asks for.

    Raises:
        InputError: it cannot be read, or is not in that encoding; names the line.
    """
    content = file_content(path)
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        return utf8_text(content, path, unit)
    try:
        return content.decode(encoding)
    except LookupError:
        raise InputError(f"encoding: expected one that Python knows, such as latin-1, got {encoding!r}") from None
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, {unit} {number}: expected text in {encoding}") from None


def file_lines(path: Path, *, numbered: bool = False) -> list[str]:
    """The lines of a file that are not empty, without blanks at their ends: a list of names.

    Args:
        path: of the file.
        numbered: a line's number says what it names, so that an empty one before others is refused.
    """
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", file_text(path).rstrip())]
    if numbered and "" in lines[:-1]:
        raise InputError(f"{path}, line {lines.index('') + 1}: expected a name, found an empty line")
    return [line for line in lines if line]


def file_json(path: Path) -> Any:
    """The value that a JSON file holds.

    Raises:
        InputError: it cannot be read, is no JSON, is nested too deep or has a number of thousands of digits.
    """
    content = file_content(path)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path}: expected UTF-8 text; save the file as UTF-8")
    return json_value(utf8_text(content, path), str(path))


def json_value(text: str, where: str) -> Any:
    """The value of a JSON text; `where` is what the error names."""
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(f"{where}: expected JSON, this is nested too deep") from None
    except MemoryError:
        raise InputError(f"{where}: is too large for this machine's memory") from None
    except ValueError as error:  # also of a number with thousands of digits
        raise InputError(f"{where}: expected JSON ({str(error).partition(';')[0]})") from None


def finite(value: Any) -> float | None:
    """A number, or the text of one, as a float; None if it is anything else, or more than float32 holds."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) <= MOST_FLOAT else None


def first_with_suffix(base: Path, suffixes: Sequence[str]) -> Path | None:
    """The file of this name with one of these suffixes, in small or capital letters; None if there is none.

    Args:
        base: path without suffix; its name may have dots in it.
        suffixes: to try, in this order.
    """
    names = (f"{base}{end}" for suffix in suffixes for end in (suffix, suffix.upper(), suffix.capitalize()))
    return next((path for name in names if is_there(path := Path(name))), None)
