"""Clusters against scikit-learn's, Huffman's words against the entropy, and the file."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from recipes.compression.files import file_bytes, save_dense
from recipes.compression.huffman import (
    canonical_codes,
    code_lengths,
    huffman_decode,
    huffman_encode,
    load_shared,
    save_shared,
)
from recipes.compression.weight_sharing import DeepNet, NextPixel, cluster, pixel_contexts, share_weights
from recipes.core.errors import InputError
from recipes.core.measure import macs, parameter_count
from recipes.vision.classification.task import SmallCNN


def network(width: int = 8) -> SmallCNN:
    torch.manual_seed(0)
    return SmallCNN(1, 10, width=width).eval()


def test_clusters_are_those_of_scikit_learn() -> None:
    from sklearn.cluster import KMeans

    numbers = torch.randn(3000, generator=torch.Generator().manual_seed(0))
    start = torch.linspace(float(numbers.min()), float(numbers.max()), 8).unsqueeze(1).numpy()
    theirs = KMeans(8, init=start, n_init=1, max_iter=50, tol=0).fit(numbers.unsqueeze(1).numpy())
    torch.testing.assert_close(
        cluster(numbers, 8), torch.tensor(sorted(theirs.cluster_centers_[:, 0].tolist())), rtol=0, atol=1e-4
    )


def test_clusters_without_numbers_are_filled() -> None:
    numbers = torch.cat([torch.randn(1000, generator=torch.Generator().manual_seed(0)), torch.tensor([1000.0])])
    means = cluster(numbers, 8)
    nearest = (numbers[:, None] - means).abs().argmin(dim=1)
    assert len(nearest.unique()) == 8
    assert len(cluster(torch.tensor([1.0, 2.0, 2.0]), 8).unique()) <= 3


def test_each_layer_has_so_many_values_and_each_weight_the_nearest() -> None:
    model = network()
    shared = share_weights(model, 16)
    for (name, before), after in zip(model.named_parameters(), shared.parameters(), strict=True):
        if before.ndim > 1:
            values = after.unique()
            assert len(values) <= 16
            nearest = (before.detach().flatten()[:, None] - values).abs().amin(dim=1)
            torch.testing.assert_close((before - after).abs().flatten(), nearest, rtol=0, atol=1e-5)
        else:
            assert torch.equal(before, after), name


@pytest.mark.parametrize("count", [0, 1, 257, 2.5])
def test_refuses_counts_that_cannot_be(count: int) -> None:
    with pytest.raises(InputError, match="option count"):
        share_weights(network(), count)


def test_words_of_a_textbook_example() -> None:
    lengths = code_lengths(torch.tensor([45, 13, 12, 16, 9, 5]))
    assert lengths.tolist() == [1, 3, 3, 3, 4, 4]
    assert canonical_codes(lengths) == [0b0, 0b100, 0b101, 0b110, 0b1110, 0b1111]


@pytest.mark.parametrize("symbols", [[0], [3, 3, 3], [0, 1], list(range(200)), [2] * 50 + [0, 1, 5] * 3])
def test_reads_what_was_written(symbols: list[int]) -> None:
    numbers = torch.tensor(symbols)
    lengths = code_lengths(numbers.bincount(minlength=256))
    assert huffman_decode(huffman_encode(numbers, lengths), lengths, len(numbers)).tolist() == symbols


def test_words_are_within_a_bit_of_the_entropy() -> None:
    numbers = torch.randn(20000, generator=torch.Generator().manual_seed(0)).mul(3).round().clamp(-15, 15).long() + 15
    counts = numbers.bincount(minlength=32)
    lengths = code_lengths(counts)
    shares = counts[counts > 0] / len(numbers)
    entropy = float(-(shares * shares.log2()).sum())
    bits = float((lengths * counts).sum()) / len(numbers)
    assert entropy <= bits < entropy + 0.1
    assert huffman_encode(numbers, lengths).numel() == -(-int((lengths * counts).sum()) // 8)


def test_very_rare_symbols_get_long_words() -> None:
    counts = torch.tensor([2**place for place in range(40)])
    lengths = code_lengths(counts)
    assert int(lengths.max()) == 39
    numbers = torch.tensor([0, 39, 1, 20, 0])
    assert torch.equal(huffman_decode(huffman_encode(numbers, lengths), lengths, 5), numbers)


def test_file_is_read_by_another_process_to_the_bit(tmp_path: Path) -> None:
    model = share_weights(network(width=16))
    picture = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    save_shared(model, tmp_path / "model.safetensors")
    torch.save(picture, tmp_path / "picture.pt")
    script = (
        "import torch\n"
        "from recipes.compression.huffman import load_shared\n"
        "from recipes.vision.classification.task import SmallCNN\n"
        "torch.set_num_threads(1)\n"
        "model = SmallCNN(1, 10, width=16)\n"
        "load_shared(model, 'model.safetensors')\n"
        "torch.save(model.eval()(torch.load('picture.pt', weights_only=True)).detach(), 'answer.pt')\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert torch.equal(torch.load(tmp_path / "answer.pt", weights_only=True), model(picture))


def test_sixteen_values_make_the_file_eight_times_smaller() -> None:
    dense = network(width=64)
    assert file_bytes(share_weights(dense), save_shared) < 0.13 * file_bytes(dense, save_dense)


def test_a_file_that_is_not_one_is_one_clear_line(tmp_path: Path) -> None:
    save_shared(share_weights(SmallCNN(1, 7, width=4)), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: expected a file of this network"):
        load_shared(network(), tmp_path / "other.safetensors")


def test_one_block_has_the_weights_of_one_and_the_arithmetic_of_all() -> None:
    own, one = (DeepNet(1, 10, width=16, depth=4, shared=shared) for shared in (False, True))
    block = parameter_count(one.blocks[0])
    assert parameter_count(own) - parameter_count(one) == 3 * block
    picture = torch.zeros(1, 1, 8, 8)
    assert macs(own, picture) == macs(one, picture)
    one(picture).sum().backward()
    assert all(value.grad is not None for value in one.parameters())


def test_tied_tensors_stay_tied_in_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, again = NextPixel(16, tied=True), NextPixel(16, tied=True)
    save_shared(model, tmp_path / "tied.safetensors")
    load_shared(again, tmp_path / "tied.safetensors")
    assert again.output.weight.data_ptr() == again.embedding.weight.data_ptr()
    assert torch.equal(again.output.weight, model.embedding.weight)
    assert file_bytes(model, save_dense) < file_bytes(NextPixel(16, tied=False), save_dense)
    assert isinstance(model.output, nn.Linear)


def test_contexts_are_the_pixels_before() -> None:
    picture = torch.arange(0, 256, 16, dtype=torch.uint8).view(1, 1, 4, 4)
    before, pixels = pixel_contexts(picture, 16)
    assert before[0].tolist() == list(range(8))
    assert pixels.tolist() == list(range(8, 16))
