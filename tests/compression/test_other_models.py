"""Networks of other libraries, with random weights, go through pruning and quantization."""

import copy
import functools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recipes.compression.channels import channel_groups, prune_channels
from recipes.compression.coupling import NORMS, PRODUCERS
from recipes.compression.distillation import DistillationOptions, distill
from recipes.compression.files import file_bytes, load_sparse, save_dense, save_sparse
from recipes.compression.huffman import load_shared, save_shared
from recipes.compression.quantization import load_quantized, quantize
from recipes.compression.quantization_aware import load_packed, packed_model, with_rounding
from recipes.compression.structured_pruning import prune_by_library
from recipes.compression.weight_pruning import fine_tune, prunable, prune
from recipes.compression.weight_sharing import share_weights
from recipes.core.errors import InputError, tell
from recipes.core.measure import macs, parameter_count
from tests.compression.networks import LARGE, TINY, Recurrent, answer, off, off_by_input, other

# Shares of the dense file with weights of 8 and of 4 bits. Biases, norms and names of tensors stay as they are,
# and in networks of small layers they count.
SHARES = {
    "resnet18": (0.27, 0.16),
    "vgg11_bn": (0.27, 0.16),
    "densenet121": (0.275, 0.165),
    "mobilenetv2_100": (0.275, 0.17),
    "tf_efficientnet_lite0": (0.275, 0.165),
    "vit_tiny_patch16_224": (0.27, 0.16),
    "bert": (0.3, 0.17),
}
every_network = pytest.mark.parametrize("name", SHARES)


def build(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    if name == "bert":
        from transformers import BertConfig, BertForSequenceClassification

        sizes: Any = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
        sizes |= {"vocab_size": 100, "max_position_embeddings": 32, "num_labels": 10}
        return BertForSequenceClassification(BertConfig(**sizes)).eval()
    if name in ("mobilenetv2_100", "tf_efficientnet_lite0", "vit_tiny_patch16_224"):
        import timm

        options: Any = {"img_size": 64} if "vit" in name else {}
        return timm.create_model(name, pretrained=False, **options).eval()
    from torchvision import models

    if name != "vgg11_bn":
        return models.get_model(name, weights=None).eval()
    with torch.device("meta"):  # nine in ten of its weights are in two layers: with fewer the tests are seconds shorter
        model: Any = models.vgg11_bn(weights=None)
    model.classifier[0], model.classifier[3] = nn.Linear(512 * 49, 64), nn.Linear(64, 4096)
    for layer in model.to_empty(device="cpu").modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    return model.eval()


@functools.cache
def network(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """The network, eight inputs, and its answers to them."""
    model = build(name, seed=0)
    inputs = torch.randint(0, 100, (8, 16)) if name == "bert" else torch.randn(8, 3, 64, 64)
    return model, inputs, answer(model, inputs)


def likeness(answers: Tensor, exact: Tensor) -> float:
    """Cosine of what differs from input to input; what is the same for all would hide a constant answer."""
    return float(torch.cosine_similarity((answers - answers.mean(0)).flatten(), (exact - exact.mean(0)).flatten(), 0))


@every_network
def test_weights_are_pruned_and_the_sparse_file_is_read_to_the_bit(name: str, tmp_path: Path) -> None:
    model, inputs, _ = network(name)
    pruned, other = copy.deepcopy(model), build(name, seed=1)
    prune(pruned, 0.8)
    weights = prunable(pruned).values()
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros == pytest.approx(0.8 * sum(weight.numel() for weight in weights), abs=100)  # some are equally large
    answers = answer(pruned, inputs)
    assert answers.isfinite().all()
    save_sparse(pruned, tmp_path / "model.safetensors")
    load_sparse(other, tmp_path / "model.safetensors")
    assert torch.equal(answer(other, inputs), answers)


@every_network
def test_few_bits_answer_alike_and_are_read_to_the_bit(name: str, tmp_path: Path) -> None:
    model, inputs, exact = network(name)
    dense, path, other = file_bytes(model, save_dense), tmp_path / "model.safetensors", build(name, seed=1)
    quantized, packed = quantize(model, inputs), packed_model(model)
    for small, share, read in zip((quantized, packed), SHARES[name], (load_quantized, load_packed), strict=True):
        answers = answer(small, inputs)
        save_dense(small, path)
        assert path.stat().st_size <= share * dense
        assert torch.equal(answer(read(other, path), inputs), answers)
        cosine = torch.cosine_similarity(answers, exact).min()
        assert cosine > (0.98 if small is quantized else 0.9)
        if small is quantized:
            assert likeness(answers, exact) > 0.85


@every_network
def test_halves_the_channels(name: str) -> None:
    model, inputs, exact = network(name)
    small = prune_channels(model, inputs[:1], 0.5)
    answers = answer(small, inputs)
    assert answers.shape == exact.shape
    assert answers.isfinite().all()
    left = parameter_count(small) / parameter_count(model)
    assert left < 0.4


@pytest.mark.filterwarnings("ignore:Unwrapped parameters")
@every_network
def test_couples_the_channels_that_torch_pruning_couples(name: str) -> None:
    torch_pruning = pytest.importorskip("torch_pruning")
    model, inputs, _ = network(name)
    names = {layer: path for path, layer in model.named_modules()}
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    graph = torch_pruning.DependencyGraph().build_dependency(
        model, example_inputs=inputs[:1], output_transform=lambda answers: getattr(answers, "logits", answers)
    )
    theirs = {
        frozenset(
            names[step.target.module]
            for step, _ in group
            if isinstance(step.target.module, (*PRODUCERS, *NORMS)) and graph.is_out_channel_pruning_fn(step.handler)
        )
        for group in graph.get_all_groups(ignored_layers=[last])
    }
    # They also shrink what attention compares, and leave it to the user to tell the network its new sizes.
    attention = ("qkv", "query", "key", "value")
    theirs = {group for group in theirs if not all(path.endswith(attention) for path in group)}
    assert {frozenset(group) for group in channel_groups(model, inputs[:1])} == theirs


def test_saves_what_torch_pruning_saves() -> None:
    pytest.importorskip("torch_pruning")
    model, pictures, _ = network("resnet18")
    mine, by_library = prune_channels(model, pictures[:1], 0.5), prune_by_library(model, pictures[:1], 0.5)
    assert macs(mine, pictures[:1]) == pytest.approx(macs(by_library, pictures[:1]), rel=0.05)
    assert parameter_count(mine) == pytest.approx(parameter_count(by_library), rel=0.05)


def test_layers_of_other_libraries_keep_their_own_ways() -> None:
    """Some pad their inputs first, some normalize their weight, and attention reads its last layer's bias."""
    from timm.layers import Conv2dSame, ScaledStdConv2d

    pictures, words = torch.randn(2, 4, 9, 9), torch.randn(2, 5, 16)
    for layer, inputs in (
        (Conv2dSame(4, 8, 3, stride=2), pictures),
        (ScaledStdConv2d(4, 8, 3), pictures),
        (nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), words),
    ):
        layer.eval()
        for small in (quantize(layer, inputs), packed_model(layer)):
            exact = answer(layer, inputs)
            assert answer(small, inputs).shape == exact.shape
            assert (answer(small, inputs) - exact).norm() < 0.15 * exact.norm()


def test_what_does_not_fit_names_the_layer() -> None:
    model, _, _ = network("vit_tiny_patch16_224")
    words, few = torch.zeros(1, 3, 64, 64, dtype=torch.long), torch.zeros(1, 1, 64, 64)
    for compress in (lambda inputs: quantize(model, inputs), lambda inputs: prune_channels(model, inputs, 0.5)):
        for inputs in (words, few):
            with pytest.raises(InputError, match=r"layer patch_embed\.proj: cannot take what it is given"):
                compress(inputs)


def test_weights_that_are_no_numbers_are_refused() -> None:
    """A single one would become a layer of them: the largest weight sets the scale."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    for compress in (quantize, packed_model, functools.partial(prune, sparsity=0.5), share_weights):
        with pytest.raises(InputError, match="layer 1: expected finite weights"):
            compress(model)


every_other = pytest.mark.parametrize("name", [*TINY, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])


@functools.lru_cache(2)
def known(name: str) -> tuple[nn.Module, Any, Tensor]:
    model, inputs = other(name, 0)
    return model, inputs, answer(model, inputs)


@every_other
def test_int8_and_int4_of_any_network(name: str, tmp_path: Path) -> None:
    model, inputs, exact = known(name)
    dense, path = file_bytes(model, save_dense), tmp_path / "model.safetensors"
    for small in (quantize(model), quantize(model, inputs), quantize(model, dynamic=True), packed_model(model)):
        answers, four = answer(small, inputs), "FewBits" in str(small)
        save_dense(small, path)
        assert off(answers, exact) <= (0.5 if four else 0.1)
        assert four or off_by_input(answers, exact) <= 0.25
        assert path.stat().st_size <= (0.19 if four else 0.31) * dense
        assert torch.equal(answer((load_packed if four else load_quantized)(other(name, 1)[0], path), inputs), answers)


@every_other
def test_zeros_and_few_values_in_any_network(name: str, tmp_path: Path) -> None:
    model, inputs, _ = known(name)
    pruned, path = prune_channels(model, inputs, 0.0) if name == "gated" else copy.deepcopy(model), tmp_path / "model"
    prune(pruned, 0.8)
    weights = list(prunable(pruned).values())
    assert sum(int((weight == 0).sum()) for weight in weights) == round(0.8 * sum(map(Tensor.numel, weights)))
    if name in TINY:
        shared, again = share_weights(pruned, 16), share_weights(model, 16)
        save_shared(shared, path)
        load_shared(again, path)
        assert torch.equal(answer(again, inputs), answer(shared, inputs))
        assert all(len(weight.unique()) <= 17 for weight in prunable(shared).values())
    save_sparse(pruned, path)
    load_sparse(model := copy.deepcopy(pruned).apply(forget), path)
    assert torch.equal(answer(model, inputs), answer(pruned, inputs))


def forget(layer: nn.Module) -> None:
    for value in layer.parameters(recurse=False):
        nn.init.ones_(value)


@every_other
def test_half_the_channels_of_any_network(name: str) -> None:
    model, inputs, exact = known(name)
    if name == "lstm":
        return
    same, small = prune_channels(model, inputs, 0.0), prune_channels(model, inputs, 0.5)
    torch.testing.assert_close(answer(same, inputs), exact)
    assert answer(small, inputs).shape == exact.shape
    assert answer(small, inputs).isfinite().all()
    assert parameter_count(small) < 0.85 * parameter_count(same) <= parameter_count(model)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "vit", "masked_bert"])
def test_pruned_networks_of_transformers_are_read_by_from_pretrained(name: str, tmp_path: Path) -> None:
    model, inputs, _ = known(name)
    small: Any = prune_channels(model, inputs, 0.5, keep=["vit.embeddings"])
    small.save_pretrained(tmp_path)
    again = type(small).from_pretrained(tmp_path).eval()
    assert torch.equal(answer(again, inputs), answer(small, inputs))
    assert parameter_count(again) < 0.85 * parameter_count(model)


def test_sizes_that_no_config_tells_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    tell.cache_clear()
    prune_channels(*known("vit")[:2], 0.5)
    assert "from_pretrained cannot build this network, as no config tells the size of vit." in capsys.readouterr().err


@pytest.mark.slow
def test_another_process_reads_every_file_to_the_bit(tmp_path: Path) -> None:
    answers = {}
    for name in (*TINY, *LARGE):
        model, inputs, _ = known(name)
        small = quantize(model, inputs)
        save_dense(small, tmp_path / f"{name}.safetensors")
        answers[name] = answer(small, inputs)
    torch.save(answers, tmp_path / "answers.pt")
    script = (
        "import sys, torch\n"
        "from recipes.compression.quantization import load_quantized\n"
        "from tests.compression.networks import answer, other\n"
        "torch.set_num_threads(1)\n"
        "for name, expected in torch.load(sys.argv[1] + '/answers.pt').items():\n"
        "    model = load_quantized(other(name, 1)[0], f'{sys.argv[1]}/{name}.safetensors')\n"
        "    assert torch.equal(answer(model, other(name, 0)[1]), expected), name\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[2], check=True)


def tied() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(300, 64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 300, bias=False))
    model[3].weight = model[0].weight
    return model


def test_tied_weights_stay_tied_and_are_stored_once(tmp_path: Path) -> None:
    model, ids = tied(), torch.randint(300, (4, 5))
    for small, share in ((quantize(model, ids), 0.28), (packed_model(model), 0.19), (prune_channels(model, ids, 0), 1)):
        assert file_bytes(small, save_dense) <= share * file_bytes(model, save_dense)
        small.get_parameter("0.weight" if share == 1 else "0.parametrizations.weight.original1").data.zero_()
        assert not answer(small, ids).any()


def test_what_was_left_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    tell.cache_clear()
    model = Recurrent()
    quantize(model)
    assert capsys.readouterr().err == ""
    prune_channels(model, (torch.randn(1, 9, 32), torch.tensor([3])), 0.5)
    told = capsys.readouterr().err
    assert told.startswith("prune_channels: reached 0.0% of the parameters, left lstm.weight_ih_l*, lstm.weight_hh_l*")
    assert told.count("\n") == 1


def test_compressed_networks_answer_in_threads() -> None:
    model, inputs = other("encoder", 0)
    for small in (quantize(model, inputs), quantize(model, dynamic=True), packed_model(model)):
        exact = answer(small, inputs)
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: answer(small, inputs), range(100)))  # noqa: B023
        assert all(torch.equal(one, exact) for one in answers)


def test_compressed_networks_are_exported_and_compiled_whole() -> None:
    model, pictures = other("unet", 0)
    for small in (quantize(model, pictures), quantize(model, dynamic=True), packed_model(model)):
        exact = answer(small, pictures)
        program = torch.export.export(small, (pictures,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
        whole = torch.compile(small, fullgraph=True, backend="eager")
        for other_form in (program, whole):
            torch.testing.assert_close(answer(other_form, pictures), exact)


@pytest.mark.slow
def test_compressed_networks_become_onnx_files(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, pictures = other("unet", 0)
    for small in (quantize(model, pictures), quantize(model, dynamic=True), packed_model(model)):
        path = str(tmp_path / "model.onnx")
        torch.onnx.export(small, (pictures,), path, input_names=["pictures"], dynamo=True, verbose=False)
        answers = onnxruntime.InferenceSession(path).run(None, {"pictures": pictures.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(answers), answer(small, pictures), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_padded_inputs_of_transformer_encoders() -> None:
    """Torch's own takes the padding out of them, in a way that no rounding knows."""
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    words, padding = torch.randn(3, 7, 16), torch.zeros(3, 7, dtype=torch.bool)
    padding[0, 4:] = True
    inputs = {"src": words, "src_key_padding_mask": padding}
    for small in (quantize(model, inputs), quantize(model, dynamic=True), with_rounding(model, 8, inputs=words)):
        assert off(answer(small.eval(), inputs)[~padding], answer(model, inputs)[~padding]) < 0.02


def test_states_that_networks_keep_are_copied() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head, self.states = nn.LSTM(8, 8), nn.Linear(8, 2), []  # type: ignore[var-annotated]

        def forward(self, x: Tensor) -> Tensor:
            x, self.state = self.lstm(x)
            self.states.append({"last": self.state})
            return self.head(x)

    model, words = Keeping(), torch.randn(3, 2, 8)
    exact = model(words).detach()
    for small in (quantize(model, words), packed_model(model, bits=8), share_weights(model, 200)):
        assert off(answer(small, words), exact) < 0.05
        assert not small.states[0]["last"][0].requires_grad  # type: ignore[index, union-attr]


def test_half_precision_stays_half_precision() -> None:
    model, words = other("encoder", 0)
    model, words = model.bfloat16(), words.bfloat16()
    exact = answer(model, words)
    small = [quantize(model, words), quantize(model, dynamic=True), packed_model(model), share_weights(model, 64)]
    prune(pruned := copy.deepcopy(model), 0.01)
    for one in (*small, with_rounding(model, 8), pruned, prune_channels(model, words, 0.0)):
        assert answer(one, words).dtype == torch.bfloat16
        assert off(answer(one, words).float(), exact.float()) < (0.2 if one is small[2] else 0.1)


def test_what_computed_the_weights_may_be_frozen_and_copies_keep_it() -> None:
    model, inputs = other("gated", 0)
    exact, again = answer(model.requires_grad_(False), inputs), copy.deepcopy(model)
    small = quantize(model, inputs)
    assert "FewBits" in str(packed := packed_model(small))
    assert off(answer(packed, inputs), exact) < 0.5
    assert off(answer(small, inputs), exact) < 0.1
    assert torch.equal(answer(model, inputs), exact)
    assert torch.equal(answer(again, inputs), exact)


def test_tiny_weights_do_not_become_zeros() -> None:
    layer, inputs = nn.Linear(64, 8, bias=False), torch.randn(4, 64)
    nn.init.normal_(layer.weight, std=1e-6)
    assert off(answer(packed_model(layer), inputs), answer(layer, inputs)) < 0.2


def test_of_equal_weights_as_many_go_as_are_due_in_all_layers() -> None:
    model = nn.Sequential(nn.Linear(100, 10), nn.Linear(10, 10))
    for layer in model:
        layer.weight.data = layer.weight.detach().sign()
    prune(model, 0.3)
    assert [int((layer.weight == 0).sum()) for layer in model] == [300, 30]


class Samples(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        ids = torch.randint(2, 50, (8,), generator=torch.Generator().manual_seed(index))
        ids[0] = index % 2
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, index % 2


def test_networks_of_transformers_are_trained_on_dicts() -> None:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    teacher, student = (BertForSequenceClassification(BertConfig(vocab_size=50, **sizes)) for _ in range(2))
    for method in ("soft", "features"):
        options = DistillationOptions(device="cpu", method=method, epochs=2, batch_size=16, precision="fp32")  # type: ignore[arg-type]
        assert distill(teacher, student, Samples(), options).history[-1]["loss"] < 10
    fine_tune(student, Samples(), 0.5, epochs=8, batch_size=16, lr=5e-3, device=torch.device("cpu"))
    weights = list(prunable(student).values())
    assert sum(int((weight == 0).sum()) for weight in weights) == round(0.5 * sum(map(Tensor.numel, weights)))
