"""The penalties against autograd and torch's weight_decay, and the labels that are made wrong."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.training.regularization import build_model, difference, l1, l2, share_near_zero, with_wrong_labels


def test_gradients_of_the_penalties() -> None:
    weight = torch.tensor([[-2.0, 0.5], [0.1, 3.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(l1([weight]), weight)
    assert torch.equal(gradient, weight.sign())
    (gradient,) = torch.autograd.grad(l2([weight]), weight)
    assert torch.equal(gradient, weight)
    assert l1([weight, weight]).item() == pytest.approx(11.2)
    assert l2([weight]).item() == pytest.approx(weight.norm().item() ** 2 / 2)


def test_l2_is_weight_decay_in_sgd_and_adam_but_not_in_adamw() -> None:
    torch.manual_seed(0)
    model, images, labels = build_model((1, 8, 8), 10, width=16), torch.randn(20, 1, 8, 8), torch.arange(20) % 10
    optim = torch.optim
    for optimizer in (optim.SGD, optim.Adam):
        assert difference(model, images, labels, optimizer, optimizer, strength=0.03) < 1e-6
    assert difference(model, images, labels, optim.Adam, optim.AdamW, strength=0.03) > 1e-3


def test_wrong_labels_are_that_many_and_wrong() -> None:
    train_set, _ = open_images()
    noisy = with_wrong_labels(train_set, 0.15, seed=1)
    assert int((noisy.labels != train_set.labels).sum()) == round(0.15 * len(train_set))
    assert torch.equal(noisy.labels, with_wrong_labels(train_set, 0.15, seed=1).labels)
    assert torch.equal(with_wrong_labels(train_set, 0, seed=1).labels, train_set.labels)


def test_outputs_depend_on_the_input_and_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = build_model((1, 8, 8), 10, width=16)
    logits = model(torch.randn(4, 1, 8, 8))
    assert not torch.equal(logits[0], logits[1])
    F.cross_entropy(logits, torch.arange(4)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    assert 0 < share_near_zero(model) < 0.1


@pytest.mark.xdist_group("training.regularization")
def test_claims_hold(default_run: Callable[[str], Result]) -> None:
    result = default_run("training.regularization")
    assert [claim.text for claim in result.claims if not claim.holds] == []


def test_labels_that_are_nearly_all_wrong_miss_the_bar() -> None:
    result = recipes.run("training.regularization", device="cpu", wrong_labels=0.9, epochs=20, seeds=1)
    assert result.metrics["accuracy"] < result.bars["accuracy"]


@pytest.mark.parametrize(
    "options", [{"pictures": 0}, {"pictures": 10**6}, {"wrong_labels": 1.0}, {"l1_strength": -1.0}]
)
def test_options_that_cannot_be(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="option"):
        recipes.run("training.regularization", device="cpu", **options)
