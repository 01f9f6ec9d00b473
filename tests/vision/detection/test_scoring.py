"""Mean average precision held against its definition, and the baseline that looks at no picture."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection import plain
from recipes.vision.detection.boxes import Detections, box_iou
from recipes.vision.detection.scoring import commonest_places, mean_average_precision, truths


def random_boxes(count: int, generator: torch.Generator, size: float = 40) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * size
    return torch.cat([corner, corner + 4 + torch.rand(count, 2, generator=generator) * 20], dim=1)


def random_scenes(seed: int, pictures: int = 6, classes: int = 3) -> tuple[Detections, Detections]:
    """True boxes, and detections some of which are right: moved copies, other labels, and boxes anywhere."""
    generator = torch.Generator().manual_seed(seed)
    predictions, targets = [], []
    for _ in range(pictures):
        count = int(torch.randint(0, 5, (), generator=generator))
        boxes, labels = random_boxes(count, generator), torch.randint(0, classes, (count,), generator=generator)
        moved = boxes.repeat(2, 1) + torch.randn(2 * count, 4, generator=generator) * 1.5
        guesses = torch.randint(0, classes, (2 * count + 3,), generator=generator)
        guesses[:count] = labels
        predictions.append(
            {
                "boxes": torch.cat([moved, random_boxes(3, generator)]),
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


@pytest.mark.parametrize("seed", range(8))
def test_map_equals_its_definition(seed: int) -> None:
    predictions, targets = random_scenes(seed)
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


def test_the_lean_twin_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What copies score with."""
    predictions, targets = random_scenes(0)
    pictures = torch.zeros(len(targets), 3, 64, 64, dtype=torch.uint8)
    boxes, labels = ([target[key] for target in targets] for key in ("boxes", "labels"))
    scenes = Boxes(pictures, boxes, labels, ["a", "b", "c"], [""] * len(targets))
    monkeypatch.setattr(plain, "predict", lambda model, dataset, device, batch_size: predictions)
    assert plain.evaluate(nn.Identity(), scenes, "cpu") == mean_average_precision(predictions, targets)


def test_what_is_found_on_ignored_objects_does_not_count() -> None:
    """Neither right nor wrong: a crowd holds several boxes, and beside it they are wrong again."""
    true = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([0])}
    crowd = {"ignored_boxes": torch.tensor([[20.0, 20, 60, 60]]), "ignored_labels": torch.tensor([0])}
    boxes = torch.tensor([[22.0, 22, 32, 32], [40, 40, 50, 50], [0, 0, 10, 10]])
    found = {"boxes": boxes, "labels": torch.zeros(3, dtype=torch.long), "scores": torch.tensor([0.9, 0.8, 0.7])}
    assert mean_average_precision([found], [true])["map_50"] == pytest.approx(1 / 3)
    assert mean_average_precision([found], [true | crowd])["map_50"] == pytest.approx(1)
    away = found | {"boxes": boxes + torch.tensor([[50.0], [0], [0]])}
    assert mean_average_precision([away], [true | crowd])["map_50"] == pytest.approx(1 / 2)


def test_crowds_and_difficult_objects_are_read_as_ignored(tmp_path: Path) -> None:
    """COCO's `iscrowd` and VOC's `difficult`: not among the boxes to learn, but known to the scoring."""
    kinds = [{"id": 1, "name": "cat"}]
    for split in ("train", "test"):
        (tmp_path / "coco" / split).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "coco" / split / "0.png")
        rows = [
            {"id": i, "image_id": 0, "category_id": 1, "bbox": [4 * i, 0, 8, 8], "iscrowd": int(i == 1)} for i in (0, 1)
        ]
        content = {"images": [{"id": 0, "file_name": "0.png"}], "categories": kinds, "annotations": rows}
        file = tmp_path / "coco" / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    voc = tmp_path / "voc"
    for name in ("JPEGImages", "Annotations"):
        (voc / name).mkdir(parents=True)
    thing = "<object><name>cat</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>1</ymin>"
    thing += "<xmax>{}</xmax><ymax>8</ymax></bndbox></object>"
    for i in range(5):
        Image.new("RGB", (40, 40)).save(voc / "JPEGImages" / f"{i}.png")
        things = thing.format(0, 1, 8) + thing.format(1, 5, 12)
        (voc / "Annotations" / f"{i}.xml").write_text(f"<annotation>{things}</annotation>")
    for folder in (tmp_path / "coco", voc):
        for part in open_boxes(folder):
            assert part.boxes[0].tolist() == [[0, 0, 8, 8]]
            assert part.ignored[0]["boxes"].tolist() == [[4, 0, 12, 8]]
            assert part.ignored[0]["labels"].tolist() == [0]
            assert "ignored_boxes" in truths(part)[0]
    assert open_boxes()[0].ignored == []
