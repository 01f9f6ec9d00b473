"""The bundled similarities, and the opener of scored pairs: each format, and each way to be wrong."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from recipes.core.errors import InputError
from recipes.datasets.bundled import bundled
from recipes.datasets.sentence_scores import open_scored_pairs

MAKER = Path(__file__).parents[2] / "data" / "make_similarities.py"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_similarities", MAKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_similarities"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_bundled_bytes_are_made_again(maker: ModuleType, tmp_path: Path) -> None:
    maker.write(tmp_path)
    for part in ("train", "test"):
        assert (tmp_path / f"{part}.tsv").read_bytes() == (bundled("similarities") / f"{part}.tsv").read_bytes()


def test_bundled_parts(maker: ModuleType) -> None:
    train_part, test_part = open_scored_pairs()
    assert (len(train_part), len(test_part)) == (1300, 300)
    assert test_part.scores.unique().tolist() == [0, 1, 2, 3, 4, 5]
    sides = [" ".join(part.firsts + part.seconds) for part in (train_part, test_part)]
    for part, names in maker.NAMES.items():
        assert not any(name in sides[part == "train"] for name in names), "a first name stands in one part alone"
    assert not set(maker.FRAMES["train"]) & set(maker.FRAMES["test"])
    assert not {*train_part.firsts, *train_part.seconds} & {*test_part.firsts, *test_part.seconds}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("mine.tsv", "a {n}\tb {n}\t{n}"),
        ("mine.tsv", "{n}\ta {n}\tb {n}"),
        ("mine.csv", "x\ty\t2012\t0001\t{n}\ta {n}\tb {n}"),
        ("mine.txt", "x\ty\t2012\t0001\t{n}\ta {n}\tb {n}\ta source\tanother"),
    ],
)
def test_columns_without_a_header(tmp_path: Path, name: str, row: str) -> None:
    (tmp_path / name).write_text("\n".join(row.format(n=n) for n in range(10)), "utf-8")
    train_part, test_part = open_scored_pairs(tmp_path / name)
    assert (len(train_part), len(test_part)) == (8, 2)
    found = zip(train_part.firsts, train_part.seconds, train_part.scores.tolist(), strict=True)
    assert all(first == f"a {score:.0f}" and second == f"b {score:.0f}" for first, second, score in found)


def test_folder_with_a_header(tmp_path: Path) -> None:
    for part in ("sts-train", "sts-dev"):
        (tmp_path / f"{part}.tsv").write_text('id\tScore\tsentence1\tsentence2\n1\t0.5\tA "b\tC\n2\t1\tD\tE\n', "utf-8")
    train_part, test_part = open_scored_pairs(tmp_path)
    assert train_part.firsts == ['A "b', "D"]
    assert test_part.scores.tolist() == [0.5, 1]


def test_pairs_of_one_sentence_stay_together(tmp_path: Path) -> None:
    rows = [f"first {n % 5}\tsecond {n}\t{n}" for n in range(50)]
    (tmp_path / "mine.tsv").write_text("\n".join(rows), "utf-8")
    train_part, test_part = open_scored_pairs(tmp_path / "mine.tsv")
    assert len(train_part) + len(test_part) == 50
    assert not set(train_part.firsts) & set(test_part.firsts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "mine.tsv: the file is empty"),
        ("a\tb\n", "mine.tsv, row 1: expected a header .* got 2 fields"),
        ("a\tb\t1\nc\td\thigh\n", "mine.tsv, row 2: expected two sentences and a number, got 'high'"),
        ("a\tb\t1\nc\td\tnan\n", "mine.tsv, row 2: expected two sentences and a number"),
        ("a\tb\t1\n\t\t\nc\t \t2\n", "mine.tsv, row 3: expected two sentences"),
        ("a\tb\t1\nc\td\n", "mine.tsv, row 2: 2 fields, expected 3"),
        ("sentence1\tsentence2\tscore\n", "mine.tsv: no row below the header"),
        ("a\tb\t1\na\tc\t2\n", "a single first sentence"),
        ("a\tb\t1\nc\td\t1\ne\tf\t1\n", "all train pairs have the score 1"),
        (b"a\tb\t1\n\xff\tb\t1\n", "mine.tsv, row 2: expected UTF-8"),
    ],
)
def test_input_that_cannot_be(tmp_path: Path, content: str | bytes, message: str) -> None:
    (tmp_path / "mine.tsv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        open_scored_pairs(tmp_path / "mine.tsv")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_scored_pairs(tmp_path / "none")
    with pytest.raises(InputError, match=r"expected a file train\.tsv or one whose name ends in -train"):
        open_scored_pairs(tmp_path)


@pytest.mark.real
def test_sts_benchmark(real_data: Path) -> None:
    train_part, test_part = open_scored_pairs(real_data / "stsbenchmark")
    assert (len(train_part), len(test_part)) == (5749, 1500)
    assert train_part.firsts[0] == "A plane is taking off."
    assert test_part.scores.max() == 5


@pytest.mark.parametrize(("file", "row"), [("a.csv", "cat{n},the dog,{n}.5"), ("a.txt", "cat{n} dog {n}.5")])
def test_pairs_of_words_without_header(tmp_path: Path, file: str, row: str) -> None:
    (tmp_path / file).write_text("".join(row.format(n=n) + "\n" for n in range(10)))
    train, test = open_scored_pairs(tmp_path / file)
    found = dict(zip(train.firsts + test.firsts, train.scores.tolist() + test.scores.tolist(), strict=True))
    assert found == {f"cat{n}": n + 0.5 for n in range(10)}


def test_a_test_part_without_scores_gives_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{n}\tone {n}\tother\t{n}\n" for n in range(5))
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("index\tsentence1\tsentence2\tscore\n" + rows)
    (tmp_path / "test.tsv").write_text("index\tsentence1\tsentence2\n0\tone\tother\n")
    assert [len(part) for part in open_scored_pairs(tmp_path)] == [5, 5]
    assert "test.tsv: has no labels; dev.tsv is taken instead" in capsys.readouterr().err


def test_a_pair_of_datasets() -> None:
    """Tuples or dicts; a score may be a number of Python, numpy or torch."""
    rows = [(" a cat ", "a dog", 1), ("one", "two", np.float32(2.5)), ["x", "y", torch.tensor(4)]]
    named = [{"sentence1": "a", "sentence2": "b", "score": 0.5, "id": 7}]
    train, test = open_scored_pairs((rows, named))
    assert (train.firsts, train.seconds) == (["a cat", "one", "x"], ["a dog", "two", "y"])
    assert train.scores.tolist() == [1, 2.5, 4]
    assert (test.firsts, test.scores.tolist()) == (["a"], [0.5])


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([("a", "b", 1), ("c", "d", 1)], "data: all train pairs have the score 1"),
        ([("a", "b", 1), ("c", "d")], r"data: train sample 1: expected \(sentence1, sentence2, score\)"),
        ([("a", "b", 1), ("c", " ", 2)], "data: train sample 1: .* two texts and a number"),
        ([("a", "b", 1), ("c", "d", None)], "data: train sample 1: .* two texts and a number, got a NoneType"),
        ([("a", "b", 1), ("c", "d", float("nan"))], "data: train sample 1: .* got nan"),
        ([("a", "b", 1), {"sentence1": "c"}], "data: train sample 1: expected .* got a dict"),
    ],
)
def test_a_pair_that_cannot_be(train: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_scored_pairs((train, [("x", "y", 0)]))
