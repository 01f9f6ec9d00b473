import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model
from torch import nn

from recipes.core.claims import Claim
from recipes.core.result import Result, columns, expected, short


def result_with(**changed: object) -> Result:
    model = nn.Linear(2, 2)
    model.tied = model.weight  # type: ignore[assignment]
    fields = {"metrics": {"accuracy": 0.9, "loss": 0.2}, "baseline": {"accuracy": 0.5}, "bars": {"accuracy": 0.8}}
    return Result(**fields | {"model": model} | changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("relation", "measured", "margin", "holds"),
    [
        (">", 0.9, 0.05, True),
        (">", 0.83, 0.05, False),
        ("<", 0.7, 0.05, True),
        ("<", 0.78, 0.05, False),
        (">", math.nan, 0.05, False),
        ("<", math.nan, 0.05, False),
    ],
)
def test_a_learned_claim_needs_its_margin(relation: str, measured: float, margin: float, holds: bool) -> None:
    claim = Claim("a sentence", measured, relation, 0.8, margin=margin)  # type: ignore[arg-type]
    assert claim.holds is holds
    assert claim.verdict == ("holds" if holds else "DOES NOT HOLD")


def test_a_learned_claim_without_a_margin_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs a margin above 0: a sentence"):
        Claim("a sentence", 0.9, ">", 0.8)


def test_a_learned_claim_of_a_model_that_did_not_learn_is_not_shown() -> None:
    claim = Claim("a sentence", 0.9, ">", 0.8, margin=0.05, shown=False)
    assert claim.relation_holds
    assert not claim.holds
    assert claim.verdict == "not shown"


def test_what_a_claim_expects() -> None:
    assert expected(Claim("a", 1.0, ">", 0.5, margin=0.1)) == "> 0.5 + 0.1"
    assert expected(Claim("a", 1.0, "<", 0.5, margin=0.1)) == "< 0.5 - 0.1"
    assert expected(Claim("a", 1.0, "<=", 0.5, kind="fact")) == "<= 0.5"


@pytest.mark.parametrize(
    ("metrics", "baseline", "bars", "count"),
    [
        ({"accuracy": 0.9}, {"accuracy": 0.5}, {"accuracy": 0.8}, 0),
        ({"accuracy": 0.9}, {"accuracy": 0.5}, {"accuracy": 0.9}, 0),
        ({"accuracy": 0.7}, {"accuracy": 0.5}, {"accuracy": 0.8}, 1),
        ({"accuracy": 0.5}, {"accuracy": 0.5}, {}, 1),
        ({"accuracy": math.nan}, {"accuracy": 0.5}, {"accuracy": 0.8}, 2),
        ({"perplexity": 8.0}, {"perplexity": 9.0}, {"perplexity": 8.5}, 0),
        ({"perplexity": 8.0}, {"perplexity": 7.0}, {"perplexity": 7.5}, 2),
    ],
)
def test_shortfalls(metrics: dict, baseline: dict, bars: dict, count: int) -> None:
    result = Result(metrics, baseline, bars=bars)
    assert len(result.shortfalls()) == count
    assert result.learned() is (count == 0)
    result.options["data"] = "mine"  # bars are for the bundled data
    beaten = len(result.shortfalls())
    assert beaten == min(count, beaten) <= 1


@pytest.mark.parametrize(
    ("metric", "other", "told"), [("accuracy", 0.95, True), ("accuracy", 0.8, False), ("loss", 0.1, True)]
)
def test_other_plain_methods_are_shown_and_told_where_they_are_ahead(metric: str, other: float, told: bool) -> None:
    metrics = {metric: {"accuracy": 0.9, "loss": 0.2}[metric]}
    result = result_with(metrics=metrics, baseline={}, bars={}, others={"counting": {metric: other}})
    assert f"counting  {other}" in re.sub(" {2,}", "  ", str(result))
    assert (f"counting does as well or better: {metric} {other}" in str(result)) is told
    assert result.shortfalls() == []


def test_bars_are_for_the_default_run() -> None:
    result = result_with(metrics={"accuracy": 0.7}, by_default=False)
    assert result.shortfalls() == []
    assert not result.learned()
    assert "bars are for the default run" in str(result)
    assert "misses" not in str(result)


def test_saved_and_loaded(tmp_path: Path) -> None:
    claims = [Claim("nine is above eight", 9.0, ">", 8.0, kind="fact"), Claim("nan", math.nan, "<=", 1.0, kind="fact")]
    result = result_with(claims=claims)
    result.save(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "result.json").read_text())
    assert content["metrics"] == {"accuracy": 0.9, "loss": 0.2}
    assert content["claims"][1] == {
        "text": "nan",
        "measured": None,
        "expected": "<= 1",
        "holds": False,
        "kind": "fact",
        "margin": 0.0,
        "verdict": "DOES NOT HOLD",
    }
    other = nn.Linear(2, 2)
    load_model(other, tmp_path / "out" / "model.safetensors")
    assert torch.equal(other.weight, result.model.weight)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"result.json", "model.safetensors"}


def test_a_figure_that_cannot_be_drawn_costs_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def draw() -> None:
        raise ValueError("no room\nfor it")

    result_with(draw=draw).save(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"result.json", "model.safetensors"}
    told = f"{tmp_path / 'out' / 'figure.png'}: could not be drawn (ValueError: no room)"
    assert capsys.readouterr().err.splitlines() == [told]


def test_what_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    result = result_with(metrics={"accuracy": 0.9, "loss": math.nan})
    with pytest.raises(FloatingPointError, match="the metric loss became nan"):
        result.save(tmp_path / "out")
    result = result_with()
    with torch.no_grad():
        result.model.weight[0, 0] = torch.inf
    with pytest.raises(FloatingPointError, match="the weight weight is not finite"):
        result.save(tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123456, "0.1235"), (1234567, "1,234,567"), (1234567.0, "1,234,567"), (None, "–"), ("a", "a"), (True, "True")],
)
def test_short(value: object, text: str) -> None:
    assert short(value) == text


def test_columns() -> None:
    assert columns([["", "accuracy"], ["baseline", "0.5"]]) == "          accuracy\nbaseline       0.5"
