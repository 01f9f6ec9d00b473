"""Writing files so that a reader never sees half of one."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from recipes.core.errors import InputError


def own_path(path: str | os.PathLike[str]) -> Path:
    """The path that a user gives, `~` expanded.

    Raises:
        InputError: `~nobody` is no user here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: no such user") from None


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a path beside `path`, then puts the finished file in place in one step.

    A crash, a full disk or a kill on the way leaves what was at `path` before.

    Raises:
        InputError: the folder cannot be made, or the file not be written.
    """
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(unfinished)
        sync(unfinished)
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
        raise unwritable(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Removes what killed processes left of `write_whole` beside `path`."""
    with contextlib.suppress(OSError):
        for left in path.parent.glob(f".{glob_escape(path.stem)}.*{path.suffix}"):
            process = left.name.removeprefix(f".{path.stem}.").removesuffix(path.suffix)
            if process.isdecimal() and not is_running(int(process)):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def glob_escape(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def is_running(process: int) -> bool:
    if os.name == "nt":
        return process == os.getpid()
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def require_writable(folder: Path) -> None:
    """Whether files can be written into `folder`, before any work is done for them; nothing is left there.

    Raises:
        InputError: they cannot, and why.
    """
    nearest = folder
    try:
        while not nearest.exists() and nearest.parent != nearest:
            nearest = nearest.parent
        if folder.is_symlink() and not folder.exists():
            raise NotADirectoryError(0, "a link that leads nowhere")
        if not nearest.is_dir():
            raise NotADirectoryError(0, "it is a file, expected a folder")
        with tempfile.NamedTemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise unwritable(folder, error) from None


def write_folder(folder: Path, files: dict[str, Callable[[Path], object]]) -> None:
    """Writes these files into `folder`: all of them, or none.

    They are made whole in a folder beside it first, so that a full disk or a kill leaves what stood there. A new
    folder appears in one step; in one that is there the files are replaced one after the other, the last one last.

    Raises:
        InputError: the folder cannot be made, or a file not be written.
    """
    folder = folder.absolute()  # "." has no name
    beside = folder.with_name(f".{folder.stem}.{os.getpid()}{folder.suffix}")
    try:
        remove_unfinished(folder)
        beside.mkdir(parents=True)
        for name, write in files.items():
            write(beside / name)
            (beside / name).chmod(0o666 & ~umask())
            sync(beside / name)
        if not folder.exists():
            os.rename(beside, folder)
        else:
            for name in files:
                os.replace(beside / name, folder / name)
    except (OSError, RuntimeError) as error:
        raise unwritable(folder, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def umask() -> int:
    """What this process takes away from the rights of new files; some writers make theirs private."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync(path: Path) -> None:
    with path.open("rb+") as file:  # Windows syncs only what is open for writing
        os.fsync(file.fileno())


def unwritable(path: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return InputError(f"{path}: could not be written ({reason})")
