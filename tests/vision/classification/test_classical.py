from collections.abc import Callable

import numpy as np
import pytest
import torch

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.vision.classification import classical
from recipes.vision.classification.classical import METHODS, build_classifier, dimmed, features, oriented_gradients

NAME = "vision.classification.classical"


def test_hog_forgets_the_light_and_tells_directions_apart() -> None:
    ramp = torch.linspace(0, 1, 32).expand(32, 32)
    across, down = oriented_gradients(torch.stack([ramp, ramp.T])[:, None])
    assert across.shape == (3 * 3 * 4 * 9,)
    assert across @ down < 0.1 * (across @ across)
    pictures = torch.rand(3, 1, 8, 8)
    np.testing.assert_allclose(oriented_gradients(pictures), oriented_gradients(0.25 * pictures), atol=1e-3)
    assert oriented_gradients(torch.rand(2, 3, 50, 40)).shape == (2, 324)


def test_dimmed_gives_the_network_darker_pictures_on_the_old_scale() -> None:
    _, test_set = open_images()
    assert test_set.mean is not None
    assert test_set.std is not None
    expected = (0.25 * test_set.pixels(torch.arange(4)) / 255 - test_set.mean) / test_set.std
    torch.testing.assert_close(dimmed(test_set, 0.25).__getitems__(range(4))[0], expected)
    bright, dark = features(test_set, "pixels"), features(test_set, "pixels", 0.25)
    np.testing.assert_allclose(dark, 0.25 * bright)


@pytest.mark.parametrize("method", METHODS)
def test_shuffled_labels_fail_the_bar(method: str) -> None:
    train_set, test_set = open_images()
    labels = train_set.labels.numpy()[np.random.default_rng(0).permutation(len(train_set))]
    classifier = build_classifier(method, 0).fit(features(train_set, "pixels"), labels)
    assert (classifier.predict(features(test_set, "pixels")) == test_set.labels.numpy()).mean() < 0.4


@pytest.mark.xdist_group(NAME)
def test_all_claims_hold(default_run: Callable[[str], Result]) -> None:
    result = default_run(NAME)
    assert [claim.text for claim in result.claims if not claim.holds] == []
    assert len(result.rows) == 7


def test_impossible_light_is_named() -> None:
    with pytest.raises(InputError, match="option light"):
        classical.run(light=0.0)
