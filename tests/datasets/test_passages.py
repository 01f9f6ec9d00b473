"""Passages by topic: what is read, and what is refused."""

from pathlib import Path

import pytest

from recipes.core.errors import InputError
from recipes.datasets.passages import open_passages


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
