from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recipes.core.errors import InputError
from recipes.core.measure import parameter_count
from recipes.core.result import Result
from recipes.vision.backbones import open_backbone
from recipes.vision.classification import inception
from recipes.vision.classification.inception import (
    Branches,
    Inception,
    InceptionOptions,
    chain,
    fives,
    googlenet,
    inception_v3,
    sevens,
    small_inception,
    threes,
)
from tests.vision.classification.controls import accuracy_after_shuffled_labels, require_that_all_counts

NAME = "vision.classification.inception"
AS_TORCHVISION: dict[str, Callable[[float], Inception]] = {
    "googlenet": lambda auxiliary: googlenet(InceptionOptions(factorized=False, auxiliary=auxiliary), wide=3),
    "inception_v3": lambda auxiliary: inception_v3(InceptionOptions(auxiliary=auxiliary)),
}


def from_torchvision(weights: dict[str, Tensor], network: Inception) -> dict[str, Tensor]:
    """torchvision's state_dict of GoogLeNet or Inception v3 under the names of `network`, whose order is the same."""
    auxiliary = [value for name, value in weights.items() if name.lower().startswith("aux")]
    values = [value for name, value in weights.items() if not name.lower().startswith("aux")]
    return dict(zip(network.state_dict(), values + auxiliary * (len(network.heads) > 0), strict=True))


@pytest.mark.parametrize(
    ("name", "auxiliary", "parameters"),
    [
        ("googlenet", 0.0, 6_624_904),
        ("googlenet", 0.3, 13_004_888),
        ("inception_v3", 0.0, 23_834_568),
        ("inception_v3", 0.4, 27_161_264),
    ],
)
def test_parameters_are_those_of_torchvision(name: str, auxiliary: float, parameters: int) -> None:
    from torchvision import models

    with torch.device("meta"):
        ours = AS_TORCHVISION[name](auxiliary)
        theirs: Any = models.get_model(name, weights=None, init_weights=False, aux_logits=auxiliary > 0)
    assert parameter_count(ours) == parameter_count(theirs) == parameters
    weights = from_torchvision(theirs.state_dict(), ours)
    assert all(value.shape == weights[key].shape for key, value in ours.state_dict().items())


@pytest.mark.parametrize(("name", "size"), [("googlenet", (64, 96)), ("inception_v3", (299, 299))])
def test_gives_torchvisions_logits(name: str, size: tuple[int, int]) -> None:
    """Those of the classifier, and in training those of the auxiliary heads at their places."""
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.get_model(name, weights=None, init_weights=False, aux_logits=True, transform_input=False)
    ours = AS_TORCHVISION[name](0.4)
    for part in theirs.modules():  # batch norm starts out as the identity, which would hide a wrong order
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    ours.load_state_dict(from_torchvision(theirs.state_dict(), ours))
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)
        for model in (ours, theirs):
            model.train()
            for part in model.modules():
                if isinstance(part, (nn.BatchNorm2d, nn.Dropout)):
                    part.eval()
        heads, expected = ours(images)[1:], theirs(images)
    kept = expected[1:] if name == "inception_v3" else (expected.aux_logits1, expected.aux_logits2)
    for one, other in zip(heads, kept, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_version_1_has_no_batch_norm_and_whole_fives() -> None:
    with torch.device("meta"):
        network = googlenet(InceptionOptions(batch_norm=False, factorized=False, auxiliary=0))
    assert not [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    assert sum(part.kernel_size == (5, 5) for part in network.modules() if isinstance(part, nn.Conv2d)) == 9


def test_a_module_concatenates_its_branches() -> None:
    torch.manual_seed(0)
    module, images = fives(InceptionOptions(), 6, (1, 2, 3, 2, 4, 5)).eval(), torch.randn(2, 6, 9, 9)
    expected = torch.cat([branch(images) for branch in module.branches], dim=1)
    assert expected.shape == (2, 1 + 3 + 4 + 5, 9, 9)
    torch.testing.assert_close(module(images), expected)


def kernels(module: nn.Module) -> set[Any]:
    return {part.kernel_size for part in module.modules() if isinstance(part, nn.Conv2d)}


def test_factorized_kernels_cover_the_whole_ones() -> None:
    def wide(options: InceptionOptions) -> list[Branches]:
        return [fives(options, 8, (4,) * 6), sevens(options, 8, 4, 4), threes(options, 8, 4, 4, 4, 4)]

    parts, whole = wide(InceptionOptions()), wide(InceptionOptions(factorized=False))
    assert [kernels(one) - {(1, 1), (3, 3)} for one in parts] == [set(), {(1, 7), (7, 1)}, {(1, 3), (3, 1)}]
    assert [kernels(one) - {(1, 1), (3, 3)} for one in whole] == [{(5, 5)}, {(7, 7)}, set()]
    images = torch.randn(2, 8, 9, 9)
    for one, other in zip(parts, whole, strict=True):
        assert one(images).shape == other(images).shape


def test_without_reductions_wide_kernels_take_all_channels() -> None:
    for options, first in ((InceptionOptions(), (1, 1)), (InceptionOptions(reductions=False), (3, 3))):
        layers = chain(options, 12, (3, 1), (5, 3))
        assert layers[0].kernel_size == first
        assert layers[0].in_channels == 12
        assert small_inception(options, 1, 10).eval()(torch.randn(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("changed", [{}, {"reductions": False}, {"factorized": False}, {"batch_norm": False}])
def test_every_parameter_gets_a_gradient_and_the_picture_counts(changed: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = small_inception(InceptionOptions(**changed), 1, 10)
    assert len(require_that_all_counts(network, torch.randn(32, 1, 8, 8), 1e-4)) == 2


def test_auxiliary_heads_answer_in_training_alone() -> None:
    images = torch.randn(4, 1, 8, 8)
    assert isinstance(small_inception(InceptionOptions(), 1, 10).eval()(images), torch.Tensor)
    assert isinstance(small_inception(InceptionOptions(auxiliary=0), 1, 10)(images), torch.Tensor)


def test_shuffled_labels_fail_the_bar() -> None:
    torch.manual_seed(0)
    options = InceptionOptions(epochs=2, device="cpu")
    assert accuracy_after_shuffled_labels(inception.train, small_inception(options, 1, 10), options) < 0.4


def test_detectors_and_segmenters_can_stand_on_it() -> None:
    features = open_backbone("torchvision:googlenet")
    maps = features.eval()(torch.zeros(1, 3, 64, 96))
    assert [tuple(one.shape) for one in maps] == [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip((192, 480, 832, 1024), (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.xdist_group(NAME)
def test_what_the_claims_compare(proved_run: Callable[[str], Result]) -> None:
    result = proved_run(NAME)
    assert [row["sees pixels"] for row in result.rows if "branch" in row] == [1, 3, 5, 3]
    learning = [name for name in result.runs if name.startswith("lr=")]
    assert len(learning) == 4


def test_impossible_options_are_named() -> None:
    with pytest.raises(InputError, match="option smoothing"):
        inception.run(smoothing=1.0)
    with pytest.raises(InputError, match="at least 299 pixels"):
        inception.run(model="inception_v3")
