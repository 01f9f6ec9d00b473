"""Texts with several labels each: every layout gives the same, and what is no such text is told by file and row."""

from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.core.errors import InputError
from recipes.datasets.several_labels import open_several_labels
from recipes.datasets.texts import open_texts

ROWS = [("the knee hurts", ["health"]), ("a flight to the clinic", ["health", "travel"]), ("hello, again", [])]
LAYOUTS = {
    "semicolons.csv": 'text,labels\nthe knee hurts,health\na flight to the clinic,health;travel\n"hello, again",\n',
    "commas.csv": 'text,tags\nthe knee hurts,health\na flight to the clinic,"travel, health"\n"hello, again",\n',
    "columns.csv": "id,comment_text,health,travel\n"
    '7,the knee hurts,1,0\n8,a flight to the clinic,1,1\n9,"hello, again",0,0\n',
    "truths.csv": "text,health,travel\n"
    'the knee hurts,True,False\na flight to the clinic,True,True\n"hello, again",False,False\n',
    "bars.tsv": "labels\ttext\nhealth\tthe knee hurts\nhealth|travel\ta flight to the clinic\n\thello, again\n",
    "lists.jsonl": '{"text": "the knee hurts", "labels": ["health"]}\n'
    '{"text": "a flight to the clinic", "labels": ["travel", "health"]}\n{"text": "hello, again", "labels": []}\n',
    "array.json": '[{"text": "the knee hurts", "labels": ["health"]}, {"text": "a flight to the clinic", '
    '"labels": ["travel", "health"]}, {"text": "hello, again", "labels": []}]',
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_give_the_same(name: str, tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / f"{part}{Path(name).suffix}").write_text(LAYOUTS[name], "utf-8")
    for found in open_several_labels(tmp_path):
        assert found.texts == [text for text, _ in ROWS]
        assert found.classes == ["health", "travel"]
        assert found.labels.tolist() == [[1, 0], [1, 1], [0, 0]]


def test_lines_with_several_labels_before_the_text(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("__label__a __label__b one\n__label__b two\n", "utf-8")
    (tmp_path / "test.txt").write_text("__label__a three\n", "utf-8")
    train_part, test_part = open_several_labels(tmp_path)
    assert train_part.texts == ["one", "two"]
    assert train_part.labels.tolist() == [[1, 1], [0, 1]]
    assert test_part.labels.tolist() == [[1, 0]]
    assert [part.labels.tolist() for part in open_texts(tmp_path)] == [[0, 1], [0]]  # there the first one counts


def test_one_file_is_split_and_copies_of_a_text_stay_together(tmp_path: Path) -> None:
    rows = [f"text {number % 20},{'a;b' if number % 3 else 'b'}\n" for number in range(60)]
    (tmp_path / "all.csv").write_text("text,labels\n" + "".join(rows), "utf-8")
    train_part, test_part = open_several_labels(tmp_path / "all.csv")
    assert len(test_part) == 12
    assert not set(train_part.texts) & set(test_part.texts)
    again = open_several_labels(tmp_path / "all.csv")[1]
    assert again.texts == test_part.texts


def test_datasets_of_names_numbers_and_zeros_and_ones() -> None:
    names = [("one", ["b", "a"]), ("two", ["b"])]
    numbers = [("one", [0, 1]), ("two", [1])]
    ones = [("one", torch.tensor([1.0, 1.0])), ("two", torch.tensor([0, 1]))]
    for samples, classes in ((names, ["a", "b"]), (numbers, ["0", "1"]), (ones, ["0", "1"])):
        part = open_several_labels([Samples(samples), Samples(samples)])[1]
        assert part.classes == classes
        assert part.labels.tolist() == [[1, 1], [0, 1]]


class Samples:
    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("text,labels\none,a\n", "expected texts of two labels or more, found a"),
        ("text,labels\none,\ntwo,\n", "row 2: no text has a label"),
        ("text,labels\n,a;b\n", "row 2: the text is empty"),
        ("text,length\none,3\n", "no column of labels and no columns of 0 and 1 among text, length"),
    ],
)
def test_what_cannot_be_opened_is_told(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(content, "utf-8")
    with pytest.raises(InputError, match=told):
        open_several_labels(tmp_path / "mine.csv")


def test_a_label_that_train_does_not_have_is_told_by_its_row(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,labels\none,a;b\n", "utf-8")
    (tmp_path / "test.csv").write_text("text,labels\none,a\ntwo,a;c\n", "utf-8")
    with pytest.raises(InputError, match=r"test\.csv, row 3: the label 'c' is not among those of train: a, b"):
        open_several_labels(tmp_path)


def test_samples_that_are_no_texts_with_labels_are_told() -> None:
    for samples, told in (
        ([("one", "a")], "train sample 0: expected a list of labels, or a tensor of 0 and 1, got 'a'"),
        ([(3, ["a"])], "train sample 0: expected a text, got 3"),
        ([("one", ["a", 1]), ("two", ["b"])], "all numbers or all names, got both"),
    ):
        with pytest.raises(InputError, match=told):
            open_several_labels([Samples(samples), Samples(samples)])
