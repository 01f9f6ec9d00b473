"""Opens pairs of texts, such as sentences with their translations: as TSV, or two files with a text a line."""

import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch

from recipes.core.errors import InputError
from recipes.datasets.unicode import utf8_text

PART_NAMES = {"train": ("train", "training"), "test": ("test", "dev", "val", "valid", "validation")}


@dataclass
class Pairs:
    """Texts, each with the one that goes with it: its translation, or its summary.

    Attributes:
        sources: N texts.
        targets: N texts, what is to be made of them.
        languages: names of both, as the header or the files' endings tell them.
    """

    sources: list[str]
    targets: list[str]
    languages: tuple[str, str]

    def __len__(self) -> int:
        return len(self.sources)


def open_pairs(
    data: str | Path,
    *,
    source: str | None = None,
    target: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> tuple[Pairs, Pairs]:
    """Opens pairs of texts: the train and the test part.

    Args:
        data: a folder with `train.tsv` and `test.tsv` (or `dev`, `val`, `validation`), two columns each; or
            with two files a part, such as `train.en` and `train.de`, line by line the same sentence, also
            compressed (`.gz`), where a name may go on (`test_2016_flickr.en`); or one TSV file, a tenth of
            which is drawn for the test part. A first row such as `english`, `german` or `article`, `summary`
            names the columns.
        source: language or column to start from, if it is not the first one or, of two files, `en`.
        target: language or column to arrive at, if it is not the other one.
        limit: pairs of the train part that are read; all if not given.
        seed: of the draw that splits a single file.

    Raises:
        InputError: nothing there, a row that is not a pair, or files that do not match; it names them.
    """
    path = Path(data).expanduser()
    if limit is not None and limit < 1:
        raise InputError(f"option limit: expected a whole number of at least 1, got {limit}")
    if path.is_file():
        train_part, test_part = split_pairs(read_pairs(path, source, target), seed)
    elif path.is_dir():
        train_part, test_part = (open_part(path, part, source, target) for part in PART_NAMES)
    else:
        raise InputError(f"{path}: no such file or folder")
    if train_part.languages != test_part.languages:
        found = " and ".join(" → ".join(part.languages) for part in (train_part, test_part))
        raise InputError(f"{path}: expected the same languages in both parts, found {found}")
    return Pairs(train_part.sources[:limit], train_part.targets[:limit], train_part.languages), test_part


def open_part(folder: Path, part: str, source: str | None, target: str | None) -> Pairs:
    """One part of a folder: a table, else two files whose names differ in their ending alone."""
    names = sorted(file for file in folder.iterdir() if file.is_file())
    for name in PART_NAMES[part]:
        tables = [file for file in names if file.name.lower() in (f"{name}.tsv", f"{name}.tsv.gz")]
        if tables:
            return read_pairs(tables[0], source, target)
        groups: dict[str, dict[str, Path]] = {}
        for file in names:
            stem, _, language = file.name.removesuffix(".gz").rpartition(".")
            if stem.lower() == name or stem.lower().startswith((name + "_", name + ".", name + "-")):
                groups.setdefault(stem, {})[language] = file
        for files in groups.values():
            if len(files) > 1:
                return read_aligned(folder, files, source, target)
    found = ", ".join(file.name for file in names[:8]) or "nothing"
    raise InputError(f"{folder}: expected {part}.tsv, or two files such as {part}.en and {part}.de, found {found}")


def read_aligned(folder: Path, files: dict[str, Path], source: str | None, target: str | None) -> Pairs:
    """Two files whose lines go together; an empty line in one of them leaves the pair out."""
    chosen = pick(folder, sorted(files, key=lambda language: (language != "en", language)), source, target)
    first, second = (read_lines(files[language]) for language in chosen)
    if len(first) != len(second):
        one, other = (files[language].name for language in chosen)
        raise InputError(f"{folder}: {one} has {len(first)} lines and {other} {len(second)}, expected as many")
    pairs = [(one.strip(), other.strip()) for one, other in zip(first, second, strict=True)]
    whole = [pair for pair in pairs if all(pair)]
    if not whole:
        raise InputError(f"{files[chosen[0]]}: the file is empty; expected sentences")
    return Pairs([one for one, _ in whole], [other for _, other in whole], chosen)


def read_pairs(path: Path, source: str | None, target: str | None) -> Pairs:
    """A table of two columns; with a header (short single words), of more columns too."""
    lines = read_lines(path)
    rows = [
        (number, row)
        for number, row in enumerate((line.split("\t") for line in lines), 1)
        if any(field.strip() for field in row)
    ]
    if not rows:
        raise InputError(f"{path}: the file is empty; expected two texts a row, with a tab between them")
    header = [name.strip() for name in rows[0][1]]
    named = len(header) > 1 and all(name.isalpha() and name.islower() for name in header) and len(rows) > 1
    if (source or target) and not named:
        raise InputError(f"{path}, row 1: expected the names of the columns, since source or target asks for one")
    chosen = pick(path, header, source, target) if named else ("source", "target")
    columns = [header.index(name) for name in chosen] if named else [0, 1]
    width = len(header) if named else 2
    sources, targets = [], []
    for number, row in rows[1:] if named else rows:
        if len(row) != width:
            raise InputError(f"{path}, row {number}: {len(row)} fields between tabs, expected {width}")
        pair = [row[column].strip() for column in columns]
        if not all(pair):
            raise InputError(f"{path}, row {number}: the {chosen[pair.index('')]} is empty; expected a text")
        sources.append(pair[0])
        targets.append(pair[1])
    return Pairs(sources, targets, chosen)


def pick(path: Path, languages: list[str], source: str | None, target: str | None) -> tuple[str, str]:
    """Names of the source and the target among those that are there."""
    for option, name in (("source", source), ("target", target)):
        if name is not None and name not in languages:
            raise InputError(f"option {option}: {path} has {', '.join(languages)}, got {name!r}")
    if source is not None and source == target:
        raise InputError(f"options source and target: expected two languages, got {source!r} twice")
    first = source or next(name for name in languages if name != target)
    return first, target or next(name for name in languages if name != first)


def read_lines(path: Path) -> list[str]:
    """The file's lines, unpacked if its name ends in .gz."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            raise InputError(f"{path}: expected a file packed by gzip, as its name says") from None
    return io.StringIO(utf8_text(content, path), newline=None).read().removesuffix("\n").split("\n")


def split_pairs(whole: Pairs, seed: int) -> tuple[Pairs, Pairs]:
    """Splits 90 to 10; all pairs of one source sentence go to the same side."""
    different = list(dict.fromkeys(whole.sources))
    order = torch.randperm(len(different), generator=torch.Generator().manual_seed(seed)).tolist()
    test = {different[index] for index in order[: max(1, len(different) // 10)]}
    sides: tuple[list[int], list[int]] = ([], [])
    for index, sentence in enumerate(whole.sources):
        sides[sentence in test].append(index)
    if not sides[0]:
        raise InputError("a single text was found; expected enough for a train and a test part")
    train_part, test_part = (
        Pairs([whole.sources[i] for i in side], [whole.targets[i] for i in side], whole.languages) for side in sides
    )
    return train_part, test_part
