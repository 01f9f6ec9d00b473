"""The fully convolutional network: what its layers are made of, pictures of any size, skips, using it, controls."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.scenes import Masks, open_masks
from recipes.vision.segmentation import fcn
from recipes.vision.segmentation.fcn import FCN, as_convolution, bilinear_upsampling, mosaics

CPU = torch.device("cpu")
NAME = "vision.segmentation.fcn"


@pytest.fixture(scope="module")
def scenes() -> tuple[Masks, Masks]:
    return open_masks()


def test_a_fully_connected_layer_slides() -> None:
    """The convolution made of it gives what the layer gives for each window."""
    torch.manual_seed(0)
    layer, features = nn.Linear(6 * 9, 4), torch.randn(2, 6, 5, 7)
    slid = as_convolution(layer, 3)(features)
    assert slid.shape == (2, 4, 5, 7)
    for row in range(3):
        for column in range(5):
            window = features[:, :, row : row + 3, column : column + 3].flatten(1)
            torch.testing.assert_close(slid[:, :, row + 1, column + 1], layer(window))


def test_the_deconvolution_starts_as_bilinear_interpolation() -> None:
    features = torch.rand(2, 3, 5, 6)
    raised = bilinear_upsampling(3)(features)
    expected = F.interpolate(features, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(raised[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (9, 130), (2, 2)])
@pytest.mark.parametrize("skips", [0, 1, 2])
def test_any_size(size: tuple[int, int], skips: int) -> None:
    assert FCN(1, 4, width=4, skips=skips).eval()(torch.rand(2, 1, *size)).shape == (2, 4, *size)


def test_three_skips_are_refused() -> None:
    with pytest.raises(InputError, match="option skips: expected a whole number of at least 0 and of at most 2, got 3"):
        fcn.run(skips=3)


@pytest.mark.parametrize("skips", [0, 1, 2])
def test_every_parameter_gets_a_gradient(skips: int, scenes: tuple[Masks, Masks]) -> None:
    torch.manual_seed(0)
    model = FCN(3, 5, skips=skips)
    images, masks = scenes[0].__getitems__(range(4))
    F.cross_entropy(model(images), masks).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_scores_are_summed_at_three_scales() -> None:
    """Cutting a finer score subtracts it, upsampled, from the logits."""
    torch.manual_seed(0)
    model = FCN(3, 5, width=4).eval()
    images = torch.rand(1, 3, 32, 32)
    cut = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in cut.finer[-1].parameters():
            parameter.zero_()
        finest = model.finer[-1](model.stages[0](images))
        expected = F.interpolate(finest, size=(32, 32), mode="bilinear")
        assert torch.allclose(model(images) - cut(images), expected, atol=1e-5)


def test_a_mosaic_holds_four_pictures(scenes: tuple[Masks, Masks]) -> None:
    test_set = scenes[1]
    few = Masks(test_set.images[:9], test_set.masks[:9], test_set.classes, test_set.files[:9])
    large = mosaics(few)
    assert large.images.shape == (2, 3, 128, 128)
    assert large.masks.shape == (2, 128, 128)
    assert len(large.files) == 2
    assert torch.equal(large.images[1, :, :64, 64:], few.images[5])
    assert torch.equal(large.masks[1, 64:, :64], few.masks[6])


class TestRun:
    @pytest.mark.xdist_group(NAME)
    def test_the_deconvolution_has_learned(self, default_run: Callable[[str], Result]) -> None:
        start = bilinear_upsampling(5).weight
        assert all((one.weight - start).abs().max() > 0.01 for one in default_run(NAME).model.upsamplings)
