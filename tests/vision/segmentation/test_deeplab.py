"""DeepLab: torchvision's head, the CRF against a slow plain one, what dilation sees, using it, and controls."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.measure import parameter_count
from recipes.core.result import Result
from recipes.datasets.scenes import Masks, open_masks
from recipes.vision.segmentation import deeplab
from recipes.vision.segmentation.deeplab import (
    ALIKE,
    CLOSE,
    NEAR,
    DeepLab,
    DeepLabOptions,
    WithCRF,
    build,
    local_crf,
)
from recipes.vision.segmentation.scoring import evaluate

CPU = torch.device("cpu")
NAME = "vision.segmentation.deeplab"


@pytest.fixture(scope="module")
def scenes() -> tuple[Masks, Masks]:
    return open_masks()


def new(data: Masks, **options: bool) -> DeepLab:
    torch.manual_seed(0)
    return build(DeepLabOptions(**options), data).network


def test_torchvisions_head_loads_and_gives_the_same_scores() -> None:
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    torch.manual_seed(0)
    reference = DeepLabHead(256, 21, (12, 24, 36)).eval()
    model = DeepLab(nn.Identity(), 256, 21, (12, 24, 36)).eval()
    names = {"0.": "aspp.", "1.": "last.0.", "2.": "last.1.", "4.": "head."}
    model.load_state_dict({names[key[:2]] + key[2:]: value for key, value in reference.state_dict().items()})
    features = torch.randn(1, 256, 5, 7)
    with torch.no_grad():
        torch.testing.assert_close(model(features), reference(features), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (2, 2)])
def test_any_size(size: tuple[int, int], scenes: tuple[Masks, Masks]) -> None:
    model = build(DeepLabOptions(), scenes[0]).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, 5, *size)


def test_every_parameter_gets_a_gradient(scenes: tuple[Masks, Masks]) -> None:
    model = new(scenes[0])
    images, masks = scenes[0].__getitems__(range(4))
    F.cross_entropy(model(images), masks).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_gaps_need_no_parameters(scenes: tuple[Masks, Masks]) -> None:
    counts = {parameter_count(new(scenes[0], dilated=d, pyramid=p)) for d in (True, False) for p in (True, False)}
    assert len(counts) == 1


def slow_crf(logits: Tensor, images: Tensor, bilateral: float, smoothness: float, steps: int, radius: int) -> Tensor:
    """By loops over pairs of pixels."""
    q = logits.softmax(dim=1)
    for _ in range(steps):
        energy = logits.clone()
        for n, row, column in np.ndindex(2, 6, 5):
            for r, c in np.ndindex(6, 5):
                far = max(abs(r - row), abs(c - column))
                if far == 0 or far > radius:
                    continue
                distance = (r - row) ** 2 + (c - column) ** 2
                color = (images[n, :, r, c] - images[n, :, row, column]).square().sum().item()
                weight = bilateral * math.exp(-distance / (2 * NEAR**2) - color / (2 * ALIKE**2))
                weight += smoothness * math.exp(-distance / (2 * CLOSE**2))
                energy[n, :, row, column] -= weight * (1 - q[n, :, r, c])  # Potts: other classes cost their share
        q = energy.softmax(dim=1)
    return q


class TestCRF:
    @pytest.mark.parametrize("radius", [2, 6])  # the second is the papers': every pixel with every other
    def test_it_is_a_slow_plain_one(self, radius: int) -> None:
        torch.manual_seed(0)
        logits, images = torch.randn(2, 3, 6, 5).double(), torch.rand(2, 3, 6, 5).double()
        fast = local_crf(logits, images, 0.8, 0.3, steps=2, radius=radius)
        assert torch.allclose(fast.exp(), slow_crf(logits, images, 0.8, 0.3, 2, radius), atol=1e-10)

    def test_without_pairs_it_is_the_softmax(self) -> None:
        logits, images = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 8, 8)
        assert torch.allclose(local_crf(logits, images, 0, 0), logits.log_softmax(dim=1))

    def test_a_stray_pixel_takes_the_class_of_its_color(self) -> None:
        images = torch.zeros(1, 3, 12, 12)
        images[..., 6:] = 1
        truth = (images[:, :1] > 0).long()
        wrong = truth.clone()
        wrong[..., 3, 5], wrong[..., 8, 2] = 1, 1  # one of them at the border
        logits = F.one_hot(wrong[:, 0], 2).movedim(3, 1).float()
        assert torch.equal(local_crf(logits, images, 2.0, 0.2).argmax(dim=1, keepdim=True), truth)

    def test_its_strength_is_the_one_that_held_out_pictures_like_best(self) -> None:
        """Logits with stray pixels on pictures of two colors: a CRF that does nothing would leave them."""
        images = torch.zeros(4, 3, 12, 12, dtype=torch.uint8)
        images[..., 6:] = 255
        masks = (images[:, 0] > 0).to(torch.uint8)
        wrong = masks.clone()
        wrong[:, 3, 4] = 1

        class Fixed(nn.Module):
            def forward(self, pictures: Tensor) -> Tensor:
                return F.one_hot(wrong[: len(pictures)].long(), 2).movedim(3, 1).float()

        model = WithCRF(Fixed())  # type: ignore[arg-type]
        deeplab.tune(model, Masks(images, masks, ["left", "right"], [""] * 4), DeepLabOptions(device=CPU))
        assert model.strength.sum() > 0
        assert evaluate(model, Masks(images, masks, ["left", "right"], [""] * 4), CPU)["mean_iou"] == 1


class TestRun:
    @pytest.mark.xdist_group(NAME)
    def test_dilation_widens_the_receptive_field_by_the_sum_of_its_gaps(
        self, proved_run: Callable[[str], Result]
    ) -> None:
        result = proved_run(NAME)
        plain = result.runs["dilated=False, pyramid=False"]
        # the 4×4 stem at half size, then two dilations a 3×3 convolution
        assert deeplab.receptive_field(plain) == 4 + 2 * 2 * (1 + 1 + 1 + 1)
        assert deeplab.receptive_field(result) == 4 + 2 * 2 * (1 + 2 + 4 + 8)
