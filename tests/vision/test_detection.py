"""Detection: boxes and mAP held against references, the two detectors, and controls that must fail."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection import ssd, task
from recipes.vision.detection.boxes import Detections, box_iou, nms, shift_and_zoom
from recipes.vision.detection.scoring import commonest_places, evaluate, mean_average_precision, truths

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes() -> tuple[Boxes, Boxes]:
    return open_boxes()


def some_boxes(count: int, generator: torch.Generator, size: float = 40) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * size
    return torch.cat([corner, corner + 4 + torch.rand(count, 2, generator=generator) * 20], dim=1)


def some_scenes(seed: int, pictures: int = 6, classes: int = 3) -> tuple[Detections, Detections]:
    """True boxes, and detections some of which are right: moved copies, other labels, and boxes anywhere."""
    generator = torch.Generator().manual_seed(seed)
    predictions, targets = [], []
    for _ in range(pictures):
        count = int(torch.randint(0, 5, (), generator=generator))
        boxes, labels = some_boxes(count, generator), torch.randint(0, classes, (count,), generator=generator)
        moved = boxes.repeat(2, 1) + torch.randn(2 * count, 4, generator=generator) * 1.5
        guesses = torch.randint(0, classes, (2 * count + 3,), generator=generator)
        guesses[:count] = labels
        predictions.append(
            {
                "boxes": torch.cat([moved, some_boxes(3, generator)]),
                "scores": torch.rand(2 * count + 3, generator=generator),
                "labels": guesses,
            }
        )
        targets.append({"boxes": boxes, "labels": labels})
    return predictions, targets


def slow_average_precision(predictions: Detections, targets: Detections, label: int, threshold: float) -> float:
    """The definition, one detection at a time."""
    detections = [
        (float(score), picture, box)
        for picture, found in enumerate(predictions)
        for box, score, kind in zip(found["boxes"], found["scores"], found["labels"], strict=True)
        if kind == label
    ]
    truth = [[box for box, kind in zip(t["boxes"], t["labels"], strict=True) if kind == label] for t in targets]
    taken: set[tuple[int, int]] = set()
    curve, right = [], 0
    for place, (_, picture, box) in enumerate(sorted(detections, key=lambda one: -one[0]), start=1):
        best, choice = threshold, -1
        for number, other in enumerate(truth[picture]):
            overlap = float(box_iou(box[None].double(), other[None].double()))
            if (picture, number) not in taken and overlap >= best:
                best, choice = overlap, number
        if choice >= 0:
            taken.add((picture, choice))
            right += 1
        curve.append((right / sum(map(len, truth)), right / place))
    recalls = [step / 100 for step in range(101)]
    return sum(max((p for r, p in curve if r >= recall - 1e-9), default=0.0) for recall in recalls) / 101


@pytest.mark.parametrize("seed", range(3))
def test_box_iou_and_nms_equal_torchvision(seed: int) -> None:
    from torchvision import ops

    generator = torch.Generator().manual_seed(seed)
    boxes, scores = some_boxes(200, generator), torch.rand(200, generator=generator)
    labels = torch.randint(0, 3, (200,), generator=generator)
    torch.testing.assert_close(box_iou(boxes, boxes[:7]), ops.box_iou(boxes, boxes[:7]))
    for threshold in (0.1, 0.5, 0.9):
        assert torch.equal(nms(boxes, scores, threshold), ops.nms(boxes, scores, threshold))
        assert torch.equal(nms(boxes, scores, threshold, labels), ops.batched_nms(boxes, scores, labels, threshold))
    assert nms(boxes[:0], scores[:0], 0.5).shape == (0,)


@pytest.mark.parametrize("seed", range(8))
def test_map_equals_its_definition(seed: int) -> None:
    predictions, targets = some_scenes(seed)
    kinds = torch.cat([target["labels"] for target in targets]).unique().tolist()
    thresholds = [0.5 + 0.05 * step for step in range(10)]
    slow = torch.tensor([[slow_average_precision(predictions, targets, k, t) for k in kinds] for t in thresholds])
    measured = mean_average_precision(predictions, targets)
    expected = {"map_50": slow[0].mean(), "map_75": slow[5].mean(), "map": slow.mean()}
    assert measured == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-6)


def test_map_of_cases_known_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    box, other, away = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [50.0, 50, 60, 60]

    def picture(*found: tuple[list[float], int, float]) -> dict[str, Tensor]:
        return {
            "boxes": torch.tensor([one[0] for one in found]).view(-1, 4),
            "labels": torch.tensor([one[1] for one in found], dtype=torch.long),
            "scores": torch.tensor([one[2] for one in found]),
        }

    def map_50(*found: tuple[list[float], int, float], true: dict[str, Tensor]) -> float:
        return mean_average_precision([picture(*found)], [true])["map_50"]

    two = {"boxes": torch.tensor([box, other]), "labels": torch.tensor([0, 0])}
    assert map_50((box, 0, 0.9), (other, 0, 0.8), true=two) == 1
    assert map_50(true=two) == 0
    assert map_50((box, 1, 0.9), (other, 1, 0.9), true=two) == 0, "boxes of the wrong class"
    assert map_50((box, 0, 0.9), true=two) == pytest.approx(51 / 101), "precision 1 up to a recall of 0.5"
    assert map_50((box, 0, 0.9), (box, 0, 0.8), (other, 0, 0.7), true=two) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert map_50((box, 0, 0.9), (other, 0, 0.8), (away, 0, 0.7), true=two) == 1, "a false one, surest last"
    assert map_50((away, 0, 0.9), (box, 0, 0.8), (other, 0, 0.7), true=two) == pytest.approx(2 / 3)
    kinds = {"boxes": torch.tensor([box, other]), "labels": torch.tensor([0, 5])}
    assert map_50((box, 0, 0.9), (away, 3, 0.9), true=kinds) == pytest.approx(0.5), (
        "the mean over the classes that occur"
    )
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    assert map_50((box, 0, 0.9), true=none) != map_50((box, 0, 0.9), true=none), "nothing to find: not a number"
    assert capsys.readouterr().out == ""


def test_baseline_finds_what_stands_always_in_the_same_place() -> None:
    box, label = torch.tensor([[12.0, 20, 28, 36]]), torch.tensor([0])
    same = Boxes(
        torch.zeros(4, 3, 64, 64, dtype=torch.uint8), [box] * 4, [label] * 4, ["thing", "never seen"], [""] * 4
    )
    assert commonest_places(same, same)["map_50"] == 1
    elsewhere = replace(same, boxes=[box + 30] * 4)
    assert commonest_places(same, elsewhere)["map_50"] == 0


def test_boxes_follow_their_picture() -> None:
    """Bright rectangles on black, moved and scaled: the box is where the light is."""
    torch.manual_seed(0)
    images, targets = torch.zeros(32, 3, 64, 64), []
    for image in images:
        left, top = torch.randint(0, 40, (2,)).tolist()
        width, height = torch.randint(8, 24, (2,)).tolist()
        image[:, top : top + height, left : left + width] = 1
        right, bottom = min(left + width, 64), min(top + height, 64)
        targets.append({"boxes": torch.tensor([[left, top, right, bottom]]).float(), "labels": torch.tensor([2])})
    moved, follow = shift_and_zoom(images, targets)
    assert moved.shape == images.shape
    kept = [(image, target) for image, target in zip(moved, follow, strict=True) if len(target["labels"])]
    assert len(kept) > 25
    for image, target in kept:
        rows, columns = (image[0] > 0.5).nonzero().T
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        assert (seen - target["boxes"][0]).abs().max() <= 1
        assert target["labels"].tolist() == [2]
    areas = {round(float((target["boxes"][0, 2:] - target["boxes"][0, :2]).prod())) for _, target in kept}
    assert len(areas) > 10, "every picture is scaled by its own factor"


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
    model = ssd.SSD(3, 64)
    logits, codes = model(torch.rand(2, 3, 64, 64))
    assert ssd.ssd_loss(logits, codes, [nothing, nothing], model.defaults) == 0


def test_codes_equal_torchvision_and_decode_back() -> None:
    from torchvision.models.detection._utils import BoxCoder

    generator = torch.Generator().manual_seed(0)
    boxes, defaults = some_boxes(50, generator), some_boxes(50, generator)
    centred = torch.cat([(defaults[:, :2] + defaults[:, 2:]) / 2, defaults[:, 2:] - defaults[:, :2]], dim=1)
    codes = ssd.encode(boxes, centred)
    torch.testing.assert_close(codes, BoxCoder((10.0, 10.0, 5.0, 5.0)).encode_single(boxes, defaults))
    torch.testing.assert_close(ssd.decode(codes, centred), boxes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ssd.corners(centred), defaults)


def test_matching_and_loss_equal_torchvision(scenes: tuple[Boxes, Boxes]) -> None:
    from torchvision.models.detection import _utils
    from torchvision.models.detection.ssd import SSD as Reference

    torch.manual_seed(0)
    train_set, model = scenes[0], ssd.SSD(4, 64)
    targets = truths(train_set)[:8]
    anchors, matcher = ssd.corners(model.defaults), _utils.SSDMatcher(0.5)
    matched = [matcher(box_iou(target["boxes"], anchors)) for target in targets]
    for target, theirs in zip(targets, matched, strict=True):
        ours = ssd.match(target["boxes"], model.defaults)
        assert torch.equal(ours, theirs.clamp(min=-1))
        assert set(ours.tolist()) >= set(range(len(target["boxes"])))

    logits, codes = torch.randn(8, len(anchors), 5), torch.randn(8, len(anchors), 4)
    reference: Any = SimpleNamespace(box_coder=_utils.BoxCoder((10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3)
    losses = Reference.compute_loss(
        reference,
        [{"boxes": target["boxes"], "labels": target["labels"] + 1} for target in targets],
        {"bbox_regression": codes, "cls_logits": logits},
        [anchors] * 8,
        matched,
    )
    ours = ssd.ssd_loss(logits, codes, targets, model.defaults)
    torch.testing.assert_close(ours, losses["classification"] + losses["bbox_regression"])


@pytest.mark.parametrize("size", [48, 64, 75, 128, 200])
def test_default_boxes_fit_the_maps_of_any_picture(size: int) -> None:
    model = ssd.SSD(2, size, width=4)
    logits, codes = model(torch.rand(2, 3, size, size))
    assert logits.shape == (2, len(model.defaults), 3)
    assert codes.shape == (2, len(model.defaults), 4)
    centres = model.defaults[:, :2]
    assert centres.min() > 0
    assert centres.max() < size + model.strides[-1]
    assert len(model.eval()(torch.rand(2, 3, size, size))) == 2
    assert task.CenterNet(2, width=4)(torch.rand(2, 3, size, size)).shape == (2, 6, -(-size // 4), -(-size // 4))


@pytest.mark.parametrize("build", [lambda: task.CenterNet(4), lambda: ssd.SSD(4, 64)], ids=["centernet", "ssd"])
def test_gradients_reach_every_parameter_and_answers_depend_on_the_picture(
    build: Callable[[], nn.Module], scenes: tuple[Boxes, Boxes]
) -> None:
    torch.manual_seed(0)
    model = build()
    images, targets = scenes[0].__getitems__(range(16))
    outputs = model(images)
    loss = (
        ssd.ssd_loss(*outputs, targets, model.defaults)
        if isinstance(model, ssd.SSD)
        else task.centre_loss(outputs, targets)
    )
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    changed = model(1 - images)
    assert not torch.equal(outputs[0], changed[0])


def shuffled(dataset: Boxes) -> Boxes:
    labels = torch.cat(dataset.labels)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    return replace(dataset, labels=list(labels.split([len(some) for some in dataset.labels])))


def test_shuffled_labels_teach_nothing(scenes: tuple[Boxes, Boxes]) -> None:
    """The places of objects can still be learned, their kinds cannot."""
    train_set, test_set = scenes
    torch.manual_seed(0)
    centernet, single_shot = task.CenterNet(4), ssd.SSD(4, 64)
    task.train(
        centernet,
        shuffled(train_set),
        epochs=5,
        batch_size=32,
        lr=8e-3,
        device=CPU,
        precision="auto",
        channels_last=True,
    )
    ssd.train(single_shot, shuffled(train_set), "hard", epochs=4, batch_size=16, lr=8e-3, seed=0, precision="auto")
    for model in (centernet, single_shot):
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
    result = recipes.run("vision.detection.ssd", data=data, epochs=2, batch_size=4, compare=False)
    assert len(result.claims) == 3
    assert len(result.rows) == len(result.model.strides)


def test_unknown_detectors_are_named() -> None:
    with pytest.raises(InputError, match="expected centernet or torchvision:NAME, got 'yolo'"):
        recipes.run("vision.detection", model="yolo")
    with pytest.raises(InputError, match="did you mean ssd300_vgg16"):
        recipes.run("vision.detection", model="torchvision:ssd300_vgg")


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("vision.detection", "vision.detection.ssd")],
)
def test_claims_hold(recipe: str, default_run: Callable[[str], Result]) -> None:
    assert [claim.text for claim in default_run(recipe).claims if not claim.holds] == []


@pytest.mark.real
def test_blood_cells(real_data: Path) -> None:
    options = {"epochs": 10, "batch_size": 8, "compare": False}
    result = recipes.run("vision.detection.ssd", data=str(real_data / "BCCD"), device="cpu", **options)
    assert result.metrics["map_50"] > 0.6
