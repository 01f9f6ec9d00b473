"""`recipes prove`: what it writes."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from recipes.catalog import find
from recipes.copying import Source
from recipes.core.claims import Claim
from recipes.core.errors import InputError
from recipes.proving import best_plain, code_of, confirm, digest, hardware, hours, is_due, prove, room


def test_it_writes_the_spread_the_claims_and_the_figure(tmp_path: Path) -> None:
    proof = prove("training.regularization", 2, tmp_path, ["--epochs", "1", "--device", "cpu"])
    written = json.loads((tmp_path / "training.regularization.json").read_text("utf-8"))
    assert written == proof
    assert written["options"] == {"epochs": 1}
    metric = written["metrics"]["accuracy"]
    assert metric["mean"] == sum(metric["values"]) / 2
    assert all(claim["held"] <= 2 for claim in written["claims"])
    with Image.open(tmp_path / "training.regularization.png") as figure:
        left, top, right, bottom = json.loads(figure.info["thumbnail"])
        assert 0 <= left < right <= figure.width
        assert 0 <= top < bottom <= figure.height
        assert right - left < figure.width, "one of two panels"
    assert "about 0.0 hours" in hours(tmp_path, 2)
    assert hours(tmp_path / "empty", 2) == ""


def test_the_room_of_a_claim_is_in_deviations_beyond_its_margin() -> None:
    claims = [Claim("below", measured, "<", 2.0, margin=0.25) for measured in (0.5, 1.0, 1.5)]
    assert room(claims) == 1.5  # 1.5, 1.0 and 0.5 less than the reference: 1.0 - 0.25 over a deviation of 0.5
    assert room([replace(claim, relation=">", reference=0.0) for claim in claims]) == 1.5
    assert room(claims[:1]) is None, "of one seed nobody knows"
    assert room([replace(claim, kind="fact") for claim in claims]) is None


def test_the_code_that_was_measured(tmp_path: Path) -> None:
    """What changes a number changes its digest; a docstring, a comment or the figure does not."""
    entry, path = find("vision.classification.lenet"), tmp_path / "lenet.py"
    changed = {
        "a docstring": ('"""', '"""Once more. '),
        "a comment": ("\n\n\n", "\n\n\n# a remark\n"),
        "the figure": ("@run.figure\n", "@run.figure\n@cache\n"),
        "a rate": ("lr: float = ", "lr: float = 2 * "),
    }
    for what, (old, new) in changed.items():
        assert old in entry.source
        path.write_text(entry.source.replace(old, new, 1), "utf-8")
        assert (digest(Source(entry.module, path)) == code_of(entry.name)) == (what != "a rate"), what


def test_the_best_plain_method_is_named_against_the_recipe() -> None:
    proof = {"metrics": {"accuracy": {"baseline": 0.8}, "loss": {"baseline": 0.3}, "bytes": {"baseline": None}}}
    assert best_plain(proof, "accuracy") == 0.8
    proof["others"] = {"counting": {"accuracy": 0.9, "loss": 0.2}, "looking": {"accuracy": 0.7}}
    assert best_plain(proof, "accuracy") == 0.9
    assert best_plain(proof, "loss") == 0.2
    assert best_plain(proof, "bytes") is None


def test_claims_are_due_once_in_two_weeks_and_after_a_change(tmp_path: Path) -> None:
    name, days = "vision.classification.lenet", [date(2026, 1, day) for day in range(5, 19)]
    assert all(is_due(name, tmp_path, day) for day in days), "never proved"
    (tmp_path / f"{name}.json").write_text(json.dumps({"code": code_of(name)}))
    assert sum(is_due(name, tmp_path, day) for day in days) == 1
    (tmp_path / f"{name}.json").write_text(json.dumps({"code": "of another day"}))
    assert all(is_due(name, tmp_path, day) for day in days)


def test_a_change_of_no_number_is_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, missed = "vision.classification.lenet", ["accuracy"]
    path = tmp_path / f"{name}.json"
    kept = {"code": "of another day", "metrics": {"accuracy": {"mean": 0.5}}}
    kept |= {"seconds": 9.0, "threads": 1, "hardware": hardware("cpu")}
    for short, wrong, held in ([], False, ["a claim"]), (["a bar"], False, []), ([], True, []), ([], False, []):
        path.write_text(json.dumps(kept))
        claim = Claim("a claim", 0.9, ">", 0.95 if wrong else 0.8, margin=0.02)
        result = SimpleNamespace(shortfalls=lambda short=short: short, claims=[claim])
        vars(result).update(device="cpu", threads=1, seconds=3.01, others={"counting": {"accuracy": 0.4}})
        null = {"missed": missed, "held": held}
        monkeypatch.setattr("recipes.catalog.load", lambda name, result=result: SimpleNamespace(run=lambda **_: result))
        monkeypatch.setattr("recipes.proving.null_run", lambda name, null=null: null)
        told = confirm(name, tmp_path)
        assert bool(told) == bool(short or wrong or held)
        assert not wrong or told == ["does not hold: a claim: 0.9, expected > 0.95 + 0.02"]
        written = json.loads(path.read_text("utf-8"))
        assert written == (
            kept
            if short or wrong or held
            else kept | {"code": code_of(name), "null": null, "seconds": 3.0, "others": {"counting": {"accuracy": 0.4}}}
        )
    with pytest.raises(InputError, match="no such file; recipes prove"):
        confirm(name, tmp_path / "elsewhere")
