"""Large data of one's own: a CSV of a million rows, until the first training step is done; 20,000 pictures, opened.

The CSV is written into a temporary folder: words of random letters, some common and most rare, 44 in a text. The
command runs in a process of its own, which ends after the first step; its start and its imports count. The pictures
are 28 pixels a side, a folder a class; of their process the opening alone counts, and the memory that it adds.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.row import table

ROWS, WORDS_IN_A_TEXT, DIFFERENT_WORDS = 1_000_000, 44, 120_000
GOAL_SECONDS, GOAL_GIGABYTES = 30, 1.5
PICTURES, CLASSES, SIDE = 20_000, 10, 28
GOAL_OPENED, GOAL_MEGABYTES = 3, 100

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


OPENED = """
import json, resource, sys, time
from recipes.datasets.images import open_images
from recipes.datasets import pictures

used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, started = used(), time.perf_counter()
open_images(sys.argv[1])
print(json.dumps({"seconds": time.perf_counter() - started, "bytes": used() - before}))
"""


def write_pictures(folder: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        if number < CLASSES:
            (folder / f"{number}").mkdir(parents=True)
        pixels = random.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number % CLASSES}" / f"{number}.png")


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
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder))
        done = subprocess.run([sys.executable, "-c", OPENED, folder], check=True, capture_output=True, text=True)
    opened = json.loads(done.stdout)
    pictures = [f"{PICTURES:,} PNG files, {SIDE}×{SIDE} pixels", f"{opened['seconds']:.1f} s"]
    pictures += [f"{opened['bytes'] / 1e6:.0f} MB", f"≤ {GOAL_OPENED} s, {GOAL_MEGABYTES} MB"]
    return f"""## Large data

From the start of the process to the end of the first training step, and the most memory it held on the way.

{table(header, [row])}

Pictures in class folders, from the call of `open_images` to its end, and the memory that it took.

{table(["data", "opened in", "memory", "goal"], [pictures])}"""
