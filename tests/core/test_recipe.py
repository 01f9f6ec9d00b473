import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from recipes.core.errors import InputError
from recipes.core.frame import Claim, Options, Result, option, recipe

trained: list[str] = []
seeds: list[tuple[int, ...]] = []  # as claims see them


@dataclass(kw_only=True)
class SmallOptions(Options):
    wide: bool = option(True, "so many weights")
    accuracy: float = option(0.9, "what it reaches")


@recipe(SmallOptions)
def run(options: SmallOptions) -> Result:
    """A recipe for these tests."""
    trained.append(options.variant)
    model = nn.Linear(4 if options.wide else 2, 2)
    metrics = {"accuracy": options.accuracy - (0.0 if options.wide else 0.1), "drawn": torch.rand(()).item()}
    return Result(metrics=metrics, baseline={"accuracy": 0.5}, bars={"accuracy": 0.8}, model=model)


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, narrow = run(), run(wide=False)
    seeds.append((full.seed, narrow.seed, run(wide=False, seed=9).seed))
    yield Claim("wide is better", full["accuracy"], ">", narrow["accuracy"], margin=0.05)
    yield Claim("again", run(wide=False)["accuracy"], "<", full["accuracy"], margin=0.05)
    yield Claim("two weights are fewer than four", 2, "<", 4, kind="fact")


def test_the_decorator_completes_the_result() -> None:
    result = run(epochs=3)
    assert result.recipe == "tests.core.test_recipe"
    assert result.options["epochs"] == 3
    assert result.options["wide"] is True
    assert result.seconds > 0
    assert result.device == "cpu"
    assert result.threads == torch.get_num_threads()
    assert result.versions["torch"] == torch.__version__


def test_each_variant_is_trained_once() -> None:
    trained.clear()
    result = run(seed=4)
    assert trained == ["", "wide=False", "wide=False, seed=9"]
    assert seeds[-1] == (4, 4, 9)
    assert [claim.holds for claim in result.claims] == [True, True, True]
    assert result.variants[1]["run"] == "wide=False"
    assert result.runs["wide=False"]["accuracy"] == pytest.approx(0.8)
    assert "wide=False" in str(result)


def test_without_claims_one_model_is_trained() -> None:
    trained.clear()
    result = run(claims=False)
    assert trained == [""]
    assert result.claims == []


def test_learned_claims_count_only_above_the_bar() -> None:
    result = run(accuracy=0.7)
    assert [claim.verdict for claim in result.claims] == ["not shown", "not shown", "holds"]


def test_bars_are_for_default_runs() -> None:
    assert run(claims=False, seed=4).by_default
    assert not run(claims=False, epochs=1).by_default


def test_random_state_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run()
    assert torch.equal(torch.rand(3), expected)


def test_two_threads_get_what_each_gets_alone() -> None:
    alone = {seed: run(seed=seed, claims=False)["drawn"] for seed in range(4)}
    found: dict[int, float] = {}
    threads = [
        threading.Thread(target=lambda seed=seed: found.update({seed: run(seed=seed, claims=False)["drawn"]}))
        for seed in alone
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_out_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    trained.clear()
    with pytest.raises(InputError, match="it is a file, expected a folder"):
        run(out=str(tmp_path / "out"))
    assert trained == []


def test_a_checkpoint_folder_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "training").write_text("mine")
    trained.clear()
    with pytest.raises(InputError, match="it is a file, expected a folder"):
        run(checkpoint=str(tmp_path / "training"))
    with pytest.raises(InputError, match="~nobody-of-that-name: no such user"):
        run(out="~nobody-of-that-name")
    assert trained == []


@pytest.mark.parametrize(
    ("metrics", "weight", "message"),
    [
        ({"accuracy": float("nan")}, 0.0, "the metric accuracy became nan"),
        ({"accuracy": 0.5, "loss": float("inf")}, 0.0, "the metric loss became inf"),
        ({"accuracy": 0.5}, float("nan"), "the weight weight is not finite"),
    ],
)
def test_what_is_not_finite_is_no_result(metrics: dict[str, float], weight: float, message: str) -> None:
    """Also after the last step, and where nothing is to be saved."""

    def body(options: Options) -> Result:
        model = nn.Linear(1, 1)
        nn.init.constant_(model.weight, weight)
        return Result(metrics=metrics, baseline={"accuracy": 0.5}, model=model)

    with pytest.raises(FloatingPointError, match=message):
        recipe(Options)(body)()


def test_what_no_metric_can_be_told_of_is_a_result() -> None:
    """Where the held-out data have no object, neither the recipe nor its baseline finds one."""

    def body(options: Options) -> Result:
        return Result(metrics={"map": float("nan")}, baseline={"map": float("nan")})

    assert recipe(Options)(body)().to_dict()["metrics"] == {"map": None}


def test_sizes_that_no_memory_holds_are_one_line() -> None:
    with pytest.raises(InputError, match="not enough memory: expected a smaller model, batch_size or image_size"):
        recipe(Options)(lambda options: Result({"a": torch.empty(2**50).sum().item()}, {}))()


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(options: Options) -> Result:
        raise ModuleNotFoundError("No module named 'pycocotools.mask'", name="pycocotools.mask")

    with pytest.raises(InputError, match=r'pycocotools is not installed: pip install "pytorch-recipes\[vision\]"'):
        recipe(Options)(body)()
