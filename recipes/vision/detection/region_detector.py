"""What R-CNN and Fast R-CNN share: a head that judges regions by their features, and its loss."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.vision.detection.boxes import Detections, decode, encode, nms
from recipes.vision.detection.proposals import sample, within


class RegionDetector(nn.Module):
    """From a region's features to its class, or background, and how to move and stretch it onto the object.

    In training it takes the targets too and returns the loss, else `Detections`. Subclasses give the features of
    regions (batch, R, 4) in pictures, (batch, R, `inputs`).
    """

    def __init__(self, num_classes: int, inputs: int, samples: int) -> None:
        super().__init__()
        self.num_classes, self.samples = num_classes, samples
        self.hidden = nn.Linear(inputs, 128)
        self.heads = nn.Linear(128, 1 + 5 * num_classes)  # logits of background and classes, four codes a class

    def features_under(self, images: Tensor, regions: Tensor) -> Tensor:
        raise NotImplementedError

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
        return [self.detect(*self.raw(image[None], own[None]))[0] for image, own in pairs]

    def detect(self, scores: Tensor, boxes: Tensor, overlap: float = 0.4) -> Detections:
        """The boxes with the highest scores that are left by non-maximum suppression, class by class."""
        found = []
        for picture_scores, picture_boxes in zip(scores, boxes, strict=True):
            box, label = (picture_scores > 0.02).nonzero(as_tuple=True)
            best = picture_scores[box, label].topk(min(400, len(box))).indices
            box, label = box[best], label[best]
            kept = nms(picture_boxes[box, label], picture_scores[box, label], overlap, label)[:100]
            box, label = box[kept], label[kept]
            found.append({"boxes": picture_boxes[box, label], "scores": picture_scores[box, label], "labels": label})
        return found

    def loss(self, images: Tensor, regions: list[Tensor], targets: Detections) -> Tensor:
        """Cross-entropy of a balanced sample of the regions, and smooth L1 of the codes of those on objects."""
        labels, goals, chosen = [], [], []
        for offered, target in zip(regions, targets, strict=True):
            offered = torch.cat([offered, target["boxes"]])  # the true boxes are good examples
            picked, matched = sample(target["boxes"], offered, high=0.5, low=0.5, count=self.samples)
            on = matched >= 0
            labels.append(torch.zeros_like(picked).masked_scatter(on, target["labels"][matched[on]] + 1))
            goals.append(encode(target["boxes"][matched[on]], offered[picked[on]]))
            missing = self.samples - len(picked)  # as many in each picture: those that lack do not count
            chosen.append(F.pad(offered[picked], (0, 0, 0, missing)))
        logits, codes = self.judge(self.features_under(images, torch.stack(chosen)))
        counts = torch.stack([torch.arange(self.samples, device=images.device) < len(label) for label in labels])
        label = torch.cat(labels)
        on = label > 0
        location = F.smooth_l1_loss(codes[counts][on, label[on] - 1], torch.cat(goals), reduction="sum")
        return F.cross_entropy(logits[counts], label) + location / on.sum().clamp(min=1)
