"""Rounding against torch's own, the file, and torchao's way."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import recipes
from recipes.compression import quantization
from recipes.compression.files import file_bytes, save_dense
from recipes.compression.graphs import exported, with_products, without_lone_batch_norm
from recipes.compression.inductor import (
    compiled,
    has_products,
    load_compiled,
    missing_for_integers,
    products_are_plain,
    quantize_by_torchao,
    quiet_and_single,
)
from recipes.compression.quantization import (
    QuantizationOptions,
    input_scale,
    least_error,
    load_quantized,
    minmax,
    percentile,
    quantize,
    to_integers,
    to_numbers,
    weight_scale,
)
from recipes.compression.quantization_aware import load_packed, packed_model, with_rounding, without_rounding
from recipes.compression.report import parameters
from recipes.compression.runtimes import by_onnxruntime
from recipes.compression.shipping import shipped_files
from recipes.copying import copy
from recipes.core.errors import InputError
from recipes.core.measure import macs, parameter_count
from recipes.datasets.images import open_images
from recipes.vision.classification.resnet import BasicBlock
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN, build

ROOT = Path(__file__).parents[2]


def network(seed: int = 0) -> SmallCNN:
    torch.manual_seed(seed)
    return SmallCNN(1, 10, width=8).eval()


def pictures(count: int = 16) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def test_rounding_of_inputs_is_torchs() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    scale, zero_point = input_scale(values.amin(), values.amax())
    mine = to_numbers(to_integers(values, scale, zero_point, 0, 255), scale, zero_point)
    theirs = torch.fake_quantize_per_tensor_affine(values, float(scale), int(zero_point), 0, 255)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    assert (mine - values).abs().max() <= scale / 2 + 1e-6


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)])
def test_zero_is_met_exactly(low: float, high: float) -> None:
    scale, zero_point = input_scale(torch.tensor(low), torch.tensor(high))
    assert 0 <= zero_point <= 255
    zero = torch.zeros(1)
    assert to_numbers(to_integers(zero, scale, zero_point, 0, 255), scale, zero_point) == 0


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_of_weights_is_torchs(bits: int) -> None:
    layer = nn.Conv2d(3, 5, 3).requires_grad_(False)
    largest = 2 ** (bits - 1) - 1
    rounded: Any = quantize(layer, bits=bits)
    theirs = torch.fake_quantize_per_channel_affine(
        layer.weight,
        weight_scale(layer.weight, bits).flatten(),
        torch.zeros(5, dtype=torch.int32),
        0,
        -largest,
        largest,
    )
    torch.testing.assert_close(rounded.weight, theirs, rtol=0, atol=1e-6)


def test_answers_stay_near_and_move_with_the_input() -> None:
    model, images = network(), pictures()
    quantized = quantize(model, images)
    with torch.no_grad():
        answers, exact = quantized(images), model(images)
    assert not torch.equal(answers, exact)
    assert (answers - exact).norm() < 0.05 * exact.norm()
    assert not torch.equal(answers[0], answers[1])


def test_dynamic_ranges_are_those_of_the_sample() -> None:
    layer, near = nn.Linear(6, 4), torch.randn(5, 7, 6)
    rounded = quantize(layer, dynamic=True)
    with torch.no_grad():
        for one, answer in zip(near, rounded(torch.cat([near, 50 * near])), strict=False):
            torch.testing.assert_close(answer, quantize(layer, one)(one), rtol=0, atol=1e-6)
        assert rounded(near[0, 0]).shape == (4,)
        torch.testing.assert_close(rounded(input=near), rounded(near), rtol=0, atol=0)


def test_dynamic_ranges_fit_what_was_not_expected() -> None:
    model, images = network(), pictures()
    static, dynamic = quantize(model, images), quantize(model, dynamic=True)
    with torch.no_grad():
        for others in (3 * images, images + 5, images):
            exact = model(others)
            assert (dynamic(others) - exact).norm() < 0.05 * exact.norm()
        far = 3 * images
        assert (static(far) - model(far)).norm() > 0.2 * model(far).norm()


def test_dynamic_ranges_and_single_scales_are_in_the_file(tmp_path: Path) -> None:
    rounded, images = quantize(network(), dynamic=True), pictures()
    for small in (rounded, quantize(network(), images, per_channel=False)):
        save_dense(small, tmp_path / "model.safetensors")
        with torch.no_grad():
            assert torch.equal(load_quantized(network(1), tmp_path / "model.safetensors")(images), small(images))


def test_a_number_far_out_does_not_set_the_range() -> None:
    torch.manual_seed(0)
    layer, numbers = nn.Linear(64, 8), torch.randn(200, 64)
    far = numbers.clone()
    far[0, 0] = 100
    with torch.no_grad():
        exact = layer(numbers)
        ways = minmax, percentile
        errors = {way: float((quantize(layer, far, observer=way)(numbers) - exact).norm()) for way in ways}
    assert errors[percentile] < 0.3 * errors[minmax]


def test_the_range_of_least_error_has_less_than_that_of_all_numbers() -> None:
    numbers = torch.cat([torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)), torch.tensor([-10.0, 10])])
    errors = {}
    for observer in (minmax, percentile, least_error):
        scale, zero_point = input_scale(*observer(numbers))
        rounded = to_numbers(to_integers(numbers, scale, zero_point, 0, 255), scale, zero_point)
        errors[observer] = float((rounded - numbers).square().mean())
    assert errors[least_error] < 0.6 * errors[minmax]
    assert errors[least_error] < errors[percentile]


def test_fewer_bits_lie_further_off() -> None:
    model, images = network(), pictures()
    with torch.no_grad():
        errors = [float((quantize(model, bits=bits)(images) - model(images)).norm()) for bits in (8, 6, 4, 2)]
    assert errors == sorted(errors)


def test_one_scale_for_all_channels_is_torchs() -> None:
    layer = nn.Linear(20, 6).requires_grad_(False)
    rounded: Any = quantize(layer, bits=4, per_channel=False)
    scale = float(layer.weight.abs().max() / 7)
    theirs = torch.fake_quantize_per_tensor_affine(layer.weight, scale, 0, -7, 7)
    torch.testing.assert_close(rounded.weight, theirs, rtol=0, atol=1e-6)


def test_the_table_counts_the_weights_that_integers_stand_for() -> None:
    model = network()
    tied = nn.Sequential(nn.Embedding(30, 16), nn.Linear(16, 30))
    tied[1].weight = tied[0].weight  # type: ignore[union-attr]
    for one in (model, tied, nn.LSTM(4, 5)):
        counted = list(parameters(quantize(one)))
        assert sum(value.numel() for value in counted) == parameter_count(one)
        assert sum(value.numel() for value in parameters(one)) == parameter_count(one)


def test_the_model_itself_is_not_changed() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantize(model, pictures())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_every_kind_of_layer_answers() -> None:
    for layer, shape in (
        (nn.Linear(6, 4), (2, 6)),
        (nn.Conv1d(3, 4, 3, padding=1), (2, 3, 9)),
        (nn.Conv2d(4, 4, 3, stride=2, groups=2), (2, 4, 9, 9)),
        (nn.Conv3d(2, 4, 3, padding=1, padding_mode="circular"), (2, 2, 5, 5, 5)),
    ):
        assert isinstance(layer, nn.Module)
        inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            exact, near = layer(inputs), quantize(layer, inputs)(inputs)
        assert (near - exact).norm() < 0.05 * exact.norm()


def test_an_embedding_is_rounded_too_and_its_places_are_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, other = (nn.Sequential(nn.Embedding(300, 64), nn.Linear(64, 4)) for _ in range(2))
    places = torch.randint(300, (5, 7))
    for small in (quantize(model, places), quantize(model, dynamic=True), quantize(model)):
        save_dense(small, tmp_path / "model.safetensors")
        assert (tmp_path / "model.safetensors").stat().st_size < 0.3 * file_bytes(model, save_dense)
        with torch.no_grad():
            exact, near = model(places), small(places)
            assert 0 < (near - exact).norm() < 0.02 * exact.norm()
            assert torch.equal(load_quantized(other, tmp_path / "model.safetensors")(places), near)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_every_output_channel_of_a_transposed_convolution_has_its_own_scale(groups: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer, other = (nn.ConvTranspose2d(8, 8, 2, 2, groups=groups, bias=False).requires_grad_(False) for _ in range(2))
    layer.weight.unflatten(0, (groups, -1)).mul_(torch.logspace(-5, 0, 8).view(groups, 1, -1, 1, 1))
    inputs = torch.randn(2, 8, 4, 4)
    exact, quantized = layer(inputs), quantize(layer)
    for small in (quantized, packed_model(layer, bits=8), with_rounding(layer, 8)):
        for one in (small, without_rounding(small)):
            lost, size = (
                by_channel.transpose(0, 1).flatten(1).norm(dim=1) for by_channel in (one(inputs) - exact, exact)
            )
            assert (lost < 0.02 * size).all()
    for small, load in ((quantize(layer), load_quantized), (packed_model(layer), load_packed)):
        save_dense(small, tmp_path / "model.safetensors")
        assert torch.equal(load(other, tmp_path / "model.safetensors")(inputs), small(inputs))


def test_calibration_refuses_what_is_no_number() -> None:
    model, images = network(), pictures()
    for number in (torch.nan, torch.inf):
        images[3, 0, 2, 2] = number
        for compress in (quantize, lambda one, inputs: with_rounding(one, 8, inputs=inputs)):
            with pytest.raises(InputError, match=r"^layer features\.0: was given NaN or infinity$"):
                compress(model, images)


def test_tied_weights_are_rounded_alike() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(30, 16), nn.Linear(16, 30))
    model[1].weight = model[0].weight
    table, last = quantize(model)
    assert torch.equal(table.weight, last.weight)


def test_batch_norm_that_follows_no_convolution_answers_alike() -> None:
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4)]
    for norm in norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    model = nn.Sequential(norms[0], nn.Conv2d(4, 4, 3), nn.MaxPool2d(2), norms[1], nn.Conv2d(4, 4, 3), norms[2]).eval()
    images = torch.randn(8, 4, 12, 12)
    graph = without_lone_batch_norm(exported(model, images), images)
    left = [node for node in graph.graph.nodes if node.target is torch.ops.aten.batch_norm.default]
    assert len(left) == 1, "the one after a convolution stays, for torchao to take in"
    torch.testing.assert_close(graph(images), model(images))


def test_convolutions_of_small_maps_become_products_and_answer_alike() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    small = [nn.Conv2d(3, 6, 3, padding=1, bias=False), norm, nn.Conv2d(6, 8, (3, 2), stride=2, dilation=(2, 1))]
    left = [nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 8, 3), nn.Upsample((40, 40)), nn.Conv2d(8, 16, 3)]
    model = nn.Sequential(*small, nn.ReLU(), *left, nn.BatchNorm2d(16)).eval()
    images = torch.randn(4, 3, 12, 11)
    graph = with_products(exported(model, images), images)
    kinds = [str(node.target) for node in graph.graph.nodes]
    assert kinds.count("aten.linear.default") == 2
    assert kinds.count("aten.conv2d.default") == 2, "one of groups, and one of a large map"
    assert kinds.count("aten.batch_norm.default") == 1
    torch.testing.assert_close(graph(images[:3]), model(images[:3]), rtol=1e-4, atol=1e-5)
    block = BasicBlock(3, 8, 2, True).eval()
    graph = with_products(exported(block, images), images)
    kinds = [str(node.target) for node in graph.graph.nodes]
    assert kinds.count("aten.linear.default") == 1, "those whose results are added stay"
    torch.testing.assert_close(graph(images), block(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [0, 1, 9, 4.5])
def test_refuses_bits_that_cannot_be(bits: int) -> None:
    for compress in (quantize, packed_model, with_rounding):
        with pytest.raises(InputError, match="option bits"):
            compress(network(), bits=bits)


def test_refuses_what_it_cannot_quantize() -> None:
    with pytest.raises(InputError, match="found none in ReLU"):
        quantize(nn.ReLU())
    with pytest.raises(InputError, match="option dynamic: expected no inputs"):
        quantize(network(), pictures(), dynamic=True)
    for compress in (quantize, packed_model):
        with pytest.raises(
            InputError, match="layer 1: expected weights, which it makes when the model is first called"
        ):
            compress(nn.Sequential(nn.Linear(3, 3), nn.LazyLinear(3)))
        with pytest.raises(InputError, match="layer 0: expected real weights, found complex ones"):
            compress(nn.Sequential(nn.Linear(3, 3, dtype=torch.cfloat)))


def test_file_is_read_by_another_process_to_the_bit(tmp_path: Path) -> None:
    model, images = network(), pictures()
    quantized = quantize(model, images)
    save_dense(quantized, tmp_path / "model.safetensors")
    torch.save(images, tmp_path / "pictures.pt")
    script = (
        "import torch\n"
        "from recipes.compression.quantization import load_quantized\n"
        "from recipes.vision.classification.task import SmallCNN\n"
        "torch.set_num_threads(1)\n"
        "model = load_quantized(SmallCNN(1, 10, width=8), 'model.safetensors')\n"
        "torch.save(model(torch.load('pictures.pt', weights_only=True)).detach(), 'answer.pt')\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "answer.pt", weights_only=True), quantized(images))
    wide = SmallCNN(1, 10, width=64)
    assert file_bytes(quantize(wide), save_dense) < 0.27 * file_bytes(wide, save_dense)


def test_a_file_that_is_not_one_is_one_clear_line(tmp_path: Path) -> None:
    save_dense(quantize(SmallCNN(1, 7, width=4)), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: expected a quantized file of this network"):
        load_quantized(network(), tmp_path / "other.safetensors")


def four_at_once(call: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, expected: torch.Tensor) -> None:
    """Four threads call it with one tensor: each gets the answers, and the tensor stays as it is."""
    before = inputs.clone()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(call, [inputs] * 400))
    assert all(torch.equal(answers, expected) for answers in found)
    assert torch.equal(inputs, before)


@pytest.mark.skipif(bool(missing_for_integers()), reason=f"lacks {missing_for_integers()}")
def test_torchao_compiled_agrees_with_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = network(), pictures(32)
    with torch.no_grad(), quiet_and_single():
        graph = quantize_by_torchao(exported(model, images), images)
        call = compiled(graph, images[0], tmp_path / "programs", batch_sizes=[8])
        exact, theirs, mine = model(images), call(images), quantize(model, images)(images)
        few, before = call(images[:5]), images.clone()
        assert has_products() == products_are_plain(graph), "here, of the convolutions, too"
        assert not list((tmp_path / "programs").glob("*-writes.pt2")), "so that what it is given need not be copied"
    four_at_once(call, images[:8], theirs[:8])
    assert torch.equal(images, before)
    assert (theirs - exact).norm() < 0.05 * exact.norm()
    assert (theirs - mine).norm() < 0.05 * exact.norm()
    assert torch.equal(few, theirs[:5]), "a batch that is filled up answers as a full one"
    monkeypatch.setattr("recipes.compression.inductor.write_program", None)  # it is kept, and not compiled again
    with torch.no_grad(), quiet_and_single():
        assert torch.equal(compiled(graph, images[0], tmp_path / "again", batch_sizes=[8])(images), theirs)
    torch.save(images, tmp_path / "pictures.pt")
    script = (
        "import torch\n"
        "from pathlib import Path\n"
        "from recipes.compression.inductor import load_compiled\n"
        "torch.set_num_threads(1)\n"
        "images = torch.load('pictures.pt', weights_only=True)\n"
        "torch.save(load_compiled(Path('programs'))(images), 'answer.pt')\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert torch.equal(torch.load(tmp_path / "answer.pt", weights_only=True), theirs), "another process answers alike"
    with pytest.raises(InputError, match=r"expected programs that `compiled` wrote, files \*\.pt2"):
        load_compiled(tmp_path)


@pytest.mark.skipif(bool(missing_for_integers()), reason=f"lacks {missing_for_integers()}")
def test_torchao_with_dynamic_ranges_agrees_and_leaves_its_inputs_alone(tmp_path: Path) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.norm = nn.Linear(64, 64), nn.LayerNorm(64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x + self.inner(x))

    torch.manual_seed(0)
    model, words = Residual().eval(), torch.randn(32, 8, 64)
    before = words.clone()
    with torch.no_grad(), quiet_and_single():
        graph = quantize_by_torchao(exported(model, words), words, dynamic=True)
        call = compiled(graph, words[0], tmp_path, batch_sizes=[32])
        exact, theirs, mine = model(words), call(words), quantize(model, dynamic=True)(words)
    assert not products_are_plain(graph)
    four_at_once(call, words, theirs)
    assert torch.equal(words, before)
    assert (tmp_path / "32-8x64-float32-writes.pt2").exists(), (
        "this program writes into its input, so it is given a copy"
    )
    assert (theirs - exact).norm() < 0.02 * exact.norm()
    assert (theirs - mine).norm() < 0.02 * exact.norm()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="lacks a C++ compiler")
def test_compiled_programs_take_what_they_were_compiled_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.table, self.scale = nn.Embedding(9, 4), torch.tensor(scale)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.table(ids) * self.scale

    torch.manual_seed(0)  # a second run finds the program
    ids, one, two = torch.randint(9, (4, 3)), Scaled(1.0).eval(), Scaled(2.0).eval()
    two.table = one.table
    with torch.no_grad(), quiet_and_single():
        graph = exported(one, ids)
        call = compiled(graph, ids[0], tmp_path / "programs", batch_sizes=[4])
        torch.testing.assert_close(call(ids), one(ids))
        monkeypatch.setattr("recipes.compression.inductor.write_program", None)
        compiled(graph, ids[0], tmp_path / "again", batch_sizes=[4])  # it is kept
        for other, given in ((exported(two, ids), ids), (exported(one, ids.int()), ids.int())):
            with pytest.raises(TypeError):  # it is compiled for another constant, and for another type
                compiled(other, given[0], tmp_path / "other", batch_sizes=[4])
    assert call(ids[:0]).shape == (0, 3, 4)
    for unlike in (ids.int(), ids.float(), ids[:, :2], ids[0], ids[0, 0], ids[None]):
        with pytest.raises(InputError, match=r"expected a batch of torch\.int64 of shape \[3\] on cpu, got torch\."):
            call(unlike)


def test_a_network_of_timm_is_quantized() -> None:
    pytest.importorskip("timm")
    few: dict[str, Any] = {"model": "timm:test_resnet", "image_size": 32, "epochs": 1, "claims": False, "device": "cpu"}
    small, large = quantization.run(**few), quantization.run(**few, bits=32)
    assert type(small.model).__name__ == "ResNet"
    assert small["bytes"] < 0.4 * large["bytes"]
    assert macs(small.model, torch.zeros(1, 1, 32, 32)) == macs(large.model, torch.zeros(1, 1, 32, 32))
    assert abs(small["accuracy"] - large["accuracy"]) < 0.03
    with pytest.raises(InputError, match="option model: timm has no 'test_resnett', did you mean test_resnet"):
        quantization.run(model="timm:test_resnett")


def test_onnxruntime_answers_as_the_network_and_says_what_it_cannot_take(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    images = torch.randn(16, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 5)).eval()
    with quiet_and_single(), torch.no_grad():
        answers, exact = by_onnxruntime(model, images, tmp_path)(images), model(images)
        assert (answers - exact).norm() < 0.03 * exact.norm()
        stored = [onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "integers.onnx").graph.initializer]
        weights = [one for one in stored if one.dtype == "int8" and one.ndim > 1]
        assert len(weights) == 2
        assert all(abs(one.astype(int)).max() <= 64 for one in weights), "two products fit in 16 bits"
        enlarging = nn.Sequential(nn.AdaptiveMaxPool2d(9), nn.Flatten(), nn.Linear(3 * 81, 5)).eval()
        with pytest.raises(torch.onnx.OnnxExporterError):
            by_onnxruntime(enlarging, images, tmp_path)
        small = SmallCNN(3, 5, width=4).eval()
        answers, exact = by_onnxruntime(small, images, tmp_path)(images), small(images)
        assert (answers - exact).norm() < 0.03 * exact.norm()


def test_shuffled_labels_fail_the_bar() -> None:
    train_set, test_set = open_images()
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
    options = QuantizationOptions(epochs=2, device=torch.device("cpu"))
    torch.manual_seed(0)
    model = build(options, train_set)
    quantization.train(model, replace(train_set, labels=train_set.labels[order]), options)
    assert evaluate(quantize(model), test_set, torch.device("cpu"))["accuracy"] < 0.4


@pytest.mark.parametrize("inputs", ["static", "dynamic", "none"])
def test_the_saved_network_answers_as_the_one_in_memory(inputs: Any, tmp_path: Path) -> None:
    result = quantization.run(epochs=1, width=8, inputs=inputs, claims=False, device="cpu", out=str(tmp_path / "out"))
    trained = recipes.trained(tmp_path / "out", device="cpu")
    answers = trained(list(result.test_set.pixels(torch.arange(40))))
    images, _ = result.test_set.__getitems__(range(40))
    with torch.no_grad():
        shares = result.model(images).softmax(dim=1)
    for answer, share in zip(answers, shares, strict=True):
        assert list(answer["classes"].values()) == pytest.approx(share.tolist(), abs=1e-5)


def test_what_cannot_be_exported_is_left_out_in_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    class ByContent(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) if images.sum() > 0 else super().forward(-images)

    files = shipped_files(quantize(ByContent(nn.Flatten(), nn.Linear(64, 3))), pictures())
    assert list(files) == ["packed.safetensors"]
    files["packed.safetensors"](tmp_path / "packed.safetensors")
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in told if "left out" in line] == ["model.pt2", "model.onnx"]


def test_networks_that_answer_in_dicts_are_shipped() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    class Named(nn.Sequential):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {"logits": super().forward(images)}

    torch.manual_seed(0)
    files = shipped_files(quantize(Named(nn.Flatten(), nn.Linear(64, 3))), pictures())
    assert list(files) == ["packed.safetensors", "model.pt2", "model.onnx"]


@pytest.mark.slow
def test_what_the_page_says_of_shipping_runs(tmp_path: Path) -> None:
    """The page's lines, each way in a process of its own that has no such library, answer as the network does."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from PIL import Image

    result = quantization.run(claims=False, device="cpu", out=str(tmp_path / "out" / "small"))
    copy("vision.classification", tmp_path / "network.py")
    Image.fromarray(result.test_set.pixels(torch.arange(1))[0, 0].numpy()).save(tmp_path / "photo.png")
    image, _ = result.test_set.__getitems__([0])
    with torch.no_grad():
        exact = result.model(image)
    first, *ways = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "shipping.md").read_text("utf-8"), re.DOTALL)
    assert len(ways) == 4, "the last unpacks what compression.quantization_aware writes"
    for lines in ways[:3]:
        assert len(lines.splitlines()) <= 10
        script = (
            f"import sys\nsys.path.append('.')\nsys.modules['recipes'] = None\n{first}{lines}print(*logits[0].tolist())"
        )
        done = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        answer, numbers = done.stdout.splitlines()
        assert answer == result.test_set.classes[int(exact.argmax())]
        logits = torch.tensor([float(number) for number in numbers.split()])
        assert (logits - exact[0]).norm() < 0.03 * exact.norm()
    torch.testing.assert_close(
        torch.export.load(tmp_path / "out" / "small" / "model.pt2").module()(image), exact, rtol=0, atol=1e-5
    )
    import onnx

    nodes = {node.op_type for node in onnx.load(tmp_path / "out" / "small" / "model.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= nodes
