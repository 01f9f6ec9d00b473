"""The chain of pruning, sharing and coding, and the coded file against what it holds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import recipes
from recipes.compression.coded import load_coded, save_coded
from recipes.compression.files import file_bytes, read_tensors, save_dense, write_tensors
from recipes.compression.huffman import save_shared
from recipes.compression.moved import DeepNet
from recipes.compression.pipeline import PipelineOptions, build, train
from recipes.compression.weight_pruning import prunable, prune
from recipes.compression.weight_sharing import share_weights
from recipes.core.errors import InputError
from recipes.datasets.images import open_images

NAME = "compression.pipeline"


def shared_network(sparsity: float = 0.95, count: int = 4) -> nn.Module:
    torch.manual_seed(0)
    network = DeepNet(1, 10, width=32)
    prune(network, sparsity)
    return share_weights(network, count).eval()


@pytest.mark.parametrize(("sparsity", "count"), [(0.95, 4), (0.999, 4), (0.0, 2), (0.5, 100)])
def test_coded_files_are_read_back_to_the_bit(sparsity: float, count: int, tmp_path: Path) -> None:
    network = shared_network(sparsity, count)
    save_coded(network, tmp_path / "coded.safetensors")
    again = DeepNet(1, 10, width=32).eval()
    load_coded(again, tmp_path / "coded.safetensors")
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_of_few_weights_left_the_coded_file_is_the_smallest() -> None:
    network = shared_network()
    coded, shared = file_bytes(network, save_coded), file_bytes(network, save_shared)
    assert coded < 0.8 * shared < 0.1 * file_bytes(network, save_dense)
    weights = sum(weight.numel() for weight in prunable(network).values())
    others = sum(value.numel() for value in network.parameters()) - weights
    bits = 8 * (coded - 4 * others - 2500) / weights  # without the biases, and the names in the file
    position = -(0.05 * torch.tensor(0.05).log2() + 0.95 * torch.tensor(0.95).log2())
    assert bits < 1.15 * (position + 0.05 * 2), "as many as the entropy of places and values"


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with pytest.raises(InputError, match="at most 256 different weights"):
        save_coded(DeepNet(1, 10, width=32), tmp_path / "coded.safetensors")
    network, path = shared_network(), tmp_path / "coded.safetensors"
    save_coded(network, path)
    for other in (DeepNet(1, 10, width=16), DeepNet(3, 10, width=32), DeepNet(1, 10, width=32, depth=3)):
        with pytest.raises(InputError, match="expected a coded file of this network"):
            load_coded(other, path)
    tensors = read_tensors(path)
    for name in ("gaps.words", "values", "stem.0.bias"):
        write_tensors({key: value for key, value in tensors.items() if key != name}, path)
        with pytest.raises(InputError, match="expected a coded file of this network"):
            load_coded(DeepNet(1, 10, width=32), path)
    write_tensors(tensors | {"gaps.words": tensors["gaps.words"][:10]}, path)
    with pytest.raises(InputError):
        load_coded(DeepNet(1, 10, width=32), path)


def test_training_prunes_to_the_share_that_was_asked_for() -> None:
    train_set, _ = open_images()
    options = PipelineOptions(device="cpu", width=8, epochs=2)
    for sparsity in (0.9, 0.0):
        torch.manual_seed(0)
        network = build(options, train_set)
        loop = train(network, train_set, options, sparsity)
        assert loop.history[-1]["loss"] < loop.history[0]["loss"]
        weights = torch.cat([weight.flatten() for weight in prunable(network).values()])
        assert (weights == 0).double().mean().item() == pytest.approx(sparsity, abs=1e-3)


def test_the_result_is_what_its_file_holds_and_is_used(tmp_path: Path) -> None:
    short: dict[str, Any] = {"device": "cpu", "width": 16, "epochs": 2, "claims": False}
    result = recipes.run(NAME, out=str(tmp_path), **short)
    for weight in prunable(result.model).values():
        assert len(weight[weight != 0].unique()) <= 8
    zeros = sum(int((weight == 0).sum()) for weight in prunable(result.model).values())
    assert zeros == pytest.approx(0.96 * sum(weight.numel() for weight in prunable(result.model).values()), rel=1e-3)
    assert result.baseline["bytes"] >= result["bytes"], "the rival has as many bytes at least"
    assert (tmp_path / "packed.safetensors").stat().st_size == result["bytes"]
    again = build(PipelineOptions(width=16), result.train_set)
    load_coded(again, tmp_path / "packed.safetensors")
    trained, pictures = recipes.trained(tmp_path, device="cpu"), result.test_set[0][0][None]
    for network in (again, trained.model):
        torch.testing.assert_close(network.eval()(pictures), result.model.eval()(pictures), rtol=0, atol=1e-5)
