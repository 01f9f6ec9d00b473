"""Pictures with boxes or masks from COCO's JSON files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recipes.datasets.bundled import bundled

VOID = 255  # pixels of no class, left out of loss and metric


@dataclass
class Masks:
    """Pictures (N, 3, H, W) uint8 with a class for each pixel (N, H, W) uint8; class 0 is background."""

    images: Tensor
    masks: Tensor
    classes: list[str]
    files: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.images[indices].float() / 255, self.masks[indices].long()


@dataclass
class Boxes:
    """Pictures (N, 3, H, W) uint8, and for each its boxes (n, 4; left, top, right, bottom) and labels (n,)."""

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    classes: list[str]
    files: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, list[dict[str, Tensor]]]:
        images = self.images[indices].float() / 255
        return images, [{"boxes": self.boxes[i], "labels": self.labels[i]} for i in indices]


def open_masks(data: str | None = None, *, image_size: int | None = None, seed: int = 0) -> tuple[Masks, Masks]:
    """annotations/instances_SPLIT.json and the pictures in SPLIT/, for the splits train and test."""
    parts = []
    for images, pictures, names in read_coco(data, image_size):
        masks = torch.zeros(len(images), *images.shape[2:], dtype=torch.uint8)
        for mask, (picture, things) in zip(masks, pictures, strict=True):
            height, width = picture["height"], picture["width"]
            values = np.zeros((height, width))
            drawn = [(outline(one["segmentation"], height, width), one["label"]) for one in things]
            for shape, label in sorted(drawn, key=lambda pair: -int(pair[0].sum())):  # small ones over large ones
                values[shape > 0] = label + 1
            whole = Image.fromarray(values.astype(np.uint8))
            warped = whole.resize((images.shape[3], images.shape[2]), Image.Resampling.NEAREST)
            mask.copy_(torch.from_numpy(np.array(warped)))
        files = [picture["file_name"] for picture, _ in pictures]
        parts.append(Masks(images, masks, ["background", *names], files))
    return parts[0], parts[1]


def outline(given: Any, height: int, width: int) -> Any:
    """COCO's polygons or run lengths as a mask (height, width)."""
    from pycocotools import mask as rle

    if isinstance(given, list) or isinstance(given["counts"], list):
        given = rle.frPyObjects(given, height, width)
    return rle.decode(rle.merge(given) if isinstance(given, list) else given)


def open_boxes(data: str | None = None, *, image_size: int | None = None, seed: int = 0) -> tuple[Boxes, Boxes]:
    """annotations/instances_SPLIT.json and the pictures in SPLIT/, for the splits train and test."""
    parts = []
    for images, pictures, names in read_coco(data, image_size):
        boxes, labels = [], []
        for picture, things in pictures:
            scale = torch.tensor([images.shape[3] / picture["width"], images.shape[2] / picture["height"]]).repeat(2)
            corners = [[x, y, x + width, y + height] for x, y, width, height in (one["bbox"] for one in things)]
            boxes.append(torch.tensor(corners, dtype=torch.float32).view(-1, 4) * scale)
            labels.append(torch.tensor([one["label"] for one in things], dtype=torch.int64))
        files = [picture["file_name"] for picture, _ in pictures]
        parts.append(Boxes(images, boxes, labels, names, files))
    return parts[0], parts[1]


def read_coco(data: str | None, image_size: int | None) -> list[tuple[Tensor, list[tuple[Any, list[Any]]], list[str]]]:
    """For train and test: pictures (N, 3, H, W) uint8, each one's record with its annotations, and the classes."""
    root, parts = Path(data) if data else bundled("scenes"), []
    for split in ("train", "test"):
        content = json.loads((root / "annotations" / f"instances_{split}.json").read_text("utf-8"))
        kinds = sorted(content["categories"], key=lambda one: one["id"])
        order = {kind["id"]: label for label, kind in enumerate(kinds)}
        things: dict[int, list[Any]] = {picture["id"]: [] for picture in content["images"]}
        for one in content["annotations"]:
            if not one.get("iscrowd"):
                things[one["image_id"]].append(one | {"label": order[one["category_id"]]})
        side = image_size or content["images"][0]["width"]
        images = [Image.open(root / split / picture["file_name"]).convert("RGB") for picture in content["images"]]
        pixels = np.stack([np.array(one.resize((side, side), Image.Resampling.BILINEAR)) for one in images])
        pictures = [(picture, things[picture["id"]]) for picture in content["images"]]
        tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        parts.append((tensor, pictures, [kind["name"] for kind in kinds]))
    return parts
