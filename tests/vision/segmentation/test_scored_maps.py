"""FCN on a trained classifier: the shapes, the sums, and a whole training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from recipes import using
from recipes.core.errors import InputError
from recipes.vision.backbones import open_backbone
from recipes.vision.segmentation import fcn
from recipes.vision.segmentation.scored_maps import ScoredMaps

NAME = "timm:mobilenetv3_small_050"


@pytest.mark.parametrize("size", [(64, 64), (90, 130)])
def test_logits_of_the_pictures_size(size: tuple[int, int]) -> None:
    model = ScoredMaps(open_backbone(NAME, strides=(8, 16, 32)), 3).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, 3, *size)


def test_each_finer_map_adds_its_scores() -> None:
    torch.manual_seed(0)
    model = ScoredMaps(open_backbone(NAME, strides=(8, 16, 32)), 3).eval()
    images = torch.rand(2, 3, 64, 64)
    assert model(images).var(dim=(2, 3)).max() < 1e-12, "it begins with the biases alone"
    maps: Any = model.backbone(images)
    for number, one in enumerate(maps):
        with torch.no_grad():
            for score in model.scores:
                torch.nn.init.zeros_(score.weight)
                torch.nn.init.zeros_(score.bias)
            torch.nn.init.normal_(model.scores[number].weight)
        scored = model.scores[number](one)
        for size in [maps[i].shape[2:] for i in reversed(range(number))]:
            scored = F.interpolate(scored, size=size, mode="bilinear")
        torch.testing.assert_close(model(images), F.interpolate(scored, size=(64, 64), mode="bilinear"))


def test_a_whole_training(tmp_path: Path) -> None:
    how: dict[str, Any] = {"image_size": 64, "steps": 2, "batch_size": 2, "device": "cpu", "claims": False}
    result = fcn.run(backbone=NAME, skips=1, out=str(tmp_path / "out"), **how)
    assert len(result.model.scores) == 2, "FCN-16s"
    trained = using.trained(tmp_path / "out", device="cpu")
    pictures, _ = result.test_set.__getitems__([0])
    torch.testing.assert_close(trained.model(pictures), result.model.eval()(pictures), rtol=0, atol=1e-5)
    assert trained.export(tmp_path / "fcn.pt2") < 1e-3


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(InputError, match="option weights: expected a backbone or a model"):
        fcn.run(weights="pretrained")
    with pytest.raises(InputError, match="option backbone: expected none beside a model"):
        fcn.run(model="torchvision:fcn_resnet50", backbone=NAME)
