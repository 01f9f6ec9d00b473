"""Writing files so that a reader never sees half of one."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from recipes.core.errors import InputError


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
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"{path}: could not be written ({reason})") from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
