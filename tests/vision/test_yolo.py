"""YOLO: its loss held against the paper's sum written plainly, and controls that must fail."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import recipes
from recipes.core.result import Result
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection import yolo
from recipes.vision.detection.boxes import Detections
from recipes.vision.detection.scoring import evaluate, truths

CPU = torch.device("cpu")
NAME = "vision.detection.yolo"


@pytest.fixture(scope="module")
def scenes() -> tuple[Boxes, Boxes]:
    return open_boxes()


def slow_loss(
    codes: torch.Tensor,
    confidences: torch.Tensor,
    logits: torch.Tensor,
    targets: Detections,
    size: tuple[int, int],
    stride: int,
) -> float:
    """Equation 3 of the paper, one object and one box at a time."""
    from torchvision.ops import box_iou

    height, width = size
    total = 0.0
    for i, target in enumerate(targets):
        answering = {}
        for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            left, top, right, bottom = box
            x, y, w, h = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
            row, column = int(y // stride), int(x // stride)
            overlaps = []
            for slot in range(2):
                a, b, root_w, root_h = codes[i, row, column, slot].tolist()
                across, down = (column + a) * stride, (row + b) * stride
                half_w, half_h = root_w**2 * width / 2, root_h**2 * height / 2
                edges = [max(across - half_w, 0), max(down - half_h, 0)]
                edges += [min(across + half_w, width), min(down + half_h, height)]
                overlaps.append(float(box_iou(torch.tensor([edges]), torch.tensor([box]))))
            slot = overlaps.index(max(overlaps))
            answering[row, column, slot] = overlaps[slot]
            a, b, root_w, root_h = codes[i, row, column, slot].tolist()
            total += 5 * ((a - (x / stride - column)) ** 2 + (b - (y / stride - row)) ** 2)
            total += 5 * ((root_w - (w / width) ** 0.5) ** 2 + (root_h - (h / height) ** 0.5) ** 2)
            for kind, p in enumerate(logits[i, row, column].softmax(dim=0).tolist()):
                total += (p - (kind == label)) ** 2
        for row in range(codes.shape[1]):
            for column in range(codes.shape[2]):
                for slot in range(2):
                    sure, place = float(confidences[i, row, column, slot]), (row, column, slot)
                    total += (sure - answering[place]) ** 2 if place in answering else 0.5 * sure**2
    return total / len(targets)


@pytest.mark.parametrize("seed", range(3))
def test_loss_equals_the_paper(seed: int, scenes: tuple[Boxes, Boxes]) -> None:
    torch.manual_seed(seed)
    targets = truths(scenes[0])[8 * seed : 8 * seed + 8]
    codes, confidences, logits = torch.rand(8, 8, 8, 2, 4), torch.rand(8, 8, 8, 2), torch.randn(8, 8, 8, 4)
    loss = yolo.yolo_loss(codes, confidences, logits, targets, (64, 64), 8)
    assert float(loss) == pytest.approx(slow_loss(codes, confidences, logits, targets, (64, 64), 8), rel=1e-4)


def test_perfect_cells_decode_to_the_true_boxes() -> None:
    """Boxes that the grid can say exactly: no loss, and they come back, on a picture that is not square."""
    boxes = torch.tensor([[4.0, 8, 20, 32], [30, 30, 44, 60]])
    target = {"boxes": boxes, "labels": torch.tensor([2, 0])}
    codes, confidences, logits = torch.zeros(1, 8, 12, 2, 4), torch.zeros(1, 8, 12, 2), torch.zeros(1, 8, 12, 3)
    for box, label, slot in zip(boxes, target["labels"], (0, 1), strict=True):
        centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        column, row = (centre // 8).long().tolist()
        share = (size / torch.tensor([96, 64])).sqrt()
        codes[0, row, column, slot] = torch.cat([centre / 8 - torch.tensor([column, row]), share])
        confidences[0, row, column, slot] = 1
        logits[0, row, column, label] = 30
    assert yolo.yolo_loss(codes, confidences, logits, [target], (64, 96), 8) < 1e-8
    assert yolo.yolo_loss(codes.roll(1, dims=2), confidences, logits, [target], (64, 96), 8) > 1
    found = yolo.YOLO(3).detect(codes, confidences, logits, (64, 96))[0]
    order = found["labels"].argsort(descending=True)
    torch.testing.assert_close(found["boxes"][order], boxes)
    assert found["labels"][order].tolist() == [2, 0]
    assert found["slots"][order].tolist() == [0, 1]


def test_pictures_without_objects_are_to_have_no_confidence() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    codes, logits = torch.rand(2, 8, 8, 2, 4), torch.randn(2, 8, 8, 4)
    assert yolo.yolo_loss(codes, torch.zeros(2, 8, 8, 2), logits, [nothing] * 2, (64, 64)) == 0
    assert yolo.yolo_loss(codes, torch.ones(2, 8, 8, 2), logits, [nothing] * 2, (64, 64)) == 64


@pytest.mark.parametrize(("height", "width", "stride"), [(48, 48, 8), (64, 75, 16), (100, 64, 32)])
def test_cells_cover_pictures_of_any_size(height: int, width: int, stride: int) -> None:
    model = yolo.YOLO(2, stride=stride, width=4)
    codes, confidences, logits = model(torch.rand(2, 3, height, width))
    rows, columns = -(-height // stride), -(-width // stride)
    assert codes.shape == (2, rows, columns, 2, 4)
    assert confidences.shape == (2, rows, columns, 2)
    assert logits.shape == (2, rows, columns, 2)
    for found in model.eval()(torch.rand(2, 3, height, width)):
        assert (found["boxes"] <= torch.tensor([width, height, width, height])).all()


def test_gradients_reach_every_parameter_and_answers_depend_on_the_picture(scenes: tuple[Boxes, Boxes]) -> None:
    torch.manual_seed(0)
    model = yolo.YOLO(4)
    images, targets = scenes[0].__getitems__(range(16))
    codes, confidences, logits = model(images)
    yolo.yolo_loss(codes, confidences, logits, targets, (64, 64)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert not torch.equal(codes, model(1 - images)[0])


def test_shuffled_labels_teach_nothing(scenes: tuple[Boxes, Boxes]) -> None:
    """The places of objects can still be learned, their kinds cannot."""
    train_set, test_set = scenes
    labels = torch.cat(train_set.labels)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    shuffled = replace(train_set, labels=list(labels.split([len(some) for some in train_set.labels])))
    torch.manual_seed(0)
    model = yolo.YOLO(4)
    settings = {"epochs": 5, "device": CPU, "precision": "auto", "channels_last": True}
    yolo.train(model, shuffled, batch_size=16, lr=8e-3, seed=0, **settings)
    assert evaluate(model, test_set, CPU)["map_50"] < 0.4


def test_own_pictures(tmp_path: Path) -> None:
    """Pascal VOC's layout, not square, one class."""
    for name in ("JPEGImages", "Annotations"):
        (tmp_path / name).mkdir()
    for i in range(10):
        left, top = 4 + 3 * i, 40 - 3 * i
        picture = Image.new("RGB", (80, 70))
        picture.paste((255, 200, 0), (left, top, left + 24, top + 24))
        picture.save(tmp_path / "JPEGImages" / f"{i}.png")
        (tmp_path / "Annotations" / f"{i}.xml").write_text(
            f"<annotation><filename>{i}.png</filename><size><width>80</width><height>70</height></size><object>"
            f"<name>square</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{left + 24}</xmax>"
            f"<ymax>{top + 24}</ymax></bndbox></object></annotation>"
        )
    result = recipes.run(NAME, data=str(tmp_path), epochs=2, batch_size=4, compare=False)
    assert len(result.claims) == 3
    assert 0 <= result.metrics["map_50"] <= 1
    assert result.figure().axes


@pytest.mark.xdist_group(NAME)
def test_claims_hold(default_run: Callable[[str], Result]) -> None:
    assert [claim.text for claim in default_run(NAME).claims if not claim.holds] == []
