import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import recipes
from recipes.compression import quantization_aware
from recipes.compression.files import save_dense
from recipes.compression.quantization import train
from recipes.compression.quantization_aware import (
    QuantizationAwareOptions,
    Rounding,
    build,
    load_packed,
    measure_norms,
    pack,
    packed_model,
    rounding,
    unpack,
    with_rounding,
    without_rounding,
)
from recipes.core.errors import InputError
from recipes.datasets.images import open_images
from recipes.vision.classification.scoring import evaluate

CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(32, 5)).eval()


@pytest.mark.parametrize(("bits", "count"), [(2, 4), (3, 2), (4, 2), (5, 1), (8, 1)])
def test_integers_of_every_width_survive_packing(bits: int, count: int) -> None:
    largest = 2 ** (bits - 1) - 1
    integers = torch.randint(-largest, largest + 1, (5, 3, 8), generator=torch.Generator().manual_seed(0))
    packed = pack(integers, bits)
    assert packed.shape == (5, 3, 8 // count)
    assert torch.equal(unpack(packed, bits), integers.float())


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


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_other_widths_are_packed_alike(tmp_path: Path, bits: int) -> None:
    model, images = network(), torch.randn(3, 3, 8, 8)
    packed = packed_model(model, 32, bits)
    torch.testing.assert_close(packed(images), with_rounding(model, bits, 32)(images), rtol=0, atol=1e-5)
    again = packed_model(without_rounding(with_rounding(model, bits, 32)), 32, bits)
    assert torch.equal(again(images), packed(images)), "rounded weights are not rounded further"
    save_dense(packed, tmp_path / "model.safetensors")
    assert torch.equal(load_packed(network(), tmp_path / "model.safetensors", 32, bits)(images), packed(images))


def test_inputs_are_rounded_by_ranges_that_follow_the_batches() -> None:
    """In training the range moves a tenth of the way; then it stays, and what lies outside gets no gradient."""
    layer = nn.Linear(4, 2)
    near: Any = with_rounding(layer, 8, inputs=torch.tensor([[-1.0, 0.0, 0.5, 1.0]]))
    near.train()(torch.tensor([[-2.0, 0.0, 0.0, 3.0]]))
    torch.testing.assert_close(torch.stack([near.low, near.high]), torch.tensor([-1.1, 1.2]))
    given = torch.tensor([[-5.0, 0.3, 0.7, 5.0]], requires_grad=True)
    answer = near.eval()(given)
    assert float(near.high) == pytest.approx(1.2)
    rounded = torch.fake_quantize_per_tensor_affine(given, 2.3 / 255, round(1.1 / (2.3 / 255)), 0, 255)
    torch.testing.assert_close(answer, nn.functional.linear(rounded, near.weight, near.bias), rtol=0, atol=1e-5)
    answer.sum().backward()
    assert given.grad is not None
    torch.testing.assert_close(given.grad[0], near.weight.sum(dim=0) * torch.tensor([0, 1, 1, 0]))


def test_a_batch_with_infinity_does_not_move_the_range() -> None:
    layer: Any = with_rounding(nn.Linear(4, 2), 8, inputs=torch.tensor([[-1.0, 0.0, 0.5, 1.0]])).train()
    layer(torch.tensor([[-2.0, 0.0, 0.0, torch.inf]]))
    layer(torch.tensor([[-2.0, 0.0, 0.0, torch.nan]]))
    torch.testing.assert_close(torch.stack([layer.low, layer.high]), torch.tensor([-1.1, 1.0]))


def test_every_layer_keeps_its_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout()).train()
    model[1].eval()
    for inputs in (None, torch.randn(9, 4)):
        rounded = with_rounding(model, 4, inputs=inputs)
        assert [layer.training for layer in (rounded, rounded[0], rounded[1])] == [True, True, False]


def test_weights_that_a_hook_computes_are_rounded_as_plain_ones() -> None:
    with warnings.catch_warnings(action="ignore"):
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3)))
    model(inputs := torch.randn(9, 4))  # from now on its weight cannot be copied
    rounded = with_rounding(model, 8)
    torch.testing.assert_close(rounded(inputs), model(inputs), rtol=0, atol=0.05)
    assert [name for name, _ in without_rounding(rounded).named_parameters()] == ["0.bias", "0.weight"]


def test_batch_norm_is_measured_again() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    inputs = 5 + 3 * torch.randn(500, 4)
    measure_norms(model.eval(), inputs)
    assert not model[1].training
    assert model[1].momentum == 0.1
    answers = model.eval()(inputs)
    torch.testing.assert_close(answers.mean(dim=0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(answers.std(dim=0), torch.ones(3), rtol=0, atol=1e-2)


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
    with pytest.raises(InputError, match="expected one without rounding"):
        with_rounding(with_rounding(network(), 4), 4)
    with pytest.raises(InputError, match="option group: expected a multiple of 2, got 3"):
        packed_model(network(), 3)


def test_a_file_of_another_network(tmp_path: Path) -> None:
    save_dense(packed_model(nn.Sequential(nn.Linear(4, 4))), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="expected a file of this network in 4 bits"):
        load_packed(network(), tmp_path / "model.safetensors")


def test_shuffled_labels_fail_the_bar() -> None:
    train_set, test_set = open_images()
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
    options = QuantizationAwareOptions(epochs=2, device=CPU)
    torch.manual_seed(0)
    model = rounding(build(options, train_set), options, train_set.__getitems__(range(100))[0])
    train(model, replace(train_set, labels=train_set.labels[order]), options)
    assert evaluate(model, test_set, CPU)["accuracy"] < 0.4


@pytest.mark.parametrize("bits", [2, 4, 32])
def test_the_saved_network_answers_as_the_one_in_memory(bits: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 1, "rounded_epochs": 1, "width": 8, "claims": False, "device": "cpu"}
    result = quantization_aware.run(**options, bits=bits, out=str(tmp_path / "out"))
    trained = recipes.trained(tmp_path / "out", device="cpu")
    answers = trained(list(result.test_set.pixels(torch.arange(40))))
    images, _ = result.test_set.__getitems__(range(40))
    with torch.no_grad():
        exact = result.model(images)
    for answer, share in zip(answers, exact.softmax(dim=1), strict=True):
        assert list(answer["classes"].values()) == pytest.approx(share.tolist(), abs=1e-5)
    shipped = torch.export.load(tmp_path / "out" / "model.pt2").module()
    torch.testing.assert_close(shipped(images), exact, rtol=0, atol=1e-4)
    sizes = [(tmp_path / "out" / name).stat().st_size for name in ("packed.safetensors", "model.safetensors")]
    assert sizes[0] < {2: 0.35, 4: 0.4, 32: 1.1}[bits] * sizes[1]


def test_the_page_unpacks_the_weights(tmp_path: Path) -> None:
    """The page's lines, in a process that has no such library."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    packed = packed_model(model, 32, 2)
    save_dense(packed, tmp_path / "packed.safetensors")
    page = (Path(__file__).parents[2] / "docs" / "shipping.md").read_text("utf-8")
    (lines,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def unpacked" in block]
    script = (
        "import sys; sys.modules['recipes'] = None\n"
        "from safetensors.torch import load_file, save_file\n"
        f"{lines}"
        "packed = load_file('packed.safetensors')\n"
        "weight = unpacked(packed['1.weight0'], packed['1.weight1'], (10, 64), bits=2)\n"
        "save_file({'weight': weight.contiguous()}, 'weight.safetensors')\n"
    )
    subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True)
    weight = load_file(tmp_path / "weight.safetensors")["weight"]
    torch.testing.assert_close(weight, packed[1].weight, rtol=0, atol=0)  # type: ignore[union-attr]
