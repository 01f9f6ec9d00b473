"""GPTQ against optimal brain quantization by explicit inverses, and on causal models of `transformers`."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import recipes
from recipes.compression.causal_models import CausalModel, held_out_loss, open_causal_model
from recipes.compression.gptq import GPTQOptions, calibration_text, gptq, hessians_of, quantize
from recipes.compression.packed_linear import PackedLinear, linear_layers, pack_bits, unpack_bits, weight_of
from recipes.core.errors import InputError, tell
from recipes.datasets.running_text import Windows
from recipes.nlp.language_model import LanguageModel, evaluate

NAME = "compression.gptq"


def options(**given: Any) -> GPTQOptions:
    return GPTQOptions(device="cpu", **given)


def language_model(width: int = 32) -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(20, options(width=width, heads=2, context=16))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


def correlated(inputs: int, count: int = 500) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(count, inputs // 3) @ torch.randn(inputs // 3, inputs) + 0.5 * torch.randn(count, inputs)


def numbers(integers: Tensor, scales: Tensor, lowest: Tensor, group: int) -> Tensor:
    columns = torch.arange(integers.shape[1]) // group
    return lowest[:, columns] + scales[:, columns] * integers


def brain_surgeon(weight: Tensor, hessian: Tensor, bits: int, group: int, damping: float) -> Tensor:
    """The weight of optimal brain quantization in the order of the columns: an inverse of what is left, each time."""
    weight, hessian = weight.double(), hessian.double()
    hessian = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.double)
    for j in range(weight.shape[1]):
        if j % group == 0:
            part = weight[:, j : j + group].float()
            low = part.amin(dim=1).bfloat16()
            scale = ((part.amax(dim=1) - low.float()) / (2**bits - 1)).bfloat16().double()
        q = ((weight[:, j] - low.double()) / scale).round().clamp(0, 2**bits - 1)
        inverse = hessian[j:, j:].inverse()
        error = weight[:, j] - low.double() - scale * q
        weight[:, j:] -= error[:, None] * inverse[0] / inverse[0, 0]
        torch.testing.assert_close(weight[:, j], low.double() + scale * q)  # the change brings it to its value
    return weight


@pytest.mark.parametrize(("bits", "group"), [(4, 8), (2, 16), (3, 40)])
def test_is_optimal_brain_quantization(bits: int, group: int) -> None:
    x = correlated(40)
    weight, hessian = torch.randn(12, 40), x.T @ x
    found = numbers(*gptq(weight, hessian, bits, group, 0.01), group)
    expected = brain_surgeon(weight, hessian, bits, group, 0.01)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)


def test_with_the_identity_it_rounds_to_nearest() -> None:
    weight = torch.randn(12, 40)
    integers, scales, lowest = gptq(weight, 7 * torch.eye(40), 3, 16, 0.01)
    found = numbers(integers, scales, lowest, 16)
    for group in range(3):
        part = weight[:, 16 * group : 16 * group + 16]
        values = lowest[:, group, None, None] + scales[:, group, None, None] * torch.arange(8)  # (out, 1, 8)
        nearest = (part[..., None] - values).abs().argmin(dim=2)
        assert torch.equal(nearest, integers[:, 16 * group : 16 * group + 16].long())
    assert ((found - weight).abs() <= 0.51 * scales.repeat_interleave(16, dim=1)[:, :40] + 0.02).all()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_outputs_change_by_far_less_than_by_rounding(bits: int) -> None:
    x = correlated(64)
    weight = torch.randn(16, 64)
    errors = []
    for hessian in (torch.eye(64), x.T @ x):
        found = numbers(*gptq(weight, hessian, bits, 32, 0.01), 32)
        errors.append(((found - weight) @ x.T).square().mean().item())
    assert errors[1] < 0.4 * errors[0]


def test_inputs_that_are_always_zero_and_equal_weights_do_no_harm() -> None:
    x = correlated(16)
    x[:, 3] = 0
    weight = torch.randn(4, 16)
    weight[1] = 0.5
    before = weight.clone()
    found = numbers(*gptq(weight, x.T @ x, 4, 8, 0.01), 8)
    assert torch.equal(weight, before)
    assert found.isfinite().all()
    torch.testing.assert_close(found[1], weight[1])
    tiny = gptq(1e-6 * weight, x.T @ x, 4, 8, 0.01)
    torch.testing.assert_close(numbers(*tiny, 8), 1e-6 * weight, rtol=0.5, atol=2e-7)


@pytest.mark.parametrize("bits", range(2, 9))
def test_packed_integers_are_read_back(bits: int) -> None:
    integers = torch.randint(2**bits, (5, 24)).float()
    packed = pack_bits(integers, bits)
    assert packed.shape == (5, 3 * bits)
    assert packed.dtype == torch.uint8
    assert torch.equal(unpack_bits(packed, bits), integers.long())


def test_packed_layers_compute_with_what_is_stored() -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    for layer in (nn.Linear(40, 6), nn.Linear(40, 6, bias=False), Conv1D(6, 40)):
        weight = weight_of(layer)
        found = gptq(weight.detach(), torch.eye(40), 4, 16, 0.01)
        packed = PackedLinear(layer, 4, 16).store(*found)
        torch.testing.assert_close(packed.weight, numbers(*found, 16))
        x = torch.randn(2, 3, 40)
        torch.testing.assert_close(packed(x), F.linear(x, numbers(*found, 16), layer.bias))
        assert (packed(x) - layer(x)).norm() < 0.1 * layer(x).norm()
        assert packed.packed.shape == (6, 24)  # the last group is filled up
    with pytest.raises(InputError, match="option group: expected a multiple of 8"):
        PackedLinear(nn.Linear(40, 6), 4, 12)


def test_the_hessian_is_that_of_all_inputs() -> None:
    model, ids = language_model(), torch.randint(20, (20, 16))
    layers = linear_layers(model)["blocks.1."]
    assert list(layers) == [f"blocks.1.{name}" for name in ("to_qkv", "to_out", "mlp.0", "mlp.2")]
    found = hessians_of(model, layers, ids)
    given: list[Tensor] = []
    layers["blocks.1.mlp.2"].register_forward_pre_hook(lambda _, x: given.append(x[0]))
    model(ids)
    x = given[0].flatten(0, 1)
    torch.testing.assert_close(found["blocks.1.mlp.2"], sum(row.outer(row) for row in x), rtol=1e-4, atol=1e-3)
    assert not layers["blocks.1.to_qkv"]._forward_pre_hooks


def test_the_model_stays_as_it_is_and_what_is_quantized_takes_fewer_bytes() -> None:
    model, ids = language_model(), torch.randint(20, (8, 16))
    before = copy.deepcopy(model.state_dict())
    small = quantize(model, ids, options(bits=4, group=32))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    layers = [layer for layer in small.modules() if isinstance(layer, PackedLinear)]
    assert len(layers) == 8
    weights = 2 * 12 * 32**2
    assert sum(one.nbytes for layer in layers for one in layer.buffers()) == weights // 2 + 4 * weights // 32
    assert (small(ids) - model(ids)).norm() < (quantize(model, None, options(bits=4))(ids) - model(ids)).norm()


def test_each_block_reads_what_the_quantized_blocks_before_it_give() -> None:
    model, ids, given = language_model(), torch.randint(20, (8, 16)), options(bits=2, group=32)
    small = quantize(model, ids, given)
    half = copy.deepcopy(model)
    half.blocks[0] = small.blocks[0]  # type: ignore[index]
    found = hessians_of(half, linear_layers(half)["blocks.1."], ids)["blocks.1.to_qkv"]
    expected = gptq(model.blocks[1].to_qkv.weight.detach(), found, 2, 32, 0.01)  # type: ignore[union-attr]
    torch.testing.assert_close(small.blocks[1].to_qkv.weight, numbers(*expected, 32))  # type: ignore[index, union-attr]


def in_blocks(*layers: nn.Module) -> nn.Module:
    class Block(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return x + self.layer(input=x)

    return nn.Sequential(nn.Embedding(20, 16), nn.Sequential(*map(Block, layers)), nn.Linear(16, 20)).eval()


def test_layers_that_do_more_than_their_weight_are_left_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    class Halved(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 0.5 * super().forward(input)

    tell.cache_clear()
    torch.manual_seed(0)
    hooked, ids = nn.Linear(16, 16), torch.randint(20, (16, 12))
    hooked.register_forward_hook(lambda _, __, output: output.relu())
    model = in_blocks(nn.Linear(16, 16), hooked, Halved(16, 16))
    small = quantize(model, ids, options(bits=8, group=16))
    assert [isinstance(block.layer, PackedLinear) for block in small[1]] == [True, False, False]  # type: ignore[index, union-attr]
    assert (small(ids) - model(ids)).norm() < 0.01 * model(ids).norm()
    assert "gptq: reached 17.3% of the parameters, left *, *.*.layer" in capsys.readouterr().err


def test_a_layer_that_blocks_share_is_replaced_in_all() -> None:
    torch.manual_seed(0)
    layer, ids = nn.Linear(16, 16), torch.randint(20, (16, 12))
    model = in_blocks(layer, layer)
    small = quantize(model, ids, options(bits=8, group=16))
    assert isinstance(small[1][0].layer, PackedLinear)  # type: ignore[index, union-attr]
    assert small[1][1].layer is small[1][0].layer  # type: ignore[index, union-attr]
    assert (small(ids) - model(ids)).norm() < 0.01 * model(ids).norm()


def test_what_is_not_finite_is_named() -> None:
    model = language_model()
    model.blocks[1].mlp[0].weight.data[0, 0] = torch.nan  # type: ignore[index, union-attr, operator]
    with pytest.raises(InputError, match=r"layer blocks\.1\.mlp\.0: expected finite"):
        quantize(model, None, options())
    with pytest.raises(InputError, match="numbered blocks"):
        quantize(nn.Linear(3, 3), None, options())


def test_the_loss_is_that_of_the_language_model() -> None:
    model, windows = language_model(), Windows(torch.randint(20, (700,)), 16, ["�"] * 20, stride=8)
    assert held_out_loss(model, windows, "cpu") == pytest.approx(evaluate(model, windows, "cpu")["loss"], rel=1e-5)


def test_the_hessians_see_the_train_part_alone() -> None:
    train_set = Windows(torch.arange(400), 16, [], jitter=True)
    text = calibration_text(train_set, options(calibration=5))
    assert text.shape == (5, 16)
    assert torch.equal(text, calibration_text(train_set, options(calibration=5)))
    assert (text[:, 0] % 16 == 0).all()
    assert torch.equal(text - text[:, :1], torch.arange(16).expand(5, 16))


TEXT = "the cat sat on the mat and the dog ran to the house while a bird sang in the old tree by the river . "


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    words = TEXT.split()
    chosen = torch.randint(len(words), (3000,)).tolist()
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(words[number] for number in chosen))
    return path


def folder_of(kind: str, folder: Path) -> Path:
    """A tiny causal model with random weights and its tokenizer, as `save_pretrained` writes them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", *dict.fromkeys(TEXT.split())]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    ends: Any = {"vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.2}
    if kind == "gpt2":
        model: Any = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=48, **ends))
    else:
        sizes: Any = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 2}
        sizes |= {"num_key_value_heads": 1, "max_position_embeddings": 48, "tie_word_embeddings": False}
        model = LlamaForCausalLM(LlamaConfig(**sizes, **ends))
    model.to(torch.bfloat16 if kind == "llama in bfloat16" else torch.float32).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "kind", ["gpt2", *(pytest.param(one, marks=pytest.mark.slow) for one in ("llama", "llama in bfloat16"))]
)
def test_causal_models_of_transformers_are_quantized_used_and_exported(
    kind: str, text_file: Path, tmp_path: Path
) -> None:
    folder = folder_of(kind, tmp_path / "model")
    given = {"weights": str(folder), "data": str(text_file), "context": 32, "bits": 3, "group": 8, "calibration": 16}
    result = recipes.run(NAME, device="cpu", out=str(tmp_path / "out"), claims=False, **given)
    packed = [name for name, layer in result.model.named_modules() if isinstance(layer, PackedLinear)]
    assert len(packed) == (8 if kind == "gpt2" else 14)
    assert not any("lm_head" in name or "embed" in name for name in packed)
    assert result.model.context == 48
    model, _, test_set = open_causal_model(str(folder), str(text_file), 32, None)
    assert held_out_loss(model, test_set, "cpu") == pytest.approx(result.rows[0]["loss"])
    ids = test_set.ids[:256].view(8, 32)
    exact = model(ids)
    assert exact.dtype == torch.float32
    nearest = quantize(model, None, GPTQOptions(bits=3, group=8))
    assert (result.model(ids) - exact).norm() < 0.8 * (nearest(ids) - exact).norm()

    shutil.rmtree(folder)  # what was written stands alone
    trained = recipes.trained(tmp_path / "out", device="cpu")
    assert torch.equal(trained.model(ids), result.model(ids))
    trained.task.length = 5  # type: ignore[attr-defined]
    answers = trained(["the cat sat", "a bird"])
    assert answers == trained.task.predict(result.model, ["the cat sat", "a bird"], torch.device("cpu"))
    assert all(set(answer["text"].split()) <= set(TEXT.split()) | {"<unk>"} for answer in answers)
    for name in ("model.pt2", "model.onnx") if kind != "llama in bfloat16" else ():
        assert trained.export(tmp_path / name) < 1e-3


def test_the_whole_of_the_claims_runs_on_other_models(text_file: Path, tmp_path: Path) -> None:
    folder = folder_of("gpt2", tmp_path)
    result = recipes.run(NAME, device="cpu", weights=str(folder), data=str(text_file), context=32, group=8)
    assert [row["method"] for row in result.rows][:3] == ["none", "nearest", "gptq"]
    assert result.figure().axes


def test_other_folders_are_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="option weights: expected a folder"):
        recipes.run(NAME, device="cpu", weights=str(tmp_path / "none"), claims=False)
    with pytest.raises(InputError, match=r"option weights: .* cannot be opened with its tokenizer") as caught:
        recipes.run(NAME, device="cpu", weights=str(tmp_path), claims=False)
    assert "\n" not in str(caught.value)
    folder, text = folder_of("gpt2", tmp_path / "model"), tmp_path / "short.txt"
    text.write_text("the cat sat on the mat")
    with pytest.raises(InputError, match="tokens: expected more than the context"):
        recipes.run(NAME, device="cpu", weights=str(folder), data=str(text), claims=False)


def test_a_network_over_characters_writes_the_same_once_it_is_loaded(tmp_path: Path) -> None:
    short = {"epochs": 1, "steps": 20, "width": 32, "claims": False, "limit": 20_000}
    result = recipes.run(NAME, device="cpu", out=str(tmp_path), **short)
    trained = recipes.trained(tmp_path, device="cpu")
    assert isinstance(trained.model.blocks[0].to_qkv, PackedLinear)  # type: ignore[index, union-attr]
    assert not isinstance(trained.model, CausalModel)
    trained.task.length = 20  # type: ignore[attr-defined]
    expected = copy.copy(trained.task).predict(result.model, ["The "], torch.device("cpu"))
    assert trained(["The "]) == expected
    ids = result.test_set.ids[None, :9]
    script = f"import torch; print(torch.export.load('model.pt2').module()(torch.tensor({ids.tolist()})).tolist())"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), result.model.cpu()(ids), rtol=0, atol=1e-4)
    dense = recipes.run(NAME, device="cpu", out=str(tmp_path / "dense"), method="none", **short)
    assert torch.equal(
        recipes.trained(tmp_path / "dense").model(dense.test_set.ids[None, :9]),
        dense.model(dense.test_set.ids[None, :9]),
    )
