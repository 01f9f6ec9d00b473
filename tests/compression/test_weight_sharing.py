"""Clusters against scikit-learn's, Huffman's words against the entropy, and the file."""

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import recipes
from recipes.compression.coded import load_coded, save_coded
from recipes.compression.files import file_bytes, save_dense
from recipes.compression.huffman import (
    canonical_codes,
    code_lengths,
    huffman_decode,
    huffman_encode,
    load_shared,
    save_shared,
)
from recipes.compression.moved import DeepNet, Moved
from recipes.compression.weight_pruning import prune
from recipes.compression.weight_sharing import (
    SharedValues,
    SharingOptions,
    Tied,
    cluster,
    share_weights,
    train,
    tune,
)
from recipes.core.errors import InputError
from recipes.core.measure import macs, parameter_count
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN

NAME = "compression.weight_sharing"


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
    model, again, untied = Tied(), Tied(), Tied()
    untied.output.weight = nn.Parameter(untied.table.weight.detach().clone())
    save_shared(model, tmp_path / "tied.safetensors")
    load_shared(again, tmp_path / "tied.safetensors")
    assert again.output.weight.data_ptr() == again.table.weight.data_ptr()
    tokens = torch.tensor([1, 5, 7])
    assert torch.equal(again(tokens), model(tokens))
    assert file_bytes(model, save_dense) < 0.6 * file_bytes(untied, save_dense)


def test_values_of_tied_weights_and_of_shared_blocks_learn_once() -> None:
    torch.manual_seed(0)
    for model, inputs in (
        (DeepNet(1, 10, width=8, shared=True), torch.randn(4, 1, 8, 8)),
        (Tied(20, 8), torch.tensor([3, 5])),
    ):
        shared = share_weights(model, 4)
        expected = shared(inputs)
        learner = SharedValues(shared)
        assert torch.equal(learner(inputs), expected)
        learner(inputs).sum().backward()
        assert all(values.grad is not None for values in learner.values)
        with torch.no_grad():
            for values in learner.values:
                values += 0.1
        changed = learner(inputs)
        learner.settle()
        assert torch.equal(shared(inputs), changed)
        assert not torch.equal(changed, expected)
        assert all(value.requires_grad for value in shared.parameters())


def test_what_is_frozen_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    model[0].requires_grad_(False)
    learner = SharedValues(shared := share_weights(model, 4))
    assert [value.requires_grad for value in learner.values] == [False, True]
    learner.settle()
    assert [value.requires_grad for value in shared.parameters()] == [False, False, True, True]


@pytest.mark.parametrize("types", [(torch.bfloat16, torch.bfloat16), (torch.double, torch.double), (torch.half, None)])
def test_coded_files_are_read_to_the_bit_in_every_type(types: tuple[Any, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, other = (nn.Sequential(nn.Linear(64, 64, dtype=types[0]), nn.Linear(64, 9, dtype=types[1])) for _ in "ab")
    prune(model, 0.9)
    save_coded(model := share_weights(model, 8), tmp_path / "model.safetensors")
    load_coded(other, tmp_path / "model.safetensors")
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
    with pytest.raises(InputError, match="expected a coded file of this network"):
        load_coded(other.float() if types[1] else other.half(), tmp_path / "model.safetensors")


def test_a_values_gradient_is_the_sum_of_its_weights() -> None:
    torch.manual_seed(0)
    model = share_weights(network(), 4)
    images, labels = torch.randn(8, 1, 8, 8), torch.arange(8)
    learner = SharedValues(copy.deepcopy(model))
    assert torch.equal(learner.eval()(images), model.eval()(images))
    nn.functional.cross_entropy(model(images), labels).backward()
    nn.functional.cross_entropy(learner(images), labels).backward()
    for name, number in learner.names.items():
        weight, values = model.get_parameter(name), learner.values[number]
        expected = [weight.grad[weight == value].sum() for value in values.detach()]
        torch.testing.assert_close(values.grad, torch.stack(expected), rtol=1e-4, atol=1e-6)


def test_tuned_weights_keep_their_clusters_and_their_zeros() -> None:
    train_set, test_set = open_images()
    torch.manual_seed(0)
    options = SharingOptions(device="cpu", epochs=2)
    dense = SmallCNN(1, 10, width=8)
    train(dense, train_set, options)
    prune(dense, 0.3)
    model = share_weights(dense, 4)
    before = copy.deepcopy(model)
    tune(model, train_set, options)
    for (name, old), new in zip(before.named_parameters(), model.parameters(), strict=True):
        assert new.requires_grad
        assert not torch.equal(old, new), name
        if old.ndim > 1:
            assert torch.equal(old == 0, new == 0)
            _, clusters = old.detach().unique(return_inverse=True)
            assert all(len(new[clusters == one].unique()) == 1 for one in clusters.unique()), name
    accuracies = [evaluate(one, test_set, torch.device("cpu"))["accuracy"] for one in (before, model)]
    assert accuracies[1] > accuracies[0]


def test_shuffled_labels_fail_the_bar() -> None:
    train_set, test_set = open_images()
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
    shuffled = Moved(replace(train_set, labels=train_set.labels[order]))
    torch.manual_seed(0)
    options = SharingOptions(device="cpu", epochs=2)
    dense = SmallCNN(1, 10)
    train(dense, shuffled, options)
    model = share_weights(dense, 4)
    tune(model, shuffled, options)
    assert evaluate(model, test_set, torch.device("cpu"))["accuracy"] < 0.4


@pytest.mark.parametrize(("option", "value"), [("count", 1), ("count", 256), ("depth", 0)])
def test_refuses_options_that_cannot_be(option: str, value: int) -> None:
    with pytest.raises(InputError, match=f"option {option}"):
        recipes.run(NAME, device="cpu", **{option: value})


@pytest.mark.xdist_group(NAME)
def test_the_files_it_writes_answer_as_the_model_in_memory(
    default_run: Callable[[str], Result], tmp_path: Path
) -> None:
    result = default_run(NAME)
    result.save(tmp_path / "out")
    images, _ = result.test_set.__getitems__(range(40))
    model = result.model.cpu().eval()
    with torch.no_grad():
        expected = model(images)
        other = DeepNet(1, 10, width=32).eval()
        load_shared(other, tmp_path / "out" / "packed.safetensors")
        torch.testing.assert_close(other(images), expected)
        program = torch.export.load(tmp_path / "out" / "model.pt2").module()
        torch.testing.assert_close(program(images), expected, rtol=1e-5, atol=1e-5)
    trained = recipes.trained(tmp_path / "out", device="cpu")
    answers = trained(list(result.test_set.pixels(torch.arange(40))))
    for answer, share in zip(answers, expected.softmax(dim=1), strict=True):
        assert list(answer["classes"].values()) == pytest.approx(share.tolist(), abs=1e-5)
