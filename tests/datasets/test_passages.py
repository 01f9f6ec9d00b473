"""Passages by topic: what is read, and what is refused."""

from pathlib import Path

import pytest

from recipes.core.errors import InputError
from recipes.datasets.passages import open_labeled_passages, open_passages
from recipes.datasets.text_files import word_count


def test_the_python_reference_has_topics() -> None:
    topics = open_passages()
    passages = [passage for part in topics.values() for passage in part]
    assert len(topics) > 50
    assert "debugger" in topics
    assert len(passages) == len(set(passages)) > 1000


def test_a_file_a_topic(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("third\n\nfirst\n")
    (tmp_path / "a.txt").write_text("first\non two lines\n\n\n\nfirst\n\n \n")
    assert open_passages(tmp_path) == {"a": ["first\non two lines", "first"], "b": ["third"]}


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing: no such folder: expected a folder"):
        open_passages(tmp_path / "nothing")
    with pytest.raises(InputError, match="found none"):
        open_passages(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(InputError, match="found one"):
        open_passages(str(tmp_path))
    (tmp_path / "b.txt").write_bytes(b"fine\n\nna\xefve")
    with pytest.raises(InputError, match=r"b.txt, line 3: expected UTF-8"):
        open_passages(tmp_path)


def test_passages_of_test_are_held_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(f"one two three {n}" for n in range(9)))
    (tmp_path / "b.txt").write_text("\n\n".join(f"four five six {n}" for n in range(6)))
    (tmp_path / "c.txt").write_text("short")
    train_set, test_set, texts = open_labeled_passages(tmp_path, words=3)
    assert train_set.classes == ["a", "b"]
    assert test_set.labels.tolist() == [0, 0, 0, 1, 1]
    assert not set(texts) & set(test_set.texts)
    assert set(texts) == {*train_set.texts, "short"}
    with pytest.raises(InputError, match=r"expected two topics or more .* found 0"):
        open_labeled_passages(tmp_path, words=5)


def test_a_pair_of_datasets() -> None:
    pair = [("one", "a"), ("two", "b")], [("three", "a")]
    train_set, test_set, texts = open_labeled_passages(pair)
    assert (train_set.classes, test_set.labels.tolist(), texts) == (["a", "b"], [0], ["one", "two"])


def test_chinese_counts_by_the_character(tmp_path: Path) -> None:
    assert word_count("这部电影, truly good") == 7  # the comma stands alone
    for name in ("好", "坏"):
        (tmp_path / f"{name}.txt").write_text(
            "\n\n".join(f"这部电影真的是非常非常{name}{n}" for n in range(6)), "utf-8"
        )
    assert open_labeled_passages(tmp_path)[0].classes == ["坏", "好"]
