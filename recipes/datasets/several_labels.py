"""Opens texts that may have several labels: in one column, a column each, JSON lists, or fastText's lines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recipes.core.errors import InputError
from recipes.core.files import own_path
from recipes.datasets.bundled import bundled
from recipes.datasets.own import class_names, described, pair_of_datasets, plain_label, samples_of
from recipes.datasets.reading import file_or_folder, is_folder
from recipes.datasets.text_files import Unlabeled, listed
from recipes.datasets.texts import (
    JOINT,
    LABEL_COLUMNS,
    TEXT_COLUMNS,
    Table,
    Texts,
    by_name,
    by_position,
    read_parts,
    read_table,
    split,
    without_header,
)

TEXT_NAMES = (*TEXT_COLUMNS, "comment_text", "comment", "tweet")
LABEL_NAMES = (*LABEL_COLUMNS, "topics", "tags", "topic", "categories", "classes", "genres")
SEPARATORS = (JOINT, ";", "|", ",")  # the first that stands in the train part's labels divides them
NO, YES = {"0", "0.0", "false"}, {"1", "1.0", "true"}


def open_several_labels(
    data: Any = None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str = "utf-8",
    seed: int = 0,
) -> tuple[Texts, Texts]:
    """Opens texts of which each has any number of labels, or none: the train and the test part.

    The labels of a text stand in one column, such as `labels`, with `;`, `|` or `,` between them; or there is a
    column of 0 and 1 for each class; or they are a list in JSON, or `__label__` words before the text.

    Args:
        data: a folder with a file `train` and a file `test`, or one such file, a fifth of which is drawn for the test
            part; formats as in `open_texts`. Or a pair of your own Datasets (train, test), whose samples are
            (text, labels): a list of names or numbers, or a tensor of 0 and 1. Default: the bundled messages.
        text_column: name of the column of texts, if it is not a usual one.
        label_column: name of the column of labels, if it is not a usual one.
        encoding: of the files, such as latin-1.
        seed: of the draw that splits a single file.

    Returns:
        Texts whose labels are (N, classes) float32 of 0 and 1.

    Raises:
        InputError: nothing there, no labels, or a label that train does not have; it names the file and the row.
    """
    pair = pair_of_datasets(data)
    if pair is not None:
        return labeled_samples(pair)
    if data is not None and str(data).startswith("hf:"):
        raise InputError(f"{data}: sets of the hub are opened with one label a text alone; save this one as JSON lines")
    named = data is not None and str(data).startswith("bundled:")
    path = bundled(str(data)[8:] if named else "messages") if named or data is None else file_or_folder(own_path(data))

    def read(file: Path, train: Any = None) -> "Labeled":
        return Labeled(read_table(file, encoding, several=True), text_column, label_column, train)

    parts = read_parts(path, read) if is_folder(path) else {"train": read(path)}
    train = parts["train"]
    classes = train.classes or sorted({label for labels in train.labels for label in labels})
    if len(classes) < 2:
        raise InputError(f"{path}: expected texts of two labels or more, found {listed(classes) or 'none'}")
    whole = [Texts(part.texts, one_hot(part.labels, classes, part.table.where), classes) for part in parts.values()]
    return (whole[0], whole[1]) if len(whole) == 2 else split(whole[0], seed, str(path))


class Labeled:
    """The texts of a table, and the labels of each; `classes` where a column stands for each."""

    def __init__(self, table: Table, text_column: str | None, label_column: str | None, train: Any = None) -> None:
        self.separator: str | None = train.separator if train else None
        self.classes: list[str] = []
        if table.header is None and (text_column or label_column or has_header(table)):
            table = without_header(table)
        self.table = table
        if table.header is None:
            columns, label = train.places if train else by_position(table)
        else:
            text, label = by_name(table, text_column, TEXT_NAMES, "text"), None
            lower = [name.lower() for name in table.header]
            if label_column is not None or any(name in lower for name in LABEL_NAMES):
                label = by_name(table, label_column, LABEL_NAMES, "label")
            columns = [text]
        self.places = columns, label
        parts = [table.columns[column] for column in columns]
        self.texts = [" ".join(text.strip() for text in row).strip() for row in zip(*parts, strict=True)]
        if "" in self.texts:
            raise InputError(f"{table.where(self.texts.index(''))}: the text is empty; expected a text and its labels")
        self.labels = self.in_columns(columns[0]) if label is None else self.divided(table.columns[label])
        if not any(self.labels):
            raise Unlabeled(f"{table.where(0)}: no text has a label")

    def divided(self, column: Sequence[str]) -> list[list[str]]:
        """The labels of each row of a column."""
        if self.separator is None:
            self.separator = next((one for one in SEPARATORS if any(one in value for value in column)), JOINT)
        rows = [[label.strip() for label in value.split(self.separator)] for value in column]
        return [list(dict.fromkeys(filter(None, row))) for row in rows]

    def in_columns(self, text: int) -> list[list[str]]:
        """The labels of each row from columns of 0 and 1, which bear their names."""
        values = [[one.strip().lower() for one in column] for column in self.table.columns]
        found = [place for place, column in enumerate(values) if place != text and set(column) <= NO | YES]
        names = self.table.header or []
        self.classes = [names[place] for place in found]
        if len(found) < 2:
            message = "no column of labels and no columns of 0 and 1"
            raise Unlabeled(f"{self.table.source}: {message} among {listed(names)}; name it with label_column")
        return [
            [names[place] for place, value in zip(found, row, strict=True) if value in YES]
            for row in zip(*(values[place] for place in found), strict=True)
        ]


def has_header(table: Table) -> bool:
    """Whether the first row names a column of texts that no other row has again."""
    first = [column[0].strip().lower() for column in table.columns]
    return any(
        name in TEXT_NAMES and column.count(column[0]) == 1 for name, column in zip(first, table.columns, strict=True)
    )


def one_hot(labels: Sequence[Sequence[str]], classes: Sequence[str], where: Any) -> Tensor:
    """(N, classes) of 0 and 1 from the labels of each of N texts; `where` names a row in errors."""
    column = {name: number for number, name in enumerate(classes)}
    answer = torch.zeros(len(labels), len(classes))
    for row, names in enumerate(labels):
        for name in names:
            if name not in column:
                raise InputError(f"{where(row)}: the label {name!r:.60} is not among those of train: {listed(classes)}")
            answer[row, column[name]] = 1
    return answer


def labeled_samples(pair: tuple[Any, Any]) -> tuple[Texts, Texts]:
    """The texts of the user's own Datasets (train, test), read once; where the train part has `classes`, their names.

    Raises:
        InputError: a sample that is not (text, labels), or fewer than two classes; it names the part and the sample.
    """
    names, known, parts = class_names(pair), set(), []
    for part, dataset in zip(("train", "test"), pair, strict=True):
        texts, labels = [], []
        for number, (text, given) in enumerate(samples_of(dataset, part, "(text, labels)")):
            where = f"data: {part} sample {number}"
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{where}: expected a text, got {described(text)}")
            if isinstance(given, Tensor) and given.ndim == 1:  # one number a class
                given = given.nonzero().flatten().tolist()
            if isinstance(given, str) or not isinstance(given, (list, tuple, set, frozenset)):
                raise InputError(f"{where}: expected a list of labels, or a tensor of 0 and 1, got {described(given)}")
            plain = [plain_label(label, where) for label in given]
            wrong = [one for one in plain if names and isinstance(one, int) and one >= len(names)]
            if wrong:
                raise InputError(f"{where}: expected a label among {len(names or [])} classes, got {wrong[0]}")
            texts.append(text.strip())
            labels.append([names[one] if names and isinstance(one, int) else one for one in plain])
        known |= {label for row in labels for label in row} if part == "train" else set()
        parts.append((texts, labels))
    if len({type(label) for label in known}) > 1:
        raise InputError("data: expected labels that are all numbers or all names, got both")
    classes = names or [str(one) for one in sorted(known)]
    if len(classes) < 2:
        raise InputError(f"data: expected train samples of two labels or more, found {listed(classes) or 'none'}")
    train_set, test_set = (
        Texts(texts, one_hot([[str(one) for one in row] for row in labels], classes, named(part)), classes)
        for part, (texts, labels) in zip(("train", "test"), parts, strict=True)
    )
    return train_set, test_set


def named(part: str) -> Any:
    return lambda row: f"data: {part} sample {row}"
