"""`recipes list` against `python -c "import torch"`, as whole processes."""

import subprocess
import sys
import time

from benchmarks.row import Row


def seconds(*words: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(rounds: int = 7) -> list[Row]:
    ours, theirs = ("-m", "recipes", "list"), ("-c", "import torch")
    seconds(*ours), seconds(*theirs)
    ratios = [seconds(*ours) / seconds(*theirs) for _ in range(rounds)]
    return [Row("`recipes list`", '`python -c "import torch"`', ratios, "≤ 0.125")]
