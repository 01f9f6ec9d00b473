"""CenterNet and torchvision's detectors, and controls that must fail."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection import task
from recipes.vision.detection.scoring import evaluate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes() -> tuple[Boxes, Boxes]:
    return open_boxes()


def test_perfect_maps_decode_to_the_true_boxes() -> None:
    """Heat where the centres are and the right sizes: no loss, and the boxes come back."""
    boxes = torch.tensor([[4.0, 8, 20, 32], [30, 30, 44, 60]])
    target = {"boxes": boxes, "labels": torch.tensor([2, 0])}
    maps = torch.full((1, 3 + 4, 16, 16), -20.0)
    for box, label in zip(boxes / 4, target["labels"], strict=True):
        centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        column, row = centre.long().tolist()
        maps[0, label, row, column] = 20
        maps[0, 3:, row, column] = torch.cat([size, centre - torch.tensor([column, row])])
    assert task.centre_loss(maps, [target]) < 1e-4
    assert task.centre_loss(maps.roll(1, dims=3), [target]) > 10
    found = task.CenterNet(3).decode(maps)[0]
    order = found["labels"].argsort(descending=True)
    torch.testing.assert_close(found["boxes"][order], boxes)
    assert found["labels"][order].tolist() == [2, 0]


def test_centre_loss_of_pictures_without_objects_is_finite() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    assert task.centre_loss(torch.zeros(2, 7, 16, 16), [nothing, nothing]).isfinite()


@pytest.mark.parametrize("size", [48, 75, 128])
def test_maps_of_any_picture(size: int) -> None:
    assert task.CenterNet(2, width=4)(torch.rand(2, 3, size, size)).shape == (2, 6, -(-size // 4), -(-size // 4))


def test_gradients_reach_every_parameter_and_answers_depend_on_the_picture(scenes: tuple[Boxes, Boxes]) -> None:
    torch.manual_seed(0)
    model = task.CenterNet(4)
    images, targets = scenes[0].__getitems__(range(16))
    outputs = model(images)
    task.centre_loss(outputs, targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert not torch.equal(outputs[0], model(1 - images)[0])


def shuffled(dataset: Boxes) -> Boxes:
    labels = torch.cat(dataset.labels)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    return replace(dataset, labels=list(labels.split([len(some) for some in dataset.labels])))


def test_shuffled_labels_teach_nothing(scenes: tuple[Boxes, Boxes]) -> None:
    """The places of objects can still be learned, their kinds cannot."""
    train_set, test_set = scenes
    torch.manual_seed(0)
    model = task.CenterNet(4)
    task.train(model, shuffled(train_set), epochs=5, batch_size=32, lr=8e-3, device=CPU, **task.FAST)
    assert evaluate(model, test_set, CPU)["map_50"] < 0.45


def save_scenes(folder: Path, count: int = 10) -> Path:
    """A small set in Pascal VOC's layout: bright squares on black."""
    for name in ("JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        left, top = 4 + 3 * i, 40 - 3 * i
        picture = Image.new("RGB", (80, 80))
        picture.paste((255, 200, 0), (left, top, left + 24, top + 24))
        picture.save(folder / "JPEGImages" / f"{i}.png")
        (folder / "Annotations" / f"{i}.xml").write_text(
            f"<annotation><filename>{i}.png</filename><size><width>80</width><height>80</height></size><object>"
            f"<name>square</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{left + 24}</xmax>"
            f"<ymax>{top + 24}</ymax></bndbox></object></annotation>"
        )
    return folder


@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_detectors_of_torchvision_train_by_name(name: str, tmp_path: Path) -> None:
    data = str(save_scenes(tmp_path / "data", count=5))
    result = recipes.run("vision.detection", data=data, model=f"torchvision:{name}", epochs=1, batch_size=2, lr=1e-3)
    assert result.history[0]["loss"] > 0
    assert 0 <= result.metrics["map_50"] <= 1
    assert result.figure().axes


def test_own_pictures(tmp_path: Path) -> None:
    data = str(save_scenes(tmp_path / "data"))
    result = recipes.run("vision.detection", data=data, image_size=40, epochs=2, batch_size=4)
    assert result.metrics["map_50"] >= 0


def test_unknown_detectors_are_named() -> None:
    with pytest.raises(InputError, match="expected centernet or torchvision:NAME, got 'yolo'"):
        recipes.run("vision.detection", model="yolo")
    with pytest.raises(InputError, match="did you mean ssd300_vgg16"):
        recipes.run("vision.detection", model="torchvision:ssd300_vgg")


@pytest.mark.xdist_group("vision.detection")
def test_claims_hold(default_run: Callable[[str], Result]) -> None:
    assert [claim.text for claim in default_run("vision.detection").claims if not claim.holds] == []
