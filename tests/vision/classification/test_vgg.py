from collections.abc import Callable

import pytest
import torch
from torch import nn

from recipes.core.errors import InputError
from recipes.core.measure import parameter_count
from recipes.core.result import Result
from recipes.vision.classification import vgg
from recipes.vision.classification.vgg import STAGES, VGG, VGGOptions, convolution, field_of_view, with_fives
from tests.vision.classification.controls import accuracy_after_shuffled_labels, require_that_all_counts

NAME = "vision.classification.vgg"


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn", "vgg13", "vgg16", "vgg19", "vgg19_bn"])
def test_names_shapes_and_parameters_are_those_of_torchvision(name: str) -> None:
    from torchvision import models

    with torch.device("meta"):  # a hundred million numbers that nobody needs
        theirs = models.get_model(name, weights=None)
        ours = VGG(STAGES[name.removesuffix("_bn")], batch_norm=name.endswith("_bn"))
    assert parameter_count(ours) == parameter_count(theirs)
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_gives_torchvisions_logits() -> None:
    from torchvision import models

    torch.manual_seed(0)
    with torch.device("meta"):
        theirs, ours = models.vgg11(weights=None), VGG(STAGES["vgg11"])
    weights = {
        key: torch.randn(value.shape) * (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else torch.randn(value.shape)
        for key, value in theirs.state_dict().items()
    }
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for model in (theirs, ours):
            model.load_state_dict(weights, assign=True)
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


def width(layers: nn.Sequential) -> int:
    return int((field_of_view(layers) > 0).any(dim=0).sum())


def test_fields_of_view() -> None:
    def field(*kernels: int) -> int:
        torch.manual_seed(0)
        return width(nn.Sequential(*(one for k in kernels for one in convolution(4, 4, k, batch_norm=True))))

    assert [field(3), field(3, 3), field(5), field(3, 3, 3), field(7)] == [3, 5, 5, 7, 7]
    dilated = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
    assert width(nn.Sequential(dilated)) == 3  # it skips every other pixel
    assert width(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2))) == 4


def test_two_networks_differ_in_the_fives_alone() -> None:
    assert with_fives(STAGES["small"]) == [(3, 5)] * 3
    assert with_fives(STAGES["vgg11"]) == [(3,), (3,), (5,), (5,), (5,)]
    threes, fives = (
        VGG(stages, channels=1, num_classes=10, width=8, hidden=16, grid=1)
        for stages in (STAGES["small"], with_fives(STAGES["small"]))
    )
    channels = [8, 16, 32]
    saved = sum(25 * c * c + c - 2 * (9 * c * c + c) for c in channels)
    assert parameter_count(fives) - parameter_count(threes) == saved


@pytest.mark.parametrize("fives", [False, True])
def test_every_parameter_gets_a_gradient_and_the_picture_counts(fives: bool) -> None:
    torch.manual_seed(0)
    stages = with_fives(STAGES["small"]) if fives else STAGES["small"]
    network = VGG(stages, channels=1, num_classes=10, width=8, hidden=32, grid=1)
    require_that_all_counts(network, torch.randn(32, 1, 8, 8), 1e-4)


def test_shuffled_labels_fail_the_bar() -> None:
    torch.manual_seed(0)
    model = VGG(STAGES["small"], channels=1, num_classes=10, width=8, hidden=32, grid=1, batch_norm=True)
    assert accuracy_after_shuffled_labels(vgg.train, model, VGGOptions(epochs=2, device="cpu")) < 0.4


@pytest.mark.xdist_group(NAME)
def test_what_the_claims_compare(proved_run: Callable[[str], Result]) -> None:
    result = proved_run(NAME)
    assert result.claims[0].measured == result.claims[0].reference == 5


def test_large_network_on_enlarged_pictures() -> None:
    result = vgg.run(model="vgg11", width=1, image_size=32, epochs=1, batch_size=512, device="cpu", claims=False)
    assert len([part for part in result.model.modules() if isinstance(part, nn.Conv2d)]) == 8


def test_impossible_options_are_named() -> None:
    with pytest.raises(InputError, match="option width"):
        vgg.run(width=0)
    with pytest.raises(InputError, match="at least 32 pixels"):
        vgg.run(model="vgg16")
