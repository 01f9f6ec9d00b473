"""Running text: what is read, how it is cut, and what is refused."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from recipes.core.errors import InputError
from recipes.datasets.bundled import bundled
from recipes.datasets.running_text import Windows, open_characters, open_running_text


def test_the_python_reference_shares_no_paragraph() -> None:
    text, held_out = open_running_text()
    assert len(held_out) == pytest.approx(0.1 * len(text + held_out), abs=1)
    paragraphs = (text + held_out).split("\n\n")
    assert len(paragraphs) == len(set(paragraphs))
    assert "assert_stmt" in text


def test_a_file_is_cut_by_position(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_bytes("\ufeff0123456789\r\nabcdefgh…".encode())
    assert open_running_text(file) == ("0123456789\nabcdefg", "h…")
    assert open_running_text(str(file), held_out=0.5) == ("0123456789", "\nabcdefgh…")


def test_files_of_a_folder_are_joined(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name, content in (("b.txt", "second\n"), ("a.txt", "first"), ("below/c.txt", "third"), ("d.md", "no")):
        (tmp_path / name).write_text(content)
    assert "".join(open_running_text(tmp_path)) == "first\n\nsecond\n\nthird"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.txt: no such file or folder"):
        open_running_text(tmp_path / "nothing.txt")
    with pytest.raises(InputError, match=r"expected a folder with files \*.txt"):
        open_running_text(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(InputError, match=r"empty.txt: the file is empty"):
        open_running_text(tmp_path)
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"fine\nna\xefve\n")
    with pytest.raises(InputError, match=r"bad.txt, line 2: expected UTF-8"):
        open_running_text(bad)
    bad.write_text("a")
    with pytest.raises(InputError, match="1 characters, expected enough"):
        open_running_text(bad)


def test_parts_that_a_folder_tells(tmp_path: Path) -> None:
    for name, content in (("Train.txt", "to learn"), ("valid.TXT", "to test"), (".hidden.txt", "no"), ("c.md", "no")):
        (tmp_path / name).write_text(content)
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "a.txt").write_bytes(b"\xff")
    assert open_running_text(tmp_path) == ("to learn", "to test")


def test_texts_of_your_own() -> None:
    assert open_running_text(("one\r\ntwo\n", "three")) == ("one\ntwo", "three")
    lines = (["one", "two"], [{"text": "three"}, {"text": "four"}])
    assert open_running_text(lines) == ("one\ntwo", "three\nfour")
    for data, message in (
        (("one", " \n"), "data: the test text is empty; expected text"),
        ((["one"], [("two", 0)]), r"data: test sample 0: expected a text, got a tuple of 2"),
        ((["one", 2], ["three"]), r"data: train sample 1: expected a text, got 2"),
        ((["one"], [""]), "data: the test part is empty"),
        (("one", "two", "three"), "expected a path or a pair"),
    ):
        with pytest.raises(InputError, match=message):
            open_running_text(data)


def test_characters_are_those_of_the_train_text() -> None:
    train_set, test_set = open_characters(("banana" * 5, "bandana" * 5 + "\ufffd"), 16)
    assert train_set.characters == test_set.characters == ["\ufffd", "a", "b", "n"]
    assert train_set.jitter
    assert not test_set.jitter
    assert test_set.ids[:4].tolist() == [2, 1, 3, 0], "d is unknown"
    assert test_set.ids[-1] == 0
    assert [len(train_set), len(test_set)] == [1, 3]
    short, _ = open_characters(("banana" * 5 + "zz", "bandana" * 5), 16, limit=20)
    assert len(short.ids) == 20
    assert "z" in short.characters, "so that models of less text know the same characters"
    with pytest.raises(
        InputError, match="option context: expected less than the train text has, 16 characters, got 16"
    ):
        open_characters(("banana" * 5, "bandana" * 5), 16, limit=16)


def test_windows_and_their_targets() -> None:
    windows = Windows(torch.arange(11), 3, [])
    assert len(windows) == 3
    ids, targets = windows.__getitems__([0, 2])
    assert ids.tolist() == [[0, 1, 2], [6, 7, 8]]
    assert torch.equal(targets, ids + 1)
    assert len(Windows(torch.arange(12), 3, [], shift=0)) == 4


def test_overlapping_windows_reach_the_end() -> None:
    windows = Windows(torch.arange(11), 4, [], stride=2)
    assert len(windows) == 4
    ids, _ = windows.__getitems__(range(4))
    assert ids[:, 0].tolist() == [0, 2, 4, 6]
    assert ids[-1, -1] == 9


def test_jitter_reaches_every_character_and_stays_inside() -> None:
    torch.manual_seed(0)
    windows = Windows(torch.arange(11), 3, [], jitter=True)
    ids, targets = windows.__getitems__([0, 1, 2] * 100)
    assert torch.equal(targets, ids + 1)
    assert ids.unique().tolist() == list(range(10))
    assert (ids[:, 1:] - ids[:, :-1] == 1).all()


def test_the_layout_of_wikitext(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        (tmp_path / f"wiki.{part}.tokens").write_text(f" = {part} = \n\n the <unk> text \n", "utf-8")
    train, test = open_running_text(tmp_path)
    assert train.startswith(" = train =")
    assert test.startswith(" = test =")


def test_maker_reproduces_the_bundled_bytes(tmp_path: Path) -> None:
    """With the same Python; the text of another is cut in the same way."""
    path = bundled("python_reference").parent / "make_python_reference.py"
    maker = runpy.run_path(str(path))
    maker["make"](tmp_path)
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    paragraphs = [part for text in made.values() for part in text.strip().split(b"\n\n")]
    assert len(paragraphs) == len(set(paragraphs)) > 1000
    if sys.version_info[:3] == (3, 11, 7):
        assert made == {file.name: file.read_bytes() for file in bundled("python_reference").iterdir()}
