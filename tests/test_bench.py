import pytest
import torch

from recipes.bench import Enough, Watch, table, watch
from recipes.core.errors import InputError


def test_a_row_has_speed_waiting_memory_and_arithmetic() -> None:
    row = watch("vision.classification", {"device": "cpu"}, 0.2)
    assert row["samples a second"] > 0
    assert 0 <= row["waiting for data"] < 1
    assert row["peak MiB"] > 50
    assert row["GFLOP/s"] > 0


def test_waiting_is_told_from_working_and_the_watching_ends() -> None:
    """Batches that take three times as long to come as to be worked on."""
    import time

    def slow() -> object:
        time.sleep(0.015)
        return torch.ones(8, 2), torch.ones(8)

    class Source:
        def __len__(self) -> int:
            return 1000

        def __iter__(self) -> object:
            return (slow() for _ in range(1000))

    watched = Watch(Source(), 0.3)
    with pytest.raises(Enough):  # noqa: PT012
        for _ in watched:
            time.sleep(0.005)
    assert watched.samples == 8
    assert 0.6 < sum(watched.waits) / sum(watched.steps) < 0.85
    assert len(watched.steps) < 100


def test_operations_are_counted_as_the_formula_says() -> None:
    """A linear layer: 2 · batch · in · out forward, as much again for the weights' gradient."""
    layer = torch.nn.Linear(6, 5)
    watched = Watch([torch.ones(4, 6)] * 5, 100.0)
    for inputs in watched:
        layer(inputs).sum().backward()
    assert watched.operations == 2 * (2 * 4 * 6 * 5)


def test_a_recipe_without_a_training_loop() -> None:
    with pytest.raises(InputError, match="expected a training of more than 3 steps"):
        watch("nlp.text_classification.classical", {}, 0.2)


def test_what_a_variant_cannot_do_stands_in_its_row() -> None:
    rows = [
        {"options": "as given", "samples a second": 100.0, "waiting for data": 0.25, "speed": 1.0},
        {"options": "--compile", "error": "RuntimeError: no compiler"},
    ]
    lines = table(rows).splitlines()
    assert "25.0%" in lines[1]
    assert "no compiler" in lines[2]
