"""What all openers accept: names, splits, files that cannot be read, and numbers that are none."""

import errno
import gzip
import io
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipes.core.errors import InputError
from recipes.datasets import reading
from recipes.datasets.reading import (
    by_split,
    file_content,
    file_json,
    file_lines,
    file_text,
    files_in,
    finite,
    first_with_suffix,
    folders_in,
    is_folder,
    is_there,
    json_value,
    natural,
    opened_file,
    require_folder,
    split_named,
    tell_left_out,
)


def line_of(do: Callable[[], Any]) -> str:
    """The one line that this is refused with."""
    with pytest.raises(InputError) as caught:
        do()
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_names_in_natural_order_without_what_systems_leave(tmp_path: Path) -> None:
    for name in ("10.jpg", "2.JPG", "1.Jpg", "a.txt", "._1.jpg", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).touch()
    for name in ("__MACOSX", ".ipynb_checkpoints", "10", "9"):
        (tmp_path / name).mkdir()
    (tmp_path / "9" / "0.jpg").touch()
    assert [path.name for path in folders_in(tmp_path)] == ["9", "10"]
    assert [path.name for path in files_in(tmp_path, {".jpg"})] == ["1.Jpg", "2.JPG", "10.jpg"]
    assert [path.name for path in files_in(tmp_path, deep=True)] == ["1.Jpg", "2.JPG", "0.jpg", "10.jpg", "a.txt"]
    assert sorted(["b1", "b", "10b", "b10", "b2", "1", "a", "b1a"], key=natural) == [
        *("1", "10b", "a", "b", "b1", "b1a", "b2", "b10"),
    ]


def test_links_to_folders_are_followed_at_the_top_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert [path.name for path in folders_in(tmp_path)] == ["a", "b"]
    assert files_in(tmp_path / "b", deep=True) == [tmp_path / "b" / "1.jpg"]


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["train", "Training", "TRAIN"]),
        ("val", ["val", "valid", "Validation", "dev", "eval", "evaluation"]),
        ("test", ["test", "Testing"]),
        (None, ["trained", "tests", "cat", "", "development"]),
    ],
)
def test_names_of_splits(split: str | None, names: list[str]) -> None:
    assert [split_named(name) for name in names] == [split] * len(names)


def test_one_part_a_split(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("Training", "validation.txt", "cat", "test.old")]
    paths[3].mkdir()
    assert by_split(paths) == {"train": paths[0], "val": paths[1]}
    assert "expected one val part" in line_of(lambda: by_split([Path("val"), Path("dev")]))


def special(kind: str, folder: Path) -> Path:
    """Something that is no regular file one can read."""
    path = folder / "it"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    elif kind == "dangling link":
        path.symlink_to(folder / "nowhere")
    elif kind == "looping link":
        path.symlink_to(path)
    elif kind == "below a file":
        path.touch()
        path = path / "below"
    elif kind == "long":
        path = folder / ("n" * 300)
    elif kind == "zero in its name":
        path = folder / "a\0b"
    elif kind == "input/output error":
        path = Path("/proc/self/mem")
    return path


SPECIAL = ["missing", "folder", "pipe", "socket", "zeros", "dangling link", "looping link", "below a file", "long"]
SPECIAL += ["zero in its name", "input/output error"]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux")
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_to_read(kind: str, tmp_path: Path) -> None:
    path = special(kind, tmp_path)
    shown = str(InputError(str(path)))
    for read in (file_content, file_text, file_json, file_lines):
        assert line_of(lambda read=read: read(path)).startswith(shown)  # type: ignore[misc]
    if kind != "folder":
        assert shown in line_of(lambda: require_folder(path))
        assert shown in line_of(lambda: files_in(path))


def test_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an error that is raised for it, since an administrator may read all."""

    def forbidden(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = tmp_path / "a.txt"
    path.write_text("text")
    with monkeypatch.context() as patched:
        patched.setattr(io, "open", forbidden)
        assert line_of(lambda: file_text(path)) == f"{path}: cannot be read (Permission denied)"
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", forbidden)
        assert line_of(lambda: files_in(tmp_path)) == f"{tmp_path}: cannot be read (Permission denied)"
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", forbidden)
        for look in (is_there, is_folder):
            assert line_of(lambda look=look: look(path)) == f"{path}: cannot be read (Permission denied)"  # type: ignore[misc]


def test_a_file_that_breaks_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()

    def read() -> None:
        with opened_file(path):
            raise OSError(errno.EIO, "Input/output error")

    assert line_of(read) == f"{path}: cannot be read (Input/output error)"


def test_names_do_not_break_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a\nb\x1b[31m\u2028c"
    assert line_of(lambda: file_text(path)).endswith("a\\nb\\x1b[31m\\u2028c: no such file")


def test_packed_files_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(3000)))
    (tmp_path / "a").write_bytes(bytes(3000))
    monkeypatch.setenv("RECIPES_MAX_BYTES", "3000")
    assert len(file_content(path)) == len(file_content(tmp_path / "a")) == 3000
    monkeypatch.setenv("RECIPES_MAX_BYTES", "2999")
    for one in (path, tmp_path / "a"):
        assert "at most 2999 bytes" in line_of(lambda one=one: file_content(one))  # type: ignore[misc]
    monkeypatch.setenv("RECIPES_MAX_BYTES", "much")
    assert line_of(lambda: file_content(path)).startswith("RECIPES_MAX_BYTES is 'much'")


def test_a_bomb_fills_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(bytes(2**20))
    limit = reading.MOST_BYTES
    assert 2**29 <= limit <= 2**31
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reading, "MOST_BYTES", 2**20)
        assert "RECIPES_MAX_BYTES" in line_of(lambda: file_content(path))


def test_damaged_packed_files(tmp_path: Path) -> None:
    whole = gzip.compress(bytes(range(256)) * 40)
    for number, content in enumerate((b"", b"text", whole[:-1], whole[:50], whole[:60] + b"?" + whole[61:])):
        path = tmp_path / f"{number}.gz"
        path.write_bytes(content)
        if content:
            assert "whole gzip file" in line_of(lambda path=path: file_content(path))  # type: ignore[misc]


def test_text(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffä \r\n\r\nb b\rc\n".encode())
    assert file_lines(path) == ["ä", "b b", "c"]
    assert "line 2: expected a name, found an empty line" in line_of(lambda: file_lines(path, numbered=True))
    path.write_text("a\nb\n\n \n")
    assert file_lines(path, numbered=True) == ["a", "b"]
    path.write_bytes("ok\nä\n".encode("latin-1"))
    assert "line 2: expected UTF-8" in line_of(lambda: file_lines(path))
    assert file_text(path, encoding="latin-1") == "ok\nä\n"
    assert "line 2: expected text in ascii" in line_of(lambda: file_text(path, encoding="ascii"))
    assert "got 'klingon'" in line_of(lambda: file_text(path, encoding="klingon"))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, "nul", '{"a": "\ud800"}'.encode("utf-8", "replace")],
)
def test_json_that_cannot_be_read(text: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if isinstance(text, bytes):
        assert file_json(path) == {"a": "?"}
    else:
        assert "expected JSON" in line_of(lambda: file_json(path))
        assert len(line_of(lambda: json_value(text, "row 3"))) < 150
    path.write_bytes('{"a": 1}'.encode("utf-16"))
    assert "expected UTF-8" in line_of(lambda: file_json(path))


def test_numbers() -> None:
    assert [finite(value) for value in (1, 2.5, "3e2", " 4 ", -1)] == [1, 2.5, 300, 4, -1]
    nothing = ["", "a", None, True, [], float("nan"), "inf", 1e39, "1e39", 10**400, "9" * 5000, b"1"]
    assert [finite(value) for value in nothing] == [None] * len(nothing)


def test_suffixes_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "a.b.JPG").touch()
    assert first_with_suffix(tmp_path / "a.b", (".png", ".jpg")) == tmp_path / "a.b.JPG"
    assert first_with_suffix(tmp_path / "a", (".png", ".jpg")) is None
    (tmp_path / "a.png").symlink_to("nowhere")
    assert "leads nowhere" in line_of(lambda: first_with_suffix(tmp_path / "a", (".png", ".jpg")))


def test_what_is_left_out_is_told_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for _ in range(2):
        tell_left_out(tmp_path / "a\nb", {"boxes without area left out": 2, "others": 0, "names cut": 1})
    tell_left_out(tmp_path, {"others": 0})
    assert capsys.readouterr().err == f"{tmp_path}/a\\nb: 2 boxes without area left out, 1 names cut\n"
