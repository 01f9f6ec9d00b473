"""Several processes agree with one, batch norm over all of them with torch's, and what cannot be is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.images import Images, open_images
from recipes.training.distributed import (
    DistributedOptions,
    SyncBatchNorm,
    average_gradients,
    batches_of_rank,
    build,
    launch,
    train,
)
from recipes.training.scoring import evaluate

NAME = "training.distributed"
CPU = torch.device("cpu")


@pytest.fixture
def group(tmp_path: Path) -> object:
    """A group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.xdist_group(NAME)
def test_several_trained_as_one(proved_run: Callable[[str], Result]) -> None:
    result = proved_run(NAME)
    accuracies = [result.runs[f"engine={name}, processes=2"]["accuracy"] for name in ("ddp", "fsdp")]
    accuracies += [result["accuracy"], result.runs["processes=1"]["accuracy"]]
    assert max(accuracies) - min(accuracies) < 0.01
    assert result["drift"] == 0
    assert result.device == "cpu"


def test_gradient_of_a_batch_is_the_mean_over_its_halves() -> None:
    torch.manual_seed(0)
    train_set, _ = open_images()
    model = build(DistributedOptions(width=16, batch_norm="none"), train_set)
    images, labels = torch.randn(8, 1, 8, 8), torch.randint(10, (8,))

    def gradient(rows: slice) -> torch.Tensor:
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(model.parameters()))])

    whole, first, second = (gradient(rows) for rows in (slice(0, 8), slice(0, 4), slice(4, 8)))
    torch.testing.assert_close((first + second) / 2, whole, rtol=0, atol=1e-6)
    assert (first - whole).abs().max() > 1e-3


def test_batch_norm_of_one_process_is_torchs(group: object) -> None:
    """Outputs, gradients, running statistics, and outputs in evaluation."""
    torch.manual_seed(0)
    x, weights = torch.randn(12, 5) * 3 + 2, torch.randn(12, 5)
    found = []
    for norm in (SyncBatchNorm(5), nn.BatchNorm1d(5)):
        inputs = x.clone().requires_grad_()
        outputs = norm(inputs)
        (outputs * weights).sum().backward()
        assert norm.weight.grad is not None
        found.append([outputs, inputs.grad, norm.weight.grad, norm.running_mean, norm.running_var, norm.eval()(x)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient_and_outputs_depend_on_the_input(group: object) -> None:
    train_set, _ = open_images()
    model = build(DistributedOptions(width=16), train_set)
    logits = model(torch.randn(8, 1, 8, 8))
    assert not torch.equal(logits[0], logits[1])
    F.cross_entropy(logits, torch.arange(8)).backward()
    average_gradients(model)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def first_batches(options: DistributedOptions, train_set: Images) -> dict[str, torch.Tensor]:
    loader = batches_of_rank(train_set, options)
    return {"labels": torch.stack([labels for _, labels in loader]), "seen": torch.tensor(list(loader.sampler))}


def test_ranks_share_the_batches_and_each_picture_is_seen_once() -> None:
    train_set, _ = open_images()
    options = DistributedOptions(processes=3, batch_size=48, device=CPU)
    found = launch(first_batches, options, train_set)
    seen = torch.cat([rank["seen"] for rank in found])
    assert len(seen) == len(seen.unique()) == len(train_set) // 3 * 3
    assert [rank["labels"].shape[1] for rank in found] == [16, 16, 16]


def test_shuffled_labels_cannot_be_learned() -> None:
    train_set, test_set = open_images()
    torch.manual_seed(0)
    wrong = replace(train_set, labels=train_set.labels[torch.randperm(len(train_set))])
    options = DistributedOptions(epochs=3, device=CPU)
    model = build(options, train_set)
    model.load_state_dict(launch(train, options, wrong)[0]["weights"])
    assert evaluate(model, test_set, CPU)["accuracy"] < 0.3


def test_options_that_cannot_be() -> None:
    for options in ({"processes": 0}, {"processes": 3}, {"engine": "horovod"}, {"compile": True}, {"clip": 1.0}):
        with pytest.raises(InputError, match=r"option (processes|batch_size|engine|compile|clip): "):
            recipes.run(NAME, device="cpu", **options)
