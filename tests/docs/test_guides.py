"""What the guides tell to type runs."""

import csv
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from docs.texts import HERE, ROOT

REVIEWS = ROOT / "data" / "reviews" / "train.csv"


def blocks(guide: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (HERE / f"{guide}.md").read_text("utf-8"), flags=re.DOTALL)


def typed(words: list[str], folder: Path, text: str = "") -> None:
    done = subprocess.run(
        [sys.executable, "-m", "recipes", *words],
        cwd=folder,
        input=text,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, f"{words}: {done.stderr[-500:]}"


def test_the_example_of_a_recipe_runs(tmp_path: Path) -> None:
    (example,) = [block for block in blocks("adding", "python") if "@recipe" in block]
    (tmp_path / "hidden_layer.py").write_text(example)
    words = [sys.executable, "hidden_layer.py", "--device", "cpu", "--out", "out"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, text=True, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr[-500:]
    assert "DOES NOT HOLD" not in done.stdout
    assert (tmp_path / "out" / "figure.png").exists()


@pytest.mark.slow
def test_the_commands_for_texts_run(tmp_path: Path) -> None:
    with REVIEWS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[:121]
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    text = written.getvalue()
    (tmp_path / "reviews.csv").write_text(text)
    (tmp_path / "odd.csv").write_text(
        text.replace("text,label", "comment,stars", 1).replace("label,text", "stars,comment", 1)
    )
    (tmp_path / "new.txt").write_text("I liked it.\nI did not.\n")
    lines = (ROOT / "data" / "reviews_zh" / "train.csv").read_text("utf-8")
    (tmp_path / "pinglun_gbk.csv").write_text(lines, "gbk")
    commands = [
        line for block in blocks("texts_guide", "bash") for line in block.splitlines() if line[:8] == "recipes "
    ]
    assert len(commands) >= 8
    for line in commands:
        words = shlex.split(line.partition("   #")[0].replace("< new.txt", ""))[1:]
        if words[0] == "run":
            words += ["--epochs", "1", "--no-claims", "--device", "cpu"]
        typed(words, tmp_path, (tmp_path / "new.txt").read_text("utf-8") if "-" in words else "")
