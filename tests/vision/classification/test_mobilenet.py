from collections.abc import Callable

import pytest
import torch
from torch import nn

from recipes.core.errors import InputError
from recipes.core.measure import macs, parameter_count
from recipes.core.result import Result
from recipes.vision.classification import mobilenet
from recipes.vision.classification.mobilenet import (
    SMALL_SETTINGS,
    InvertedResidual,
    MobileNetOptions,
    MobileNetV2,
    divisible,
)
from tests.vision.classification.controls import accuracy_after_shuffled_labels, require_that_all_counts

NAME = "vision.classification.mobilenet"


def small(*, separable: bool = True) -> MobileNetV2:
    torch.manual_seed(0)
    options = {"channels": 1, "num_classes": 10, "width": 0.5, "last": 128, "small_pictures": True}
    return MobileNetV2(SMALL_SETTINGS, separable=separable, **options)


@pytest.mark.parametrize("width", [1.0, 0.35, 1.4])
def test_equals_torchvision(width: float) -> None:
    """The same names and numbers: torchvision's weights load, and give the same logits."""
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.mobilenet_v2(weights=None, width_mult=width)
    for part in theirs.modules():  # batch norm starts out as the identity, which would hide a wrong order
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    ours = MobileNetV2(width=width)
    assert parameter_count(ours) == parameter_count(theirs)
    assert width != 1 or parameter_count(ours) == 3_504_872
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


def test_a_separable_convolution_is_a_full_one_of_rank_one() -> None:
    """Without the norm between them, depthwise and pointwise are the full convolution with weights w[o, c] d[c]."""
    torch.manual_seed(0)
    block = InvertedResidual(4, 6, stride=2, expansion=1)
    depthwise, pointwise = block.conv[0][0], block.conv[1]
    images = torch.randn(2, 4, 9, 9)
    weight = pointwise.weight * depthwise.weight.transpose(0, 1)  # (6, 4, 1, 1) * (1, 4, 3, 3)
    full = nn.functional.conv2d(images, weight, stride=2, padding=1)
    torch.testing.assert_close(pointwise(depthwise(images)), full, rtol=1e-4, atol=1e-5)
    assert InvertedResidual(4, 6, stride=2, expansion=1, separable=False)(images).shape == full.shape


@pytest.mark.parametrize(("channels", "expected"), [(1, 8), (16, 16), (12, 16), (22.4, 24), (11.2, 16), (33.6, 32)])
def test_divisible(channels: float, expected: int) -> None:
    assert divisible(channels) == expected


@pytest.mark.parametrize("separable", [True, False])
def test_every_parameter_gets_a_gradient_and_the_picture_counts(separable: bool) -> None:
    network = small(separable=separable)
    require_that_all_counts(network, torch.randn(8, 1, 8, 8), 1e-3)


def test_shuffled_labels_fail_the_bar() -> None:
    assert accuracy_after_shuffled_labels(mobilenet.train, small(), MobileNetOptions(epochs=2, device="cpu")) < 0.4


@pytest.mark.xdist_group(NAME)
def test_what_the_claims_compare(proved_run: Callable[[str], Result]) -> None:
    result = proved_run(NAME)
    assert [row.get("parameters") for row in result.rows] == [18_954, 59_114, 19_058, None]
    assert macs(MobileNetV2(), torch.randn(1, 3, 224, 224)) == 300_774_272


def test_large_network() -> None:
    options = {"width": 0.1, "image_size": 32, "epochs": 1, "batch_size": 512, "device": "cpu", "claims": False}
    result = mobilenet.run(model="mobilenet_v2", **options)
    assert len(result.model.features) == 19


def test_impossible_width_is_named() -> None:
    with pytest.raises(InputError, match="option width"):
        mobilenet.run(width=0.0)
