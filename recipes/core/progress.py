"""What a terminal shows while a recipe works; nothing where nobody watches."""

import sys
import time
from typing import Any

from recipes.core.device import rank_and_world


def watched() -> bool:
    return sys.stderr.isatty() and rank_and_world()[0] == 0


def announce(text: str) -> None:
    """A word on the terminal about what begins now."""
    if watched():
        print(text, file=sys.stderr, flush=True)


class Progress:
    """A bar of a training's steps: time left, the loss, and the last held-out metric."""

    def __init__(self, name: str, total: int, done: int) -> None:
        self.bar: Any = None
        if watched():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[told]}"),
            )
            self.bar = Bar(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
            self.bar.start()
            self.task = self.bar.add_task(name, total=total, completed=done, told="")
        self.shown, self.metric = 0.0, ""

    def update(self, steps: int, loss: float) -> None:
        if self.bar is not None and time.perf_counter() - self.shown > 0.2:
            self.shown = time.perf_counter()
            self.bar.update(self.task, completed=steps, told=f"loss {loss:.4g}{self.metric}", refresh=True)

    def held_out(self, metrics: dict[str, float]) -> None:
        name, value = next(iter(metrics.items()), ("", 0.0))
        self.metric = f", held-out {name} {value:.4g}" if name else ""

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
