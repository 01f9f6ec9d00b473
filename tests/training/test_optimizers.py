"""Adam by hand against torch's, and the sweep over learning rates."""

import pytest
import torch
from torch import nn

import recipes
from recipes.core.errors import InputError
from recipes.training.optimizers import OPTIMIZERS, Adam, build_model


@pytest.mark.parametrize("options", [{}, {"lr": 0.1}, {"betas": (0.5, 0.9), "eps": 1e-3}])
def test_adam_equals_torchs(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    start = torch.randn(5, 4, dtype=torch.float64)
    target = torch.randn(5, 4, dtype=torch.float64)
    ends = []
    for optimizer_class in (Adam, torch.optim.Adam):
        weight = nn.Parameter(start.clone())
        optimizer = optimizer_class([weight], **options)  # type: ignore[arg-type]
        for _ in range(100):
            optimizer.zero_grad()
            (weight - target).pow(4).sum().backward()
            optimizer.step()
        ends.append(weight.detach())
    assert not torch.equal(ends[0], start)
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-12)


def test_adam_s_first_step_is_the_learning_rate_whatever_the_gradient() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = Adam([weight], lr=0.01)
    weight.grad = torch.tensor([1e-3, -1.0, 1e3])
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.01, 0.01, -0.01]), rtol=1e-4, atol=0)


def test_adam_leaves_alone_what_has_no_gradient() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Adam([used, unused])
    used.sum().backward()
    optimizer.step()
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimizer_changes_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = build_model((1, 8, 8), 10)
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = OPTIMIZERS[name](model.parameters(), lr=0.01)
    logits = model(torch.randn(32, 1, 8, 8))
    assert logits.shape == (32, 10)
    assert not torch.equal(logits[0], logits[1])
    nn.functional.cross_entropy(logits, torch.arange(32) % 10).backward()
    optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_a_rate_at_which_training_diverges_counts_as_never_right() -> None:
    result = recipes.run("training.optimizers", device="cpu", epochs=1, rates=2, seeds=1, lr=30.0)  # 0.3 and 3000
    assert {row["optimizer"] for row in result.rows} == {name for name in OPTIMIZERS if name != "Adam"}
    assert all(row["chosen rate"] < 1 for row in result.rows)


@pytest.mark.parametrize("options", [{"rates": 1}, {"seeds": 0}])
def test_options_that_cannot_be(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected at least"):
        recipes.run("training.optimizers", device="cpu", **options)
