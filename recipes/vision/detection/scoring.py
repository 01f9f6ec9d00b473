"""How detections are scored: COCO's mean average precision, and a baseline that looks at no picture."""

import contextlib
import io
import math
from typing import Any

import torch
from torch import Tensor, nn

from recipes.core.evaluation import predict
from recipes.datasets.scenes import Boxes
from recipes.vision.detection.boxes import Detections


def evaluate(model: nn.Module, dataset: Boxes, device: torch.device) -> dict[str, float]:
    """Mean average precision over the whole set.

    Args:
        model: in evaluation mode it gives `Detections` with scores for a batch of pictures.
        dataset: pictures with boxes.
        device: where the model lives.
    """
    return mean_average_precision(predict(model, dataset, device, batch_size=32), truths(dataset))


def truths(dataset: Boxes) -> Detections:
    """The true boxes and labels of every picture; where some are `ignored`, those apart."""
    true = [{"boxes": b, "labels": l} for b, l in zip(dataset.boxes, dataset.labels, strict=True)]
    for target, ignored in zip(true, getattr(dataset, "ignored", ()), strict=False):
        target |= {f"ignored_{key}": value for key, value in ignored.items()}
    return true


def mean_average_precision(predictions: Detections, targets: Detections) -> dict[str, float]:
    """COCO's mean average precision over the classes that occur in the targets.

    Args:
        predictions: boxes, scores and labels of each picture; the surest 100 count.
        targets: the true boxes and labels of the same pictures. A box found mostly within one of the
            `ignored_boxes`, of its label, counts neither as right nor as wrong.

    Returns:
        `map_50` and `map_75`, which ask of a detection an overlap (IoU) of at least 0.5 or 0.75 with
        the object, and `map`, the mean over 0.5, 0.55, …, 0.95. NaN if there is no object at all.
    """
    precision = precision_curves(predictions, targets)
    return {
        "map_50": precision[0].mean().item(),
        "map_75": precision[5].mean().item(),
        "map": precision.mean().item(),
    }


def precision_curves(predictions: Detections, targets: Detections) -> Tensor:
    """Precision at overlaps of 0.5, 0.55, …, 0.95 and recalls of 0, 0.01, …, 1, as COCO computes it.

    Returns:
        (10, 101, classes), a class for each label in the targets, in their order. At each recall stands
        the best precision that is reached at this recall or a higher one, 0 if it is never reached.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def as_coco(pictures: Detections, kinds: list[int]) -> COCO:
        annotations: list[dict[str, Any]] = []
        for number, picture in enumerate(pictures):
            for kind in ("", "ignored_") if "ignored_boxes" in picture else ("",):
                corners, labels = picture[f"{kind}boxes"].double().cpu(), picture[f"{kind}labels"].tolist()
                boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
                scores = picture["scores"].tolist() if "scores" in picture else [1.0] * len(labels)
                for box, label, score in zip(boxes, labels, scores, strict=True):
                    row = {"id": len(annotations) + 1, "image_id": number, "category_id": label}  # id 0 is reserved
                    row |= {"bbox": box, "area": box[2] * box[3], "score": score, "iscrowd": int(kind != "")}
                    annotations.append(row)
        coco = COCO()
        images = [{"id": number} for number in range(len(pictures))]
        coco.dataset = {"images": images, "categories": [{"id": kind} for kind in kinds], "annotations": annotations}
        coco.createIndex()
        return coco

    kinds = torch.cat([target["labels"] for target in targets]).unique().tolist()
    if not kinds:
        return torch.full((10, 101, 1), math.nan)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells of every step
        coco = COCOeval(as_coco(targets, kinds), as_coco(predictions, kinds), "bbox")
        coco.params.areaRng, coco.params.areaRngLbl, coco.params.maxDets = [[0, 1e10]], ["all"], [100]
        coco.evaluate()
        coco.accumulate()
    return torch.from_numpy(coco.eval["precision"][:, :, :, 0, 0])


def commonest_places(train_set: Boxes, test_set: Boxes, cells: int = 8) -> dict[str, float]:
    """The baseline that looks at no picture: the same boxes for each, where the train part has most objects.

    A box of a class's mean size stands in every cell of a grid, and scores as many as that class had there.
    """
    boxes, labels = torch.cat(train_set.boxes), torch.cat(train_set.labels)
    centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    classes, side = len(train_set.classes), train_set.images.shape[-1] / cells
    column, row = (centers / side).long().clamp(0, cells - 1).T
    counts = torch.zeros(classes, cells, cells).index_put((labels, row, column), torch.ones(()), accumulate=True)
    scores, order = counts.flatten().sort(descending=True, stable=True)
    scores, order = scores[scores > 0], order[scores > 0]
    label, row, column = torch.unravel_index(order, counts.shape)
    mean_size = torch.stack([sizes[labels == kind].mean(dim=0) for kind in range(classes)]).nan_to_num()
    center, half = (torch.stack([column, row], dim=1) + 0.5) * side, mean_size[label] / 2
    answer = {"boxes": torch.cat([center - half, center + half], dim=1), "labels": label, "scores": scores}
    return mean_average_precision([answer] * len(test_set), truths(test_set))
