"""A large file of one's own: a CSV of a million rows and 300 MB, until the first training step is done.

The file is written into a temporary folder: words of random letters, some common and most rare, 44 in a text. The
command runs in a process of its own, which ends after the first step; its start and its imports count.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.row import table

ROWS, WORDS_IN_A_TEXT, DIFFERENT_WORDS = 1_000_000, 44, 120_000
GOAL_SECONDS, GOAL_GIGABYTES = 30, 1.5

UNTIL_THE_FIRST_STEP = """
import json, os, resource, sys, time
from recipes.core.loop import Loop

step = Loop.step
def first(loop, loss):
    step(loop, loss)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"processor": time.process_time(), "bytes": used.ru_maxrss * 1024}), flush=True)
    os._exit(0)
Loop.step = first

from recipes.nlp import text_classification
text_classification.run(data=sys.argv[1], claims=False)
"""


def write_texts(path: Path) -> None:
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    drawn = {"".join(random.choice(letters, random.integers(2, 10))) for _ in range(DIFFERENT_WORDS)}
    words = np.array(sorted(drawn), dtype=object)
    shares = 1 / np.arange(1, len(words) + 1) ** 0.9
    shares = shares.cumsum() / shares.sum()
    with path.open("w") as file:
        file.write("text,label\n")
        for _ in range(ROWS // 10_000):
            chosen = np.searchsorted(shares, random.random((10_000, WORDS_IN_A_TEXT))).clip(max=len(words) - 1)
            for text, label in zip(words[chosen], random.integers(0, 2, 10_000), strict=True):
                file.write(f'"{" ".join(text)}, and so on.",{("negative", "positive")[label]}\n')


def section() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.csv"
        write_texts(path)
        size = path.stat().st_size
        started = time.perf_counter()
        command = [sys.executable, "-c", UNTIL_THE_FIRST_STEP, str(path)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        seconds = time.perf_counter() - started
    row = [f"CSV of {ROWS:,} rows, {size / 1e6:.0f} MB", "`nlp.text_classification`", f"{seconds:.0f} s"]
    row += [f"{told['processor']:.0f} s", f"{told['bytes'] / 1e9:.2f} GB", f"≤ {GOAL_SECONDS} s, {GOAL_GIGABYTES} GB"]
    header = ["data", "recipe", "to the first step", "processor time", "memory", "goal"]
    return f"""## Large data

From the start of the process to the end of the first training step, and the most memory it held on the way.

{table(header, [row])}"""
