"""Opens pairs of texts, such as sentences with their translations: as TSV, or two files with a text a line."""

from dataclasses import dataclass
from pathlib import Path

import torch

from recipes.core.errors import InputError, tell
from recipes.core.files import own_path
from recipes.datasets.reading import SPLIT_NAMES, file_or_folder, files_in, finite, is_folder
from recipes.datasets.text_files import PARTS, lines_of, listed

# What columns of pairs are called; other words in a first row may be a pair of words.
COLUMNS = """source target src tgt src_text tgt_text input output text summary article highlights document
    arabic chinese czech danish dutch english finnish french german greek hebrew hindi hungarian italian japanese
    korean norwegian polish portuguese romanian russian spanish swedish turkish ukrainian vietnamese
    ar cs da de el en es fi fr he hi hu it ja ko nl no pl pt ro ru sv tr uk vi zh
    原文 译文 正文 摘要 中文 汉语 英文 英语 德文 德语 法文 法语 日文 日语 俄文 俄语"""


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
            names the columns; without one the pair stands in the first two that are no numbers.
        source: language or column to start from, if it is not the first one or, of two files, `en`.
        target: language or column to arrive at, if it is not the other one.
        limit: pairs of the train part that are read; all if not given.
        seed: of the draw that splits a single file.

    Raises:
        InputError: nothing there, a row that is not a pair, or files that do not match; it names them.
    """
    path = file_or_folder(own_path(data))
    if limit is not None and limit < 1:
        raise InputError(f"option limit: expected a whole number of at least 1, got {limit}")
    if is_folder(path):
        train_part, test_part = (open_part(path, part, source, target) for part in PARTS)
    else:
        train_part, test_part = split_pairs(path, read_pairs(path, source, target), seed)
    if train_part.languages != test_part.languages:
        found = " and ".join(" → ".join(part.languages) for part in (train_part, test_part))
        raise InputError(f"{path}: expected the same languages in both parts, found {found}")
    return Pairs(train_part.sources[:limit], train_part.targets[:limit], train_part.languages), test_part


def open_part(folder: Path, part: str, source: str | None, target: str | None) -> Pairs:
    """One part of a folder: a table, else two files whose names differ in their ending alone."""
    names = files_in(folder)
    for name in [name for split in PARTS[part] for name in SPLIT_NAMES[split]]:
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
    found = listed([file.name for file in names]) or "nothing"
    raise InputError(f"{folder}: expected {part}.tsv, or two files such as {part}.en and {part}.de, found {found}")


def read_aligned(folder: Path, files: dict[str, Path], source: str | None, target: str | None) -> Pairs:
    """Two files whose lines go together; an empty line in one of them leaves the pair out."""
    chosen = pick(folder, sorted(files, key=lambda language: (language != "en", language)), source, target)
    first, second = (list(lines_of(files[language])) for language in chosen)
    if len(first) != len(second):
        one, other = (files[language].name for language in chosen)
        raise InputError(f"{folder}: {one} has {len(first)} lines and {other} {len(second)}, expected as many")
    pairs = [(one.strip(), other.strip()) for one, other in zip(first, second, strict=True)]
    whole = [pair for pair in pairs if all(pair)]
    if len(whole) < len(pairs):
        tell(f"{files[chosen[0]]}: {len(pairs) - len(whole)} lines are empty here or in {chosen[1]}: left out")
    if not whole:
        raise InputError(f"{files[chosen[0]]}: the file is empty; expected sentences")
    return Pairs([one for one, _ in whole], [other for _, other in whole], chosen)


def read_pairs(path: Path, source: str | None, target: str | None) -> Pairs:
    """A table of two columns or more, perhaps with a header."""
    rows = [(number, line.split("\t")) for number, line in enumerate(lines_of(path), 1) if line.strip()]
    if not rows:
        raise InputError(f"{path}: the file is empty; expected two texts a row, with a tab between them")
    header = [name.strip() for name in rows[0][1]]
    named = len(header) > 1 and len(rows) > 1 and is_header(header, [row for _, row in rows[1:]], source or target)
    if (source or target) and not named:
        raise InputError(f"{path}, row 1: expected the names of the columns, since source or target asks for one")
    offered = sorted(header, key=lambda name: likely(name, rows[1][1][header.index(name)])) if named else []
    chosen = pick(path, offered, source, target) if named else ("source", "target")
    columns = [header.index(name) for name in chosen] if named else columns_of_texts(path, header)
    width = len(header)
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


def is_header(first: list[str], others: list[list[str]], asked: str | None) -> bool:
    """Whether a first row names the columns: two known names, or single words that are unlike the texts below them."""
    if sum(name.lower() in COLUMNS.split() for name in first) > 1:
        return True
    if not all(name.replace("_", "").isalpha() and name.islower() for name in first):
        return False
    single = sum(" " not in field.strip() for row in others for field in row)
    return asked in first or single * 2 < sum(map(len, others))


def likely(name: str, below: str) -> int:
    """The place in line of a column for the texts: known names first, numbers last."""
    return 2 if finite(below) is not None else 0 if name.lower() in COLUMNS.split() else 1


def columns_of_texts(path: Path, first: list[str]) -> list[int]:
    """The first two columns that are no numbers, by the first row."""
    texts = [column for column, field in enumerate(first) if finite(field) is None]
    if len(texts) < 2:
        raise InputError(f"{path}, row 1: {len(first)} fields between tabs, expected 2 with texts")
    if len(first) > 2:
        tell(f"{path}: pairs are taken from columns {texts[0] + 1} and {texts[1] + 1} of {len(first)}")
    return texts[:2]


def pick(path: Path, languages: list[str], source: str | None, target: str | None) -> tuple[str, str]:
    """Names of the source and the target among those that are there."""
    for option, name in (("source", source), ("target", target)):
        if name is not None and name not in languages:
            raise InputError(f"option {option}: {path} has {', '.join(languages)}, got {name!r}")
    if source is not None and source == target:
        raise InputError(f"options source and target: expected two languages, got {source!r} twice")
    first = source or next(name for name in languages if name != target)
    return first, target or next(name for name in languages if name != first)


def split_pairs(path: Path, whole: Pairs, seed: int) -> tuple[Pairs, Pairs]:
    """Splits 90 to 10; all pairs of one source sentence go to the same side."""
    different = list(dict.fromkeys(whole.sources))
    order = torch.randperm(len(different), generator=torch.Generator().manual_seed(seed)).tolist()
    test = {different[index] for index in order[: max(1, len(different) // 10)]}
    sides: tuple[list[int], list[int]] = ([], [])
    for index, sentence in enumerate(whole.sources):
        sides[sentence in test].append(index)
    if not sides[0]:
        raise InputError(f"{path}: a single text was found; expected enough for a train and a test part")
    train_part, test_part = (
        Pairs([whole.sources[i] for i in side], [whole.targets[i] for i in side], whole.languages) for side in sides
    )
    return train_part, test_part
