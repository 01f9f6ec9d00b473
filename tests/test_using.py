"""Trained models used: predict, export, and what happens when their files are damaged."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.predicting import gathered
from recipes.using import Trained
from recipes.vision.drawing import PictureDrawing

ROOT = Path(__file__).parents[1]
TEXTS = PictureDrawing(classes=["0"], shape=[1, 8, 8], levels=2)  # a task that takes texts


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A trained classifier as `out` writes it, and its result in memory."""
    folder = tmp_path_factory.mktemp("trained")
    result = recipes.run("vision.classification", device="cpu", out=str(folder / "out" / "digits"), claims=False)
    _, test_set = open_images()
    for number in range(12):
        image = test_set.pixels(torch.tensor([number]))[0, 0]
        (folder / "photos").mkdir(exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / "photos" / f"{number}.png")
    Image.fromarray(test_set.pixels(torch.tensor([0]))[0, 0].numpy()).save(folder / "photo.png")
    (folder / "empty").mkdir()
    return folder, result


def command(*words: str, cwd: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "recipes", *words], capture_output=True, text=True, cwd=cwd, env=environment, input=text
    )


def test_answers_are_those_of_the_model_in_memory(digits: tuple[Path, Result]) -> None:
    folder, result = digits
    images, _ = result.test_set.__getitems__(range(12))
    with torch.no_grad():
        shares = result.model.eval()(images).softmax(dim=1)
    done = command("predict", "out/digits", "photos", "--json", "--batch-size", "5", cwd=folder)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(answer["file"]).name for answer in answers] == [f"{number}.png" for number in range(12)]
    for answer, expected in zip(answers, shares, strict=True):
        torch.testing.assert_close(torch.tensor(list(answer["classes"].values())), expected, rtol=0, atol=1e-5)
        assert answer["class"] == result.test_set.classes[int(expected.argmax())]


def test_files_folders_standard_input_and_pictures(digits: tuple[Path, Result], tmp_path: Path) -> None:
    folder, _ = digits
    done = command(
        "predict",
        "out/digits",
        "photo.png",
        "-",
        "--draw",
        str(tmp_path / "seen"),
        cwd=folder,
        text="\ufeffphotos/3.png\r\n",
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["photo.png", "photos/3.png"]
    assert {path.name for path in (tmp_path / "seen").iterdir()} == {"photo.png", "3.png"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "out/digits"], "nothing to answer: expected files of pictures"),
        (["predict", "out/digits", "nowhere.png"], "nowhere.png: no such file or folder"),
        (["predict", "out/digits", "empty"], "empty: expected pictures"),
        (["predict", "out/digits", "out/digits/model.json"], "model.json: expected a whole picture"),
        (["predict", "out/digits", "--text", ""], "option text"),
        (["predict", "out/digits", "--text", "a"], "option text: this model takes pictures"),
        (["predict", "out/digits", "photo.png", "--draw", "photo.png"], "it is a file, expected a folder"),
        (["export", "out/digits", "digits.tflite"], "expected a file that ends in .onnx or .pt2"),
    ],
)
def test_bad_input_gets_one_line(digits: tuple[Path, Result], words: list[str], message: str) -> None:
    folder, _ = digits
    before = sorted(folder.rglob("*"))
    done = command(*words, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


def test_what_was_answered_before_a_bad_file_is_kept(digits: tuple[Path, Result]) -> None:
    folder, _ = digits
    done = command("predict", "out/digits", "photo.png", "photos/1.png", "nowhere.png", "photos/2.png", cwd=folder)
    assert done.returncode == 2
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["photo.png", "photos/1.png"]
    assert "nowhere.png: no such file" in done.stderr


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.json", b"{", r"model\.json: expected JSON"),
        ("model.json", b"[]", r"model\.json: expected recipe, options, task and weights"),
        ("model.json", b"\xff", r"model\.json: expected JSON"),
        ("model.safetensors", b"cut", r"model\.safetensors: expected whole weights"),
        ("model.safetensors", None, r"model\.safetensors: no such file"),
    ],
)
def test_damaged_folders(
    digits: tuple[Path, Result], tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    for path in (digits[0] / "out" / "digits").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=message):
        recipes.trained(tmp_path)


def test_what_nothing_can_be_made_of() -> None:
    with pytest.raises(InputError, match=r"expected the folder that a recipe's --out has written, got a NoneType"):
        recipes.trained(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected one of the texts to answer, got 3"):
        Trained(torch.nn.Identity(), TEXTS, "", {}, torch.device("cpu"))([3])

    with pytest.raises(InputError, match="expected a list of texts, got 'film'"):
        Trained(torch.nn.Identity(), TEXTS, "", {}, torch.device("cpu"))("film")


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
@pytest.mark.parametrize("given", ["file", "standard input"])
def test_a_line_is_a_text_wherever_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: str, encoding: str
) -> None:
    content = f"{given} {encoding}\r\n\r\n房间\x0c很\u2028好\n".encode(encoding)
    (tmp_path / "texts.txt").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "ascii"))
    items = [str(tmp_path / "texts.txt") if given == "file" else "-"]
    assert list(gathered(TEXTS, items, [], encoding)) == [f"{given} {encoding}", "房间\x0c很\u2028好"]
    assert "1 empty lines left out" in capsys.readouterr().err or encoding != "utf-8"  # a line is told once


def test_an_empty_text_is_none() -> None:
    with pytest.raises(InputError, match="option text: expected a text, got none"):
        list(gathered(TEXTS, [], ["a", " "]))


def test_standard_input_in_another_encoding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("房间\n".encode("gbk")), "ascii"))
    with pytest.raises(InputError, match="standard input, line 1: expected text in utf-8; see --encoding"):
        list(gathered(TEXTS, ["-"], []))


def test_weights_of_another_model(digits: tuple[Path, Result], tmp_path: Path) -> None:
    for path in (digits[0] / "out" / "digits").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights["head.bias"] += 1
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors: expected the weights that model\.json belongs to"):
        recipes.trained(tmp_path)


def test_a_recipe_that_is_not_there(digits: tuple[Path, Result], tmp_path: Path) -> None:
    content = json.loads((digits[0] / "out" / "digits" / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(content | {"recipe": "os.system"}))
    with pytest.raises(InputError, match=r"unknown recipe 'os\.system'"):
        recipes.trained(tmp_path)


@pytest.mark.parametrize("file", ["digits.onnx", "digits.pt2"])
def test_the_lines_of_the_page_run_an_exported_file(digits: tuple[Path, Result], file: str) -> None:
    """With onnxruntime or torch alone: this library cannot be imported there."""
    folder, result = digits
    recipes.trained(folder / "out" / "digits", device="cpu").export(folder / file)
    page = (ROOT / "docs" / "using.md").read_text("utf-8")
    (script,) = [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if file in block]
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; sys.modules['recipes'] = None\n" + script],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    images, _ = result.test_set.__getitems__([0])
    with torch.no_grad():
        expected = result.test_set.classes[int(result.model.eval()(images)[0].argmax())]
    assert done.stdout.split()[-1] == expected


def test_the_lines_of_the_page_predict(digits: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = digits
    page = (ROOT / "docs" / "using.md").read_text("utf-8")
    (script,) = [
        block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "recipes.trained" in block
    ]
    monkeypatch.chdir(folder)
    exec(script, {})


def test_an_exported_file_takes_any_batch(digits: tuple[Path, Result], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, result = digits
    recipes.trained(folder / "out" / "digits", device="cpu").export(tmp_path / "digits.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "digits.onnx"))
    for count in (1, 7, 33):
        images, _ = result.test_set.__getitems__(range(count))
        (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), result.model.eval()(images), rtol=1e-4, atol=1e-4)


def test_a_network_of_the_users_own(tmp_path: Path) -> None:
    """It is trained, saved and opened again, where it is given again."""
    own = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    recipes.run("vision.classification", model=own, epochs=1, device="cpu", out=str(tmp_path / "out"), claims=False)
    with pytest.raises(InputError, match=r"model\.json: was trained with a network of yours"):
        recipes.trained(tmp_path / "out")
    again = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    trained = recipes.trained(tmp_path / "out", model=again)
    assert torch.equal(trained.model[1].weight, own[1].weight)
