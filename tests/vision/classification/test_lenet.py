from collections.abc import Callable

import pytest
import torch
from torch import nn

from recipes.core.errors import InputError
from recipes.core.measure import parameter_count
from recipes.core.result import Result
from recipes.vision.classification import lenet
from recipes.vision.classification.lenet import MLP, LeNet, LeNetOptions, mosaic
from tests.vision.classification.controls import accuracy_after_shuffled_labels, require_that_all_counts

NAME = "vision.classification.lenet"


def test_shapes_and_parameters_are_the_published_ones() -> None:
    network = LeNet()
    assert parameter_count(network) == 61_706
    sizes = []
    images = torch.randn(2, 1, 32, 32)
    for layer in network:
        images = layer(images)
        if isinstance(layer, (nn.Conv2d, nn.AvgPool2d, nn.Linear)):
            sizes.append(tuple(images.shape[1:]))
    assert sizes == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1), (84,), (10,)]


@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 2), (3, 100)])
def test_mlp_has_as_many_parameters(channels: int, classes: int) -> None:
    wanted = parameter_count(LeNet(channels, classes))
    network = MLP(channels, classes, parameters=wanted)
    assert network(torch.randn(2, channels, 32, 32)).shape == (2, classes)
    assert parameter_count(network) == pytest.approx(wanted, rel=0.03)


def test_every_parameter_gets_a_gradient_and_the_picture_counts() -> None:
    torch.manual_seed(0)
    network = LeNet()
    require_that_all_counts(network, torch.randn(8, 1, 32, 32), 1e-4)


def test_shuffled_labels_fail_the_bar() -> None:
    torch.manual_seed(0)
    options = LeNetOptions(epochs=2, shift=False, device="cpu")
    assert accuracy_after_shuffled_labels(lenet.train, LeNet(), options, image_size=32) < 0.4


def test_mosaic_stretches_each_map_and_frames_it() -> None:
    maps = torch.arange(6.0).view(6, 1, 1) + torch.tensor([[0.0, 5.0], [10.0, 0.0]])
    picture = mosaic(maps, 3)
    assert picture.shape == (1, 8, 12)
    torch.testing.assert_close(picture[0, 1:3, 1:3], torch.tensor([[0.0, 0.5], [1.0, 0.0]]))
    assert (picture[0, 0] == 1).all()


@pytest.mark.xdist_group(NAME)
def test_what_the_claims_compare(proved_run: Callable[[str], Result]) -> None:
    result = proved_run(NAME)
    assert [row["parameters"] for row in result.rows] == [61_706, 62_110] * 2


@pytest.mark.xdist_group(NAME)
def test_shifted_pictures_are_the_same_in_every_call(proved_run: Callable[[str], Result]) -> None:
    result = proved_run(NAME)
    state = torch.get_rng_state()
    accuracy = lenet.accuracy_on_shifted(result)
    assert torch.equal(torch.get_rng_state(), state)
    assert lenet.accuracy_on_shifted(result) == accuracy == result.rows[0]["on shifted pictures"]


def test_impossible_option_is_named() -> None:
    with pytest.raises(InputError, match="option model"):
        lenet.run(model="perceptron")
