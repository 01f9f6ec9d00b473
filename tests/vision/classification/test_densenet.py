from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from recipes.core.errors import InputError
from recipes.core.measure import parameter_count
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.vision.classification import densenet
from recipes.vision.classification.densenet import (
    SIZES,
    DenseLayer,
    DenseNet,
    DenseNetOptions,
    cut_to_the_nearest,
    weights_by_source,
)
from tests.vision.classification.controls import accuracy_after_shuffled_labels, require_that_all_counts

NAME = "vision.classification.densenet"


def small(**changed: Any) -> DenseNet:
    torch.manual_seed(0)
    return DenseNet([4, 4, 4], channels=1, num_classes=10, growth=8, small_pictures=True, **changed)


@pytest.mark.parametrize("name", SIZES)
def test_names_shapes_and_parameters_are_those_of_torchvision(name: str) -> None:
    from torchvision import models

    blocks, growth = SIZES[name]
    with torch.device("meta"):
        theirs, ours = models.get_model(name, weights=None), DenseNet(blocks, growth=growth)
    assert parameter_count(ours) == parameter_count(theirs)
    assert name != "densenet121" or parameter_count(ours) == 7_978_856
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_gives_torchvisions_logits() -> None:
    from torchvision import models

    torch.manual_seed(0)
    theirs, ours = models.densenet121(weights=None), DenseNet()
    for part in theirs.modules():  # batch norm starts out as the identity, which would hide a wrong order
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


def test_a_layer_hands_on_what_it_was_given() -> None:
    layer, x = DenseLayer(6, 4), torch.randn(2, 6, 5, 5)
    y = layer(x)
    assert y.shape == (2, 10, 5, 5)
    assert torch.equal(y[:, :6], x)


def test_weights_by_source_are_means_over_the_maps_of_each_layer() -> None:
    block = small().features.denseblock2
    with torch.no_grad():
        for number, layer in enumerate(block):
            layer.conv1.weight.fill_(1.0)
            for source in range(number):
                start = layer.conv1.weight.shape[1] - (number - source) * 8
                layer.conv1.weight[:, start : start + 8] = 2.0 + source
    expected = torch.tensor([[1.0] * 4, [0, 2, 2, 2], [0, 0, 3, 3], [0, 0, 0, 4]])
    torch.testing.assert_close(weights_by_source(block).nan_to_num(0), expected)


def test_cutting_changes_the_answers_and_leaves_the_network_as_it_was() -> None:
    model, (_, test_set) = small(), open_images()
    result = Result({}, {}, model=model, test_set=test_set.subset(range(100)))
    images, _ = test_set.__getitems__(range(4))
    before = model.eval()(images)
    cut_to_the_nearest(result)
    assert torch.equal(model(images), before)


def test_every_parameter_gets_a_gradient_and_the_picture_counts() -> None:
    network = small()
    require_that_all_counts(network, torch.randn(32, 1, 8, 8), 1e-4)


def test_shuffled_labels_fail_the_bar() -> None:
    assert accuracy_after_shuffled_labels(densenet.train, small(), DenseNetOptions(epochs=2, device="cpu")) < 0.4


@pytest.mark.xdist_group(NAME)
def test_what_the_claims_compare(proved_run: Callable[[str], Result]) -> None:
    result = proved_run(NAME)
    assert [row["network"] for row in result.rows] == ["dense", "residual, 14 layers"]


def test_impossible_options_are_named() -> None:
    with pytest.raises(InputError, match="option growth"):
        densenet.run(growth=0)
    with pytest.raises(InputError, match="at least 32 pixels"):
        densenet.run(model="densenet121")
