import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import recipes
from recipes import catalog
from recipes.cli import main

ROOT = Path(__file__).parents[1]


def command(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a user's shell runs it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "recipes", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        env=environment,
    )


def test_list_names_every_recipe_without_torch() -> None:
    done = command("list")
    assert done.returncode == 0
    family, found = "", []
    for line in done.stdout.splitlines():
        assert catalog.columns_of(line) <= 80, line
        if line and not line.startswith(" "):
            family = line
        elif line.startswith("  ") and line[2] != " ":
            found.append(f"{family}.{line.split()[0]}")
    assert found == recipes.names()
    script = "import sys, recipes.cli; recipes.names(); assert 'torch' not in sys.modules and 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_list_by_note_word_and_language() -> None:
    assert "segmentation.unet" in command("list", "--note", "87").stdout
    assert "classification" not in command("list", "--note", "87").stdout
    assert "U-Net" in command("list", "u-net").stdout
    chinese = command("list", "分割", "--lang", "zh").stdout
    assert "U-Net 语义分割" in chinese
    assert max(map(catalog.columns_of, chinese.splitlines())) <= 80
    assert command("list", "zebra").returncode == 2


def test_version() -> None:
    assert command("--version").stdout == f"recipes {recipes.__version__}\n"


def test_short_names() -> None:
    assert command("show", "unet").stdout == catalog.find("vision.segmentation.unet").source
    done = command("show", "augmentation")  # vision's or audio's?
    assert done.returncode == 2
    assert "unknown recipe 'augmentation', did you mean" in done.stderr


def test_names_are_completed() -> None:
    from recipes.cli import complete_name

    assert complete_name("segmentation.u") == ["vision.segmentation.unet"]


def test_list_as_json() -> None:
    listed = json.loads(command("list", "--json").stdout)
    assert {"name": "vision.classification", "title": recipes.catalog.find("vision.classification").title} == {
        key: next(one for one in listed if one["name"] == "vision.classification")[key] for key in ("name", "title")
    }


def test_show_prints_the_source() -> None:
    done = command("show", "vision.classification")
    assert done.stdout == recipes.catalog.find("vision.classification").source


def test_run_as_json_and_into_a_folder(tmp_path: Path) -> None:
    done = command(
        "run", "vision.classification", "--epochs", "2", "--json", "--out", str(tmp_path / "out"), "--seed=3"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for key in (
        "recipe",
        "metrics",
        "baseline",
        "claims",
        "history",
        "seconds",
        "seed",
        "options",
        "device",
        "versions",
    ):
        assert key in result
    assert result["seed"] == 3
    assert len(result["history"]) == 2
    assert result["options"]["epochs"] == 2
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"result.json", "figure.png", "model.safetensors", "example.safetensors", "model.json"}
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result


def test_run_prints_a_table_and_writes_nothing(tmp_path: Path) -> None:
    done = command("run", "vision.classification", "--epochs", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("accuracy", "linear classifier on pixels", "bar", "claim", "this recipe"):
        assert word in done.stdout
    assert not list(tmp_path.iterdir())


def test_help_of_a_recipe_lists_its_options() -> None:
    text = command("run", "vision.classification", "--help").stdout
    assert "--batch-size" in text
    assert "--precision" in text
    assert "passes over the training part" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "vision.clasification"], "unknown recipe 'vision.clasification', did you mean vision.classification?"),
        (["show", "unet2"], "unknown recipe 'unet2'"),
        (["run", "vision.classification", "--epoch", "3"], "unknown option --epoch, did you mean --epochs?"),
        (["run", "vision.classification", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["run", "vision.classification", "--epochs", "0"], "option epochs: expected a whole number of at least 1"),
        (["run", "vision.classification", "--lr", "nan"], "option lr: expected a number above 0"),
        (["run", "vision.classification", "--device", "gpu"], "option device: expected auto, cpu"),
        (["run", "vision.classification", "--device", "cuda:77"], "option device: expected auto, cpu"),
        (["run", "vision.classification", "--model", "resnet18"], "option model: expected small_cnn, timm:NAME"),
        (["run", "vision.classification", "--model", "timm:resnet99"], "option model: timm has no 'resnet99'"),
        (["run", "vision.classification", "--model", "torchvision:resnet19"], "did you mean resnet"),
        (["run", "vision.classification", "--precision", "fp8"], "argument --precision: invalid choice: 'fp8'"),
        (["run", "vision.classification", "--data", "nowhere"], "nowhere: no such folder"),
        (["run", "vision.classification", "--shard"], "option shard: expected a run under torchrun"),
        (["run", "vision.classification", "--clip", "0"], "option clip: expected a number above 0"),
        (["run", "vision.classification", "--seed", "-1"], "option seed: expected a whole number of at least 0"),
        (["run", "vision.classification", "--width", "0"], "option width: expected a whole number of at least 1"),
        (["run", "vision.classification", "--device", "meta"], "option device: expected auto, cpu"),
        (["bench", "vision.classification", "--seconds", "nan"], "seconds"),
        (["predict", "nowhere", "x.png"], "nowhere/model.json: no such file"),
        (["export", "nowhere", "x.onnx"], "nowhere/model.json: no such file"),
        (["copy", "vision.classification", "x.txt"], "x.txt: expected a file that ends in .py or .ipynb"),
        (["smoke", "--only", "visual"], "option only: no recipe's name starts with 'visual'"),
        (["lst"], "No such command 'lst'"),
        (["run"], "Missing argument"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, which has torch imported already: the two tests below do it as a shell does."""
    monkeypatch.setattr(sys, "argv", ["recipes", *words])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    said = capsys.readouterr()
    assert message in said.err
    assert "Traceback" not in said.err
    assert len(said.err.strip().splitlines()) == 1, said.err
    assert said.out == ""
    assert not list(tmp_path.iterdir())


def test_out_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    done = command("run", "vision.classification", "--out", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "out: could not be written (it is a file, expected a folder)" in done.stderr
    assert (tmp_path / "out").read_text() == "mine"


def test_a_checkpoint_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"something else")
    done = command("run", "vision.classification", "--checkpoint", str(tmp_path))
    assert done.returncode == 2
    assert "model.pt: expected a checkpoint of this training" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert (tmp_path / "model.pt").read_bytes() == b"something else"


def test_smoke_of_one_recipe() -> None:
    done = command("smoke", "--only", "vision.classification.none")
    assert done.returncode == 2
    done = command("smoke", "--only", "nlp.text_classification.classical", "--json")
    assert done.returncode == 0, done.stdout
    (result,) = json.loads(done.stdout)
    assert result["shortfalls"] == []


def test_smoke_tiny_is_a_line_a_recipe_and_needs_no_bar() -> None:
    done = command("smoke", "--tiny", "--device", "cpu", "--only", "nlp.text_classification.rnn")
    assert done.returncode == 0, done.stdout
    recipe, tally = done.stdout.strip().splitlines()
    assert recipe.startswith("nlp.text_classification.rnn")
    assert tally == "1 passed, 0 failed"
    assert command("smoke", "--tiny", "--device", "gpu").returncode == 2


@pytest.mark.slow
def test_smoke_tiny_of_all() -> None:
    done = command("smoke", "--tiny", "--device", "cpu")
    assert done.stdout.strip().endswith(f"{len(recipes.names())} passed, 0 failed"), done.stdout
    assert not done.stderr  # no warning is the first that a new user reads


def test_doctor() -> None:
    done = command("doctor")
    assert done.returncode == 0
    for word in ("python", "torch", "devices", "threads", "torchvision", "compiler"):
        assert word in done.stdout


# One recipe of each family. Batch norm sees half the batch in each process, so the two are alike, not equal.
@pytest.mark.parametrize(
    ("family_member", "options", "words", "apart"),
    [
        ("vision.classification", {}, ["--shard"], 0.05),
        pytest.param("nlp.text_classification", {}, ["--shard"], 0.05, marks=pytest.mark.slow),
        pytest.param("audio.speech_recognition", {}, [], 0.1, marks=pytest.mark.slow),
        pytest.param("compression.quantization_aware", {"width": 8}, [], 0.2, marks=pytest.mark.slow),
        pytest.param("training.data_loading", {}, [], 0.1, marks=pytest.mark.slow),
    ],
)
def test_torchrun_gives_one_result(
    family_member: str, options: dict[str, int], words: list[str], apart: float, tmp_path: Path
) -> None:
    words = [*words, *(f"--{key}={value}" for key, value in options.items())]
    given = ["run", family_member, "--device", "cpu", "--epochs", "1", "--json", *words]
    two_of = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "recipes", *given]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *two_of, "--out", str(tmp_path)], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    two, one = json.loads(line), recipes.run(family_member, device="cpu", epochs=1, **options)
    first = next(iter(one.metrics))
    assert two["metrics"][first] == pytest.approx(one.metrics[first], abs=apart)
    assert json.loads((tmp_path / "result.json").read_text())["metrics"] == two["metrics"]


def test_torchrun_tells_what_cannot_be_used_in_one_line_once(tmp_path: Path) -> None:
    given = ["run", "nlp.text_classification", "--data", str(tmp_path / "nowhere"), "--device", "cpu"]
    two_of = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "recipes", *given]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *two_of], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line == f"error: {tmp_path / 'nowhere'}: no such file or folder"
    assert "exitcode  : 2" in done.stderr


def test_prove_wants_a_name_or_all() -> None:
    for words in ([], ["vision.classification", "--all"]):
        done = command("prove", *words)
        assert (done.returncode, done.stderr.strip()) == (2, "error: expected the name of a recipe, or --all")
