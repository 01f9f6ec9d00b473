"""Recipes that have no control of their own: from shuffled labels they must not learn what they claim to."""

import random
from pathlib import Path

import pytest

import recipes
from recipes.datasets.bundled import bundled
from recipes.datasets.tiny import fewer_digits
from tests.test_recipes import shortened


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the digits, the labels of the train part in another order."""
    folder = tmp_path_factory.mktemp("shuffled")
    fewer_digits(bundled("digits"), folder)
    path = folder / "train-labels-idx1-ubyte"
    content = path.read_bytes()
    labels = list(content[8:])
    random.Random(0).shuffle(labels)
    path.write_bytes(content[:8] + bytes(labels))
    return folder


@pytest.mark.parametrize(
    "name",
    ["training.optimizers", "training.checkpointing", "training.mixed_precision", "compression.quantization_aware"],
)
def test_shuffled_labels_fail_the_bar(name: str, shuffled: Path) -> None:
    options = shortened(name) | {"epochs": 4}
    result = recipes.run(name, data=str(shuffled), device="cpu", **options)
    first = next(iter(result.metrics))
    assert first == "accuracy"
    assert result.metrics[first] < 0.4 < result.bars[first]
