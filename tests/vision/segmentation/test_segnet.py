"""SegNet: unpooling by index puts values where pooling took them from, and its decoder needs those places."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from recipes.core.measure import parameter_count
from recipes.datasets.scenes import Masks, open_masks
from recipes.vision.segmentation.segnet import SegNet

CPU = torch.device("cpu")
NAME = "vision.segmentation.segnet"


@pytest.fixture(scope="module")
def scenes() -> tuple[Masks, Masks]:
    return open_masks()


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unpooling_keeps_the_largest_of_each_four_in_place(memory: torch.memory_format, dtype: torch.dtype) -> None:
    """Torch's operators in the layout and precision of the training, against the comparison that they stand for."""
    torch.manual_seed(0)
    features = torch.randperm(2 * 3 * 7 * 6).view(2, 3, 7, 6).to(torch.float32)
    if dtype == torch.bfloat16:
        features = features % 256  # whole numbers that it holds; equal ones are too far apart to meet
    features = features.to(dtype).to(memory_format=memory)
    pooled, indices = F.max_pool2d(features, 2, return_indices=True)
    unpooled = F.max_unpool2d(pooled, indices, (2, 2), output_size=features.shape[2:])
    largest = F.interpolate(pooled.float(), scale_factor=2, mode="nearest")
    expected = torch.zeros(2, 3, 7, 6)
    cut = features[:, :, :6].float()
    expected[:, :, :6] = cut.where(cut == largest, 0)
    assert torch.equal(unpooled.float(), expected)


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (4, 5)])
@pytest.mark.parametrize("indices", [True, False])
def test_sizes(size: tuple[int, int], indices: bool) -> None:
    assert SegNet(1, 4, width=4, indices=indices).eval()(torch.rand(2, 1, *size)).shape == (2, 4, *size)


def test_both_upsamplings_have_as_many_parameters() -> None:
    assert parameter_count(SegNet(3, 5)) == parameter_count(SegNet(3, 5, indices=False))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("indices", [True, False])
def test_every_parameter_gets_a_gradient(depth: int, indices: bool, scenes: tuple[Masks, Masks]) -> None:
    torch.manual_seed(0)
    model = SegNet(3, 5, depth=depth, indices=indices)
    images, masks = scenes[0].__getitems__(range(4))
    F.cross_entropy(model(images), masks).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_decoder_is_linear_but_for_its_batch_norms() -> None:
    """SegNet-Basic has no ReLU there, and as many channels everywhere."""
    model = SegNet(3, 5, width=6, depth=3)
    assert not any(isinstance(one, nn.ReLU) for one in model.decoder.modules())
    assert sum(isinstance(one, nn.ReLU) for one in model.encoder.modules()) == 3
    convolutions = [one for one in model.modules() if isinstance(one, nn.Conv2d)]
    assert [one.out_channels for one in convolutions] == [6] * 6 + [5]
