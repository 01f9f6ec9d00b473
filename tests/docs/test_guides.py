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
from PIL import Image

from docs.texts import HERE, ROOT, with_links
from recipes.datasets.images import open_images
from recipes.datasets.tiny import write_tiny
from tests.forking import run_file

REVIEWS = ROOT / "data" / "reviews" / "train.csv"


def blocks(guide: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (HERE / f"{guide}.md").read_text("utf-8"), flags=re.DOTALL)


def commands_of(guide: str) -> list[list[str]]:
    """The words of each command line of a guide, without comments."""
    lines = "\n".join(blocks(guide, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


IMPORTED = ("torch", "torchvision", "timm", "matplotlib.figure", "sklearn.svm")
TYPED = """
import sys
from recipes.cli import main
sys.stdin = open("stdin.txt", encoding="utf-8")
main()
"""


def typed(words: list[str], folder: Path, text: str = "") -> None:
    """What a command line of recipes does, in a process that has the slow imports behind it."""
    (folder / "typed.py").write_text(TYPED)
    (folder / "stdin.txt").write_text(text, "utf-8")
    status, printed = run_file(["typed.py", *words], folder, IMPORTED, {})
    assert status == 0, f"{words}: {printed[-500:]}"


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
    commands = [words[1:] for words in commands_of("texts_guide") if words[0] == "recipes"]
    assert len(commands) >= 8
    for words in commands:
        if "<" in words:
            del words[words.index("<") :]
        if words[0] == "run":
            words += ["--epochs", "1", "--no-claims", "--device", "cpu"]
        typed(words, tmp_path, (tmp_path / "new.txt").read_text("utf-8") if "-" in words else "")


def test_addresses_are_links_without_what_ends_a_clause() -> None:
    text = with_links(
        "https://a.org/x_1; later (https://b.org/2), <https://c.org>, [d](https://d.org), https://e.org/3."
    )
    assert text == (
        "<https://a.org/x_1>; later (<https://b.org/2>), <https://c.org>, [d](https://d.org), <https://e.org/3>."
    )


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first part of the bundled data; and of the digits, some as files in a folder a class."""
    folder = tmp_path_factory.mktemp("few")
    write_tiny(ROOT / "data", folder)
    digits, _ = open_images(folder / "digits")
    for number in range(30):
        label = int(digits.labels[number])
        if label < 3:
            path = folder / "folders" / digits.classes[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.images[number, 0].numpy()).save(path)
    return folder


@pytest.mark.slow
def test_the_commands_for_photographs_run(few: Path, tmp_path: Path) -> None:
    """On small pictures and for two steps; the backbone and its weights are the guide's, torchvision's are random."""
    given = {"path/to/photos": few / "scenes", "path/to/folders": few / "folders"}
    given |= dict.fromkeys(["path/to/ssdlite.pth", "path/to/deeplab.pth"], "none")
    runs = [words for words in commands_of("photographs") if words[:2] == ["recipes", "run"]]
    assert len(runs) >= 6
    for words in runs:
        words = [str(given.get(word, word)) for word in words[1:]]
        if "--steps" in words:
            at = words.index("--steps")
            del words[at : at + 2]
        typed([*words, "--steps", "2", "--no-claims", "--device", "cpu"], tmp_path)


@pytest.mark.slow
def test_the_commands_for_more_machines_run(few: Path, tmp_path: Path) -> None:
    """On two processes where the guide has eight, and on one machine where it has four; bench has tests of its own."""
    given = {"path/to/photos": few / "folders", "path/to/texts": few / "python_reference"}
    given |= {"/shared/texts": given["path/to/texts"], "8": "2", "4": "1", "node0:29500": "localhost:0"}
    commands = [words for words in commands_of("scaling") if words[:2] != ["recipes", "bench"]]
    assert len(commands) >= 6
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RECIPES_DATA": str(few), "OMP_NUM_THREADS": "1"}
    for number, words in enumerate(commands):
        words = [str(given.get(word, word)) for word in words]
        torchrun = words[0] == "torchrun"
        start = [sys.executable, "-m", *(["torch.distributed.run"] if torchrun else ["recipes"])]
        if "--checkpoint" in words:
            words[words.index("--checkpoint") + 1] = f"training{number}"
        words += ["--steps", "2", "--no-claims", "--device", "cpu"]
        done = subprocess.run([*start, *words[1:]], cwd=tmp_path, text=True, capture_output=True, env=environment)
        assert done.returncode == 0, f"{words}: {done.stderr[-800:]}"
