"""The segmentation task: the Dice loss, its networks, and controls that must fail."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.scenes import VOID, Masks, open_masks
from recipes.vision import segmentation
from recipes.vision.segmentation.scoring import evaluate
from recipes.vision.segmentation.task import DilatedCNN, build_model, dice_loss

CPU = torch.device("cpu")
NAME = "vision.segmentation"


@pytest.fixture(scope="module")
def scenes() -> tuple[Masks, Masks]:
    return open_masks()


class TestDiceLoss:
    def test_nothing_lost_where_the_answer_is_right_and_almost_all_where_it_is_wrong(self) -> None:
        masks = torch.tensor([[[0, 1, 1, 2] * 20]])
        right = 50.0 * F.one_hot(masks, 3).movedim(3, 1)
        assert dice_loss(right, masks) == pytest.approx(0, abs=1e-6)
        assert dice_loss(right.roll(1, dims=1), masks) > 0.9

    def test_value_by_hand(self) -> None:
        logits = torch.tensor([0.8, 0.2]).log().view(1, 2, 1, 1).expand(1, 2, 1, 2)
        masks = torch.tensor([[[0, 1]]])
        # class 0: shared 0.8, sizes 1 and 1.6; class 1: shared 0.2, sizes 1 and 0.4
        expected = 1 - (2.6 / 3.6 + 1.4 / 2.4) / 2
        assert dice_loss(logits, masks).item() == pytest.approx(expected)

    def test_void_pixels_do_not_matter(self) -> None:
        logits, masks = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
        masks[:, 0] = VOID
        changed = logits.clone()
        changed[:, :, 0] = torch.randn(2, 3, 4)
        assert torch.equal(dice_loss(logits, masks), dice_loss(changed, masks))
        assert torch.allclose(dice_loss(logits, masks), dice_loss(logits[:, :, 1:], masks[:, 1:]))


class TestModels:
    def test_every_parameter_gets_a_gradient(self, scenes: tuple[Masks, Masks]) -> None:
        torch.manual_seed(0)
        model = DilatedCNN(3, 5)
        images, masks = scenes[0].__getitems__(range(4))
        F.cross_entropy(model(images), masks).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())

    @pytest.mark.parametrize("size", [(64, 64), (33, 50)])
    def test_dilated_cnn_takes_any_size(self, size: tuple[int, int]) -> None:
        assert DilatedCNN(3, 4).eval()(torch.rand(2, 3, *size)).shape == (2, 4, *size)

    def test_dilation_widens_what_a_pixel_sees(self) -> None:
        def seen(dilations: tuple[int, ...]) -> int:
            model = DilatedCNN(3, 2, dilations=dilations).eval()
            images = torch.rand(1, 3, 160, 160, requires_grad=True)
            model(images)[0, 0, 80, 80].backward()
            assert images.grad is not None
            return int(images.grad.abs().sum(dim=(0, 1, 2)).nonzero().numel())

        # each convolution adds two of its dilations on both sides together, at half size
        assert seen((1, 2, 4, 8, 4, 2)) - seen((1, 1, 1, 1, 1, 1)) == 2 * 2 * (21 - 6)

    def test_torchvision_by_name(self) -> None:
        model = build_model("torchvision:lraspp_mobilenet_v3_large", 4).eval()
        assert model(torch.rand(1, 3, 64, 48)).shape == (1, 4, 64, 48)

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("unet", "expected dilated_cnn"),
            ("torchvision:fcn_resnet5", "fcn_resnet50"),
            ("torchvision:vit_b_16", "did"),
        ],
    )
    def test_unknown_models_are_refused(self, name: str, hint: str) -> None:
        with pytest.raises(InputError, match=hint):
            build_model(name, 4)


class TestRun:
    @pytest.mark.xdist_group("vision.segmentation")
    def test_the_answer_depends_on_the_picture(
        self, default_run: Callable[[str], Result], scenes: tuple[Masks, Masks]
    ) -> None:
        result, test_set = default_run("vision.segmentation"), scenes[1]
        assert all(claim.holds for claim in result.claims)
        wrong = replace(test_set, images=test_set.images.roll(1, dims=0))
        assert evaluate(result.model, wrong, CPU)["mean_iou"] < 0.3

    def test_masks_of_other_pictures_teach_nothing(
        self, scenes: tuple[Masks, Masks], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train_set = replace(scenes[0], masks=scenes[0].masks.roll(1, dims=0))
        monkeypatch.setattr(segmentation.task, "open_masks", lambda *_, **__: (train_set, scenes[1]))
        result = segmentation.run(compare=False, epochs=2, device="cpu")
        assert result.shortfalls()
        assert result.metrics["mean_iou"] < 0.3

    @pytest.mark.real
    def test_camvid(self, real_data: Path) -> None:
        result = recipes.run("vision.segmentation", data=str(real_data / "CamVid"), compare=False, epochs=3)
        assert result.metrics["mean_iou"] > 1.5 * result.baseline["mean_iou"]
