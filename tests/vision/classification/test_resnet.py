from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from recipes.core.errors import InputError
from recipes.core.measure import parameter_count
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.vision.classification import resnet
from recipes.vision.classification.resnet import gradient_norms, resnet18, resnet34, resnet50, shifted, small_resnet

CPU = torch.device("cpu")


@pytest.mark.parametrize(("make", "name"), [(resnet18, "resnet18"), (resnet34, "resnet34"), (resnet50, "resnet50")])
def test_equals_torchvision(make: Callable[..., nn.Module], name: str) -> None:
    """The same names and numbers: torchvision's weights load, and give the same logits."""
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.get_model(name, weights=None)
    for part in theirs.modules():  # batch norm starts out as the identity, which would hide a wrong order
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.2, 0.6)
            nn.init.normal_(part.bias, std=0.1)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    ours = make()
    assert parameter_count(ours) == parameter_count(theirs)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("residual", [True, False])
def test_depth_counts_the_layers_with_weights(residual: bool) -> None:
    network = small_resnet(50, channels=1, num_classes=10, residual=residual)
    layers = [
        name
        for name, part in network.named_modules()
        if isinstance(part, (nn.Conv2d, nn.Linear)) and "downsample" not in name
    ]
    assert len(layers) == 50
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_networks_differ_in_the_shortcuts_alone() -> None:
    plain, residual = (small_resnet(14, channels=1, num_classes=10, residual=one) for one in (False, True))
    missing = set(residual.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) < set(residual.state_dict())
    assert missing
    assert all("downsample" in name for name in missing)


def test_a_block_whose_function_is_zero_copies_its_input() -> None:
    images = torch.rand(2, 16, 8, 8)
    for residual, expected in ((True, images), (False, torch.zeros_like(images))):
        block = resnet.BasicBlock(16, 16, stride=1, residual=residual)
        nn.init.zeros_(block.bn2.weight)
        torch.testing.assert_close(block(images), expected)


@pytest.mark.parametrize("residual", [True, False])
def test_every_parameter_gets_a_gradient_and_the_picture_counts(residual: bool) -> None:
    torch.manual_seed(0)
    network = small_resnet(20, channels=1, num_classes=10, residual=residual)
    images = torch.randn(8, 1, 8, 8)
    logits = network(images)
    assert logits.std(dim=0).min() > 1e-3
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_gradient_norms_are_those_of_backward() -> None:
    torch.manual_seed(0)
    network = small_resnet(8, channels=1, num_classes=10)
    images, labels = torch.randn(4, 1, 8, 8), torch.arange(4)
    norms = gradient_norms(network, images, labels)
    nn.functional.cross_entropy(network(images), labels).backward()
    assert len(norms) == 7
    assert norms[0] == pytest.approx(network.get_parameter("conv1.weight").grad.norm().item(), rel=1e-4)
    assert norms[-1] == pytest.approx(network.get_parameter("layer3.0.conv2.weight").grad.norm().item(), rel=1e-4)


def test_shifted_moves_whole_pictures_and_fills_with_black() -> None:
    torch.manual_seed(0)
    pictures = torch.full((200, 1, 16, 16), -1.0)
    pictures[:, 0, 7, 8] = 2.0
    moved = shifted(pictures)
    assert moved.shape == pictures.shape
    places = (moved[:, 0] == 2).nonzero()
    assert len(places) == 200
    assert (moved == -1).sum() == moved.numel() - 200
    assert set((places[:, 1] - 7).tolist()) == set((places[:, 2] - 8).tolist()) == {-2, -1, 0, 1, 2}


def test_shuffled_labels_fail_the_bar() -> None:
    torch.manual_seed(0)
    train_set, test_set = open_images()
    train_set.labels = train_set.labels[torch.randperm(len(train_set))]
    loop = resnet.train(
        small_resnet(8, channels=1, num_classes=10), train_set, test_set, 64, 5e-3, 0, epochs=2, device=CPU
    )
    assert loop.history[-1]["accuracy"] < 0.4


@pytest.mark.xdist_group("vision.classification.resnet")
def test_all_claims_hold(default_run: Callable[[str], Result]) -> None:
    result = default_run("vision.classification.resnet")
    assert [claim.text for claim in result.claims if not claim.holds] == []


def test_large_networks_and_checkpoints(tmp_path: Path) -> None:
    """Both trainings have a checkpoint of their own, and a finished run is taken up as it ended."""
    options = {"depth": 8, "epochs": 1, "batch_size": 256, "device": "cpu", "checkpoint": str(tmp_path)}
    first, second = resnet.run(**options), resnet.run(**options)
    assert {path.name for path in tmp_path.iterdir()} == {"plain.pt", "residual.pt"}
    assert first.metrics == second.metrics
    large = resnet.run(model="resnet18", epochs=1, batch_size=512, device="cpu")
    assert isinstance(large.model.layer1[0], resnet.BasicBlock)


def test_impossible_depth_is_named() -> None:
    with pytest.raises(InputError, match="option depth"):
        resnet.run(depth=51)
