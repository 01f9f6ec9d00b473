"""Compressed files whose tensors are of other types or shapes: one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from recipes.compression.files import load_sparse, read_tensors, save_dense, save_sparse, write_tensors
from recipes.compression.huffman import load_shared, save_shared
from recipes.compression.layers import load_dense
from recipes.core.errors import InputError

Change = Callable[[Tensor], Tensor]
CHANGES: list[Change] = [
    Tensor.double,
    Tensor.bfloat16,
    Tensor.bool,
    lambda tensor: tensor.to(torch.int64),
    lambda tensor: tensor[None],
    lambda tensor: tensor.flatten()[:3],
    lambda tensor: tensor.flatten()[:0],
    lambda tensor: torch.zeros(()),
    lambda tensor: torch.full(tensor.shape, 2**40),
]


def network() -> nn.Module:
    """Of few values, many of them zeros."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 4))
    with torch.no_grad():
        model[0].weight.copy_((model[0].weight * 30).round() / 30)
    return model


def load_whole(model: nn.Module, path: Path) -> None:
    load_dense(model, path, "a file of this network")


KINDS = {"dense": (save_dense, load_whole), "sparse": (save_sparse, load_sparse), "shared": (save_shared, load_shared)}


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_another_kind(tmp_path: Path, kind: str) -> None:
    save, load = KINDS[kind]
    save(network(), tmp_path / "whole.safetensors")
    whole = read_tensors(tmp_path / "whole.safetensors")
    load(network(), tmp_path / "whole.safetensors")
    for name in whole:
        for change in CHANGES:
            write_tensors(whole | {name: change(whole[name]).clone()}, tmp_path / "changed.safetensors")
            with pytest.raises(InputError, match=r"changed\.safetensors: expected a file of this network") as caught:
                load(network(), tmp_path / "changed.safetensors")
            assert str(caught.value).isprintable()
