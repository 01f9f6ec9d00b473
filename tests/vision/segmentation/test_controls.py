"""What holds for every recipe of segmentation: it looks at the picture, and learns from its masks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import recipes
from recipes.core.result import Result
from recipes.datasets.scenes import Masks, open_masks
from recipes.vision.segmentation.scoring import evaluate

NAMES = [name for name in recipes.names() if name.startswith("vision.segmentation")]
every_recipe = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def scenes() -> tuple[Masks, Masks]:
    return open_masks()


@every_recipe
def test_the_answer_depends_on_the_picture(
    name: str, default_run: Callable[[str], Result], scenes: tuple[Masks, Masks]
) -> None:
    wrong = replace(scenes[1], images=scenes[1].images.roll(1, dims=0))
    assert evaluate(default_run(name).model, wrong, torch.device("cpu"))["mean_iou"] < 0.3


@pytest.mark.slow
@every_recipe
def test_masks_of_other_pictures_teach_nothing(name: str, scenes: tuple[Masks, Masks]) -> None:
    train_set = replace(scenes[0], masks=scenes[0].masks.roll(1, dims=0))
    result = recipes.run(name, data=(train_set, scenes[1]), epochs=1, claims=False, device="cpu")
    assert result["mean_iou"] < 0.3


@pytest.mark.real
@every_recipe
def test_camvid(name: str, real_data: Path) -> None:
    result = recipes.run(name, data=str(real_data / "CamVid"), claims=False, epochs=3)
    assert result["mean_iou"] > 1.5 * result.baseline["mean_iou"]
