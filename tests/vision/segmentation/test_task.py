"""The segmentation task: the Dice loss, its networks, and controls that must fail."""

import pytest
import torch
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.datasets.scenes import VOID, Masks, open_masks
from recipes.vision import segmentation
from recipes.vision.segmentation.photos import augment
from recipes.vision.segmentation.task import DilatedCNN, SegmentationOptions, build, dice_loss, torchvision_model

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

    def test_the_option_takes_the_gaps_away(self, scenes: tuple[Masks, Masks]) -> None:
        model = build(SegmentationOptions(dilated=False), scenes[0])
        assert {layer[0].dilation for layer in model.layers} == {(1, 1)}  # type: ignore[union-attr]

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
        model = torchvision_model("torchvision:lraspp_mobilenet_v3_large", 4).eval()
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
            torchvision_model(name, 4)


class TestAugment:
    def test_masks_move_with_their_pictures(self) -> None:
        """Pictures as bright as their masks say, before and after."""
        torch.manual_seed(0)
        masks = F.interpolate(torch.randint(4, (40, 1, 4, 4)).float(), scale_factor=8)[:, 0].long()
        masks[:, :3] = VOID
        images = (masks.float() / 255).unsqueeze(1).expand(-1, 3, -1, -1)
        new, moved = augment(images, masks)
        assert new.shape == images.shape
        assert moved.dtype == torch.int64
        assert set(moved.unique().tolist()) <= {0, 1, 2, 3, VOID}
        known = (moved == VOID).float()
        inner = (F.avg_pool2d(known.unsqueeze(1), 3, stride=1, padding=1)[:, 0] % 1) == 0  # away from borders of void
        bright = new.mean(dim=1)
        for picture, mask, here in zip(bright, moved, inner, strict=True):
            void, rest = picture[here & (mask == VOID)], picture[here & (mask != VOID)]
            if len(void) and len(rest):
                assert void.min() > rest.max()

    def test_mirrored_and_whole_pictures_are_among_them(self) -> None:
        torch.manual_seed(0)
        column = torch.arange(32).expand(200, 32, 32)
        _, moved = augment(torch.rand(200, 3, 32, 32), column)
        steps = (moved[:, 0, -1] - moved[:, 0, 0]).float()
        assert 60 < (steps < 0).sum() < 140
        assert steps.abs().max() >= 30
        assert 17 <= steps.abs().min() <= 22


class TestRun:
    def test_your_own_network_and_augmented_pictures(self, scenes: tuple[Masks, Masks]) -> None:
        own = torch.nn.Conv2d(3, 5, 3, padding=1)
        pair = scenes[0].subset(range(16)), scenes[1].subset(range(4))
        before = own.weight.clone()
        result = segmentation.run(data=pair, model=own, epochs=1, augment=True, claims=False, device="cpu")
        assert result.model is own
        assert not torch.equal(own.weight, before)
