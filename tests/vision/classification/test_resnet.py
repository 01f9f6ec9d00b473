from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from recipes import using
from recipes.core.errors import InputError
from recipes.core.measure import parameter_count
from recipes.core.result import Result
from recipes.vision.classification import resnet
from recipes.vision.classification.resnet import ResNetOptions, resnet18, resnet34, resnet50, small_resnet
from recipes.vision.classification.scoring import evaluate, shifted
from tests.vision.classification.controls import accuracy_after_shuffled_labels, require_that_all_counts

CPU = torch.device("cpu")
NAME = "vision.classification.resnet"


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
    require_that_all_counts(network, torch.randn(8, 1, 8, 8), 1e-3)


def test_gradients_are_those_of_backward() -> None:
    """Of each convolution of the untrained network, first to last, and torch's random state stays as it was."""
    result = resnet.run(depth=8, steps=1, batch_size=8, device="cpu", claims=False)
    state = torch.get_rng_state()
    norms = resnet.gradients(result, residual=True)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(result.seed)
    network = small_resnet(8, channels=1, num_classes=10)
    images, labels = result.train_set.__getitems__(range(0, len(result.train_set), 1 + len(result.train_set) // 32))
    nn.functional.cross_entropy(network(images), labels).backward()
    assert len(norms) == 7
    assert norms[0] == pytest.approx(network.get_parameter("conv1.weight").grad.norm().item(), rel=1e-4)
    assert norms[-1] == pytest.approx(network.get_parameter("layer3.0.conv2.weight").grad.norm().item(), rel=1e-4)


@pytest.mark.parametrize("make", [resnet18, resnet50])
def test_features_are_a_backbones(make: Callable[..., nn.Module]) -> None:
    """The maps are those that torchvision's own getter takes from a ResNet, and a detector's pyramid stands on it."""
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    torch.manual_seed(0)
    network = make(width=8).eval()
    images = torch.randn(2, 3, 64, 96)
    names = {f"layer{stage}": str(stage) for stage in range(1, 5)}
    with torch.no_grad():
        maps = network.features(images)
        expected = IntermediateLayerGetter(network, dict(names))(images)
        for ours, theirs in zip(maps, expected.values(), strict=True):
            assert torch.equal(ours, theirs)
        assert [tuple(one.shape[2:]) for one in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
        torch.testing.assert_close(network.fc(maps[-1].mean((2, 3))), network(images))
        pyramid = BackboneWithFPN(network, dict(names), [one.shape[1] for one in maps], 16)(images)
    assert {one.shape[1] for one in pyramid.values()} == {16}


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
    model = small_resnet(8, channels=1, num_classes=10)
    options = ResNetOptions(epochs=2, device="cpu", precision="fp32")
    assert accuracy_after_shuffled_labels(resnet.train, model, options) < 0.4


@pytest.mark.xdist_group(NAME)
def test_what_the_claims_compare(proved_run: Callable[[str], Result]) -> None:
    result = proved_run(NAME)
    assert set(result.runs) == {"residual=False", "residual=False, depth=8", "share=0.1, steps=198"}


@pytest.mark.xdist_group(NAME)
def test_what_was_trained_is_used_with_the_same_answers(default_run: Callable[[str], Result], tmp_path: Path) -> None:
    result = default_run(NAME)
    result.save(tmp_path / "out")
    trained = using.trained(tmp_path / "out", device="cpu")
    images = result.test_set.pixels(torch.arange(20))
    answers = trained(images.unbind(0))
    with torch.no_grad():
        shares = result.model.eval()(result.test_set.__getitems__(range(20))[0]).softmax(1)
    found = torch.tensor([list(answer["classes"].values()) for answer in answers])
    torch.testing.assert_close(found, shares, atol=1e-5, rtol=0)
    assert [answer["class"] for answer in answers] == [result.test_set.classes[i] for i in shares.argmax(1)]
    assert trained.export(tmp_path / "resnet.pt2") < 1e-4


def test_a_share_keeps_every_class_and_the_depth_8_claim_needs_more_than_8_layers() -> None:
    result = resnet.run(depth=8, share=0.2, epochs=1, device="cpu")
    assert len(result.train_set) == 287
    assert result.train_set.labels.bincount().min() >= 26
    assert set(result.runs) == {"residual=False", "share=0.02, steps=4"}
    assert resnet.gap(result) == pytest.approx(result["loss"] - evaluate(result.model, result.train_set, CPU)["loss"])


def test_large_networks_and_checkpoints(tmp_path: Path) -> None:
    """Each training has a checkpoint of its own, and a finished run is resumed as it ended."""
    options = {"depth": 8, "epochs": 1, "batch_size": 256, "device": "cpu", "checkpoint": str(tmp_path)}
    first = resnet.run(**options)
    saved = set(tmp_path.iterdir())
    second = resnet.run(**options)
    assert len(saved) == 1 + len(first.runs)
    assert set(tmp_path.iterdir()) == saved
    assert first.metrics == second.metrics
    pictures: Any = {"image_size": 32, "precision": "fp32"}  # of 8 pixels, in bf16, its step was once not finite
    large = resnet.run(model="resnet18", steps=1, batch_size=64, device="cpu", claims=False, **pictures)
    assert isinstance(large.model.layer1[0], resnet.BasicBlock)


def test_impossible_depth_is_named() -> None:
    for depth in (51, 2):
        with pytest.raises(InputError, match="option depth"):
            resnet.run(depth=depth)
