"""Adam by hand against torch's, and the sweep over learning rates."""

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.core.loading import batches
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.training.optimizers import (
    OPTIMIZERS,
    Adam,
    OptimizersOptions,
    Sweep,
    build,
    descend,
    ravine,
    train,
    wells,
)
from recipes.training.scoring import evaluate, least_squares

NAME = "training.optimizers"
CPU = torch.device("cpu")


@pytest.mark.parametrize("options", [{}, {"lr": 0.1}, {"betas": (0.5, 0.9), "eps": 1e-3}])
def test_adam_equals_torchs(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    start = torch.randn(5, 4, dtype=torch.float64)
    target = torch.randn(5, 4, dtype=torch.float64)
    ends = []
    for optimizer_class in (Adam, torch.optim.Adam):
        weight = nn.Parameter(start.clone())
        optimizer = optimizer_class([weight], **options)  # type: ignore[arg-type]
        for _ in range(100):
            optimizer.zero_grad()
            (weight - target).pow(4).sum().backward()
            optimizer.step()
        ends.append(weight.detach())
    assert not torch.equal(ends[0], start)
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-12)


def test_adam_equals_torchs_in_a_network() -> None:
    """In double precision: in single, a rounding can grow in a hundred steps to what looks like another method."""
    train_set, _ = open_images()
    torch.manual_seed(0)
    start = build(OptimizersOptions(), train_set).double()
    ends = []
    for optimizer_class in (Adam, torch.optim.Adam):
        network = copy.deepcopy(start)
        optimizer = optimizer_class(network.parameters(), lr=1e-3)
        for images, labels in islice(cycle(batches(train_set, OptimizersOptions())), 100):
            optimizer.zero_grad()
            F.cross_entropy(network(images.double()), labels).backward()
            optimizer.step()
        ends.append(nn.utils.parameters_to_vector(network.parameters()).detach())
    moved = (ends[0] - nn.utils.parameters_to_vector(start.parameters())).abs().max()
    assert moved > 0.01
    assert (ends[0] - ends[1]).abs().max() < 1e-6


def test_adam_s_first_step_is_the_learning_rate_whatever_the_gradient() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = Adam([weight], lr=0.01)
    weight.grad = torch.tensor([1e-3, -1.0, 1e3])
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.01, 0.01, -0.01]), rtol=1e-4, atol=0)


def test_adam_leaves_alone_what_has_no_gradient() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Adam([used, unused])
    used.sum().backward()
    optimizer.step()
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimizer_changes_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    train_set, _ = open_images()
    model = build(OptimizersOptions(), train_set)
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = OPTIMIZERS[name](model.parameters(), lr=0.01)
    logits = model(torch.randn(32, 1, 8, 8))
    assert logits.shape == (32, 10)
    assert not torch.equal(logits[0], logits[1])
    F.cross_entropy(logits, torch.arange(32) % 10).backward()
    optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_shuffled_labels_fail_the_bar() -> None:
    train_set, test_set = open_images()
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
    options = OptimizersOptions(device="cpu")
    torch.manual_seed(0)
    model = build(options, train_set)
    train(model, replace(train_set, labels=train_set.labels[order]), test_set, options)
    assert evaluate(model, test_set, CPU)["accuracy"] < 0.3


def test_a_rate_at_which_training_diverges_counts_as_never_right() -> None:
    result = recipes.run(NAME, device="cpu", epochs=1, claims=False)
    result.options = OptimizersOptions(device="cpu", epochs=1).to_dict()
    sweep = Sweep(result, lr=1000.0, optimizer="sgd")
    assert len(sweep.runs) == 10
    assert sweep.held_out[max(sweep.runs)] == 0
    assert sweep.rate == min(sweep.runs, key=lambda rate: -sweep.held_out[rate])
    assert 0 <= sweep.near(1.0) <= 1


def test_the_sweep_never_sees_the_test_part_before_it_has_chosen() -> None:
    result = recipes.run(NAME, device="cpu", epochs=1, claims=False)
    result.options = OptimizersOptions(device="cpu", epochs=1).to_dict()
    seen = Sweep(result, optimizer="adam").runs
    result.test_set = replace(result.test_set, labels=(result.test_set.labels + 1) % 10)
    other = Sweep(result, optimizer="adam")
    assert other.runs == seen
    assert other.tested < 0.3


def test_least_squares_is_the_solution() -> None:
    """No other weights of a linear layer have a smaller penalized error: the gradient there is zero."""
    train_set, test_set = open_images()
    images, labels = train_set.__getitems__(range(len(train_set)))
    pixels = F.pad(images.flatten(1).double(), (0, 1), value=1.0)
    weights = torch.zeros(65, 10, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        error = (pixels @ weights - F.one_hot(labels, 10)).square().sum() / len(pixels)
        (error + 0.01 * weights.square().sum()).backward()
        return error + 0.01 * weights.square().sum()

    optimizer.step(loss)
    images, labels = test_set.__getitems__(range(len(test_set)))
    found = (F.pad(images.flatten(1).double(), (0, 1), value=1.0) @ weights).argmax(dim=1)
    assert least_squares(train_set, test_set)["accuracy"] == pytest.approx((found == labels).double().mean().item())


def test_the_landscapes_have_their_minima_where_they_say() -> None:
    assert ravine(torch.zeros(2)) == 0
    heights = wells(torch.linspace(-6, 6, 1201))
    assert heights.argmin() == 600
    inner = heights[1:-1]
    assert int(((inner < heights[:-2]) & (inner < heights[2:])).sum()) >= 5
    path = descend("sgd", 0.01, ravine, (1.0, 1.0))
    assert path.shape == (400, 2)
    torch.testing.assert_close(path[1], torch.tensor([0.99, 0.0], dtype=torch.double), rtol=0, atol=1e-9)


@pytest.mark.parametrize("options", [{"optimizer": "lion"}, {"depth": 0}, {"lr": 0.0}])
def test_options_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        recipes.run(NAME, device="cpu", **options)


@pytest.mark.xdist_group(NAME)
def test_the_saved_model_answers_as_the_one_in_memory(default_run: Callable[[str], Result], tmp_path: Path) -> None:
    result = default_run(NAME)
    result.save(tmp_path / "out")
    trained = recipes.trained(tmp_path / "out", device="cpu")
    pictures = result.test_set.pixels(torch.arange(40))
    answers = trained(list(pictures))
    images, _ = result.test_set.__getitems__(range(40))
    with torch.no_grad():
        shares = result.model.cpu().eval()(images).softmax(dim=1)
    for answer, share in zip(answers, shares, strict=True):
        assert answer["class"] == str(int(share.argmax()))
        assert list(answer["classes"].values()) == pytest.approx(share.tolist(), abs=1e-5)
