from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from recipes import using
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.vision.classification import classical
from recipes.vision.classification.classical import HOG, Dim, classifier

NAME = "vision.classification.classical"


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 3, 50, 40), (2, 3, 64, 48)])
def test_hog_is_that_of_scikit_image(shape: tuple[int, int, int, int]) -> None:
    from skimage.feature import hog

    torch.manual_seed(0)
    pictures = torch.rand(shape)
    cell = shape[2] // 4, shape[3] // 4
    options = {"orientations": 9, "pixels_per_cell": cell, "cells_per_block": (2, 2), "channel_axis": 0}
    expected = np.stack([hog(picture.numpy(), **options) for picture in pictures])
    np.testing.assert_allclose(HOG()(pictures).numpy(), expected, atol=1e-6)


def test_hog_forgets_the_light_and_tells_directions_apart() -> None:
    ramp = torch.linspace(0, 1, 32).expand(32, 32)
    across, down = HOG()(torch.stack([ramp, ramp.T])[:, None])
    assert across.shape == (3 * 3 * 4 * 9,)
    assert across @ down < 0.1 * (across @ across)
    torch.manual_seed(0)
    pictures = torch.rand(3, 1, 8, 8, dtype=torch.double)  # rounding may turn a gradient into the next direction
    torch.testing.assert_close(HOG()(pictures), HOG()(0.25 * pictures - 1), atol=1e-3, rtol=0)


def test_dim_pictures_are_the_darker_ones_on_the_old_scale() -> None:
    _, test_set = open_images()
    assert test_set.mean is not None
    assert test_set.std is not None
    expected = (0.25 * test_set.pixels(torch.arange(4)) / 255 - test_set.mean) / test_set.std
    torch.testing.assert_close(Dim(0.25, test_set)(test_set.__getitems__(range(4))[0]), expected)


@pytest.mark.parametrize("method", ["svm", "tree", "forest"])
def test_shuffled_labels_fail_the_bar(method: str) -> None:
    train_set, test_set = open_images()
    labels = train_set.labels.numpy()[np.random.default_rng(0).permutation(len(train_set))]
    known, unseen = (part.pixels(torch.arange(len(part))).flatten(1).numpy() for part in (train_set, test_set))
    found = classifier(method, 0).fit(known, labels).predict(unseen)
    assert (found == test_set.labels.numpy()).mean() < 0.4


@pytest.mark.xdist_group(NAME)
def test_what_the_claims_compare(proved_run: Callable[[str], Result]) -> None:
    result = proved_run(NAME)
    assert len(result.rows) == 7
    assert result.runs["method=tree"].model is None


@pytest.mark.xdist_group(NAME)
def test_what_was_fitted_is_used_with_the_same_answers(default_run: Callable[[str], Result], tmp_path: Path) -> None:
    result = default_run(NAME)
    result.save(tmp_path / "out")
    trained = using.trained(tmp_path / "out", device="cpu")
    answers = trained(result.test_set.pixels(torch.arange(len(result.test_set))).unbind(0))
    truth = [result.test_set.classes[label] for label in result.test_set.labels]
    right = [answer["class"] == name for answer, name in zip(answers, truth, strict=True)]
    assert sum(right) / len(right) == pytest.approx(result["accuracy"])
    assert trained.export(tmp_path / "classical.pt2") < 1e-4
    assert trained.export(tmp_path / "classical.onnx") < 1e-4


def test_two_classes_share_a_plane() -> None:
    train_set, test_set = open_images()
    pair = tuple(part.subset((part.labels < 2).nonzero().flatten()) for part in (train_set, test_set))
    for part in pair:
        part.classes = part.classes[:2]
    result = classical.run(data=pair, device="cpu", claims=False)
    logits = result.model(result.test_set.__getitems__(range(len(result.test_set)))[0])
    agreed = (logits.argmax(dim=1) == result.test_set.labels).double().mean().item()
    assert logits.shape[1] == 2
    assert agreed == pytest.approx(result["accuracy"])


def test_impossible_light_is_named() -> None:
    with pytest.raises(InputError, match="option light"):
        classical.run(light=0.0)
