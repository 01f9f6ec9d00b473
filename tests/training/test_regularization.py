"""The penalties against autograd and torch's weight_decay, and the labels that are made wrong."""

import pytest
import torch
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.datasets.images import open_images
from recipes.training.regularization import (
    RegularizationOptions,
    build,
    difference,
    few_with_wrong_labels,
    l1_penalty,
    l2_penalty,
)


def test_gradients_of_the_penalties() -> None:
    weight = torch.tensor([[-2.0, 0.5], [0.1, 3.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(l1_penalty([weight]), weight)
    assert torch.equal(gradient, weight.sign())
    (gradient,) = torch.autograd.grad(l2_penalty([weight]), weight)
    assert torch.equal(gradient, weight)
    assert l1_penalty([weight, weight]).item() == pytest.approx(11.2)
    assert l2_penalty([weight]).item() == pytest.approx(weight.norm().item() ** 2 / 2)


def test_l2_is_weight_decay_in_sgd_and_adam_but_not_in_adamw() -> None:
    torch.manual_seed(0)
    model = build(RegularizationOptions(width=16), open_images()[0])
    images, labels = torch.randn(20, 1, 8, 8), torch.arange(20) % 10
    optim = torch.optim
    for optimizer in (optim.SGD, optim.Adam):
        assert difference(model, images, labels, optimizer, optimizer) < 1e-6
    assert difference(model, images, labels, optim.Adam, optim.AdamW) > 1e-3


def test_wrong_labels_are_that_many_and_wrong() -> None:
    whole, _ = open_images()
    right, noisy, again = (
        few_with_wrong_labels(whole, RegularizationOptions(samples=400, wrong_labels=share, seed=1))
        for share in (0, 0.15, 0.15)
    )
    assert abs(len(noisy) - 400) <= len(whole.classes)
    assert torch.equal(noisy.images, right.images)
    assert int((noisy.labels != right.labels).sum()) == round(0.15 * len(noisy))
    assert torch.equal(noisy.labels, again.labels)


def test_outputs_depend_on_the_input_and_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = build(RegularizationOptions(width=16), open_images()[0])
    logits = model(torch.randn(4, 1, 8, 8))
    assert not torch.equal(logits[0], logits[1])
    F.cross_entropy(logits, torch.arange(4)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_labels_that_are_nearly_all_wrong_miss_the_bar() -> None:
    result = recipes.run("training.regularization", device="cpu", wrong_labels=0.9, epochs=20, claims=False)
    assert result.metrics["accuracy"] < result.bars["accuracy"]


@pytest.mark.parametrize("options", [{"samples": 0}, {"samples": 10**6}, {"wrong_labels": 1.0}, {"l1": -1.0}])
def test_options_that_cannot_be(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="option"):
        recipes.run("training.regularization", device="cpu", **options)
