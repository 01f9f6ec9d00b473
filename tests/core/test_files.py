import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes.core.errors import InputError
from recipes.core.files import require_writable, write_folder, write_whole

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0  # who may write everywhere


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("before")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(InputError, match=r"file\.txt: could not be written \(disk full\)"):
        write_whole(target, fail)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def writes(text: str) -> dict:
    return {name: lambda path: path.write_text(text) for name in ("a", "b", "c")}


def content(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.iterdir() if path.name in "abc"}


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", writes("first"))
    (tmp_path / "out" / "mine").write_text("mine")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(InputError, match=r"out: could not be written \(disk full\)"):
        write_folder(tmp_path / "out", writes("second") | {"c": fail})
    assert content(tmp_path / "out") == {"first"}
    write_folder(tmp_path / "out", writes("second"))
    assert content(tmp_path / "out") == {"second"}
    assert (tmp_path / "out" / "mine").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


KILLED = """
import sys, time
sys.path[:0] = [{root!r}]
from pathlib import Path
from recipes.core.files import write_folder
def write(path):
    print(path.name, flush=True)
    path.write_text("second")
    time.sleep(0.5)
write_folder(Path({folder!r}), dict.fromkeys("abc", write))
"""


def test_killed_while_writing_what_stood_there_still_stands(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", writes("first"))
    script = KILLED.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path / "out"))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "a\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert content(tmp_path / "out") == {"first"}
    assert len(list(tmp_path.iterdir())) == 2
    write_folder(tmp_path / "out", writes("third"))  # which removes what the killed one left
    assert content(tmp_path / "out") == {"third"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    for folder in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(InputError, match=r"could not be written \(it is a file, expected a folder\)"):
            require_writable(folder)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        require_writable(tmp_path / "out" / "unet")


def test_nothing_is_left_by_asking(tmp_path: Path) -> None:
    require_writable(tmp_path / "out" / "unet")
    assert not list(tmp_path.iterdir())
