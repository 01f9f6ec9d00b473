"""IoU against slow plain counting, the baseline, and evaluation in batches and over processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recipes.datasets.scenes import VOID, Masks, open_masks
from recipes.vision.segmentation import plain
from recipes.vision.segmentation.scoring import (
    commonest_class,
    confusion_matrix,
    evaluate,
    iou_by_class,
    near_borders,
    predict_masks,
    scores,
    surroundings,
    trees_on_pixels,
)
from recipes.vision.segmentation.task import DilatedCNN
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

    def test_surroundings_are_a_slow_search(self) -> None:
        images = torch.randint(0, 256, (2, 3, 6, 7), dtype=torch.uint8)
        pixels = torch.arange(2 * 6 * 7)
        found = surroundings(images, pixels, side=3, step=2).unflatten(1, (3, 3, 3))  # (pixels, rows, columns, colors)
        for place, (n, row, column) in enumerate(np.ndindex(2, 6, 7)):
            for i, j in np.ndindex(3, 3):
                at = min(max(row + 2 * i - 2, 0), 5), min(max(column + 2 * j - 2, 0), 6)
                assert torch.equal(found[place, i, j], images[n, :, at[0], at[1]])

    def test_trees_see_colors_around_a_pixel(self, scenes: tuple[Masks, Masks]) -> None:
        masks = torch.randint(0, 2, (4, 2, 2), dtype=torch.uint8).repeat_interleave(12, 1).repeat_interleave(12, 2)
        colored = (masks[:, None] * 200).expand(-1, 3, -1, -1)
        one = Masks(colored[:2], masks[:2], ["background", "thing"], ["", ""])
        other = Masks(colored[2:], masks[2:], ["background", "thing"], ["", ""])
        assert trees_on_pixels(one, other) == {"mean_iou": 1.0, "pixel_accuracy": 1.0}
        few = first(scenes[1], 40)
        by_trees, blind = trees_on_pixels(first(scenes[0], 160), few), commonest_class(scenes[0], few)
        assert by_trees["mean_iou"] > blind["mean_iou"] + 0.1

    def test_near_borders_is_a_slow_search(self) -> None:
        _, truth = random_masks(3, void=True)
        truth[1, :, :] = 2  # a picture with no border at all
        near = near_borders(truth, distance=1)
        for n, row, column in np.ndindex(*truth.shape):
            window = truth[n, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            border = window[window != VOID].unique().numel() > 1
            assert near[n, row, column] == (truth[n, row, column] if border else VOID)

    def test_the_lean_twins_give_the_same(self, scenes: tuple[Masks, Masks]) -> None:
        """What copies score with."""
        few = first(scenes[1], 6)
        predicted = few.masks.roll(1, dims=2)
        few.masks = few.masks.index_fill(1, torch.arange(9), VOID)
        assert plain.scores(predicted, few) == scores(predicted, few.masks, 5)


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
