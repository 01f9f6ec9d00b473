import inspect
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recipes.core.errors import InputError
from recipes.core.options import Options, differences, field_metadata, field_types, option


@dataclass(kw_only=True)
class Mine(Options):
    width: int = option(8, "channels", least=1)
    share: float = option(0.5, "of them", least=0, below=1)
    epochs: int = 7


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_any_integer_is_taken(value: Any) -> None:
    assert Mine(width=value).width == 3
    assert type(Mine(width=value).width) is int


@pytest.mark.parametrize("value", [0.25, np.float32(0.25), Fraction(1, 4), torch.tensor(0.25), 0])
def test_any_real_number_is_taken(value: Any) -> None:
    assert type(Mine(share=value).share) is float


def test_paths_are_taken(tmp_path: Path) -> None:
    options = Mine(data=tmp_path, out=tmp_path / "out")  # type: ignore[arg-type]
    assert options.data == str(tmp_path)
    assert options.out == str(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", 0, "a whole number of at least 1"),
        ("epochs", 1.5, "a whole number of at least 1"),
        ("epochs", True, "a whole number of at least 1"),
        ("epochs", "3", "a whole number of at least 1"),
        ("width", 0, "a whole number of at least 1"),
        ("share", 1.0, "a number of at least 0 and below 1"),
        ("share", float("nan"), "a number of at least 0 and below 1"),
        ("lr", 0.0, "a number above 0"),
        ("lr", float("inf"), "a number above 0"),
        ("clip", -1.0, "a number above 0"),
        ("seed", -1, "a whole number of at least 0 and of at most 4294967295"),
        ("seed", 2**40, "a whole number of at least 0 and of at most 4294967295"),
        ("claims", 1, "true or false"),
        ("out", 3, "text"),
        ("precision", "fp8", "one of fp32, bf16, fp16, auto"),
    ],
)
def test_what_cannot_be_is_one_line(name: str, value: Any, expected: str) -> None:
    with pytest.raises(InputError) as error:
        Mine(**{name: value})
    assert str(error.value).startswith(f"option {name}: expected {expected}, got ")
    assert "\n" not in str(error.value)


def test_a_new_default_keeps_the_sentence_and_the_limits() -> None:
    assert Mine().epochs == 7
    assert field_metadata(Mine)["epochs"] == {"help": "passes over the training part", "least": 1}
    assert list(field_types(Mine))[:2] == ["width", "share"]


def test_differences_name_the_option() -> None:
    saved = Mine(lr=0.1, epochs=7).to_dict()
    assert differences(saved, Mine(lr=0.1, epochs=9, out="elsewhere")) == []
    assert differences(saved, Mine(lr=0.2, epochs=7)) == ["lr 0.2 instead of 0.1"]
    assert differences(saved, Mine(lr=0.1, epochs=3)) == ["epochs 3 instead of 7"]


def test_help_and_signature_show_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    from recipes.vision.segmentation import unet

    signature = inspect.signature(unet.run)
    assert signature.parameters["width"].default == 8
    assert signature.parameters["width"].annotation is int
    assert all(one.kind is one.KEYWORD_ONLY for one in signature.parameters.values())
    help(unet.run)
    told = capsys.readouterr().out
    assert "run(*, image_size: int | None = None, width: int = 8" in told
    assert "width: channels at full size; every halving of the picture doubles them." in told
    assert "epochs: passes over the training part." in told


def test_completion_in_a_notebook_offers_the_options() -> None:
    completer = pytest.importorskip("IPython.core.completer")
    from recipes.vision.segmentation import unet

    found = completer.IPCompleter(shell=None, namespace={"run": unet.run})
    found.text_until_cursor = "run(wid"
    assert found.python_func_kw_matches("wid") == ["width="]


def test_an_unknown_option_is_an_error() -> None:
    from recipes.vision.segmentation import unet

    with pytest.raises(TypeError, match="has no option 'epoch'"):
        unet.run(epoch=3)  # type: ignore[call-arg]


@pytest.mark.slow
def test_mypy_rejects_wrong_options(tmp_path: Path) -> None:
    script = tmp_path / "wrong.py"
    script.write_text(
        "from recipes.vision.segmentation import unet\n"
        "unet.run(epochs=3, width=9)\n"
        "unet.run(epoch=3)\n"
        'unet.run(width="a")\n'
        "unet.run(epochs=3).metrics.nothing\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "mypy", "--no-incremental", "--follow-imports=silent", str(script)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    lines = [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error: " in line]
    assert lines == [3, 4, 5], done.stdout
