"""Mixed precision by hand: fp32 is left as it is, memory is counted right, and scaling saves small gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.datasets.images import open_images
from recipes.training.mixed_precision import (
    DTYPES,
    MixedPrecisionOptions,
    build,
    loss_of,
    output_gradients,
    saved_bytes,
    train,
)

OPTIONS = MixedPrecisionOptions(width=4, epochs=1, device="cpu")


def batch() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return build(OPTIONS, open_images()[0]), torch.randn(8, 1, 8, 8), torch.arange(8)


@pytest.mark.parametrize("precision", DTYPES)
def test_the_loss_is_near_that_in_fp32_and_gradients_stay_in_fp32(precision: str) -> None:
    model, images, labels = batch()
    exact = F.cross_entropy(copy.deepcopy(model)(images), labels)
    loss = loss_of(model, images, labels, DTYPES[precision])
    torch.testing.assert_close(loss, exact, rtol=0 if precision == "fp32" else 0.03, atol=0)
    loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.any()


def test_outputs_depend_on_the_input() -> None:
    model, images, _ = batch()
    logits = model.eval()(images)
    assert not torch.equal(logits[0], logits[1])


def test_bytes_kept_of_a_product() -> None:
    """A linear layer keeps its input, and the cross-entropy the logarithms; the labels are 8 bytes each."""
    model, inputs, labels = nn.Linear(1000, 2), torch.randn(32, 1000), torch.zeros(32, dtype=torch.int64)
    kept = saved_bytes(model, inputs, labels, torch.float32)
    assert 32 * 1000 * 4 <= kept <= 32 * 1000 * 4 + 2000


def test_gradients_at_the_outputs() -> None:
    model, inputs, labels = nn.Linear(5, 3), torch.randn(4, 5), torch.tensor([0, 1, 2, 0])
    expected = (model(inputs).softmax(dim=1) - F.one_hot(labels, 3)) / 4
    torch.testing.assert_close(output_gradients(model, inputs, labels), expected.flatten())


@pytest.mark.parametrize("scale", [2.0**-16, 2.0**16])
def test_a_scale_changes_nothing_in_fp32(scale: float) -> None:
    """Powers of two are exact: the training is the same to the bit, clipping among it."""
    train_set, weights = open_images()[0], []
    for chosen in (None, scale):
        torch.manual_seed(0)
        model = build(OPTIONS, train_set)
        train(model, train_set, OPTIONS.with_changes(precision="fp32", loss_scale=chosen, steps=5))
        weights.append(nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(*weights)


def test_an_overflow_is_left_out_and_halves_the_scale() -> None:
    train_set, _ = open_images()
    model = build(OPTIONS, train_set)
    before = copy.deepcopy(model.state_dict())
    history = train(model, train_set, OPTIONS.with_changes(precision="fp16", loss_scale=2.0**40, steps=2))
    assert history[-1]["scale"] == 2.0**38
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_without_master_weights_they_are_kept_in_bf16_while_training() -> None:
    train_set, _ = open_images()
    model = build(OPTIONS, train_set)
    train(model, train_set, OPTIONS.with_changes(precision="bf16", master_weights=False, steps=2))
    convolution = model[0]
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.weight.dtype == torch.float32
    assert torch.equal(convolution.weight, convolution.weight.bfloat16().float())


@pytest.mark.parametrize("options", [{"width": 0}, {"loss_scale": 0.0}, {"accumulate": 2}, {"channels_last": True}])
def test_options_that_cannot_be(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"option {next(iter(options))}: "):
        recipes.run("training.mixed_precision", device="cpu", **options)
    with pytest.raises(InputError, match="option master_weights: fp16 needs them"):
        recipes.run("training.mixed_precision", device="cpu", precision="fp16", master_weights=False)
