from collections.abc import Callable

import pytest
import torch
from torch import nn

from recipes.core.errors import InputError
from recipes.core.measure import parameter_count
from recipes.core.result import Result
from recipes.vision.classification import efficientnet
from recipes.vision.classification.efficientnet import SMALL_SETTINGS, EfficientNet, EfficientNetOptions, MBConv
from tests.vision.classification.controls import accuracy_after_shuffled_labels, require_that_all_counts

NAME = "vision.classification.efficientnet"


def small() -> EfficientNet:
    torch.manual_seed(0)
    return EfficientNet(SMALL_SETTINGS, channels=1, num_classes=10, stem=8, by=2, small_pictures=True)


@pytest.mark.parametrize(("name", "width", "depth"), [("efficientnet_b0", 1.0, 1.0), ("efficientnet_b2", 1.1, 1.2)])
def test_equals_torchvision(name: str, width: float, depth: float) -> None:
    """The same names and numbers: torchvision's weights load, and give the same logits."""
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.get_model(name, weights=None)
    for part in theirs.modules():  # batch norm starts out as the identity, which would hide a wrong order
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    ours = EfficientNet(width=width, depth=depth)
    assert parameter_count(ours) == parameter_count(theirs)
    assert name != "efficientnet_b0" or parameter_count(ours) == 5_288_548
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


def test_stochastic_depth_skips_whole_pictures_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    block = MBConv(4, 4, 3, 1, 2, dropped=0.5)
    images = torch.randn(1, 4, 6, 6).expand(400, -1, -1, -1)
    added = block(images) - images
    skipped = (added.abs().amax(dim=(1, 2, 3)) < 1e-6).float().mean()
    assert 0.4 < skipped < 0.6
    block.dropped = 0.0
    torch.testing.assert_close(added[added.abs().amax(dim=(1, 2, 3)) > 1e-6][:1] / 2, (block(images) - images)[:1])


def test_every_parameter_gets_a_gradient_and_the_picture_counts() -> None:
    network = small()
    require_that_all_counts(network, torch.randn(32, 1, 8, 8), 1e-3)


def test_shuffled_labels_fail_the_bar() -> None:
    assert (
        accuracy_after_shuffled_labels(efficientnet.train, small(), EfficientNetOptions(epochs=2, device="cpu")) < 0.4
    )


@pytest.mark.xdist_group(NAME)
def test_what_the_claims_compare(proved_run: Callable[[str], Result]) -> None:
    result = proved_run(NAME)
    assert [row["side"] for row in result.rows] == [11, 8, 8, 8, 16]


def test_impossible_factors_are_named() -> None:
    for name in ("depth", "width", "resolution"):
        with pytest.raises(InputError, match=f"option {name}"):
            efficientnet.run(**{name: 0.0})
