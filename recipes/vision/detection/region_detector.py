"""What R-CNN and Fast R-CNN share: a head that judges regions by their features, and its loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.vision.detection.boxes import Detections, box_iou, decode, encode, nms
from recipes.vision.detection.proposals import within


class RegionDetector(nn.Module):
    """From a region's features to its class, or background, and how to move and stretch it onto the object.

    In training it takes the targets too and returns the loss, else `Detections`. Subclasses give the features of
    regions (batch, R, 4) in pictures, (batch, R, `inputs`).
    """

    features_under: Callable[[Tensor, Tensor], Tensor]

    def __init__(self, num_classes: int, inputs: int, samples: int) -> None:
        super().__init__()
        self.num_classes, self.samples = num_classes, samples
        self.hidden = nn.Linear(inputs, 128)
        self.heads = nn.Linear(128, 1 + 5 * num_classes)  # logits of background and classes, four codes a class

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, R, 1 + classes; 0 is background) and codes (batch, R, classes, 4)."""
        answers = self.heads(self.hidden(features).relu()).float()
        logits, codes = answers.split([1 + self.num_classes, 4 * self.num_classes], dim=2)
        return logits, codes.unflatten(2, (self.num_classes, 4))

    def raw(self, images: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (batch, R, classes) and boxes (batch, R, classes, 4; in pixels), unsuppressed."""
        logits, codes = self.judge(self.features_under(images, regions))
        boxes = decode(codes.transpose(1, 2), regions[:, None]).transpose(1, 2)  # moved for each class
        return logits.softmax(dim=2)[..., 1:], within(boxes, images.shape[2:])

    def forward(self, inputs: Any, targets: Detections | None = None) -> Any:
        images, regions = inputs
        if targets is not None:
            return self.loss(images, regions, targets)
        pairs = zip(images, regions, strict=True)  # one by one: thousands of regions take room
        return [self.detect(*self.raw(image[None], own[None])) for image, own in pairs]

    def detect(self, scores: Tensor, boxes: Tensor, overlap: float = 0.4) -> dict[str, Tensor]:
        """Of one picture, the boxes with the highest scores that are left by non-maximum suppression by class."""
        scores, boxes = scores.flatten(), boxes.flatten(0, 2)  # region by region, of each the classes
        found = (scores > 0.02).nonzero()[:, 0]
        best = found[scores[found].topk(min(400, len(found))).indices]
        kept = best[nms(boxes[best], scores[best], best % self.num_classes, overlap)[:100]]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": kept % self.num_classes}

    def loss(self, images: Tensor, regions: list[Tensor], targets: Detections) -> Tensor:
        """Cross-entropy of a balanced sample of the regions, and smooth L1 of the codes of those on objects."""
        labels, goals, chosen = [], [], []
        for offered, target in zip(regions, targets, strict=True):
            offered = torch.cat([offered, target["boxes"]])  # the true boxes are good examples
            picked, matched = sample_regions(target["boxes"], offered, self.samples)
            on, missing = matched >= 0, (0, self.samples - len(picked))  # as many in each picture, those lacking as -1
            label = torch.zeros_like(picked).masked_scatter(on, target["labels"][matched[on]] + 1)
            labels.append(F.pad(label, missing, value=-1))
            goals.append(encode(target["boxes"][matched[on]], offered[picked[on]]))
            chosen.append(F.pad(offered[picked], (0, 0, *missing)))
        logits, codes = self.judge(self.features_under(images, torch.stack(chosen)))
        label = torch.stack(labels)  # (batch, samples)
        on = label > 0
        location = F.smooth_l1_loss(codes[on, label[on] - 1], torch.cat(goals), reduction="sum") / on.sum().clamp(min=1)
        return location + F.cross_entropy(logits.flatten(0, 1), label.flatten(), ignore_index=-1)


def sample_regions(true: Tensor, regions: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """A random sample of regions (R, 4), at most half of them on true boxes (objects, 4), which they overlap by half.

    Returns:
        Indices of the regions chosen, and for each the index of its object, or -1 for background.
    """
    overlap, matched = box_iou(F.pad(true, (0, 0, 0, 1)), regions).max(dim=0)  # an empty box, if there is none
    on = overlap >= 0.5
    positive, negative = on.nonzero()[:, 0], (~on).nonzero()[:, 0]
    positive = positive[torch.randperm(len(positive), device=true.device)][: count // 2]
    negative = negative[torch.randperm(len(negative), device=true.device)][: count - len(positive)]
    return torch.cat([positive, negative]), torch.cat([matched[positive], torch.full_like(negative, -1)])
