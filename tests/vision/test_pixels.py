"""Plain methods on pixels, against scikit-learn."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.datasets.images import Images
from recipes.vision.pixels import evenly, flat, linear_classifier, nearest_classes, nearest_neighbor, shrunk


def rows(part: Images) -> Tensor:
    return part.__getitems__(range(len(part)))[0].flatten(1).double()


def test_sklearn_agrees(digits: tuple[Images, Images]) -> None:
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import KNeighborsClassifier

    train_set, test_set = digits
    known, unseen = (F.pad(rows(part), (0, 1), value=1.0).numpy() for part in digits)
    wanted = F.one_hot(train_set.labels).numpy() - 0.1
    ridge = Ridge(alpha=1e-2 * len(known), fit_intercept=False, solver="cholesky").fit(known, wanted)
    right = (ridge.predict(unseen).argmax(axis=1) == test_set.labels.numpy()).mean()
    assert linear_classifier(*digits) == {"accuracy": pytest.approx(right)}
    nearest = KNeighborsClassifier(1).fit(known, train_set.labels.numpy())
    assert nearest_neighbor(*digits) == {"accuracy": pytest.approx(nearest.score(unseen, test_set.labels.numpy()))}


def test_of_many_pictures_every_so_manieth_is_taken() -> None:
    """Files are often sorted by class: the first ones would all be of one."""
    assert evenly(7, 10).tolist() == list(range(7))
    assert evenly(10, 10).tolist() == list(range(10))
    chosen = evenly(25, 10)
    assert chosen.tolist() == list(range(0, 25, 3))
    for count in (11, 99, 100, 101, 25_000):
        chosen = evenly(count, 10)
        assert len(chosen) <= 10
        assert chosen[-1] >= count - count / len(chosen) - 1, "up to the last"


def test_pictures_of_any_size_become_rows() -> None:
    assert flat(torch.rand(2, 3, 40, 20), side=28).shape == (2, 3 * 28 * 20)
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(flat(images), images.flatten(1))


def test_the_nearest_picture_is_the_same_picture(digits: tuple[Images, Images]) -> None:
    train_set, _ = digits
    assert torch.equal(nearest_classes(train_set, shrunk(train_set)), train_set.labels)
