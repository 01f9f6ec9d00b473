"""Opens labeled texts: the bundled reviews, yours as CSV, TSV, JSON or labeled lines, or a set of the hub."""

import itertools
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recipes.core.errors import InputError, tell
from recipes.core.files import own_path
from recipes.core.loading import holdout
from recipes.datasets.bundled import bundled
from recipes.datasets.own import described, numbered_labels, pair_of_datasets, samples_of
from recipes.datasets.reading import SPLIT_NAMES, file_or_folder, file_text, files_in, is_folder, json_value
from recipes.datasets.text_files import (
    LONELY,
    PARTS,
    Unlabeled,
    csv_rows,
    first_labeled,
    lines_of,
    listed,
    part_files,
    word_count,
)

TEXT_COLUMNS = ("text", "text_a", "sentence", "review", "content", "message", "document", "sms", "body")
LABEL_COLUMNS = ("label", "labels", "class", "sentiment", "category", "target", "polarity", "tag")
ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".jsonlines", ".txt", ".label")
NO_LABELS = {"", "-1", "?"}  # what stands in place of labels that a contest keeps to itself
SHORT, MOST_SAME = 32, 1000  # characters of a field that may well be a label, and how many are held once
LOOKED_AT = 1000  # lines by which the format of a file is told
LABELED_LINE = re.compile(r"(?:__label__(\S+)|([A-Za-z_]\w*):\S+)\s+(\S.*)")  # fastText's, and `NUM:date When …`

JOINT = "\x1f"  # between the labels of a row
MORE_LABELS = re.compile(r"^(?:__label__\S+\s+)+")


@dataclass
class Table:
    """The rows of a file, held by column: a list for each of a million rows would take as much room as the texts.

    Attributes:
        source: what errors call it.
        header: names of the columns, if the file tells them.
        columns: the fields of each.
        numbers: of the lines where the rows begin.
        several: whether a row may have several labels; those of a list are joined by `JOINT`.
    """

    source: str
    header: list[str] | None = None
    columns: list[list[str]] = field(default_factory=list)
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    same: dict[str, str] = field(default_factory=dict, repr=False)  # short fields
    several: bool = False

    def add(self, number: int, row: list[str]) -> None:
        """Adds a row; short fields such as labels, which come again and again, are held once."""
        self.columns = self.columns or [[] for _ in row]
        self.numbers.append(number)
        if len(row) != len(self.columns):
            raise InputError(f"{self.where(-1)}: {len(row)} fields, expected {len(self.columns)}")
        share = self.same.setdefault if len(self.same) < MOST_SAME else self.same.get
        for column, value in zip(self.columns, row, strict=True):
            column.append(share(value, value) if len(value) < SHORT else value)

    def where(self, row: int) -> str:
        return f"{self.source}, row {self.numbers[row]}"


@dataclass
class Texts:
    """Texts, each with a class; asked for many at a time, it gives a list and a tensor.

    Attributes:
        texts: N strings.
        labels: (N,) indices into `classes`, or (N, classes) of 0 and 1 where a text may have several.
        classes: names, sorted.
    """

    texts: list[str]
    labels: Tensor
    classes: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[str, Any]:
        label = self.labels[index]
        return self.texts[index], label if label.ndim else int(label)

    def __getitems__(self, indices: Sequence[int]) -> tuple[list[str], Tensor]:
        return [self.texts[index] for index in indices], self.labels[list(indices)]

    def subset(self, indices: Tensor) -> "Texts":
        """Those texts alone, with the same classes."""
        return Texts([self.texts[index] for index in indices.tolist()], self.labels[indices], self.classes)


@dataclass
class Samples:
    """The texts and labels of a table, and where each stands."""

    table: Table
    texts: list[str]
    labels: list[str]
    places: tuple[list[int], int]  # columns of the texts, and of the labels


def open_texts(
    data: Any = None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str = "utf-8",
    seed: int = 0,
) -> tuple[Texts, Texts]:
    """Opens labeled texts: the train and the test part.

    Columns are known by their names (`text`, `sentence`, `review` …; `label`, `class`, `sentiment` …).
    Where a table has no header, the label is the column with the fewest different entries, and the text is the
    other one, or the columns of several words, joined (class, title, description).

    Args:
        data: a folder with a file `train` and a file `test` (or `dev`, `val`, `validation`; also where `test` has no
            labels) in CSV, TSV, JSON, JSON lines, or lines such as `LABEL:detail text` and `__label__LABEL text`;
            or one such file, a fifth of which is drawn for the test part, the same text never
            on both sides; or `hf:NAME` of the Hugging Face hub; or `bundled:reviews_zh`, reviews in Chinese;
            or a pair of your own Datasets (train, test), whose samples are (text, label): the label is a number
            or a name. Default: the bundled reviews in English.
        text_column: name of the column of texts, if it is another.
        label_column: name of the column of labels, if it is another.
        encoding: of the files, such as latin-1.
        seed: of the draw that splits a single file.

    Raises:
        InputError: nothing there, or a row that is not a text and a label; it names the file and the row.
    """
    pair = pair_of_datasets(data)
    if pair is not None:
        return texts_of(pair)

    def read(table: Table, train: Samples | None = None) -> Samples:
        return samples(table, text_column, label_column, train)

    if data is not None and str(data).startswith("hf:"):
        source, parts = str(data), {part: read(table) for part, table in hub_tables(str(data)[3:]).items()}
    else:
        if data is not None and str(data).startswith("bundled:"):
            path = bundled(str(data)[8:])
        else:
            path = bundled("reviews") if data is None else file_or_folder(own_path(data))
        source = str(path)
        if is_folder(path):
            parts = read_parts(path, lambda file, train: read(read_table(file, encoding), train))
        else:
            parts = {"train": read(read_table(path, encoding))}
    classes = sorted(set(parts["train"].labels))
    if len(classes) < 2:
        raise InputError(f"{source}: all train texts are of one class, {classes[0]!r}; expected two or more")
    known = {label: index for index, label in enumerate(classes)}

    def build(part: Samples) -> Texts:
        for row, label in enumerate(part.labels):
            if label not in known:
                where = part.table.where(row)
                raise InputError(f"{where}: the label {label!r:.60} is not among those of train: {listed(classes)}")
        return Texts(part.texts, torch.tensor([known[label] for label in part.labels]), classes)

    if "test" in parts:
        return build(parts["train"]), build(parts["test"])
    return split(build(parts["train"]), seed, source)


def read_parts(folder: Path, read: Callable[[Path, Any], Any]) -> dict[str, Any]:
    """The parts of a folder; the test part is the first that has labels, and without a header it is as the train's."""
    files = files_in(folder, ENDINGS)
    found = {part: part_files(folder, files, part, f"a file {part}.csv, .tsv, .jsonl, .json or .txt") for part in PARTS}
    train = read(found["train"][0], None)
    return {"train": train, "test": first_labeled(found["test"], lambda file: read(file, train))}


def texts_of(pair: tuple[Any, Any]) -> tuple[Texts, Texts]:
    """The texts of the user's own Datasets (train, test), read once; where the train part has `classes`, their names.

    Raises:
        InputError: a sample that is not (text, label), or one class alone; it names the part and the sample.
    """
    texts: list[list[str]] = [[], []]
    labels: list[list[Any]] = [[], []]
    for part, dataset in enumerate(pair):
        name = ("train", "test")[part]
        for number, (text, label) in enumerate(samples_of(dataset, name, "(text, label)")):
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"data: {name} sample {number}: expected a text, got {described(text)}")
            texts[part].append(text.strip())
            labels[part].append(label)
    found, classes = numbered_labels(labels, getattr(pair[0], "classes", None))
    if len(set(found[0])) < 2:
        raise InputError(f"data: all train samples are of one class, {classes[found[0][0]]!r}; expected two or more")
    train_set, test_set = (Texts(texts[part], torch.tensor(found[part]), classes) for part in range(2))
    return train_set, test_set


def split(whole: Texts, seed: int, source: str) -> tuple[Texts, Texts]:
    """Splits 80 to 20, each class alike where a text has one; all copies of a text go where its first one goes."""
    first: dict[str, int] = {}
    for index, text in enumerate(whole.texts):
        first.setdefault(text, index)
    originals = torch.tensor(list(first.values()))
    _, drawn = holdout(whole.labels[originals] if whole.labels.ndim == 1 else originals * 0, 0.2, seed)
    test = {whole.texts[index] for index in originals[drawn].tolist()}
    sides: tuple[list[int], list[int]] = ([], [])
    for index, text in enumerate(whole.texts):
        sides[text in test].append(index)
    train_part, test_part = (Texts(*whole.__getitems__(side), whole.classes) for side in sides)
    if not len(test_part) or len(train_part.labels.unique()) < 2:
        raise InputError(f"{source}: {len(first)} different texts, expected two or more of a class, to test on some")
    return train_part, test_part


def read_table(path: Path, encoding: str = "utf-8", *, several: bool = False) -> Table:
    """The rows of a file: JSON, labeled lines, tabs (never quoted) or commas (quoted as in CSV)."""
    lines = lines_of(path, "row", encoding)
    seen = list(itertools.islice(lines, LOOKED_AT))
    shown = [line for line in seen if line.strip()]
    if not shown:
        shown = [line for line in lines if line.strip()][:1]
    if not shown:
        raise InputError(f"{path}: the file is empty; expected texts with labels")
    lines, ending = itertools.chain(seen, lines), path.suffix.lower()
    if ending.startswith(".json"):
        table = Table(str(path), several=several)
        return json_array(table, path, encoding) if shown[0].lstrip()[0] == "[" else json_lines(table, lines)

    def most(test: Callable[[str], object]) -> bool:  # not all, so that the one row that is damaged is found
        return sum(bool(test(line)) for line in shown) >= 0.9 * len(shown)

    if ending not in (".csv", ".tsv") and most(LABELED_LINE.fullmatch):
        return labeled_lines(Table(str(path), ["label", "text"], several=several), lines)
    table = Table(str(path), several=several)
    if ending == ".tsv" or (ending != ".csv" and most(lambda line: "\t" in line)):
        # Quotes in a tab-separated file are part of the text: texts carry stray ones.
        for number, line in enumerate(lines, 1):
            if line.strip():
                table.add(number, line.split("\t"))
    else:
        for number, row in csv_rows(path, lines):
            table.add(number, row)
    for column in table.columns:
        name = column[0].strip()
        if name.lower() not in (*TEXT_COLUMNS, *LABEL_COLUMNS):
            continue
        # A label may itself be called "text"; the name of a column does not come again below it.
        if all(name != value.strip() for value in itertools.islice(column, 1, None)):
            return without_header(table)
    return table


def without_header(table: Table) -> Table:
    """The table with its first row as the names of its columns."""
    if len(table.numbers) == 1:
        raise InputError(f"{table.source}: no row below the header; expected texts with labels")
    names = [column.pop(0).strip() for column in table.columns]
    return Table(table.source, names, table.columns, table.numbers[1:], several=table.several)


def labeled_lines(table: Table, lines: Iterator[str]) -> Table:
    """Lines such as `NUM:date When was …`, whose label is NUM, or fastText's `__label__NUM When was …`."""
    more = 0
    for number, line in enumerate(lines, 1):
        if line.strip():
            found = LABELED_LINE.fullmatch(line)
            if not found:
                raise InputError(f"{table.source}, row {number}: expected a label and a text, as LABEL:detail text")
            label, text = found[1] or found[2], found[3]
            if found[1] and (others := MORE_LABELS.match(text)):
                text, more = text[others.end() :], more + 1
                if table.several:
                    label = JOINT.join([label, *(one.removeprefix("__label__") for one in others[0].split())])
            table.add(number, [label, text])
    if more and not table.several:
        tell(f"{table.source}: {more} rows have several labels: the first is taken")
    return table


def json_lines(table: Table, lines: Iterator[str]) -> Table:
    """The columns are those of the first object; what is neither string nor number is left empty."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            entry = json_value(line, f'{table.source}, row {number}: expected {{"text": …, "label": …}}')
            add_object(table, number, entry)
    return table


def json_array(table: Table, path: Path, encoding: str) -> Table:
    """The same of one array of objects; its rows are counted."""
    entries = json_value(file_text(path, "row", encoding), str(path))
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: expected objects in the JSON array, found none")
    for number, entry in enumerate(entries, 1):
        add_object(table, number, entry)
    return table


def add_object(table: Table, number: int, entry: Any) -> None:
    if not isinstance(entry, dict):
        where = f"{table.source}, row {number}"
        raise InputError(f'{where}: expected one JSON object, such as {{"text": …, "label": …}}')
    table.header = table.header or list(entry)
    values = [entry.get(name) for name in table.header]
    if table.several:
        values = [JOINT.join(map(str, value)) if isinstance(value, list) else value for value in values]
    kept = [str(value) if isinstance(value, str | int | float) else "" for value in values]
    table.add(number, [LONELY.sub("�", value) for value in kept])


def hub_tables(name: str) -> dict[str, Table]:
    """The parts of a data set of the Hugging Face hub; numbered classes get their names."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(f'hf:{name} needs one more package: pip install "pytorch-recipes[hub]"') from None
    try:
        loaded = load_dataset(name)
    except Exception as error:  # what the hub's client raises has no common base
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"hf:{name}: cannot be opened: {reason}") from None
    tables: dict[str, Table] = {}
    for part, splits in PARTS.items():
        known = [one for split in splits for one in SPLIT_NAMES[split]]
        for found in (loaded[split_name] for split_name in known if split_name in loaded):
            names = {column: getattr(found.features[column], "names", None) for column in found.column_names}
            # Contests hide the labels of their test part as -1; then another part has to do.
            if all(found[0][column] >= 0 for column, own in names.items() if own):
                break
        else:
            continue
        tables[part] = Table(f"hf:{name}, {part}", list(names))
        for number, entry in enumerate(found, 1):
            values = [str(own[entry[column]] if own else entry[column]) for column, own in names.items()]
            tables[part].add(number, values)
    if "train" not in tables:
        raise InputError(f"hf:{name}: expected a part 'train', found {listed(list(loaded))}")
    return tables


def samples(table: Table, text_column: str | None, label_column: str | None, train: Samples | None = None) -> Samples:
    """The texts and labels of all rows, each of which is checked."""
    if table.header is None and not (text_column or label_column):
        as_train = train is not None and len(train.table.columns) == len(table.columns)
        places = train.places if train is not None and as_train else by_position(table)
    else:
        # A column that is asked for by name says that there is a header, of names we do not know.
        table = table if table.header is not None else without_header(table)
        text = by_name(table, text_column, TEXT_COLUMNS, "text")
        places = [text], by_name(table, label_column, LABEL_COLUMNS, "label")
    text_columns = places[0]
    labels = [label.strip() for label in table.columns[places[1]]]
    if set(labels) <= NO_LABELS:
        raise Unlabeled(f"{table.where(0)}: the label is empty; expected a text and a label")
    if len(text_columns) == 1:
        texts = [text.strip() for text in table.columns[text_columns[0]]]
    else:
        several = zip(*(table.columns[column] for column in text_columns), strict=True)
        texts = [" ".join(text.strip() for text in row).strip() for row in several]
    for missing, values in (("text", texts), ("label", labels)):
        if "" in values:
            raise InputError(f"{table.where(values.index(''))}: the {missing} is empty; expected a text and a label")
    return Samples(table, texts, labels, places)


def by_name(table: Table, asked: str | None, known: Sequence[str], what: str) -> int:
    """Index of the column asked for, else of the first one that bears a known name."""
    header = table.header or []
    if asked is not None:
        if asked in header:
            return header.index(asked)
        raise InputError(f"{table.source}: no column {asked!r:.60}; the columns are {listed(header)}")
    lower = [name.lower() for name in header]
    for name in known:
        if name in lower:
            return lower.index(name)
    kind = Unlabeled if what == "label" else InputError
    raise kind(f"{table.source}: no column of {what}s among {listed(header)}; name it with {what}_column")


def by_position(table: Table) -> tuple[list[int], int]:
    """Indices of the columns of text and of that of labels, without a header.

    Labels come again and again, texts do not; of three columns and more, texts are those of several words.
    """
    columns = table.columns
    if len(columns) < 2:
        raise Unlabeled(f"{table.source}: one column and no header; expected a text and a label")
    full = [column for column, values in enumerate(columns) if all(value.strip() for value in values)]
    if len(columns) > 2:
        full = [column for column in full if len(set(columns[column])) > 1]
    label = min(full, key=lambda column: (len(set(columns[column])), sum(map(len, columns[column]))), default=0)
    counts = Counter(columns[label])
    first = columns[label][0]
    if counts[first] == 1 and len(counts) > 2 and min(counts[name] for name in counts if name != first) > 1:
        # The first row alone has this label: a header of names that are not known.
        raise InputError(
            f"{table.source}: no known name among the columns {listed([column[0] for column in columns])}; "
            "name them with text_column and label_column"
        )
    texts = [column for column in range(len(columns)) if column != label]
    if len(columns) > 2:
        texts = [column for column in texts if several_words(columns[column])]
    if not texts:
        raise InputError(f"{table.source}: {len(columns)} columns and no header; expected a text and a label")
    return texts, label


def several_words(values: Sequence[str]) -> bool:
    """Whether most of these texts have more than one word; what is written without spaces counts by the character."""
    return sum(word_count(value) > 1 for value in values) * 2 > len(values)
