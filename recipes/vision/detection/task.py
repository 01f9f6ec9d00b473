"""Object detection with center points, and how detections are scored.

A detector says what is where: a box, a label and a score for every object it finds. The simplest one treats an
object as a point. A convolutional network paints one heat map for each class, which peaks at the centers of objects,
and beside it predicts for every cell how far away the four sides of an object centered there would be. The peaks,
with those sides, are the detections.

They are scored by mean average precision. From the detection with the highest score down, each is right if it
overlaps an object of its class by enough that no earlier one has taken, and wrong otherwise; precision is averaged
over recall for each class, then over the classes.

The paper learns a box in the cell of the center alone. Here all cells near the center learn it, weighted by the heat
that they should have, and it is judged by how far it overlaps the object rather than by its size in cells.

Notes: 83
Paper: Zhou, Wang and Krähenbühl (2019), "Objects as Points", https://arxiv.org/abs/1904.07850; boxes as in Liu,
    Zheng, Xu, Yang, Liu and Cai (2020), "Training-Time-Friendly Network", https://arxiv.org/abs/1909.00700
Data: handwritten digits of four kinds on cluttered backgrounds, 64×64 pixels; yours as COCO, Pascal VOC, or PNG masks
    of numbered objects. For photos add
    --backbone timm:tf_efficientnet_lite0 --weights pretrained --steps 300 --lr 2e-3
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, Loop, Result, batches, main, option, recipe
from recipes.datasets.scenes import Boxes
from recipes.vision.detection.backbone import backbone_features, parameter_groups
from recipes.vision.detection.boxes import Detections, giou
from recipes.vision.detection.drawing import draw_detections
from recipes.vision.detection.features import DetectorOptions, SmallFeatures, augment, open_pictures
from recipes.vision.detection.scoring import commonest_places, evaluate, mean_average_precision, truths
from recipes.vision.detection.torchvision_detectors import torchvision_detector
from recipes.vision.detection.using import Detection


@dataclass(kw_only=True)
class CenterNetOptions(DetectorOptions):
    width: int = option(16, "channels of the small network's first convolution", least=1)
    moved: bool = option(True, "move and scale the training pictures")
    epochs: int = 16
    lr: float = 8e-3


class CenterNet(nn.Module):
    """Heat maps of centers, and the box that each cell would give an object, over one map of features.

    It returns heat and boxes in training, as `center_loss` takes them, else `Detections`.
    """

    def __init__(self, num_classes: int, features: Any) -> None:
        super().__init__()
        self.features, self.num_classes, self.stride = features, num_classes, features.stride
        self.heads = nn.Conv2d(features.channels, num_classes + 4, 1)
        start = [-math.log(99)] * num_classes + [0.0] * 4  # centers are rare: the heat starts at 1 %
        self.heads.bias = nn.Parameter(torch.tensor(start))
        self.peaks_only = True

    def heat_and_boxes(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the heat (batch, classes, rows, columns), and boxes (batch, 4, rows, columns; in pixels)."""
        logits, sides = self.heads(self.features(images)).float().split([self.num_classes, 4], dim=1)
        rows, columns = sides.shape[2:]
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        middle = (torch.stack([x, y]) + 0.5).to(sides)  # (2, rows, columns)
        sides = sides.clamp(max=6).exp()  # distances left, up, right and down, in cells
        return logits, self.stride * torch.cat([middle - sides[:, :2], middle + sides[:, 2:]], dim=1)

    def raw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (batch, cells, classes), 0 beside the peaks, and boxes (batch, cells, 4; corners in pixels)."""
        logits, boxes = self.heat_and_boxes(images)
        heat = logits.sigmoid()
        if self.peaks_only:
            colder = logits - F.max_pool2d(logits, 3, stride=1, padding=1)
            heat = heat * (1 + 5000 * colder).clamp(min=0)  # 0 beside a warmer cell; as warm but for rounding, it stays
        return heat.flatten(2).mT, boxes.flatten(2).mT.clamp(0, images.shape[3])

    def forward(self, images: Tensor) -> Any:
        return self.heat_and_boxes(images) if self.training else self.detect(*self.raw(images))

    def detect(self, scores: Tensor, boxes: Tensor, most: int = 100) -> Detections:
        """The boxes of the highest scores."""
        found = []
        for picture_scores, picture_boxes in zip(scores, boxes, strict=True):
            best = picture_scores.flatten().topk(min(most, picture_scores.numel()))
            chosen = best.indices[best.values > 0.01]
            cell, label = chosen // self.num_classes, chosen % self.num_classes
            found.append({"boxes": picture_boxes[cell], "scores": picture_scores[cell, label], "labels": label})
        return found


def center_loss(logits: Tensor, boxes: Tensor, targets: Detections, stride: int) -> Tensor:
    """Focal loss of the heat, and 1 - GIoU of the boxes that cells near a center give.

    Logits are (batch, classes, rows, columns), boxes (batch, 4, rows, columns; corners in pixels), with `stride` pixels
    to a cell; targets hold the true boxes and labels of each picture.
    """
    batch, num_classes, rows, columns = logits.shape
    true = torch.cat([target["boxes"] for target in targets])  # (objects, 4)
    labels = torch.cat([target["labels"] for target in targets])
    counts = torch.tensor([len(target["labels"]) for target in targets], device=logits.device)
    picture = torch.arange(batch, device=logits.device).repeat_interleave(counts)  # (objects,) the one it is in
    center, size = (true[:, :2] + true[:, 2:]) / 2 / stride, (true[:, 2:] - true[:, :2]) / stride  # in cells
    column = center[:, 0].long().clamp(0, columns - 1)
    row = center[:, 1].long().clamp(0, rows - 1)

    # The heat to learn: a bell over each object, 1 in the cell of its center, and wider for a larger object
    # (the paper takes the width from an overlap of 0.7). Where two bells meet, the higher counts.
    across = (torch.arange(columns, device=logits.device) - column[:, None]) / (size[:, :1] / 8 + 0.2)
    down = (torch.arange(rows, device=logits.device) - row[:, None]) / (size[:, 1:] / 8 + 0.2)
    bells = torch.exp(-(across[:, None, :] ** 2 + down[:, :, None] ** 2) / 2)  # (objects, rows, columns)
    heat = logits.new_zeros(batch * num_classes, rows, columns)
    map_of = (picture * num_classes + labels)[:, None, None].expand_as(bells)
    heat = heat.scatter_reduce(0, map_of, bells, "amax").view_as(logits)

    # Focal loss: cells already right count little, and cells beside a center are forgiven for being warm.
    p = logits.sigmoid()
    centers = (1 - p) ** 2 * F.logsigmoid(logits)
    others = (1 - heat) ** 4 * p**2 * F.logsigmoid(-logits)
    focal = -torch.where(heat == 1, centers, others).sum() / max(len(true), 1)

    thing, y, x = (bells > 0.5).nonzero(as_tuple=True)  # pairs of an object and a cell near it
    weight = bells[thing, y, x]
    far = 1 - giou(boxes[picture[thing], :, y, x], true[thing])
    return focal + 5 * (weight * far).sum() / weight.sum().clamp(min=1)


def build(options: CenterNetOptions, data: Boxes) -> CenterNet:
    """The network for classes like these."""
    return CenterNet(len(data.classes), backbone_features(options, data) or SmallFeatures(options.width))


def train(model: CenterNet, train_set: Boxes, options: CenterNetOptions) -> Loop:
    """Minimizes `center_loss` with AdamW on shifted and scaled pictures."""
    optimizer = torch.optim.AdamW(parameter_groups(model, options.lr), weight_decay=0.01)
    loop = Loop(model, optimizer, batches(train_set, options), options)
    for images, targets in loop:
        if options.moved:
            images, targets = augment(images, targets, photos=options.backbone is not None, mirror=options.mirror)
        logits, boxes = loop.model(images)
        loop.step(center_loss(logits, boxes, targets, model.stride))
    return loop


@recipe(CenterNetOptions)
def run(options: CenterNetOptions) -> Result:
    """Trains a detector and scores it on held-out pictures."""
    train_set, test_set = open_pictures(options)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=commonest_places(train_set, test_set),
        baseline_name="commonest places",
        bars={"map_50": 0.85},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full = run()
    yield from on_the_metric(truths(full.test_set))
    keeps_all = copy.deepcopy(full.model)
    keeps_all.peaks_only = False
    warm = evaluate(keeps_all, full.test_set, keeps_all.heads.weight.device)["map_50"]
    yield Claim(
        "warm cells beside a peak find its object again: with them it does worse", warm, "<", full["map_50"], margin=0.1
    )
    still = run(moved=False)["map_75"]
    text = "trained on pictures that are not moved and scaled, its boxes are less exact: map_75"
    yield Claim(text, still, "<", full["map_75"], margin=0.03)


def on_the_metric(true: Detections) -> Iterator[Claim]:
    """What the metric says of the true boxes, given as detections and altered in two ways."""
    moved, twice = [], []
    for target in true:
        boxes, labels = target["boxes"], target["labels"]
        shift = (boxes[:, 2:3] - boxes[:, :1]) * torch.tensor([0.25, 0, 0.25, 0])
        moved.append({"boxes": boxes + shift, "labels": labels, "scores": torch.ones(len(labels))})
        double = {"boxes": boxes.repeat_interleave(2, dim=0), "labels": labels.repeat_interleave(2)}
        twice.append(double | {"scores": torch.ones(2 * len(labels))})
    scores = mean_average_precision(moved, true)
    text = "true boxes moved by a quarter of their width (IoU 0.6) count at an overlap of 0.5, not at 0.75: map_75"
    yield Claim(text, scores["map_75"], "<", scores["map_50"] - 0.9, kind="fact")
    repeated = mean_average_precision(twice, true)["map_50"]
    yield Claim("true boxes given twice with equal scores lose nearly half: map_50", repeated, "<", 0.6, kind="fact")


@run.figure
def figure(result: Result) -> Any:
    return draw_detections(result.model, result.test_set, next(result.model.parameters()).device, result.history)


run.predicts(Detection, build, torchvision_detector)


if __name__ == "__main__":
    main(run)
