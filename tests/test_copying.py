import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import recipes
from recipes.copying import (
    Part,
    Source,
    copy,
    defined_names,
    gather,
    notebook,
    stand_alone,
    used_names,
    without_evidence,
)
from recipes.core.errors import InputError

NAME = "vision.classification"


def test_copy_holds_only_what_is_used() -> None:
    text, data = stand_alone(NAME)
    defined = {node.name for node in ast.parse(text).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert {"SmallCNN", "Loop", "open_images", "bundled", "main"} <= defined
    assert not {"interleaved", "open_texts", "Boxes", "Claim", "claims", "figure", "shard", "save"} & defined
    assert not {"linear_classifier", "least_squares"} & defined, "the baseline stays in the library"
    assert data == {"digits"}


def test_full_copy_holds_the_engine_and_the_evidence() -> None:
    text, _ = stand_alone(NAME, full=True)
    defined = {node.name for node in ast.parse(text).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert {"SmallCNN", "Loop", "open_images", "Claim", "claims", "figure", "shard", "read_idx"} <= defined
    assert "linear_classifier" in defined


def test_full_copy_runs_alone(tmp_path: Path) -> None:
    target = copy(NAME, tmp_path / "recipe.py", full=True)[0]
    words = ["--epochs=1", "--device=cpu", "--json", "--out=out"]
    command = [sys.executable, "-I", target.name, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    mine = recipes.run(NAME, epochs=1, device="cpu")
    assert json.loads(done.stdout)["metrics"] == mine.metrics
    assert {"model.json", "model.safetensors"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_copy_keeps_comments_and_the_lesson_to_the_letter() -> None:
    text, _ = stand_alone(NAME)
    source = recipes.catalog.find(NAME).source
    assert source[source.index("class SmallCNN") : source.index("\n\n\n@recipe(")] in text


def test_a_rival_that_is_only_measured_is_not_trained() -> None:
    text = """def run(options):
    train_set, rest = open_images(options.data)
    model, rival = build(), build(2)
    small = build(1)
    loop = train(model, train_set)
    train(small, train_set, lr=1)
    scores = measure(small)
    return Result(
        metrics=evaluate(model),
        baseline=scores
        | {
            "bytes": size(small),
        },
        bars={"accuracy": 1},
        history=loop.history,
    )"""
    counted, run = "def measure(model):\n    return size(model)", "def size(model):\n    return 1"
    parts = [
        Part(one, defined_names(ast.parse(one).body[0]), used_names(ast.parse(one))) for one in (counted, run, text)
    ]
    (kept,) = without_evidence(parts)
    body = ast.unparse(ast.parse(kept.text).body[0])
    assert "small" not in body
    assert "baseline" not in body
    assert "model, rival = (build(), build(2))" in body, "one of them is read"
    assert "return Result(metrics=evaluate(model), history=loop.history)" in body


def test_copies_need_no_name_that_they_lack(tmp_path: Path) -> None:
    for name in recipes.names():
        (tmp_path / f"{name}.py").write_text(stand_alone(name)[0], "utf-8")
        (tmp_path / f"{name}.full.py").write_text(stand_alone(name, full=True)[0], "utf-8")
    script = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,E9", "--output-format", "concise"]
    done = subprocess.run([*script, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "format", "opener"),
    [
        ("vision.segmentation.unet", "voc", "scenes_voc"),
        ("nlp.text_classification.text_cnn", "tsv", "texts_tsv"),
        ("compression.distillation", "folders", "images_folders"),
        ("nlp.bert.sentiment", "jsonl", "texts_jsonl"),
    ],
)
def test_a_format_of_the_data_that_the_recipe_opens(name: str, format: str, opener: str) -> None:
    """Modules on the way may open other kinds of data, which do not know the format."""
    text, data = stand_alone(name, format=format)
    source = Path(recipes.__file__).parent / "datasets" / "plain" / f"{opener}.py"
    functions = [line for line in source.read_text("utf-8").splitlines() if line.startswith("def open_")]
    assert any(one in text for one in functions)
    assert data == set()
    with pytest.raises(InputError, match=f"option format: expected one of .*{format}.*, got 'wav'"):
        stand_alone(name, format="wav")


NOTEBOOKS = ["nlp.bert", "training.optimizers", "vision.detection.ssd", "vision.segmentation.unet"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_of_all_kinds_run_to_their_figure(name: str, tmp_path: Path) -> None:
    content = json.loads(copy(name, tmp_path / "recipe.ipynb")[0].read_text("utf-8"))
    cells = ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]
    assert cells[-1] == "figure(result)"
    script = (
        "import sys\n" + "\n".join(cells).replace("run()", "run(steps=3, device='cpu')") + ".savefig('figure.png')\n"
    )
    (tmp_path / "cells.py").write_text(script, "utf-8")
    done = subprocess.run([sys.executable, "cells.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figure.png").stat().st_size > 5_000


def test_another_format(tmp_path: Path) -> None:
    """The opener is the one for that format, and no bundled data are put beside the copy."""
    text, data = stand_alone(NAME, format="folders")
    assert "idx3" not in text
    assert data == set()
    (tmp_path / "lean.py").write_text(text, "utf-8")
    for words, message in (([], "required: --data"), (["--data", "no/where"], "no/where")):
        done = subprocess.run([sys.executable, "lean.py", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    (tmp_path / "lean.py").unlink()
    assert 'run(data=\\"path/to/your/data\\")' in notebook(NAME, "lean.ipynb", format="folders")[0]
    with pytest.raises(InputError, match="option format: expected one of folders, idx, got 'tfrecord'"):
        copy(NAME, tmp_path / "recipe.py", format="tfrecord")
    with pytest.raises(InputError, match="option format: a full copy opens every format"):
        copy(NAME, tmp_path / "recipe.py", format="folders", full=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", recipes.names())
def test_notebook_cells_are_the_recipe(name: str, tmp_path: Path) -> None:
    target = copy(name, tmp_path / "recipe.ipynb")[0]
    content = json.loads(target.read_text("utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), target.name, "exec")
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])


@pytest.mark.xdist_group(NAME)
def test_notebook_is_a_lesson_and_shows_its_picture(tmp_path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    target = copy(NAME, tmp_path / "recipe.ipynb")[0]
    notebook = nbformat.read(target, as_version=4)
    headings = [cell.source.partition("\n")[0] for cell in notebook.cells if cell.cell_type == "markdown"]
    assert headings[0] == "# Image classification with a small convolutional network"
    assert {"## SmallCNN", "## train", "## Run it", "## Look at it"} <= set(headings)
    folded = [cell for cell in notebook.cells if cell.metadata.get("jupyter", {}).get("source_hidden")]
    assert len(folded) == 1
    assert "class Loop" in folded[0].source
    for cell in notebook.cells:
        cell.source = cell.source.replace("run()", "run(epochs=1, device='cpu')")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="could not be written"):
        copy(NAME, tmp_path / "file" / "recipe.py")


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    target = tmp_path / "mine.py"
    target.write_text("mine")
    with pytest.raises(InputError, match=r"mine\.py: is there already"):
        copy(NAME, target)
    assert target.read_text() == "mine"
    assert not (tmp_path / "data").exists()
    copy(NAME, target, force=True)
    assert "SmallCNN" in target.read_text()
    copy(NAME, tmp_path / "second.py")  # shares the data that is there, unchanged
    (tmp_path / "data" / "digits" / "train-labels-idx1-ubyte").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"digits: is there already, with other content"):
        copy(NAME, tmp_path / "third.py")
    assert not (tmp_path / "third.py").exists()


@pytest.mark.parametrize("target", ["recipe.txt", "recipe"])
def test_other_endings(tmp_path: Path, target: str) -> None:
    with pytest.raises(InputError, match=r"expected a file that ends in \.py or \.ipynb"):
        copy(NAME, tmp_path / target)


def test_two_definitions_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "clash.py"
    path.write_text('"""T."""\nfrom recipes.core.loop import Loop\n\n\ndef shard_of(): ...\n\n\ndef run():\n    Loop\n')
    gather(Source("clash", path))
    path.write_text(path.read_text().replace("shard_of", "map_tensors"))  # which Loop needs
    with pytest.raises(ValueError, match="map_tensors is defined in both"):
        gather(Source("clash", path))


def test_renamed_imports_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "renamed.py"
    path.write_text("from recipes.core.loop import Loop as Other\n\n\ndef run():\n    Other\n")
    with pytest.raises(ValueError, match="must be imported by its own name"):
        gather(Source("renamed", path))
