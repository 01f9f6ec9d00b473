"""Ctrl-C, and SIGTERM as Slurm and Kubernetes send it: the step is finished first, and saved."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def interrupts_noted(wanted: bool) -> Iterator[list[int]]:
    """Puts the first interrupt into a list, so that a step can be finished; the second one acts as ever."""
    noted: list[int] = []
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield noted  # torchrun ends its processes itself; only the main thread may listen
        return

    def note(number: int, _frame: object) -> None:
        noted.append(number)
        restore()

    def restore() -> None:
        for one, handler in usual.items():
            signal.signal(one, handler)

    usual = {one: signal.signal(one, note) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        restore()
