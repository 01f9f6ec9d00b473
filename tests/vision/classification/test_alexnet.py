from collections.abc import Callable

import pytest
import torch
from torch import nn

from recipes.core.errors import InputError
from recipes.core.measure import parameter_count
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.vision.classification import alexnet
from recipes.vision.classification.alexnet import AlexNet

CPU = torch.device("cpu")
NAME = "vision.classification.alexnet"


def small(**options: object) -> AlexNet:
    torch.manual_seed(0)
    return AlexNet(channels=1, num_classes=10, width=8, small_pictures=True, **options)


def test_equals_torchvision() -> None:
    """The same names and numbers: torchvision's weights load, and give the same logits."""
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.alexnet(weights=None)
    with torch.device("meta"):
        ours = AlexNet()
    assert parameter_count(ours) == parameter_count(theirs) == 61_100_840
    ours.load_state_dict(theirs.state_dict(), assign=True)
    images = torch.randn(2, 3, 224, 160)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_every_parameter_gets_a_gradient_and_the_picture_counts(activation: type[nn.Module]) -> None:
    network = small(activation=activation)
    assert sum(isinstance(part, activation) for part in network.modules()) == 7
    logits = network(torch.randn(64, 1, 16, 16))
    assert logits.std(dim=0).min() > 1e-3
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_dropout_acts_in_training_alone() -> None:
    images = torch.randn(2, 1, 16, 16)
    for share, same in ((0.5, False), (0.0, True)):
        network = small(dropout=share)
        assert torch.equal(network(images), network(images)) == same
        network.eval()
        assert torch.equal(network(images), network(images))


def test_counting_stops_at_the_goal() -> None:
    train_set, _ = open_images(image_size=16)
    few = train_set.subset(range(64))
    options = {"epochs": 30, "device": CPU}
    loop, steps = alexnet.train(small(dropout=0.0), few, 32, 1e-3, 0, goal=1.0, **options)
    assert 20 <= steps < 60
    assert loop.steps == steps
    _, all_steps = alexnet.train(small(dropout=0.0), few, 32, 1e-3, 0, epochs=2, device=CPU)
    assert all_steps == 4


def test_shuffled_labels_fail_the_bar() -> None:
    train_set, test_set = open_images(image_size=16)
    torch.manual_seed(0)
    train_set.labels = train_set.labels[torch.randperm(len(train_set))]
    model = small()
    alexnet.train(model, train_set, 64, 2e-3, 0, epochs=2, device=CPU)
    assert alexnet.evaluate(model, test_set, CPU)["accuracy"] < 0.4


@pytest.mark.xdist_group(NAME)
def test_dropout_narrows_the_gap(default_run: Callable[[str], Result]) -> None:
    """The claim about ReLU is measured, not asserted: with weights of the right size and Adam, tanh keeps up."""
    result = default_run(NAME)
    relu, dropout = result.claims
    assert "ReLU" in relu.text
    assert 20 <= relu.measured <= 180
    assert dropout.holds
    assert result.rows[0]["train"] < result.rows[1]["train"]


def test_impossible_options_are_named() -> None:
    for option in ({"width": 0}, {"image_size": 8}, {"seeds": 0}, {"few": 1}):
        with pytest.raises(InputError, match=f"option {next(iter(option))}"):
            alexnet.run(**option)
