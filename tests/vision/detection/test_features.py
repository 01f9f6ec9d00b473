"""Photos: letterboxed, mirrored and recolored with their boxes, and seen by a backbone."""

from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image

import recipes
from recipes.datasets.scenes import Boxes, open_boxes, opening
from recipes.datasets.scenes import read_letterboxed as letter
from recipes.vision.backbones import Features
from recipes.vision.detection.backbone import parameter_groups
from recipes.vision.detection.boxes import shift_and_zoom
from recipes.vision.detection.features import DetectorOptions, augment, open_pictures, side_for_small
from recipes.vision.photos import recolor

DETECTORS = ["vision.detection.ssd"]
DETECTORS += [pytest.param(f"vision.detection{name}", marks=pytest.mark.slow) for name in ("", ".yolo", ".faster_rcnn")]


def save_wide(folder: Path, count: int = 8) -> Path:
    """Numbered objects on pictures twice as wide as high: bright squares on gray."""
    for name in ("images", "objects"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        picture, mask = Image.new("RGB", (160, 80), (90, 90, 90)), Image.new("L", (160, 80))
        for image, value in ((picture, (255, 200, 0)), (mask, 1)):
            image.paste(value, (10 + 8 * i, 20, 50 + 8 * i, 60))
        picture.save(folder / "images" / f"{i}.png")
        mask.save(folder / "objects" / f"{i}.png")
    return folder


def test_letterboxed_pictures_keep_their_proportions(tmp_path: Path) -> None:
    train, test = open_boxes(save_wide(tmp_path / "wide"), image_size=64, letterbox=True)
    for part in (train, test):
        for image, boxes in zip(part.images, part.boxes, strict=True):
            assert image[:, 33:].max() == 0, "black below"
            sides = boxes[0, 2:] - boxes[0, :2]
            assert sides.tolist() == pytest.approx([16, 16])
            rows, columns = (image[0] > 170).nonzero().T
            seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (seen - boxes[0]).abs().max() <= 1


def test_mirrored_boxes_follow_their_picture() -> None:
    torch.manual_seed(0)
    images, targets = torch.zeros(32, 3, 64, 64), []
    for image in images:
        image[:, 20:36, 8:20] = 1  # left of the middle
        targets.append({"boxes": torch.tensor([[8.0, 20, 20, 36]]), "labels": torch.tensor([1])})
    moved, follow = shift_and_zoom(images, targets, mirror=True)
    kept = [(image, target) for image, target in zip(moved, follow, strict=True) if len(target["labels"])]
    sides = []
    for image, target in kept:
        rows, columns = (image[0] > 0.5).nonzero().T
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        assert (seen - target["boxes"][0]).abs().max() <= 1
        sides.append(float(target["boxes"][0, ::2].mean()) > 32)
    assert 8 < sum(sides) < len(kept) - 4, "some to the right, some where they were"


def test_recolored_pictures_are_the_same_in_another_light() -> None:
    torch.manual_seed(0)
    images = 0.3 + 0.2 * torch.rand(8, 3, 16, 16)
    changed = recolor(images)
    assert changed.min() >= 0
    assert changed.max() <= 1
    for before, after in zip(images, changed, strict=True):
        assert not torch.equal(before, after)
        assert torch.corrcoef(torch.stack([before.mean(0).flatten(), after.mean(0).flatten()]))[0, 1] > 0.9
    assert len({round(float(image.mean()), 3) for image in changed}) == 8, "each by its own factors"
    plain, _ = augment(images, [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}] * 8, photos=False)
    assert plain.shape == images.shape


@pytest.mark.parametrize("name", DETECTORS)
def test_a_backbone_in_place_of_the_small_network(name: str, tmp_path: Path) -> None:
    """Trained, written, opened again without its weights' file, and exported; boxes in the picture's own pixels."""
    data = save_wide(tmp_path / "wide")
    given = {"backbone": "timm:tf_efficientnet_lite0", "weights": "pretrained", "image_size": 64, "batch_size": 4}
    result = recipes.run(name, data=str(data), steps=2, claims=False, device="cpu", out=str(tmp_path / "out"), **given)
    backbones = [part for part in result.model.modules() if isinstance(part, Features)]
    assert len(backbones) == 1
    assert backbones[0].pretrained
    _, slow = parameter_groups(result.model, 1.0)
    assert slow["lr"] == pytest.approx(0.1)
    assert {id(one) for one in slow["params"]} == {id(one) for one in backbones[0].parameters()}
    trained = recipes.trained(tmp_path / "out", device="cpu")
    assert isinstance(result.test_set, Boxes)
    files = [str(data / file) for file in result.test_set.files]
    with torch.inference_mode():
        expected = result.model.eval()(result.test_set.images.float() / 255)
    for answer, found in zip(trained(files), expected, strict=True):
        wanted = (found["boxes"] * 160 / 64).clamp(min=0).minimum(torch.tensor([160, 80, 160, 80]))
        inside = (wanted[:, :2] < wanted[:, 2:]).all(dim=1)
        torch.testing.assert_close(answer["boxes"], wanted[inside], rtol=0, atol=1e-3)
        torch.testing.assert_close(answer["scores"], found["scores"][inside], rtol=0, atol=1e-5)
    assert trained.export(tmp_path / "model.onnx") < 1e-2


def test_few_steps_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = save_wide(tmp_path / "few")
    recipes.run("vision.detection", data=str(data), steps=1, claims=False, device="cpu", image_size=64)
    told = capsys.readouterr().err
    assert "1 steps on" in told
    assert "--steps 300" in told
    assert "--backbone timm:tf_efficientnet_lite0" in told


def test_many_classes_want_more_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So many for each class; as many as are asked for are not few."""
    picture = torch.zeros(3, 64, 64)
    samples = [(picture, {"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.tensor([i])}) for i in range(40)]
    pair = (samples, samples)
    open_pictures(DetectorOptions(data=pair, steps=400))
    assert "400 steps on 40 pictures of 40 classes are few: --steps 800 would find more" in capsys.readouterr().err
    open_pictures(DetectorOptions(data=pair, steps=800))
    assert not capsys.readouterr().err


def test_pictures_are_mirrored_where_that_is_asked_for() -> None:
    torch.manual_seed(0)
    images = torch.zeros(64, 3, 32, 32)
    images[..., :8] = 1.0  # bright on the left, of which shifts and scales leave most on the left
    for mirror, share in ((False, 0.0), (True, 0.5)):
        moved = augment(
            images, [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}] * 64, photos=False, mirror=mirror
        )[0]
        right = (moved[..., 16:].sum(dim=(1, 2, 3)) > moved[..., :16].sum(dim=(1, 2, 3))).double().mean().item()
        assert right == pytest.approx(share, abs=0.15)


@pytest.mark.real
@pytest.mark.slow
def test_pedestrians(real_data: Path) -> None:
    """Thirty-two photos are enough for a pretrained backbone, where the small network finds nothing."""
    given = {"backbone": "timm:tf_efficientnet_lite0", "weights": "pretrained", "steps": 120, "lr": 2e-3}
    data, name = str(real_data / "PennFudanPed"), "vision.detection.faster_rcnn"
    result = recipes.run(name, data=data, batch_size=8, claims=False, device="cpu", **given)
    assert result.metrics["map_50"] > 0.75
    assert result.baseline["map_50"] < 0.2


def test_pictures_are_large_enough_for_the_smallest_classes() -> None:
    boxes, labels = torch.tensor([[0.0, 0, 8, 8], [0, 0, 40, 40], [0, 0, 60, 60]]), torch.arange(3)
    assert side_for_small([boxes], [labels], 128) == 192  # 12 pixels for an object of 8
    assert side_for_small([boxes / 8], [labels], 128) == 256
    assert side_for_small([boxes * 2], [labels], 128) < 128
    assert side_for_small([boxes[:0]], [labels[:0]], 128) == 128


def test_small_objects_are_measured_before_pictures_are_read(tmp_path: Path) -> None:
    """Each picture is read once, in the size at which squares of 40 of 640 pixels have 12."""
    data, read = save_wide(tmp_path / "wide"), []
    for file in [*data.glob("images/*"), *data.glob("objects/*")]:
        picture = Image.open(file)
        wide = Image.new(picture.mode, (640, 320))
        wide.paste(picture)
        wide.save(file)
    with mock.patch.object(opening, "read_letterboxed", lambda path, side: (read.append(path), letter(path, side))[1]):
        parts = open_pictures(DetectorOptions(data=str(data), steps=300))
    assert len(read) == len(set(read)) == 8
    assert [part.image_size for part in parts] == [192, 192]  # 8 pixels of 128
    sides = torch.cat(parts[0].boxes)[:, 2:] - torch.cat(parts[0].boxes)[:, :2]
    torch.testing.assert_close(sides, torch.full_like(sides, 12))
