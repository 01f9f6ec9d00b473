"""All steps of compression together, on a network that nobody trained."""

from pathlib import Path

import pytest
import torch

import recipes
from recipes.compression.channels import prune_channels
from recipes.compression.files import file_bytes, save_dense
from recipes.compression.huffman import load_shared, save_shared
from recipes.compression.weight_pruning import prune
from recipes.compression.weight_sharing import share_weights
from recipes.core.errors import InputError
from recipes.vision.classification.task import SmallCNN


def test_steps_add_up_and_the_file_is_read_back_to_the_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense = SmallCNN(1, 10, width=64).eval()
    images = torch.randn(4, 1, 8, 8)
    small = prune_channels(dense, images, 0.5)
    masks = prune(small, 0.7)
    coded = share_weights(small, 16)
    for name, mask in masks.items():
        weight = coded.get_parameter(name)
        assert torch.equal(weight != 0, mask), "zeros stay zeros, and only they"
        assert len(weight[mask].unique()) <= 16
    assert file_bytes(coded, save_shared) < 0.05 * file_bytes(dense, save_dense)
    save_shared(coded, tmp_path / "model.safetensors")
    again = SmallCNN(1, 10, width=32).eval()
    load_shared(again, tmp_path / "model.safetensors")
    with torch.no_grad():
        assert torch.equal(again(images), coded(images))


@pytest.mark.parametrize("name", ["share", "sparsity"])
def test_refuses_shares_that_cannot_be(name: str) -> None:
    with pytest.raises(InputError, match=f"option {name}"):
        recipes.run("compression.pipeline", device="cpu", **{name: 1.0})
