"""The segmentation task and U-Net, against slow plain counting and a formula, and with what must fail."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.core.measure import parameter_count
from recipes.core.result import Result
from recipes.datasets.scenes import VOID, Masks, open_masks
from recipes.vision import segmentation
from recipes.vision.segmentation import unet
from recipes.vision.segmentation.scoring import (
    commonest_class,
    confusion_matrix,
    evaluate,
    iou_by_class,
    near_borders,
    predict_masks,
    scores,
)
from recipes.vision.segmentation.task import DilatedCNN, build_model, dice_loss
from recipes.vision.segmentation.unet import UNet

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes() -> tuple[Masks, Masks]:
    return open_masks()


def first(masks: Masks, count: int) -> Masks:
    return Masks(masks.images[:count], masks.masks[:count], masks.classes, masks.files[:count])


def random_masks(seed: int, *, void: bool) -> tuple[Tensor, Tensor]:
    """An answer and a truth of three classes, of which class 3 of four never appears."""
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randint(3, (2, 7, 5), generator=generator, dtype=torch.uint8)
    truth = torch.randint(3, (2, 7, 5), generator=generator, dtype=torch.uint8)
    if void:
        truth[torch.rand(truth.shape, generator=generator) < 0.3] = VOID
    return predicted, truth


class TestMetric:
    @pytest.mark.parametrize("void", [False, True])
    def test_iou_and_accuracy_are_those_of_plain_counting(self, void: bool) -> None:
        predicted, truth = random_masks(0, void=void)
        pairs = [
            (p, t) for p, t in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True) if t != VOID
        ]
        expected = []
        for name in range(3):
            shared = sum(p == name and t == name for p, t in pairs)
            either = sum(p == name or t == name for p, t in pairs)
            expected.append(shared / either)
        measured = scores(predicted, truth, 4)
        assert measured["mean_iou"] == pytest.approx(sum(expected) / 3)
        assert measured["pixel_accuracy"] == pytest.approx(sum(p == t for p, t in pairs) / len(pairs))

    def test_the_confusion_matrix_counts_every_pixel_but_void(self) -> None:
        predicted, truth = random_masks(1, void=True)
        confusion = confusion_matrix(predicted, truth, 4)
        assert confusion.sum() == (truth != VOID).sum()
        assert confusion[2, 1] == ((truth == 2) & (predicted == 1)).sum()
        assert iou_by_class(confusion)[3].isnan()

    def test_sklearn_agrees(self) -> None:
        from sklearn.metrics import jaccard_score

        predicted, truth = random_masks(2, void=False)
        expected = jaccard_score(truth.flatten(), predicted.flatten(), average="macro")
        assert scores(predicted, truth, 3)["mean_iou"] == pytest.approx(expected)

    def test_the_truth_scores_one(self, scenes: tuple[Masks, Masks]) -> None:
        masks = scenes[1].masks
        assert scores(masks, masks, 5) == {"mean_iou": 1.0, "pixel_accuracy": 1.0}

    def test_the_baseline_is_the_share_of_background(self, scenes: tuple[Masks, Masks]) -> None:
        share = (scenes[1].masks == 0).double().mean().item()
        baseline = commonest_class(*scenes)
        assert baseline["pixel_accuracy"] == pytest.approx(share)
        assert baseline["mean_iou"] == pytest.approx(share / 5)

    def test_near_borders_is_a_slow_search(self) -> None:
        _, truth = random_masks(3, void=True)
        truth[1, :, :] = 2  # a picture with no border at all
        near = near_borders(truth, distance=1)
        for n, row, column in np.ndindex(*truth.shape):
            window = truth[n, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            border = window[window != VOID].unique().numel() > 1
            assert near[n, row, column] == (truth[n, row, column] if border else VOID)


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


def expected_parameters(width: int, depth: int, classes: int) -> int:
    """U-Net's parameters by the paper's figure: two 3×3 convolutions (and batch norms) a block."""

    def block(channels: int, out: int) -> int:
        return 9 * channels * out + 9 * out * out + 4 * out

    widths = [width * 2**level for level in range(depth + 1)]
    total = block(3, width) + sum(block(wide, 2 * wide) for wide in widths[:-1])
    for wide in widths[:-1]:
        total += 4 * 2 * wide * wide + wide + block(2 * wide, wide)
    return total + width * classes + classes


class TestUNet:
    @pytest.mark.parametrize(("width", "depth"), [(8, 3), (4, 1), (6, 4)])
    def test_parameters(self, width: int, depth: int) -> None:
        assert parameter_count(UNet(3, 5, width=width, depth=depth)) == expected_parameters(width, depth, 5)

    def test_without_skips_it_has_at_least_as_many(self) -> None:
        assert parameter_count(UNet(3, 5, skips=False)) >= parameter_count(UNet(3, 5))

    @pytest.mark.parametrize("size", [(64, 64), (37, 50), (8, 9), (1, 1)])
    @pytest.mark.parametrize("skips", [True, False])
    def test_any_size(self, size: tuple[int, int], skips: bool) -> None:
        model = UNet(1, 4, width=2, skips=skips).eval()
        assert model(torch.rand(2, 1, *size)).shape == (2, 4, *size)

    @pytest.mark.parametrize("level", [0, 1, 2])
    def test_each_skip_is_used(self, level: int) -> None:
        torch.manual_seed(0)
        model = UNet(3, 5, width=4).eval()
        images = torch.rand(2, 3, 32, 32)
        cut = copy.deepcopy(model)
        weight = cut.get_parameter(f"decoder.{2 - level}.0.weight")
        with torch.no_grad():  # the first half of the channels is what comes over the skip
            weight[:, : 4 * 2**level] = 0
        assert not torch.allclose(model(images), cut(images))

    def test_each_layer_passes_on_as_much_as_it_gets(self) -> None:
        torch.manual_seed(0)
        model = UNet(3, 5, width=32)
        features = torch.randn(4, 64, 16, 16).relu()
        raised = model.upsamplings[-1](features)
        assert raised.square().mean().item() == pytest.approx(2 * features.square().mean().item(), rel=0.2)


class TestModels:
    @pytest.mark.parametrize("build", [lambda: DilatedCNN(3, 5), lambda: UNet(3, 5), lambda: UNet(3, 5, skips=False)])
    def test_every_parameter_gets_a_gradient(self, build: Callable[[], nn.Module], scenes: tuple[Masks, Masks]) -> None:
        torch.manual_seed(0)
        model = build()
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


class TestEvaluation:
    def test_batches_change_nothing_and_the_mode_is_kept(self, scenes: tuple[Masks, Masks]) -> None:
        torch.manual_seed(0)
        model, few = UNet(3, 5, width=2), first(scenes[1], 5)
        predicted = predict_masks(model, few, CPU)
        assert predicted.dtype == torch.uint8
        assert model.training
        assert model.encoder[0].training
        model.eval()
        with torch.no_grad():
            one_by_one = torch.stack([model(few[i][0][None])[0].argmax(dim=0) for i in range(5)])
        assert torch.equal(predicted.long(), one_by_one)
        assert evaluate(model, few, CPU) == scores(predicted, few.masks, 5)
        assert not model.training

    def test_large_pictures_come_in_small_batches(self) -> None:
        sizes = []

        class Sized(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                sizes.append(len(images))
                return images

        large = Masks(
            torch.zeros(5, 3, 700, 700, dtype=torch.uint8), torch.zeros(5, 700, 700, dtype=torch.uint8), [], [""] * 5
        )
        predict_masks(Sized(), large, CPU)
        assert sizes == [2, 2, 1]

    def test_two_processes_agree_with_one(self, scenes: tuple[Masks, Masks], tmp_path: Path) -> None:
        script = tmp_path / "evaluate.py"
        script.write_text(
            "import torch\n"
            "from recipes.core.device import rank_and_world, setup\n"
            "from recipes.datasets.scenes import open_masks\n"
            "from recipes.vision.segmentation import DilatedCNN, evaluate\n"
            "torch.set_num_threads(1)\n"
            "place = setup('cpu', 0)\n"
            "measured = evaluate(DilatedCNN(3, 5), open_masks()[1], place)\n"
            "assert rank_and_world()[1] == 2\n"
            f"open({str(tmp_path)!r} + f'/{{rank_and_world()[0]}}', 'w').write(repr(measured))\n"
        )
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
        subprocess.run(command, check=True, capture_output=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"})
        torch.manual_seed(0)
        expected = evaluate(DilatedCNN(3, 5), scenes[1], CPU)
        assert [(tmp_path / rank).read_text() for rank in "01"] == [repr(expected)] * 2


class TestRun:
    @pytest.mark.xdist_group("vision.segmentation")
    def test_the_answer_depends_on_the_picture(
        self, default_run: Callable[[str], Result], scenes: tuple[Masks, Masks]
    ) -> None:
        result, test_set = default_run("vision.segmentation"), scenes[1]
        assert all(claim.holds for claim in result.claims)
        wrong = replace(test_set, images=test_set.images.roll(1, dims=0))
        assert evaluate(result.model, wrong, CPU)["mean_iou"] < 0.3

    @pytest.mark.xdist_group("vision.segmentation.unet")
    def test_the_skips_carry_the_borders(
        self, default_run: Callable[[str], Result], scenes: tuple[Masks, Masks]
    ) -> None:
        result, test_set = default_run("vision.segmentation.unet"), scenes[1]
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

    def test_your_own_pictures_with_void(self, tmp_path: Path) -> None:
        """Bright squares on dark ground, at an odd size; the rim of each picture is void."""
        rng = np.random.default_rng(0)
        for part, count in (("train", 16), ("test", 4)):
            for name in ("images", "masks"):
                (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                picture, mask = rng.integers(0, 90, (41, 41, 3)), np.zeros((41, 41))
                row, column = rng.integers(2, 20, 2)
                picture[row : row + 15, column : column + 15] += 120
                mask[row : row + 15, column : column + 15] = 1
                mask[:2] = VOID
                Image.fromarray(picture.astype(np.uint8)).save(tmp_path / part / "images" / f"{number}.png")
                Image.fromarray(mask.astype(np.uint8)).save(tmp_path / part / "masks" / f"{number}.png")
        out = tmp_path / "out"
        result = unet.run(data=str(tmp_path), width=4, depth=2, epochs=10, compare=False, device="cpu", out=str(out))
        assert result.metrics["mean_iou"] > 0.9
        assert result.rows == []
        assert {path.name for path in out.iterdir()} == {"result.json", "figure.png", "model.safetensors"}

    @pytest.mark.real
    def test_camvid(self, real_data: Path) -> None:
        result = recipes.run("vision.segmentation", data=str(real_data / "CamVid"), compare=False, epochs=3)
        assert result.metrics["mean_iou"] > 1.5 * result.baseline["mean_iou"]
