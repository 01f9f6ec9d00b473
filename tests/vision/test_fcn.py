"""The fully convolutional network: torchvision's head, pictures of any size, and skips that are used."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.scenes import Masks, open_masks
from recipes.vision.segmentation import fcn
from recipes.vision.segmentation.fcn import FCN, FCNHead, mosaics
from recipes.vision.segmentation.scoring import evaluate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes() -> tuple[Masks, Masks]:
    return open_masks()


def test_torchvisions_head_loads_and_gives_the_same_scores() -> None:
    from torchvision.models.segmentation.fcn import FCNHead as Reference

    torch.manual_seed(0)
    reference, head = Reference(2048, 21).eval(), FCNHead(2048, 21).eval()
    head.load_state_dict(reference.state_dict())
    features = torch.randn(2, 2048, 5, 7)
    assert torch.allclose(head(features), reference(features), atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (9, 130), (2, 2)])
@pytest.mark.parametrize("skips", [0, 1, 2])
def test_any_size(size: tuple[int, int], skips: int) -> None:
    assert FCN(1, 4, width=4, skips=skips).eval()(torch.rand(2, 1, *size)).shape == (2, 4, *size)


def test_three_skips_are_refused() -> None:
    with pytest.raises(InputError, match="expected 0, 1 or 2, got 3"):
        FCN(3, 4, skips=3)


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
    @pytest.mark.xdist_group("vision.segmentation.fcn")
    def test_the_answer_depends_on_the_picture(
        self, default_run: Callable[[str], Result], scenes: tuple[Masks, Masks]
    ) -> None:
        result, test_set = default_run("vision.segmentation.fcn"), scenes[1]
        assert all(claim.holds for claim in result.claims)
        wrong = replace(test_set, images=test_set.images.roll(1, dims=0))
        assert evaluate(result.model, wrong, CPU)["mean_iou"] < 0.3

    def test_masks_of_other_pictures_teach_nothing(
        self, scenes: tuple[Masks, Masks], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train_set = replace(scenes[0], masks=scenes[0].masks.roll(1, dims=0))
        monkeypatch.setattr(fcn, "open_masks", lambda *_, **__: (train_set, scenes[1]))
        result = fcn.run(compare=False, epochs=2, device="cpu")
        assert result.shortfalls()
        assert result.metrics["mean_iou"] < 0.3

    @pytest.mark.real
    def test_camvid(self, real_data: Path) -> None:
        data = str(real_data / "CamVid")
        result = recipes.run("vision.segmentation.fcn", data=data, compare=False, epochs=3)
        assert result.metrics["mean_iou"] > 1.5 * result.baseline["mean_iou"]
