"""Pruning by magnitude against torch's own, and the file without zeros."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from recipes.compression.files import file_bytes, load_sparse, save_dense, save_sparse, with_gaps
from recipes.compression.moved import DeepNet, Moved
from recipes.compression.weight_pruning import (
    SCHEDULES,
    PruningOptions,
    apply_masks,
    fine_tune,
    gradual,
    prune,
    train,
)
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN

CPU = torch.device("cpu")
NAME = "compression.weight_pruning"


def network(seed: int = 0) -> SmallCNN:
    torch.manual_seed(seed)
    return SmallCNN(1, 10, width=8)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8, 0.99])
def test_prunes_the_weights_that_torch_prunes(sparsity: float) -> None:
    mine, theirs = network(), network()
    prune(mine, sparsity)
    layers = [layer for layer in theirs.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    torch_prune.global_unstructured(
        [(layer, "weight") for layer in layers], pruning_method=torch_prune.L1Unstructured, amount=sparsity
    )
    for layer in layers:
        torch_prune.remove(layer, "weight")
    for name, value in mine.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


def test_pruning_further_only_adds_zeros() -> None:
    model = network()
    first = prune(model, 0.5)
    second = prune(model, 0.8)
    assert all(not (second[name] & ~first[name]).any() for name in first)


def test_shared_weights_count_once() -> None:
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    masks = prune(model, 0.5)
    assert len(masks) == 1
    assert int(first.weight.count_nonzero()) == 8


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_refuses_a_share_that_cannot_be(sparsity: float) -> None:
    with pytest.raises(InputError, match="option sparsity"):
        prune(network(), sparsity)


def test_refuses_what_it_cannot_prune() -> None:
    with pytest.raises(InputError, match="found none in ReLU"):
        prune(nn.ReLU(), 0.5)
    with warnings.catch_warnings(action="ignore"):
        older = nn.utils.weight_norm(nn.Linear(3, 3))
    for normed in (nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), older):
        with pytest.raises(InputError, match="layer 0: expected a plain weight"):
            prune(nn.Sequential(normed), 0.5)
    with pytest.raises(InputError, match="layer 0: expected weights, which it makes"):
        prune(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 3)), 0.5)


def test_schedule_rises_from_none_to_all() -> None:
    shares = [gradual(step / 20, 0.8) for step in range(21)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 0.8)


def test_pruned_weights_stay_zero_and_the_others_learn() -> None:
    train_set, _ = open_images(None)
    model = network()
    before = {name: value.clone() for name, value in model.named_parameters()}
    loop = fine_tune(model, train_set, 0.9, epochs=2, batch_size=64, lr=1e-2, device=CPU)
    weights = [value for value in model.parameters() if value.ndim > 1]
    zeros = sum(int((value == 0).sum()) for value in weights)
    assert zeros == pytest.approx(0.9 * sum(value.numel() for value in weights), abs=1)
    assert all(not torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert loop.history[-1]["loss"] < loop.history[0]["loss"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_ends_with_as_many_zeros(schedule: str) -> None:
    train_set, _ = open_images(None)
    model = network()
    options = PruningOptions(epochs=1, device="cpu")
    train(model, train_set, options, 0.9, schedule=SCHEDULES[schedule])
    weights = [value for value in model.parameters() if value.ndim > 1]
    zeros = sum(int((value == 0).sum()) for value in weights)
    assert zeros == pytest.approx(0.9 * sum(value.numel() for value in weights), abs=1)


def test_shuffled_labels_fail_the_bar() -> None:
    train_set, test_set = open_images(None)
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
    shuffled = replace(train_set, labels=train_set.labels[order])
    model = network()
    train(model, Moved(shuffled), PruningOptions(epochs=2, device="cpu"), 0.8)
    assert evaluate(model, test_set, CPU)["accuracy"] < 0.3


@pytest.mark.parametrize("places", [[], [0], [255], [256], [0, 600, 857], [1200, 1299]])
def test_gaps_tell_where_numbers_belong(places: list[int]) -> None:
    numbers = torch.zeros(1300)
    numbers[places] = torch.arange(1.0, len(places) + 1)
    values, gaps = with_gaps(numbers)
    again = torch.zeros(1300)
    again[(gaps.long() + 1).cumsum(0) - 1] = values
    assert torch.equal(again, numbers)


@pytest.mark.parametrize("sparsity", [0.3, 0.9, 0.999])
def test_sparse_files_are_read_to_the_bit(sparsity: float, tmp_path: Path) -> None:
    model, other = SmallCNN(1, 10, width=32), SmallCNN(1, 10, width=32)
    prune(model, sparsity)
    save_sparse(model, tmp_path / "model.safetensors")
    load_sparse(other, tmp_path / "model.safetensors")
    assert all(
        torch.equal(one, two) for one, two in zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_sparse_file_is_read_by_another_process_to_the_bit(tmp_path: Path) -> None:
    model = network().eval()
    prune(model, 0.9)
    picture = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    save_sparse(model, tmp_path / "model.safetensors")
    torch.save(picture, tmp_path / "picture.pt")
    script = (
        "import torch\n"
        "from recipes.compression.files import load_sparse\n"
        "from recipes.vision.classification.task import SmallCNN\n"
        "torch.set_num_threads(1)\n"
        "model = SmallCNN(1, 10, width=8)\n"
        "load_sparse(model, 'model.safetensors')\n"
        "torch.save(model.eval()(torch.load('picture.pt', weights_only=True)).detach(), 'answer.pt')\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert torch.equal(torch.load(tmp_path / "answer.pt", weights_only=True), model(picture))


def test_zeros_make_only_the_sparse_file_smaller() -> None:
    dense, pruned = network(), network()
    prune(pruned, 0.9)
    assert file_bytes(pruned, save_dense) == file_bytes(dense, save_dense)
    assert file_bytes(pruned, save_sparse) < 0.3 * file_bytes(dense, save_dense)
    assert file_bytes(dense, save_sparse) < 1.02 * file_bytes(dense, save_dense)


def test_a_file_that_is_not_one_is_one_clear_line(tmp_path: Path) -> None:
    broken, other = tmp_path / "broken.safetensors", tmp_path / "other.safetensors"
    save_sparse(network(), broken)
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(InputError, match=r"broken\.safetensors: expected a safetensors file"):
        load_sparse(network(), broken)
    save_sparse(SmallCNN(1, 7, width=4), other)
    with pytest.raises(InputError, match=r"other\.safetensors: expected a file of this network"):
        load_sparse(network(), other)
    with pytest.raises(InputError, match="missing"):
        load_sparse(network(), tmp_path / "missing.safetensors")


def test_masks_leave_no_negative_zeros() -> None:
    layer = nn.Linear(3, 3)
    apply_masks(layer, {"weight": torch.zeros(3, 3, dtype=torch.bool)})
    assert not layer.weight.signbit().any()


def test_equally_large_weights_go_as_they_are_due() -> None:
    layer = nn.Linear(10, 10, bias=False)
    layer.weight.data = layer.weight.detach().sign()
    assert int((~prune(layer, 0.3)["weight"]).sum()) == 30


@pytest.mark.xdist_group(NAME)
def test_the_packed_file_is_the_model_in_memory(default_run: Callable[[str], Result], tmp_path: Path) -> None:
    result = default_run(NAME)
    result.save(tmp_path / "out")
    other = DeepNet(1, 10, width=result.options["width"])
    load_sparse(other, tmp_path / "out" / "packed.safetensors")
    for name, weight in result.model.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight.cpu()), name
