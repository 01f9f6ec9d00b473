import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model
from torch import nn

from recipes.core.errors import InputError
from recipes.core.files import write_whole
from recipes.core.old import claim, old_recipe
from recipes.core.result import Result, columns, short


@old_recipe
def run(*, data: str | None = None, epochs: int = 2, lr: float = 0.1, seed: int = 0, out: str | None = None) -> Result:
    """A recipe for this test."""
    torch.manual_seed(seed)
    model = nn.Linear(2, 2)
    model.tied = model.weight  # type: ignore[assignment]
    return Result(
        metrics={"accuracy": 0.9, "loss": float("nan")},
        baseline={"accuracy": 0.5},
        bars={"accuracy": 0.8},
        claims=[claim("nine is above eight", 9.0, ">", 8.0), claim("nan holds nothing", float("nan"), "<=", 1.0)],
        model=model,
    )


def test_the_decorator_completes_the_result() -> None:
    result = run(epochs=3)
    assert result.recipe == "tests.core.test_result"
    assert result.options == {"data": None, "epochs": 3, "lr": 0.1, "seed": 0, "out": None}
    assert result.seconds > 0
    assert result.device == "cpu"
    assert result.versions["torch"] == torch.__version__


def test_random_state_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run()
    assert torch.equal(torch.rand(3), expected)


def test_claims() -> None:
    above, nothing = run().claims
    assert above.holds
    assert above.expected == "> 8"
    assert not nothing.holds


@pytest.mark.parametrize(
    ("metrics", "baseline", "bars", "count"),
    [
        ({"accuracy": 0.9}, {"accuracy": 0.5}, {"accuracy": 0.8}, 0),
        ({"accuracy": 0.9}, {"accuracy": 0.5}, {"accuracy": 0.9}, 0),
        ({"accuracy": 0.7}, {"accuracy": 0.5}, {"accuracy": 0.8}, 1),
        ({"accuracy": 0.5}, {"accuracy": 0.5}, {}, 1),
        ({"accuracy": float("nan")}, {"accuracy": 0.5}, {"accuracy": 0.8}, 2),
        ({"perplexity": 8.0}, {"perplexity": 9.0}, {"perplexity": 8.5}, 0),
        ({"perplexity": 8.0}, {"perplexity": 7.0}, {"perplexity": 7.5}, 2),
    ],
)
def test_shortfalls(metrics: dict, baseline: dict, bars: dict, count: int) -> None:
    result = Result(metrics, baseline, bars=bars)
    assert len(result.shortfalls()) == count
    result.options["data"] = "mine"  # bars are for the bundled data
    beaten = len(result.shortfalls())
    assert beaten == min(count, beaten) <= 1


def test_saved_and_loaded(tmp_path: Path) -> None:
    result = run(out=str(tmp_path / "out"))
    content = json.loads((tmp_path / "out" / "result.json").read_text())
    assert content["metrics"] == {"accuracy": 0.9, "loss": None}
    assert content["claims"][1] == {"text": "nan holds nothing", "measured": None, "expected": "<= 1", "holds": False}
    other = nn.Linear(2, 2)
    load_model(other, tmp_path / "out" / "model.safetensors")
    assert torch.equal(other.weight, result.model.weight)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"result.json", "model.safetensors"}


@pytest.mark.parametrize("options", [{"epochs": 0}, {"epochs": 1.5}, {"lr": -1.0}, {"lr": float("inf")}])
def test_shared_options_are_checked(options: dict) -> None:
    with pytest.raises(InputError, match=f"option {next(iter(options))}: expected"):
        run(**options)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("before")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(InputError, match=r"file\.txt: could not be written \(disk full\)"):
        write_whole(target, fail)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123456, "0.1235"), (1234567, "1,234,567"), (1234567.0, "1,234,567"), (None, "–"), ("a", "a"), (True, "True")],
)
def test_short(value: object, text: str) -> None:
    assert short(value) == text


def test_columns() -> None:
    assert columns([["", "accuracy"], ["baseline", "0.5"]]) == "          accuracy\nbaseline       0.5"
