"""YOLO: its loss held against the paper's sum written plainly, and controls that must fail."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch

import recipes
from recipes.core.errors import InputError
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection import yolo
from recipes.vision.detection.boxes import Detections, box_iou
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
    ignore: float = 1.0,
) -> float:
    """Equation 3 of the paper, one object and one box at a time; on grids finer than 8×8 with more weight on boxes."""
    from torchvision.ops import box_iou

    height, width = size
    across, down = (max(1.0, cells / 8) for cells in (codes.shape[2], codes.shape[1]))
    box_weight, total = 5 * (across * down) ** 0.5, 0.0
    for i, target in enumerate(targets):
        answering = {}
        near = set()
        for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            left, top, right, bottom = box
            x, y, w, h = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
            row, column = int(y // stride), int(x // stride)
            overlaps = []
            for place in product(range(codes.shape[1]), range(codes.shape[2]), range(2)):
                a, b, root_w, root_h = codes[i, *place].tolist()
                middle_x, middle_y = (place[1] + a) * stride, (place[0] + b) * stride
                half_w, half_h = root_w**2 * width / 2, root_h**2 * height / 2
                edges = [max(middle_x - half_w, 0), max(middle_y - half_h, 0)]
                edges += [min(middle_x + half_w, width), min(middle_y + half_h, height)]
                overlap = float(box_iou(torch.tensor([edges]), torch.tensor([box])))
                near |= {place} if overlap > ignore else set()
                overlaps += [overlap] if place[:2] == (row, column) else []
            slot = overlaps.index(max(overlaps))
            answering[row, column, slot] = overlaps[slot]
            a, b, root_w, root_h = codes[i, row, column, slot].tolist()
            total += box_weight * ((a - (x / stride - column)) ** 2 + (b - (y / stride - row)) ** 2)
            total += box_weight * across * (root_w - (w / width) ** 0.5) ** 2
            total += box_weight * down * (root_h - (h / height) ** 0.5) ** 2
            for kind, p in enumerate(logits[i, row, column].softmax(dim=0).tolist()):
                total += (p - (kind == label)) ** 2
        for row in range(codes.shape[1]):
            for column in range(codes.shape[2]):
                for slot in range(2):
                    sure, place = float(confidences[i, row, column, slot]), (row, column, slot)
                    if place in answering or place not in near:
                        total += (sure - answering[place]) ** 2 if place in answering else 0.5 * sure**2
    return total / len(targets)


@pytest.mark.parametrize(("rows", "columns", "ignore"), [(8, 8, 1.0), (4, 4, 1.0), (8, 8, 0.3), (8, 16, 0.4)])
def test_loss_equals_the_paper(rows: int, columns: int, ignore: float, scenes: tuple[Boxes, Boxes]) -> None:
    torch.manual_seed(rows)
    targets, stride = truths(scenes[0])[rows : rows + 3], 64 // rows
    cells = torch.rand(3, rows, columns, 2, 4), torch.rand(3, rows, columns, 2), torch.randn(3, rows, columns, 4)
    size = (64, stride * columns)
    expected = slow_loss(*cells, targets, size, stride, ignore)
    assert float(yolo.yolo_loss(*cells, targets, size, stride, ignore)) == pytest.approx(expected, rel=1e-4)
    if ignore < 1:
        assert float(yolo.yolo_loss(*cells, targets, size, stride)) > 1.001 * expected, "some boxes are ignored"


def detect(model: yolo.YOLO, codes: torch.Tensor, confidences: torch.Tensor, logits: torch.Tensor, size: Any) -> Any:
    """What the model makes of these cells."""
    model.cells = lambda images: (codes, confidences, logits)  # type: ignore[method-assign]
    return model.eval()(torch.zeros(len(codes), 3, *size))


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
    found = detect(yolo.YOLO(3), codes, confidences, logits, (64, 96))[0]
    order = found["labels"].argsort(descending=True)
    torch.testing.assert_close(found["boxes"][order], boxes)
    assert found["labels"][order].tolist() == [2, 0]
    torch.testing.assert_close(found["confidences"], torch.ones(2))


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
    options = yolo.YOLOOptions(epochs=5, device="cpu")
    model = yolo.build(options, train_set)
    yolo.train(model, shuffled, options)
    assert evaluate(model, test_set, CPU)["map_50"] < 0.4


def test_raw_outputs_are_what_detections_are_made_of(scenes: tuple[Boxes, Boxes]) -> None:
    torch.manual_seed(0)
    model = yolo.YOLO(4, overlap=0.3).eval()
    images = scenes[1].__getitems__(range(3))[0]
    with torch.no_grad():
        scores, boxes = model.raw(images)
        confidences = model.cells(images)[1].flatten(1)
        found = model(images)
    torch.testing.assert_close(scores.sum(dim=2), confidences)
    for picture, own_boxes, own_scores in zip(found, boxes, scores, strict=True):
        assert (picture["boxes"][:, None] == own_boxes).all(dim=2).any(dim=1).all()
        assert torch.isin(picture["scores"], own_scores).all()
        same = picture["labels"][:, None] == picture["labels"]
        assert box_iou(picture["boxes"], picture["boxes"]).fill_diagonal_(0)[same].max() <= 0.3


def test_a_stride_is_a_power_of_two() -> None:
    with pytest.raises(InputError, match="option stride: expected a power of two, got 12"):
        recipes.run(NAME, stride=12)


def test_what_stays_unnamed() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [4, 4, 8, 8], [8, 8, 12, 12]])
    dataset = Boxes(torch.zeros(1, 3, 16, 16), [boxes], [torch.tensor([0, 1, 1])], ["a", "b"], [""])
    assert yolo.unnamed(dataset, 4) == 0
    assert yolo.unnamed(dataset, 8) == pytest.approx(2 / 3), "the first two share a cell, and differ"
    assert yolo.unnamed(dataset, 16) == 1


def few(dataset: Boxes, count: int) -> Boxes:
    return Boxes(dataset.images[:count], dataset.boxes[:count], dataset.labels[:count], dataset.classes, [""] * count)
