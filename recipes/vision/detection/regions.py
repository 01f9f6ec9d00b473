"""Pictures with regions that were proposed for them from outside, and how detectors of regions are used."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.evaluation import map_tensors
from recipes.datasets.scenes import Boxes
from recipes.vision.detection.boxes import Detections, shift_and_zoom
from recipes.vision.detection.selective_search import selective_search
from recipes.vision.detection.using import Detection
from recipes.vision.using import Picture


@dataclass
class Proposed(Boxes):
    """Pictures with boxes, and beside them the regions (N, R, 4) proposed in each, found once."""

    regions: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 4))

    def __getitems__(self, indices: Sequence[int]) -> Any:
        images, targets = super().__getitems__(indices)
        return (images, self.regions[torch.as_tensor(indices)]), targets


def propose(dataset: Boxes, most: int) -> Proposed:
    """The same pictures with so many regions each."""
    return Proposed(**vars(dataset), regions=torch.stack([regions_of(image, most) for image in dataset.images]))


def regions_of(image: Tensor, most: int) -> Tensor:
    """Exactly so many regions (most, 4) of a picture (3, H, W) uint8; the whole picture stands for those that lack."""
    boxes, (height, width) = selective_search(image, most), image.shape[1:]
    whole = torch.tensor([[0.0, 0.0, width, height]])
    return torch.cat([boxes, whole.expand(most - len(boxes), 4)])


def moved_along(images: Tensor, regions: Tensor, targets: Detections, *, mirror: bool = False) -> tuple[Any, ...]:
    """Pictures shifted and zoomed, of their regions (batch, R, 4) those still seen (a list), and their objects."""
    marked = []  # regions go along as objects of the label -1
    for target, own in zip(targets, regions, strict=True):
        labels = F.pad(target["labels"], (0, len(own)), value=-1)
        marked.append({"boxes": torch.cat([target["boxes"], own]), "labels": labels})
    images, marked = shift_and_zoom(images, marked, mirror=mirror)
    seen = [one["boxes"][one["labels"] < 0] for one in marked]
    return images, seen, [{key: value[one["labels"] >= 0] for key, value in one.items()} for one in marked]


@dataclass(kw_only=True)
class RegionDetection(Detection):
    """Detection in regions, of which so many are proposed in each picture; networks take pictures and regions."""

    regions: int

    @classmethod
    def of(cls, result: Any, options: Any) -> Any:
        images, regions = result.test_set.__getitems__([0, 1 % len(result.test_set)])[0]
        given: dict[str, Any] = {"classes": list(result.test_set.classes), "image_size": images.shape[-1]}
        return cls(regions=options.regions, example=(images, regions), **given)

    def batch(self, items: Sequence[Picture]) -> tuple[Tensor, ...]:
        regions = torch.stack([regions_of(item.pixels, self.regions) for item in items])
        return (*super().batch(items), regions)

    def predict(self, model: nn.Module, items: Sequence[Picture], device: torch.device) -> list[dict[str, Any]]:
        outputs = model(map_tensors(lambda tensor: tensor.to(device), self.batch(items)))
        return self.answers(map_tensors(lambda tensor: tensor.cpu(), outputs), items)

    def to_export(self, model: nn.Module) -> nn.Module:
        return RawRegions(model)


class RawRegions(nn.Module):
    """Scores (N, R, classes) and boxes (N, R, classes, 4) of regions (N, R, 4), before non-maximum suppression."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.raw(images, regions)  # type: ignore[operator]
