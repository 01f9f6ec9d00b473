"""What holds for every recipe there is: each is found by reading the source tree, so none escapes."""

import ast
import inspect
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import recipes
from recipes.catalog import entries, find
from recipes.copying import copy
from recipes.core.command_line import option_sentences
from recipes.core.result import Result
from recipes.core.task import whole_weights
from recipes.datasets.bundled import bundled
from tests.little_data import little_data

NAMES = recipes.names()
SHARED = {"data": None, "device": "auto", "seed": 0, "out": None}
every_recipe = pytest.mark.parametrize("name", NAMES)


def shortened(name: str) -> dict[str, int]:
    """Options for a run that only has to go through, not to learn."""
    least = dict.fromkeys(("epochs", "seeds", "repeats", "trainings", "workers"), 1) | {"libraries": False}
    return {key: value for key, value in least.items() if key in find(name).options}


@every_recipe
def test_contract(name: str) -> None:
    entry = find(name)
    run = recipes.load(name).run
    parameters = inspect.signature(run).parameters
    options = {key: one for key, one in parameters.items() if one.kind is not one.VAR_KEYWORD}
    assert all(one.kind is one.KEYWORD_ONLY for one in options.values())
    assert all(one.annotation is not one.empty and one.default is not one.empty for one in options.values())
    assert {key: options[key].default for key in SHARED if key in options} == {
        key: value for key, value in SHARED.items() if key in options
    }
    assert {"data", "seed", "out"} <= set(options)
    assert set(option_sentences(run.__doc__)) >= set(options), "every option has a sentence"
    assert entry.title
    assert len(entry.title) < 100
    assert "\nData:" in entry.docstring
    assert len(entry.source.splitlines()) <= 300
    assert ast.unparse(ast.parse(entry.source).body[-1]) == "if __name__ == '__main__':\n    main(run)"


def test_imports_nothing_heavy() -> None:
    """A demo that trains for seconds must not import for longer: heavy packages are imported where used."""
    script = "import recipes, sys\nfor name in recipes.names(): recipes.load(name); print(name, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"torchvision", "timm", "transformers", "tokenizers", "sklearn", "skimage", "matplotlib", "pycocotools"}
    heavy |= {"torchao", "torch_pruning", "torchmetrics", "sacrebleu", "rouge_score", "nltk", "torchtext", "requests"}
    for line in done.stdout.splitlines():
        name, *loaded = line.split()
        assert not heavy & set(loaded), f"{name} imports {heavy & set(loaded)} before it must"


@every_recipe
def test_learned(name: str, default_run: Callable[[str], Result]) -> None:
    """The bar and the baseline, on held-out data, by the default run."""
    result = default_run(name)
    assert result.shortfalls() == []
    first = next(iter(result.metrics))
    assert first in result.baseline, "a plain baseline of the same metric"
    assert first in result.bars, "a bar"
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert result.claims


@every_recipe
def test_result_prints_and_turns_into_json_and_a_figure(name: str, default_run: Callable[[str], Result]) -> None:
    result = default_run(name)
    content = json.loads(result.to_json())
    assert content["recipe"] == name
    assert content["title"] == find(name).title
    assert set(content["versions"]) >= {"python", "torch"}
    assert {"text", "measured", "expected", "holds"} == set(content["claims"][0])
    assert name in str(result)
    figure = result.figure()
    assert figure.axes


@pytest.fixture(scope="session")
def little(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a part of the bundled data, in the place of an installed package's."""
    folder = tmp_path_factory.mktemp("little")
    little_data(bundled("digits").parent, folder / "data")
    return folder


@every_recipe
def test_copy_runs_alone_and_gives_the_same_to_the_bit(
    name: str, tmp_path: Path, little: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same seed in another process, by the copied file: the same metrics and the same weights."""
    if name != "training.distributed":  # its processes look for the data themselves
        monkeypatch.setattr("recipes.datasets.bundled.__file__", str(little / "recipes" / "bundled.py"))
    options = shortened(name)
    mine = recipes.run(name, device="cpu", seed=1, **options)
    target = copy(name, tmp_path / "alone" / "recipe.py")[0]
    for node in ast.walk(ast.parse(target.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not any(module.partition(".")[0] == "recipes" for module in modules)
    given = {**options, "device": "cpu", "seed": mine.seed, "out": "out"}
    words = [f"--no-{key}" if value is False else f"--{key}={value}" for key, value in given.items()]
    command = [sys.executable, "-I", target.name, "--json", *words]
    threads = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=target.parent, capture_output=True, text=True, timeout=500, env=threads)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout)
    assert theirs["metrics"].keys() == mine.metrics.keys()
    for key in mine.metrics.keys() - {"latency_ratio"}:
        assert theirs["metrics"][key] == mine.metrics[key], key
    if isinstance(mine.model, torch.nn.Module):
        saved = load_file(target.parent / "out" / "model.safetensors")
        whole = whole_weights(mine.model)
        assert saved.keys() == whole.keys()
        for key, value in whole.items():
            assert torch.equal(saved[key], value), key


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
@every_recipe
def test_learned_on_cuda(name: str) -> None:
    result = recipes.run(name, device="cuda")
    assert result.shortfalls() == []


def test_every_module_of_a_family_is_a_recipe_or_has_no_run() -> None:
    """The catalogue and the source tree agree: a `run` that is not found would never be tested."""
    listed = {entry.path for entry in entries()}
    for family in ("training", "vision", "nlp", "audio", "compression"):
        for path in (Path(recipes.__file__).parent / family).rglob("*.py"):
            runs = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", "") == "run"]
            assert bool(runs) == (path in listed), path
