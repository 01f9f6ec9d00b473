import pytest
import torch
from torch import nn

from recipes.core.errors import InputError
from recipes.core.measure import parameter_count
from recipes.vision.classification import alexnet
from recipes.vision.classification.alexnet import AlexNet, AlexNetOptions
from tests.vision.classification.controls import accuracy_after_shuffled_labels, require_that_all_counts

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
    require_that_all_counts(network, torch.randn(64, 1, 16, 16), 1e-3)


def test_dropout_acts_in_training_alone() -> None:
    images = torch.randn(2, 1, 16, 16)
    for share, same in ((0.5, False), (0.0, True)):
        network = small(dropout=share)
        assert torch.equal(network(images), network(images)) == same
        network.eval()
        assert torch.equal(network(images), network(images))


def test_wrong_labels_are_all_wrong_and_of_the_train_part_alone() -> None:
    options = {"steps": 1, "device": "cpu", "claims": False}
    right, wrong = alexnet.run(**options), alexnet.run(wrong=0.3, **options)
    changed = (right.train_set.labels != wrong.train_set.labels).sum().item()
    assert changed == round(0.3 * len(right.train_set))
    assert wrong.train_set.labels.bincount().shape == (10,)
    assert torch.equal(right.test_set.labels, wrong.test_set.labels)


def test_shuffled_labels_fail_the_bar() -> None:
    assert (
        accuracy_after_shuffled_labels(alexnet.train, small(), AlexNetOptions(epochs=2, device="cpu"), image_size=16)
        < 0.4
    )


def test_impossible_options_are_named() -> None:
    for option in ({"width": 0}, {"image_size": 8}, {"wrong": 1.0}, {"dropout": 1.0}):
        with pytest.raises(InputError, match=f"option {next(iter(option))}"):
            alexnet.run(**option)
