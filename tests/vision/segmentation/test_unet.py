"""U-Net: its size by a formula, its skips, using it, and controls that must fail."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.core.measure import parameter_count
from recipes.core.result import Result
from recipes.datasets.scenes import VOID, Masks, open_masks
from recipes.vision.segmentation import unet
from recipes.vision.segmentation.scoring import evaluate
from recipes.vision.segmentation.unet import UNet

CPU = torch.device("cpu")
NAME = "vision.segmentation.unet"


@pytest.fixture(scope="module")
def scenes() -> tuple[Masks, Masks]:
    return open_masks()


def first(masks: Masks, count: int) -> Masks:
    return Masks(masks.images[:count], masks.masks[:count], masks.classes, masks.files[:count])


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

    @pytest.mark.parametrize("skips", [True, False])
    def test_every_parameter_gets_a_gradient(self, skips: bool, scenes: tuple[Masks, Masks]) -> None:
        torch.manual_seed(0)
        model = UNet(3, 5, skips=skips)
        images, masks = scenes[0].__getitems__(range(4))
        F.cross_entropy(model(images), masks).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


class TestRun:
    @pytest.mark.xdist_group(NAME)
    def test_the_skips_carry_the_borders(
        self, default_run: Callable[[str], Result], scenes: tuple[Masks, Masks]
    ) -> None:
        result, test_set = default_run(NAME), scenes[1]
        wrong = replace(test_set, images=test_set.images.roll(1, dims=0))
        assert evaluate(result.model, wrong, CPU)["mean_iou"] < 0.3

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
        result = unet.run(data=str(tmp_path), width=4, depth=2, epochs=20, claims=False, device="cpu", out=str(out))
        assert result.metrics["mean_iou"] > 0.9
        trained = recipes.trained(out, device="cpu")
        answer = trained([tmp_path / "test" / "images" / "0.png"])[0]
        true = np.asarray(Image.open(tmp_path / "test" / "masks" / "0.png"))
        assert (answer["mask"].numpy() == true)[2:].mean() > 0.95

    def test_your_own_datasets(self, scenes: tuple[Masks, Masks]) -> None:
        """Torch Datasets of (image, mask) give what the folder gives."""

        class Yours(torch.utils.data.Dataset[Any]):
            def __init__(self, dataset: Masks) -> None:
                self.dataset, self.classes = dataset, dataset.classes

            def __len__(self) -> int:
                return len(self.dataset)

            def __getitem__(self, index: int) -> Any:
                return self.dataset[index]

        pair = first(scenes[0], 16), first(scenes[1], 8)
        options = {"epochs": 1, "claims": False, "device": "cpu"}
        mine, theirs = (unet.run(data=data, **options) for data in (pair, tuple(map(Yours, pair))))
        assert mine.metrics == theirs.metrics
        for key, value in mine.model.state_dict().items():
            assert torch.equal(theirs.model.state_dict()[key], value), key


class TestUse:
    def test_what_is_written_answers_as_the_model_in_memory(self, scenes: tuple[Masks, Masks], tmp_path: Path) -> None:
        pair = first(scenes[0], 32), first(scenes[1], 8)
        result = unet.run(data=pair, epochs=1, claims=False, device="cpu", width=4, out=str(tmp_path))
        trained = recipes.trained(tmp_path, device="cpu")
        images = scenes[1].images[:4]
        with torch.inference_mode():
            expected = result.model.eval()(images.float() / 255).argmax(dim=1)
        wide = torch.zeros(3, 40, 90, dtype=torch.uint8)
        answers = trained([*images, wide])
        for answer, mask in zip(answers[:4], expected, strict=True):
            assert torch.equal(answer["mask"].long(), mask)
            assert sum(one["share"] for one in answer["shares"]) == pytest.approx(1)
        assert answers[4]["mask"].shape == (40, 90)
        assert trained.task.draw(trained.task.load(wide), answers[4]).axes

    @pytest.mark.parametrize("suffix", ["onnx", "pt2"])
    def test_exported_files_give_logits(self, suffix: str, scenes: tuple[Masks, Masks], tmp_path: Path) -> None:
        pair = first(scenes[0], 16), first(scenes[1], 8)
        unet.run(data=pair, epochs=1, claims=False, device="cpu", width=4, out=str(tmp_path / "out"))
        trained = recipes.trained(tmp_path / "out", device="cpu")
        assert trained.export(tmp_path / f"unet.{suffix}") < 1e-3
        with pytest.raises(InputError, match="ends in"):
            trained.export(tmp_path / "unet.tflite")
