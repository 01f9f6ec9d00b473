"""Mixed precision by hand: fp32 is left as it is, memory is counted right, and scaling saves small gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.training.mixed_precision import DTYPES, build_model, loss_of, lost_gradients, saved_bytes


def batch() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return build_model(1, 10, width=4), torch.randn(8, 1, 8, 8), torch.arange(8)


@pytest.mark.parametrize("precision", DTYPES)
def test_the_loss_is_near_that_in_fp32_and_gradients_stay_in_fp32(precision: str) -> None:
    model, images, labels = batch()
    exact = F.cross_entropy(copy.deepcopy(model)(images), labels)
    loss = loss_of(model, images, labels, precision)
    torch.testing.assert_close(loss, exact, rtol=0 if precision == "fp32" else 0.03, atol=0)
    loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.any()


def test_bytes_kept_of_a_product() -> None:
    """A linear layer keeps its input, and the cross-entropy the logarithms; the labels are 8 bytes each."""
    model, inputs, labels = nn.Linear(1000, 2), torch.randn(32, 1000), torch.zeros(32, dtype=torch.int64)
    kept = saved_bytes(model, inputs, labels, "fp32")
    assert 32 * 1000 * 4 <= kept <= 32 * 1000 * 4 + 2000


def test_small_gradients_become_zero_in_fp16_alone() -> None:
    """A network that is sure of its answers has small gradients."""
    model, images, _ = batch()
    model.eval()
    with torch.no_grad():
        model[-1].weight *= 30  # type: ignore[operator,index,union-attr]
    labels = model(images).argmax(dim=1)
    assert lost_gradients(model, images, labels, "fp32") < 0.01
    assert lost_gradients(model, images, labels, "fp16") > lost_gradients(model, images, labels, "bf16")


def test_options_that_cannot_be() -> None:
    with pytest.raises(InputError, match="option width: expected"):
        recipes.run("training.mixed_precision", device="cpu", width=0)
