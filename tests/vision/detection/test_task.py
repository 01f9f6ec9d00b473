"""CenterNet: its loss held against a slow one, and controls that must fail."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.ops import generalized_box_iou

import recipes
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection import task
from recipes.vision.detection.boxes import Detections
from recipes.vision.detection.features import SmallFeatures
from recipes.vision.detection.scoring import evaluate, truths

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes() -> tuple[Boxes, Boxes]:
    return open_boxes()


def center_net(num_classes: int, width: int = 16) -> task.CenterNet:
    return task.CenterNet(num_classes, SmallFeatures(width))


def test_perfect_maps_decode_to_the_true_boxes() -> None:
    """Heat where the centers are and the right sides: no loss, and the boxes come back."""
    boxes = torch.tensor([[4.0, 8, 20, 32], [30, 30, 44, 60]])
    target = {"boxes": boxes, "labels": torch.tensor([2, 0])}
    logits, sides = torch.full((1, 3, 16, 16), -20.0), torch.zeros(1, 4, 16, 16)
    cells = (torch.arange(16) + 0.5) * 4
    for box, label in zip(boxes, target["labels"], strict=True):
        left, top, right, bottom = box.tolist()
        column, row = ((box[:2] + box[2:]) / 8).long().tolist()
        logits[0, label, row, column] = 20
        x, y = cells[column - 1 : column + 2], cells[row - 1 : row + 2][:, None]  # and in the cells around
        for i, distance in enumerate((x - left, y - top, right - x, bottom - y)):
            sides[0, i, row - 1 : row + 2, column - 1 : column + 2] = (distance / 4).log()
    model = center_net(3)
    model.heads = Answer(torch.cat([logits, sides], dim=1))  # type: ignore[assignment]
    images = torch.zeros(1, 3, 64, 64)
    assert task.center_loss(*model(images), [target], 4) < 1e-3
    logits, decoded = model(images)
    assert task.center_loss(logits.roll(1, dims=3), decoded, [target], 4) > 10
    assert task.center_loss(logits, decoded.roll(3, dims=3), [target], 4) > 1
    found = model.eval()(images)[0]
    order = found["labels"].argsort(descending=True)
    torch.testing.assert_close(found["boxes"][order], boxes, rtol=1e-4, atol=1e-3)
    assert found["labels"][order].tolist() == [2, 0]


def test_rounding_decides_no_peak() -> None:
    """Of cells that are as warm as one beside them, as an exported file may compute them."""
    torch.manual_seed(0)
    model, maps, scores = center_net(2, width=4).eval(), (4 * torch.rand(1, 6, 16, 16)).round(), []
    for rounded in (maps, maps + 1e-6 * torch.rand(1, 6, 16, 16)):
        model.heads = Answer(rounded)  # type: ignore[assignment]
        scores.append(model.raw(torch.zeros(1, 3, 64, 64))[0])
    assert 0.1 < (scores[0] == 0).double().mean() < 0.9
    torch.testing.assert_close(*scores, rtol=0, atol=0.01)


class Answer(torch.nn.Module):
    """A head that gives these maps, whatever it sees."""

    def __init__(self, maps: torch.Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.maps


def slow_loss(logits: torch.Tensor, boxes: torch.Tensor, targets: Detections, stride: int) -> float:
    """One cell and one object at a time."""
    focal, far, weights, count = 0.0, 0.0, 0.0, sum(len(target["labels"]) for target in targets)
    for picture, target in enumerate(targets):
        heat = torch.zeros(logits.shape[1:])
        for box, label in zip((target["boxes"] / stride).tolist(), target["labels"].tolist(), strict=True):
            left, top, right, bottom = box
            center = int((left + right) / 2), int((top + bottom) / 2)
            for row in range(heat.shape[1]):
                for column in range(heat.shape[2]):
                    across = (column - center[0]) / ((right - left) / 8 + 0.2)
                    down = (row - center[1]) / ((bottom - top) / 8 + 0.2)
                    bell = math.exp(-(across**2 + down**2) / 2)
                    heat[label, row, column] = max(float(heat[label, row, column]), bell)
                    if bell > 0.5:
                        given = boxes[picture, :, row, column][None]
                        true = torch.tensor([box]) * stride
                        far += bell * (1 - float(generalized_box_iou(given, true)))
                        weights += bell
        for p, wanted in zip(logits[picture].sigmoid().flatten().tolist(), heat.flatten().tolist(), strict=True):
            focal -= (1 - p) ** 2 * math.log(p) if wanted == 1 else (1 - wanted) ** 4 * p**2 * math.log(1 - p)
    return focal / count + 5 * far / weights


@pytest.mark.parametrize("seed", range(3))
def test_loss_equals_a_slow_one(seed: int, scenes: tuple[Boxes, Boxes]) -> None:
    torch.manual_seed(seed)
    targets = truths(scenes[0])[4 * seed : 4 * seed + 4]
    corner = torch.rand(4, 2, 16, 16) * 40
    boxes = torch.cat([corner, corner + 4 + torch.rand(4, 2, 16, 16) * 20], dim=1)
    logits = torch.randn(4, 4, 16, 16)
    ours = task.center_loss(logits, boxes, targets, 4)
    assert float(ours) == pytest.approx(slow_loss(logits, boxes, targets, 4), rel=1e-4)


def test_loss_of_pictures_without_objects_is_finite() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    assert task.center_loss(*center_net(3)(torch.zeros(2, 3, 64, 64)), [nothing, nothing], 4).isfinite()


@pytest.mark.parametrize("size", [48, 75, 128])
def test_maps_of_any_picture(size: int) -> None:
    logits, boxes = center_net(2, width=4)(torch.rand(2, 3, size, size))
    assert logits.shape == (2, 2, -(-size // 4), -(-size // 4))
    assert boxes.shape == (2, 4, -(-size // 4), -(-size // 4))


def test_gradients_reach_every_parameter_and_answers_depend_on_the_picture(scenes: tuple[Boxes, Boxes]) -> None:
    torch.manual_seed(0)
    model = center_net(4)
    images, targets = scenes[0].__getitems__(range(16))
    logits, boxes = model(images)
    task.center_loss(logits, boxes, targets, 4).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert not torch.equal(logits, model(1 - images)[0])


def shuffled(dataset: Boxes) -> Boxes:
    labels = torch.cat(dataset.labels)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    return replace(dataset, labels=list(labels.split([len(some) for some in dataset.labels])))


def test_shuffled_labels_teach_nothing(scenes: tuple[Boxes, Boxes]) -> None:
    """The places of objects can still be learned, their kinds cannot."""
    train_set, test_set = scenes
    torch.manual_seed(0)
    options = task.CenterNetOptions(epochs=5, device="cpu")
    model = task.build(options, train_set)
    task.train(model, shuffled(train_set), options)
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


def test_own_pictures(tmp_path: Path) -> None:
    data = str(save_scenes(tmp_path / "data"))
    result = recipes.run("vision.detection", data=data, image_size=40, epochs=2, batch_size=4)
    assert result.metrics["map_50"] >= 0


def few(dataset: Boxes, count: int) -> Boxes:
    return Boxes(dataset.images[:count], dataset.boxes[:count], dataset.labels[:count], dataset.classes, [""] * count)
