"""DeepLab: torchvision's head, the dense CRF against a slow plain one, and what dilation sees."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import recipes
from recipes.core.measure import parameter_count
from recipes.core.result import Result
from recipes.datasets.scenes import Masks, open_masks
from recipes.vision.segmentation import deeplab
from recipes.vision.segmentation.deeplab import DeepLab, DeepLabHead, WithCRF, dense_crf, receptive_field
from recipes.vision.segmentation.scoring import evaluate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes() -> tuple[Masks, Masks]:
    return open_masks()


def test_torchvisions_head_loads_and_gives_the_same_scores() -> None:
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead as Reference

    torch.manual_seed(0)
    reference, head = Reference(2048, 21).eval(), DeepLabHead(2048, 21, 256, (12, 24, 36)).eval()
    head.load_state_dict(reference.state_dict())
    features = torch.randn(1, 2048, 5, 7)
    with torch.no_grad():
        assert torch.allclose(head(features), reference(features), atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (2, 2)])
def test_any_size(size: tuple[int, int]) -> None:
    assert DeepLab(1, 4).eval()(torch.rand(2, 1, *size)).shape == (2, 4, *size)


def test_every_parameter_gets_a_gradient(scenes: tuple[Masks, Masks]) -> None:
    torch.manual_seed(0)
    model = DeepLab(3, 5)
    images, masks = scenes[0].__getitems__(range(4))
    F.cross_entropy(model(images), masks).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_dilation_widens_the_receptive_field_by_the_sum_of_its_gaps() -> None:
    torch.manual_seed(0)
    dilated, plain = DeepLab(3, 5), DeepLab(3, 5, dilations=(1, 1, 1), pyramid=(1, 1, 1))
    assert parameter_count(dilated) == parameter_count(plain)
    # the 4×4 stem at half size, then two dilations a 3×3 convolution
    assert receptive_field(plain, CPU) == 4 + 2 * 2 * (1 + 1 + 1 + 1)
    assert receptive_field(dilated, CPU) == 4 + 2 * 2 * (1 + 2 + 4 + 8)


class TestCRF:
    def test_it_is_a_slow_plain_one(self) -> None:
        torch.manual_seed(0)
        logits, images = torch.randn(2, 3, 6, 5).double(), torch.rand(2, 3, 6, 5).double()
        steps, radius, bilateral, smoothness, near, alike, close = 2, 2, 0.8, 0.3, 1.5, 0.3, 0.7
        q = logits.softmax(dim=1)
        for _ in range(steps):
            energy = logits.clone()
            for n, row, column in np.ndindex(2, 6, 5):
                for r, c in np.ndindex(6, 5):
                    far = max(abs(r - row), abs(c - column))
                    if far == 0 or far > radius:
                        continue
                    place = (r - row) ** 2 + (c - column) ** 2
                    colour = (images[n, :, r, c] - images[n, :, row, column]).square().sum().item()
                    weight = bilateral * math.exp(-place / (2 * near**2) - colour / (2 * alike**2))
                    weight += smoothness * math.exp(-place / (2 * close**2))
                    # Potts: each other class costs its probability
                    energy[n, :, row, column] -= weight * (1 - q[n, :, r, c])
            q = energy.softmax(dim=1)
        fast = dense_crf(
            logits,
            images,
            steps=steps,
            radius=radius,
            bilateral=bilateral,
            smoothness=smoothness,
            near=near,
            alike=alike,
            close=close,
        )
        assert torch.allclose(fast, q, atol=1e-10)

    def test_without_pairs_it_is_the_softmax(self) -> None:
        logits, images = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 8, 8)
        assert torch.allclose(dense_crf(logits, images, bilateral=0, smoothness=0), logits.softmax(dim=1))

    def test_a_stray_pixel_takes_the_class_of_its_colour(self) -> None:
        images = torch.zeros(1, 3, 12, 12)
        images[..., 6:] = 1
        truth = (images[:, :1] > 0).long()
        wrong = truth.clone()
        wrong[..., 3, 5], wrong[..., 8, 2] = 1, 1  # one of them at the border
        logits = F.one_hot(wrong[:, 0], 2).movedim(3, 1).float()
        assert torch.equal(dense_crf(logits, images).argmax(dim=1, keepdim=True), truth)

    def test_pictures_a_few_at_once_change_nothing(self) -> None:
        torch.manual_seed(0)
        model, images = DeepLab(3, 5).eval(), torch.rand(20, 3, 64, 64)
        with torch.no_grad():
            together = WithCRF(model)(images)
            assert torch.allclose(together[13:14], dense_crf(model(images[13:14]), images[13:14]), atol=1e-4)
            assert torch.allclose(together.sum(dim=1), torch.ones(20, 64, 64))


class TestRun:
    @pytest.mark.xdist_group("vision.segmentation.deeplab")
    def test_the_answer_depends_on_the_picture(
        self, default_run: Callable[[str], Result], scenes: tuple[Masks, Masks]
    ) -> None:
        result, test_set = default_run("vision.segmentation.deeplab"), scenes[1]
        assert all(claim.holds for claim in result.claims)
        wrong = replace(test_set, images=test_set.images.roll(1, dims=0))
        assert evaluate(result.model, wrong, CPU)["mean_iou"] < 0.3

    def test_masks_of_other_pictures_teach_nothing(
        self, scenes: tuple[Masks, Masks], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train_set = replace(scenes[0], masks=scenes[0].masks.roll(1, dims=0))
        monkeypatch.setattr(deeplab, "open_masks", lambda *_, **__: (train_set, scenes[1]))
        result = deeplab.run(compare=False, epochs=1, device="cpu")
        assert result.shortfalls()
        assert result.metrics["mean_iou"] < 0.3

    @pytest.mark.real
    def test_camvid(self, real_data: Path) -> None:
        data = str(real_data / "CamVid")
        result = recipes.run("vision.segmentation.deeplab", data=data, compare=False, epochs=3)
        assert result.metrics["mean_iou"] > 1.5 * result.baseline["mean_iou"]
