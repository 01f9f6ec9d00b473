"""Pictures with boxes or masks from COCO's JSON files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recipes.datasets.bundled import bundled
from recipes.datasets.plain.scenes import VOID, Boxes, Masks, read_pictures, warp_masks

__all__ = ["VOID", "Boxes", "Masks", "open_boxes", "open_masks"]


def open_boxes(data: str | None = None, *, image_size: int | None = None, **_: Any) -> tuple[Boxes, Boxes]:
    """annotations/instances_SPLIT.json and the pictures in SPLIT/ (train, test), which keep their proportions."""
    parts = []
    for paths, records, objects, names in read_coco(data):
        side, boxes = image_size or min(records[0]["width"], 128), []
        for record, found in zip(records, objects, strict=True):
            corners = [[x, y, x + width, y + height] for x, y, width, height in (one["bbox"] for one in found)]
            boxes.append(torch.tensor(corners).float().view(-1, 4) * (side / max(record["width"], record["height"])))
        labels = [torch.tensor([one["label"] for one in found], dtype=torch.int64) for found in objects]
        parts.append(Boxes(read_pictures(paths, side, letterbox=True), boxes, labels, names))
    return parts[0], parts[1]


def open_masks(data: str | None = None, *, image_size: int | None = None, seed: int = 0) -> tuple[Masks, Masks]:
    """annotations/instances_SPLIT.json and the pictures in SPLIT/, for the splits train and test."""
    parts = []
    for paths, records, objects, names in read_coco(data):
        side = image_size or min(records[0]["width"], 128)
        masks = [paint(found, one["height"], one["width"]) for one, found in zip(records, objects, strict=True)]
        parts.append(Masks(read_pictures(paths, side), warp_masks(masks, side), ["background", *names]))
    return parts[0], parts[1]


def read_coco(data: str | None) -> list[tuple[list[Path], list[Any], list[Any], list[str]]]:
    """For train and test: the pictures' paths, their records, the annotations of each, and the classes."""
    root, parts = Path(data) if data else bundled("scenes"), []
    for split in ("train", "test"):
        content = json.loads((root / "annotations" / f"instances_{split}.json").read_text("utf-8"))
        kinds = sorted(content["categories"], key=lambda one: one["id"])
        label = {kind["id"]: number for number, kind in enumerate(kinds)}
        objects: dict[int, list[Any]] = {record["id"]: [] for record in content["images"]}
        for one in content["annotations"]:
            if not one.get("iscrowd"):
                objects[one["image_id"]].append(one | {"label": label[one["category_id"]]})
        paths = [root / split / record["file_name"] for record in content["images"]]
        parts.append((paths, content["images"], list(objects.values()), [kind["name"] for kind in kinds]))
    return parts


def paint(objects: list[Any], height: int, width: int) -> Any:
    """COCO's polygons or run lengths as classes from 1, (height, width), smaller objects over larger ones."""
    from pycocotools import mask as rle

    values, drawn = np.zeros((height, width)), []
    for one in objects:
        given = one["segmentation"]
        if isinstance(given, list) or isinstance(given["counts"], list):
            given = rle.frPyObjects(given, height, width)
        drawn.append((rle.decode(rle.merge(given) if isinstance(given, list) else given) > 0, one["label"]))
    for shape, label in sorted(drawn, key=lambda pair: -int(pair[0].sum())):
        values[shape] = label + 1
    return values
