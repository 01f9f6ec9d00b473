"""Networks of other libraries, with random weights, go through pruning and quantization."""

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recipes.compression.channels import channel_groups, prune_channels
from recipes.compression.coupling import NORMS, PRODUCERS
from recipes.compression.files import file_bytes, load_sparse, save_dense, save_sparse
from recipes.compression.quantization import load_quantized, quantize
from recipes.compression.quantization_aware import load_packed, packed_model
from recipes.compression.structured_pruning import prune_by_library
from recipes.compression.weight_pruning import prunable, prune
from recipes.compression.weight_sharing import share_weights
from recipes.core.errors import InputError
from recipes.core.measure import macs, parameter_count

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


@torch.no_grad()
def answer(model: nn.Module, inputs: Tensor) -> Tensor:
    answers: Any = model(inputs)
    return answers if isinstance(answers, Tensor) else answers.logits


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
    for call in (lambda inputs: quantize(model, inputs), lambda inputs: prune_channels(model, inputs, 0.5)):
        for inputs in (words, few):
            with pytest.raises(InputError, match=r"layer patch_embed\.proj: cannot take what it is given"):
                call(inputs)


def test_weights_that_are_no_numbers_are_refused() -> None:
    """A single one would become a layer of them: the largest weight sets the scale."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    for compress in (quantize, packed_model, functools.partial(prune, sparsity=0.5), share_weights):
        with pytest.raises(InputError, match="layer 1: expected finite weights"):
            compress(model)
