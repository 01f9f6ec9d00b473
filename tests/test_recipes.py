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
from typing import Any

import pytest
import torch

import recipes
from recipes.catalog import entries, find, titles_zh
from recipes.copying import copy, stand_alone
from recipes.core.command_line import option_sentences
from recipes.core.options import field_metadata
from recipes.core.result import Result
from recipes.core.task import whole_weights
from recipes.datasets.bundled import bundled
from recipes.datasets.tiny import write_tiny
from recipes.proving import learns_by_gradient, null_run
from recipes.smoke import shortened
from tests.conftest import RESULTS, measures_claims
from tests.forking import run_file

NAMES = recipes.names()
SHARED = {"data": None, "device": "auto", "seed": 0, "out": None}
every_recipe = pytest.mark.parametrize("name", NAMES)
TRAINED = [name for name in NAMES if learns_by_gradient(name)]


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
    assert len(entry.source.splitlines()) <= 280
    assert ast.unparse(ast.parse(entry.source).body[-1]) == "if __name__ == '__main__':\n    main(run)"


@every_recipe
def test_lesson_and_evidence(name: str) -> None:
    recipe = recipes.load(name).run.recipe
    assert lesson_length(name) <= 220
    assert recipe.claims is not None
    assert recipe.figure is not None
    assert all(one.get("help") for key, one in field_metadata(recipe.options).items() if key != "variant")


def lesson_length(name: str) -> int:
    """Lines above the claims, which a learner reads."""
    lines = find(name).source.splitlines()
    return next(number for number, line in enumerate(lines) if line.startswith("@run.claims"))


def test_copies_are_kept() -> None:
    lengths = {name: len(stand_alone(name)[0].splitlines()) for name in NAMES}
    assert max(lengths.values()) <= 600, lengths


def test_every_recipe_has_its_title_in_chinese() -> None:
    assert titles_zh().keys() == set(NAMES)


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


@every_recipe
def test_claims(name: str, proved_run: Callable[[str], Result]) -> None:
    """Each of them holds, and the table and the figure take in what was compared."""
    result = proved_run(name)
    assert result.claims
    assert [claim.text for claim in result.claims if not claim.holds] == []
    content = json.loads(result.to_json())
    assert {"text", "measured", "expected", "holds", "kind", "margin", "verdict"} == set(content["claims"][0])
    assert all(label in str(result) for label in result.runs)
    assert result.figure().axes


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_null_run(name: str) -> None:
    """At a learning rate of 1e-9 nothing is learned in any epoch: no bar is met, and no learned claim holds."""
    if os.environ.get("RECIPES_CLAIMS") == "due" and not measures_claims(name):
        pytest.skip("as proved by this code")
    found = null_run(name)
    assert found["missed"]
    assert found["held"] == []


@every_recipe
def test_result_prints_and_turns_into_json_and_a_figure(name: str, default_run: Callable[[str], Result]) -> None:
    result = default_run(name)
    content = json.loads(result.to_json())
    assert content["recipe"] == name
    assert content["title"] == find(name).title
    assert set(content["versions"]) >= {"python", "torch"}
    assert name in str(result)
    panels = result.figure().axes
    assert panels
    assert all(axes.has_data() or axes.texts or not axes.axison for axes in panels), "without claims, too"
    lines = [line for axes in panels if axes.get_legend() and not axes.texts for line in axes.lines]
    assert all(len(line.get_xdata()) for line in lines), "a legend names nothing that is not there"


@pytest.fixture(scope="session")
def little(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a part of the bundled data, in the place of an installed package's."""
    folder = tmp_path_factory.mktemp("little")
    write_tiny(bundled("digits").parent, folder)
    return folder


# One or two of each family and kind of frame; the others' copies are made by the slow tests.
PATTERNS = {
    "audio.augmentation",
    "compression.distillation",
    "nlp.bert.named_entities",
    "nlp.language_model",
    "nlp.text_classification.text_cnn",
    "training.optimizers",
    "vision.classification",
    "vision.classification.resnet",
    "vision.detection.ssd",
    "vision.segmentation.unet",
    "vision.tracking",
}
copied = [pytest.param(name, marks=() if name in PATTERNS else pytest.mark.slow) for name in NAMES]
OUTSIDE = ("torch", "torchvision", "sklearn.svm", "transformers", "torch.distributed.fsdp", "matplotlib.figure")


@pytest.mark.parametrize("name", copied)
def test_copy_runs_alone_and_gives_the_same_to_the_bit(
    name: str, tmp_path: Path, little: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same seed in another process, by the copied file: the same weights, and metrics where told."""
    monkeypatch.setenv("RECIPES_DATA", str(little))
    options = shortened(name)
    mine = recipes.run(name, device="cpu", seed=1, **options)
    target = copy(name, tmp_path / "alone" / "recipe.py")[0]
    for node in ast.walk(ast.parse(target.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not any(module.partition(".")[0] == "recipes" for module in modules)
    options.pop("claims", None)
    given = {**options, "device": "cpu", "seed": 1, "out": "out.pt"}
    words = [f"--no-{key}" if value is False else f"--{key}={value}" for key, value in given.items()]
    status, printed = run_file([target.name, *words], target.parent, OUTSIDE, {"RECIPES_DATA": str(little)})
    assert status == 0, printed[-2000:]
    assert "this recipe:" in printed
    saved = torch.load(target.parent / "out.pt", weights_only=True)
    for key, value in whole_weights(mine.model).items():
        assert torch.equal(saved[key], value), key


INSIDE = ("recipes.using", "torch.onnx", "torch.export", "onnxscript", "onnxruntime")
USED = """
import sys
import torch
import recipes
folder = sys.argv[1]
trained = recipes.trained(folder, device="cpu")
with torch.inference_mode():
    outputs = trained.task.to_export(trained.model)(*trained.task.example)
torch.save([outputs], folder + "/outputs.pt")
for file in ("model.onnx", "model.pt2"):
    trained.export(folder + "/" + file)
"""


def used() -> list[str]:
    """Recipes whose trained model can be opened again."""
    return [name for name in NAMES if recipes.load(name).run.recipe.task is not None]


@pytest.mark.slow
@pytest.mark.parametrize("name", used())
def test_the_model_is_used_in_another_process(
    name: str, tmp_path: Path, little: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened without the training data, it gives what the model in memory gives, and exports."""
    monkeypatch.setenv("RECIPES_DATA", str(little))
    mine = recipes.run(name, device="cpu", seed=1, out=str(tmp_path / "out"), **shortened(name))
    assert mine.task is not None
    with torch.inference_mode():
        expected = flat(mine.task.to_export(mine.model.eval())(*mine.task.example))
    (tmp_path / "used.py").write_text(USED)
    status, printed = run_file(["used.py", "out"], tmp_path, INSIDE, {"RECIPES_DATA": "none"})
    assert status == 0, printed[-2000:]
    found = flat(torch.load(tmp_path / "out" / "outputs.pt", weights_only=True))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert {"model.onnx", "model.pt2"} <= {path.name for path in (tmp_path / "out").iterdir()}


def flat(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for one in values for tensor in flat(one)]


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


TASKS = "Classification Detection Segmentation Tracking TextClassification LanguageModeling BeamTranslation "
TASKS += "GreedySummarization QuestionAnswering Entities SentenceSimilarity WordClassification SpeechRecognition "
TASKS += "PictureDrawing WordSpeaking Verification"


def test_every_task_is_used_by_a_recipe() -> None:
    assert {recipes.load(name).run.recipe.task.__name__ for name in used()} >= set(TASKS.split())


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_proved_stands_by_its_bars(path: Path) -> None:
    """Of the committed measurements: bars and claims with two standard deviations of room, in the default run."""
    proof = json.loads(path.read_text("utf-8"))
    assert proof["recipe"] in NAMES
    assert proof["options"] == {}
    assert proof["learned"] == proof["seeds"] >= 3
    assert all(distance is None or distance >= 2 for distance in proof["bars"].values()), proof["bars"]
    assert all(claim["held"] == proof["seeds"] for claim in proof["claims"])
    rooms = {claim["text"]: claim.get("room") for claim in proof["claims"]}
    assert all(room is None or room >= 2 for room in rooms.values()), rooms
