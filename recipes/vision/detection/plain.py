"""What copies get in place of longer parts of this task."""

import contextlib
import io
from typing import Any

import torch
from torch import nn

from recipes.core.frame import predict
from recipes.datasets.scenes import Boxes
from recipes.vision.detection.boxes import Detections


def evaluate(model: nn.Module, dataset: Boxes, device: Any) -> dict[str, float]:
    """Mean average precision over the whole set."""
    return mean_average_precision(predict(model, dataset, device, batch_size=32), dataset)


def mean_average_precision(found: Detections, dataset: Boxes) -> dict[str, float]:
    """COCO's: at overlaps (IoU) of 0.5 and of 0.75, and the mean over 0.5, 0.55, …, 0.95."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    true = [
        {"boxes": boxes, "labels": labels, "scores": torch.ones(len(labels))}
        for boxes, labels in zip(dataset.boxes, dataset.labels, strict=True)
    ]
    kinds, sides = torch.cat(dataset.labels).unique().tolist(), []
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports every step
        for pictures in (true, found):
            rows: list[dict[str, Any]] = []
            for number, picture in enumerate(pictures):
                boxes, *others = (picture[key].double().cpu().tolist() for key in ("boxes", "labels", "scores"))
                for (left, top, right, bottom), label, score in zip(boxes, *others, strict=True):
                    row = {"id": len(rows) + 1, "image_id": number, "category_id": int(label), "score": score}
                    box = [left, top, right - left, bottom - top]
                    rows.append(row | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0})
            sides.append(COCO())
            images, categories = [{"id": i} for i in range(len(pictures))], [{"id": kind} for kind in kinds]
            sides[-1].dataset = {"images": images, "categories": categories, "annotations": rows}
            sides[-1].createIndex()
        coco = COCOeval(*sides, "bbox")
        coco.params.areaRng, coco.params.areaRngLbl, coco.params.maxDets = [[0, 1e10]], ["all"], [100]
        coco.evaluate()
        coco.accumulate()
    precision = torch.from_numpy(coco.eval["precision"])  # (10 overlaps, 101 recalls, classes, 1, 1)
    return {"map_50": precision[0].mean().item(), "map_75": precision[5].mean().item(), "map": precision.mean().item()}


def commonest_places(train_set: Boxes, test_set: Boxes, cells: int = 8) -> dict[str, float]:
    """The baseline that looks at no picture: a box of a class's mean size in each cell that often has one."""
    boxes, labels = torch.cat(train_set.boxes), torch.cat(train_set.labels)
    centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    side = train_set.image_size / cells
    column, row = (centers / side).long().clamp(0, cells - 1).T
    places, counts = torch.stack([labels, row, column]).unique(dim=1, return_counts=True)
    half = torch.stack([sizes[labels == label].mean(dim=0) for label in places[0]]) / 2
    center = (places[1:].flip(0).T + 0.5) * side
    answer = {"boxes": torch.cat([center - half, center + half], dim=1), "labels": places[0], "scores": counts}
    return mean_average_precision([answer] * len(test_set), test_set)
