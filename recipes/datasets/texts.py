"""Opens labeled texts: the bundled reviews, yours as CSV, TSV or JSON lines, or a set of the hub."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recipes.core.errors import InputError
from recipes.core.loading import holdout
from recipes.datasets.bundled import bundled
from recipes.datasets.own import described, numbered_labels, pair_of_datasets, samples_of
from recipes.datasets.unicode import utf8_text

TEXT_COLUMNS = ("text", "text_a", "sentence", "review", "content", "message", "document", "sms", "body")
LABEL_COLUMNS = ("label", "labels", "class", "sentiment", "category", "target", "polarity", "tag")
PARTS = {"train": ("train", "training"), "test": ("test", "dev", "val", "valid", "validation")}
ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".jsonlines", ".txt")

# Where a row stands, as "FILE, row 3", and its fields; the names of the columns, if the table tells them.
Row = tuple[str, list[str]]
Table = tuple[list[str] | None, list[Row]]


@dataclass
class Texts:
    """Texts, each with a class; asked for many at a time, it gives a list and a tensor.

    Attributes:
        texts: N strings.
        labels: (N,) indices into `classes`.
        classes: names, sorted.
    """

    texts: list[str]
    labels: Tensor
    classes: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return self.texts[index], int(self.labels[index])

    def __getitems__(self, indices: Sequence[int]) -> tuple[list[str], Tensor]:
        return [self.texts[index] for index in indices], self.labels[list(indices)]


def open_texts(
    data: Any = None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    seed: int = 0,
) -> tuple[Texts, Texts]:
    """Opens labeled texts: the train and the test part.

    Columns are known by their names (`text`, `sentence`, `review` …; `label`, `class`, `sentiment` …).
    Where a table has no header, the label is the column with the fewest different entries.

    Args:
        data: a folder with a file `train` and a file `test` (or `dev`, `val`, `validation`) in CSV, TSV or
            JSON lines; or one such file, a fifth of which is drawn for the test part, the same text never
            on both sides; or `hf:NAME` of the Hugging Face hub; or `bundled:reviews_zh`, reviews in Chinese;
            or a pair of your own Datasets (train, test), whose samples are (text, label): the label is a number
            or a name. Default: the bundled reviews in English.
        text_column: name of the column of texts, if it is another.
        label_column: name of the column of labels, if it is another.
        seed: of the draw that splits a single file.

    Raises:
        InputError: nothing there, or a row that is not a text and a label; it names the file and the row.
    """
    pair = pair_of_datasets(data)
    if pair is not None:
        return texts_of(pair)
    if data is not None and str(data).startswith("hf:"):
        source, tables = str(data), hub_tables(str(data)[3:])
    else:
        if data is not None and str(data).startswith("bundled:"):
            path = bundled(str(data)[8:])
        else:
            path = bundled("reviews") if data is None else Path(data).expanduser()
        source = str(path)
        if path.is_dir():
            tables = {part: read_table(find_part(path, part)) for part in PARTS}
        elif path.is_file():
            tables = {"train": read_table(path)}
        else:
            raise InputError(f"{path}: no such file or folder")
    parts = {part: samples(table, text_column, label_column) for part, table in tables.items()}
    classes = sorted({label for _, _, label in parts["train"]})
    if len(classes) < 2:
        raise InputError(f"{source}: all train texts are of one class, {classes[0]!r}; expected two or more")
    known = {label: index for index, label in enumerate(classes)}
    for where, _, label in parts.get("test", []):
        if label not in known:
            raise InputError(f"{where}: the label {label!r} is not among those of train: {listed(classes)}")

    def build(part: list[tuple[str, str, str]]) -> Texts:
        labels = torch.tensor([known[label] for _, _, label in part])
        return Texts([text for _, text, _ in part], labels, classes)

    if "test" in parts:
        return build(parts["train"]), build(parts["test"])
    return split(build(parts["train"]), seed)


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


def split(whole: Texts, seed: int) -> tuple[Texts, Texts]:
    """Splits 80 to 20, each class alike; all copies of a text go where its first one goes."""
    first: dict[str, int] = {}
    for index, text in enumerate(whole.texts):
        first.setdefault(text, index)
    originals = torch.tensor(list(first.values()))
    _, drawn = holdout(whole.labels[originals], 0.2, seed)
    test = {whole.texts[index] for index in originals[drawn].tolist()}
    sides: tuple[list[int], list[int]] = ([], [])
    for index, text in enumerate(whole.texts):
        sides[text in test].append(index)
    train_part, test_part = (Texts(*whole.__getitems__(side), whole.classes) for side in sides)
    return train_part, test_part


def find_part(folder: Path, part: str) -> Path:
    """The folder's file of one part, by the order of names in `PARTS`."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDINGS and file.is_file())
    for name in PARTS[part]:
        for file in files:
            if file.stem.lower() == name:
                return file
    found = listed([file.name for file in files]) if files else "no such file"
    raise InputError(f"{folder}: expected a file {part}.csv, .tsv, .jsonl or .txt, found {found}")


def read_table(path: Path) -> Table:
    """The rows of a file: JSON lines, tabs (never quoted) or commas (quoted as in CSV)."""
    lines = utf8_text(path.read_bytes(), path, "row").replace("\r\n", "\n").split("\n")
    numbered_labels = [(f"{path}, row {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered_labels:
        raise InputError(f"{path}: the file is empty; expected texts with labels")
    ending = path.suffix.lower()
    if ending.startswith(".json"):
        return json_rows(numbered_labels)
    # Nearly all lines, so that one row without its tab is found out as what it is.
    tabs = sum("\t" in line for _, line in numbered_labels) >= 0.9 * len(numbered_labels)
    if ending == ".tsv" or (ending != ".csv" and tabs):
        # Quotes in a tab-separated file are part of the text: texts carry stray ones.
        rows = [(where, line.split("\t")) for where, line in numbered_labels]
    else:
        rows = csv_rows(path, lines)
    names = [name.strip() for name in rows[0][1]]
    for column, name in enumerate(names):
        # A label may itself be called "text"; the name of a column does not come again below it.
        below = (fields[column].strip() for _, fields in rows[1:] if len(fields) > column)
        if name.lower() in (*TEXT_COLUMNS, *LABEL_COLUMNS) and name not in below:
            if len(rows) == 1:
                raise InputError(f"{path}: no row below the header; expected texts with labels")
            return names, rows[1:]
    return None, rows


def csv_rows(path: Path, lines: list[str]) -> list[Row]:
    """A quoted field may hold line breaks, so a row is named by the line where it begins."""
    reader = csv.reader((line + "\n" for line in lines), strict=True)
    rows, start = [], 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                rows.append((f"{path}, row {start}", fields))
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, row {start}: expected fields quoted as in CSV, but {error}") from None
    return rows


def json_rows(numbered_labels: list[tuple[str, str]]) -> Table:
    """The columns are those of the first object; what is neither string nor number is left empty."""
    header: list[str] = []
    rows = []
    for where, line in numbered_labels:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            entry = None
        if not isinstance(entry, dict):
            raise InputError(f'{where}: expected one JSON object a line, such as {{"text": …, "label": …}}')
        header = header or list(entry)
        values = [entry.get(name) for name in header]
        rows.append((where, [str(value) if isinstance(value, str | int | float) else "" for value in values]))
    return header, rows


def hub_tables(name: str) -> dict[str, Table]:
    """The parts of a data set of the Hugging Face hub; numbered_labels classes get their names."""
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
    for part, known in PARTS.items():
        for found in (loaded[split_name] for split_name in known if split_name in loaded):
            names = {column: getattr(found.features[column], "names", None) for column in found.column_names}
            # Contests hide the labels of their test part as -1; then another part has to do.
            if all(found[0][column] >= 0 for column, own in names.items() if own):
                break
        else:
            continue
        rows = []
        for number, entry in enumerate(found, 1):
            values = [str(own[entry[column]] if own else entry[column]) for column, own in names.items()]
            rows.append((f"hf:{name}, {part}, row {number}", values))
        tables[part] = (list(names), rows)
    if "train" not in tables:
        raise InputError(f"hf:{name}: expected a part 'train', found {listed(list(loaded))}")
    return tables


def samples(table: Table, text_column: str | None, label_column: str | None) -> list[tuple[str, str, str]]:
    """Checks every row: where it stands, its text and its label."""
    header, rows = table
    source = rows[0][0].rpartition(", row")[0]
    width = len(header or rows[0][1])
    for where, fields in rows:
        if len(fields) != width:
            raise InputError(f"{where}: {len(fields)} fields, expected {width}")
    if header is None and not (text_column or label_column):
        text_index, label_index = by_position(source, rows)
    else:
        # A column that is asked for by name says that there is a header, of names we do not know.
        header, rows = (header, rows) if header is not None else (rows[0][1], rows[1:])
        text_index = by_name(source, header, text_column, TEXT_COLUMNS, "text")
        label_index = by_name(source, header, label_column, LABEL_COLUMNS, "label")
    checked = []
    for where, fields in rows:
        text, label = fields[text_index].strip(), fields[label_index].strip()
        if not text or not label:
            missing = "label" if text else "text"
            raise InputError(f"{where}: the {missing} is empty; expected a text and a label")
        checked.append((where, text, label))
    return checked


def by_name(source: str, header: list[str], asked: str | None, known: Sequence[str], what: str) -> int:
    """Index of the column asked for, else of the first one that bears a known name."""
    if asked is not None:
        if asked in header:
            return header.index(asked)
        raise InputError(f"{source}: no column {asked!r}; the columns are {listed(header)}")
    lower = [name.lower() for name in header]
    for name in known:
        if name in lower:
            return lower.index(name)
    raise InputError(f"{source}: no column of {what}s among {listed(header)}; name it with {what}_column")


def by_position(source: str, rows: list[Row]) -> tuple[int, int]:
    """Indices of text and label without a header: labels come again and again, texts do not."""
    if len(rows[0][1]) != 2:
        raise InputError(f"{source}: {len(rows[0][1])} columns and no header; expected a text and a label")
    columns = [[fields[column] for _, fields in rows] for column in range(2)]
    label = min((0, 1), key=lambda column: (len(set(columns[column])), sum(map(len, columns[column]))))
    counts = Counter(columns[label])
    first = columns[label][0]
    if counts[first] == 1 and len(counts) > 2 and min(counts[name] for name in counts if name != first) > 1:
        # The first row alone has this label: a header of names that are not known.
        raise InputError(
            f"{source}: no known name among the columns {listed(rows[0][1])}; "
            "name them with text_column and label_column"
        )
    return 1 - label, label


def listed(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
