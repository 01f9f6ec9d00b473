"""Pictures with regions that were proposed for them from outside, and moving both together."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from recipes.datasets.scenes import Boxes
from recipes.vision.detection.boxes import Detections, shift_and_zoom
from recipes.vision.detection.proposals import colour_regions, within
from recipes.vision.detection.scoring import evaluate


@dataclass
class Proposed(Boxes):
    """Pictures with boxes, and beside them the regions (n, 4) proposed in each, found once."""

    regions: list[Tensor] = field(default_factory=list)

    def __getitems__(self, indices: Sequence[int]) -> Any:
        images, targets = super().__getitems__(indices)
        return {"images": images, "regions": [self.regions[i] for i in indices]}, targets


def propose(dataset: Boxes, most: int = 50) -> Proposed:
    """The same pictures with at most so many regions each."""
    return Proposed(**vars(dataset), regions=[colour_regions(image)[:most] for image in dataset.images])


def shaken(dataset: Proposed, share: float = 0.15, seed: int = 0) -> Proposed:
    """The same pictures with each region moved at random by up to a share of its width and height."""
    generator = torch.Generator().manual_seed(seed)
    regions = []
    for some in dataset.regions:
        shift = (2 * torch.rand(len(some), 2, generator=generator) - 1) * share * (some[:, 2:] - some[:, :2])
        regions.append(within(some + shift.repeat(1, 2), dataset.images.shape[-2:]))
    return replace(dataset, regions=regions)


def what_moving_gains(model: Any, dataset: Proposed, device: torch.device) -> tuple[float, float]:
    """Mean average precision on regions that were shaken, left where they are and moved by the network's codes."""
    rough = shaken(dataset)
    model.adjusts = False
    left = evaluate(model, rough, device)["map"]
    model.adjusts = True
    return left, evaluate(model, rough, device)["map"]


def moved_along(inputs: Any, targets: Detections) -> tuple[Any, Detections]:
    """Pictures shifted and zoomed, and both their objects and the proposed regions with them."""
    joined = [
        {
            "boxes": torch.cat([target["boxes"], regions]),
            "labels": torch.cat([target["labels"], torch.full((len(regions),), -1, device=regions.device)]),
        }
        for target, regions in zip(targets, inputs["regions"], strict=True)
    ]
    images, joined = shift_and_zoom(inputs["images"], joined)
    regions = [one["boxes"][one["labels"] < 0] for one in joined]
    targets = [{key: value[one["labels"] >= 0] for key, value in one.items()} for one in joined]
    return {"images": images, "regions": regions}, targets
