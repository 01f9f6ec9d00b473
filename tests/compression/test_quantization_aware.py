from pathlib import Path

import pytest
import torch
from torch import nn

from recipes.compression.files import save_dense
from recipes.compression.quantization_aware import (
    Rounding,
    load_packed,
    pack,
    packed_model,
    unpack,
    with_rounding,
    without_rounding,
)
from recipes.core.errors import InputError


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(32, 5)).eval()


def test_every_pair_of_integers_survives_packing() -> None:
    pairs = torch.cartesian_prod(torch.arange(-8, 8), torch.arange(-8, 8))
    packed = pack(pairs)
    assert packed.dtype == torch.uint8
    assert packed.shape == (256, 1)
    assert torch.equal(unpack(packed), pairs.float())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounds_as_torch_does(bits: int) -> None:
    """One group a row: torch's fake quantization by channel, with the same scales."""
    weight = torch.randn(6, 32)
    largest = 2 ** (bits - 1) - 1
    scales = (weight.abs().amax(dim=1) / largest).bfloat16().float()
    expected = torch.fake_quantize_per_channel_affine(
        weight, scales, torch.zeros(6, dtype=torch.int32), 0, -largest, largest
    )
    torch.testing.assert_close(Rounding(bits, 32)(weight), expected, rtol=0, atol=1e-6)


def test_the_gradient_passes_straight_through() -> None:
    weight = torch.randn(4, 10, requires_grad=True)
    factors = torch.randn(4, 10)
    (Rounding(2, 8)(weight) * factors).sum().backward()
    torch.testing.assert_close(weight.grad, factors)


def test_a_group_has_few_values_and_its_own_scale() -> None:
    weight = torch.cat([torch.randn(1, 16), 100 * torch.randn(1, 16)], dim=1)
    small, large = Rounding(3, 16)(weight).split(16, dim=1)
    assert small.unique().numel() <= 7
    assert (large - weight[:, 16:]).abs().max() <= large.abs().max() / 6 + 0.1
    assert (small - weight[:, :16]).abs().max() <= small.abs().max() / 6 + 0.001


def test_every_weight_of_a_rounded_model_gets_a_gradient_and_the_model_is_left_alone() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rounded = with_rounding(model, 4)
    rounded(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in rounded.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    images = torch.randn(2, 3, 8, 8)
    expected = rounded(images)
    torch.testing.assert_close(without_rounding(rounded)(images), expected)


@pytest.mark.parametrize("group", [6, 32])  # 27 weights of a filter: not a whole number of groups
def test_packed_answers_as_rounded_and_after_its_file_to_the_bit(tmp_path: Path, group: int) -> None:
    model, images = network(), torch.randn(3, 3, 8, 8)
    packed = packed_model(model, group)
    torch.testing.assert_close(packed(images), with_rounding(model, 4, group)(images), rtol=0, atol=1e-5)
    save_dense(packed, tmp_path / "model.safetensors")
    torch.manual_seed(5)
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(32, 5))
    assert torch.equal(load_packed(other, tmp_path / "model.safetensors", group)(images), packed(images))


def test_an_embedding_is_rounded_and_packed_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, other = (nn.Sequential(nn.Embedding(50, 48), nn.Linear(48, 4)) for _ in range(2))
    places = torch.randint(1, 50, (5, 7))
    rounded, packed = with_rounding(model, 4), packed_model(model)
    assert not torch.equal(rounded(places), model(places))
    torch.testing.assert_close(packed(places), rounded(places), rtol=0, atol=1e-5)
    rounded(places).sum().backward()
    gradient = dict(rounded.named_parameters())["0.parametrizations.weight.original"].grad
    assert gradient is not None
    assert torch.equal(gradient.any(dim=1).nonzero().flatten(), places.unique())
    torch.testing.assert_close(without_rounding(rounded)(places), packed(places), rtol=0, atol=1e-5)
    save_dense(packed, tmp_path / "model.safetensors")
    assert torch.equal(load_packed(other, tmp_path / "model.safetensors")(places), packed(places))


def test_tied_weights_stay_tied_while_they_are_rounded() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(30, 32), nn.Linear(32, 30))
    model[1].weight = model[0].weight
    rounded = with_rounding(model, 4)
    weights = [parameter for parameter in rounded.parameters() if parameter.ndim == 2]
    assert len(weights) == 1
    table, last = without_rounding(rounded)
    assert torch.equal(table.weight, last.weight)


def test_what_cannot_be_rounded() -> None:
    with pytest.raises(InputError, match="option bits: expected a whole number from 2 to 8, got 1"):
        with_rounding(network(), 1)
    with pytest.raises(InputError, match="expected linear or convolutional layers, found none in ReLU"):
        with_rounding(nn.ReLU(), 4)
    with pytest.raises(InputError, match="layer 0: expected a plain weight"):
        with_rounding(with_rounding(network(), 4), 4)
    with pytest.raises(InputError, match="option group: expected an even number"):
        packed_model(network(), 3)


def test_a_file_of_another_network(tmp_path: Path) -> None:
    save_dense(packed_model(nn.Sequential(nn.Linear(4, 4))), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="expected a file of this network in four bits"):
        load_packed(network(), tmp_path / "model.safetensors")
