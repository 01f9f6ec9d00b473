from collections.abc import Callable

import pytest
import torch
from torch import nn

from recipes.core.measure import parameter_count
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.vision.classification import inception
from recipes.vision.classification.inception import from_torchvision, googlenet, inception_v3, small_inception, steps_to

CPU = torch.device("cpu")
NAME = "vision.classification.inception"


@pytest.mark.parametrize(("name", "parameters"), [("googlenet", 6_624_904), ("inception_v3", 23_834_568)])
def test_equals_torchvision(name: str, parameters: int) -> None:
    """torchvision's weights load, and give the same logits; its two helping classifiers are left out."""
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.get_model(name, weights=None, init_weights=False, aux_logits=True)
    for part in theirs.modules():  # batch norm starts out as the identity, which would hide a wrong order
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    ours = googlenet(norm=True, wide=(3,)) if name == "googlenet" else inception_v3()
    assert parameter_count(ours) == parameters
    ours.load_state_dict(from_torchvision(theirs.state_dict(), ours))
    images = torch.randn(1, 3, 80, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


def test_module_lays_its_branches_side_by_side() -> None:
    torch.manual_seed(0)
    module, images = inception.inception(6, (1, 2, 3, 2, 4, 5)), torch.randn(2, 6, 9, 9)
    expected = torch.cat([branch(images) for branch in module.branches], dim=1)
    assert expected.shape == (2, 1 + 3 + 4 + 5, 9, 9)
    torch.testing.assert_close(module(images), expected)


def test_steps_to_a_goal() -> None:
    assert steps_to([1.0] * 30 + [0.0] * 30, 0.5) == 41
    assert steps_to([1.0] * 30, 0.5) == 31


@pytest.mark.parametrize(("norm", "wide"), [(False, (5,)), (True, (3, 3))])
def test_every_parameter_gets_a_gradient_and_the_picture_counts(norm: bool, wide: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = small_inception(1, 10, norm=norm, wide=wide)
    logits = network(torch.randn(32, 1, 8, 8))
    assert logits.std(dim=0).min() > 1e-4
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_shuffled_labels_fail_the_bar() -> None:
    torch.manual_seed(0)
    train_set, test_set = open_images()
    train_set.labels = train_set.labels[torch.randperm(len(train_set))]
    loop, _ = inception.train(small_inception(1, 10, norm=True), train_set, test_set, 64, 1e-2, 0, device=CPU, epochs=2)
    assert loop.history[-1]["accuracy"] < 0.4


@pytest.mark.xdist_group(NAME)
def test_all_claims_hold(default_run: Callable[[str], Result]) -> None:
    result = default_run(NAME)
    assert [claim.text for claim in result.claims if not claim.holds] == []
