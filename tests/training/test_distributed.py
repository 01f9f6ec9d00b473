"""Several processes agree with one, and options that cannot be are refused."""

from collections.abc import Callable

import pytest
import torch

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.training.distributed import MLP, farthest, gradient, run

NAME = "training.distributed"


@pytest.mark.xdist_group(NAME)
def test_every_claim_holds(default_run: Callable[[str], Result]) -> None:
    result = default_run(NAME)
    assert [claim.text for claim in result.claims if not claim.holds] == []
    accuracies = [row["accuracy"] for row in result.rows]
    assert max(accuracies) - min(accuracies) < 0.01


def test_gradient_of_a_batch_is_the_mean_over_its_halves() -> None:
    torch.manual_seed(0)
    model, images, labels = MLP(64, 10, 16), torch.randn(8, 1, 8, 8), torch.randint(10, (8,))
    whole = gradient(model, images, labels)
    halves = gradient(model, images[:4], labels[:4]), gradient(model, images[4:], labels[4:])
    means = [(one + other) / 2 for one, other in zip(*halves, strict=True)]
    assert farthest(means, whole) < 1e-6
    assert farthest(halves[0], whole) > 1e-3
    assert all(each.abs().sum() > 0 for each in whole), "every parameter gets a gradient"


def test_options_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="options processes and batch_size"):
        run(processes=1)
    with pytest.raises(InputError, match="options processes and batch_size"):
        run(processes=3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="without torchrun"):
        run()
