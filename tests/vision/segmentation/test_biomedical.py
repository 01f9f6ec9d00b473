"""Elastic deformation and the map of weights of U-Net's paper, against plain ways to compute them."""

import math

import pytest
import torch

from recipes.datasets.scenes import VOID
from recipes.vision.segmentation import unet
from recipes.vision.segmentation.biomedical import border_weights, deform


def test_masks_are_bent_as_their_pictures() -> None:
    masks = torch.zeros(4, 64, 64, dtype=torch.int64)
    masks[:, 16:48, 20:44] = 1
    images = masks[:, None].float().expand(-1, 3, -1, -1)
    torch.manual_seed(0)
    bent, followed = deform(images, masks, 10.0)
    assert ((bent[:, 0] > 0.5) == (followed == 1)).double().mean() > 0.99
    assert (followed != masks).double().mean() > 0.02
    assert not torch.equal(followed[0], followed[1]), "each in its own way"
    still, same = deform(images, masks, deviation=0.0)
    torch.testing.assert_close(still, images, atol=1e-5, rtol=0)
    assert torch.equal(same, masks)


def test_displacements_have_the_deviation_at_the_grid_s_points() -> None:
    ramp = torch.arange(401.0).expand(200, 1, 401, 401).contiguous()
    torch.manual_seed(0)
    bent, _ = deform(ramp, torch.zeros(200, 401, 401, dtype=torch.int64), 10.0)
    moved = bent[:, 0, 200, 200] - ramp[:, 0, 200, 200]  # the middle point of the 3×3
    assert moved.std().item() == pytest.approx(10, rel=0.2)
    assert moved.mean().abs() < 2.5


def test_weights_by_hand() -> None:
    masks = torch.zeros(1, 12, 16, dtype=torch.int64)
    masks[0, 2:10, 1:6], masks[0, 2:10, 9:13], masks[0, 0, 15] = 1, 2, VOID
    weights = border_weights(masks)[0]
    pixels = [(row, column) for row in range(12) for column in range(16)]
    known = len(pixels) - 1
    count = {value: int((masks == value).sum()) for value in (0, 1, 2)}
    for row, column in pixels:
        value = int(masks[0, row, column])
        if value == VOID:
            continue
        nearest = [
            min(math.dist((row, column), other) for other in pixels if masks[0, other[0], other[1]] == kind)
            for kind in (1, 2)
        ]
        expected = known / (3 * count[value]) + (value == 0) * 10 * math.exp(-(sum(nearest) ** 2) / 50)
        assert weights[row, column].item() == pytest.approx(expected, rel=1e-4)
    assert weights[5, 7] > weights[5, 15] + 3, "between the objects it counts most"


def test_objects_of_one_class_are_told_apart_and_one_alone_has_no_gap() -> None:
    masks = torch.zeros(2, 16, 16, dtype=torch.int64)
    masks[:, 4:12, 2:7] = 1
    masks[0, 4:12, 9:14] = 1
    two, one = border_weights(masks)
    assert two[8, 8] > one[8, 8] + 5
    assert one[masks[1] == 0].unique().numel() == 1


def test_both_in_a_training() -> None:
    result = unet.run(elastic=2.0, borders=True, steps=2, claims=False, device="cpu", width=2)
    assert result.history[-1]["loss"] > 0
