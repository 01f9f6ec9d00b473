"""SSD: default boxes on maps of several scales, classified and adjusted in one stage.

Over every cell of every map stand a few default boxes of set sides and shapes: small ones on the fine
maps, large ones on the coarse. One convolution a map says for each of them which class it holds, if any,
and how to move and stretch it onto the object. In training a default box that overlaps an object by half
answers for it, and so does the best one of each object; nearly all the others hold nothing, so only the
most mistaken of them, three for each that holds an object, enter the loss. What several boxes find
together is thinned by non-maximum suppression.

Notes: 83
Paper: Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg (2016), "SSD: Single Shot MultiBox Detector",
    https://arxiv.org/abs/1512.02325
Data: scenes with handwritten digits on clutter, 64×64; yours as COCO, Pascal VOC or PNG masks.
"""

import math
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.device import setup
from recipes.core.evaluation import predict
from recipes.core.loop import Engine, Loop, one_cycle
from recipes.core.result import Claim, Result, recipe
from recipes.datasets.loading import batches
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.options import main
from recipes.vision.detection.task import (
    Detections,
    box_iou,
    commonest_places,
    conv_block,
    draw_detections,
    evaluate,
    nms,
    shift_and_zoom,
    truths,
)

VARIANCES = (0.1, 0.1, 0.2, 0.2)  # the usual spread of each code, which they are divided by


class SSD(nn.Module):
    """A small convolutional backbone, whose maps at strides 4, 8, 16, … each predict boxes.

    In training it gives class logits and codes of all default boxes, in evaluation `Detections`, with
    the number of the map that found each box under `levels`.

    Args:
        num_classes: without background.
        image_size: side of the pictures in pixels; it sets the number of maps, the last is about 4×4.
        width: channels of the first convolution.
    """

    def __init__(self, num_classes: int, image_size: int, *, width: int = 16) -> None:
        super().__init__()
        self.num_classes, self.image_size = num_classes, image_size
        self.stem = nn.Sequential(conv_block(3, width, 2), conv_block(width, width))
        levels = max(2, round(math.log2(image_size / 8)))
        channels = [width, 2 * width] + [4 * width] * (levels - 1)
        self.stages = nn.ModuleList(
            nn.Sequential(conv_block(channels[i], channels[i + 1], 2), conv_block(channels[i + 1], channels[i + 1]))
            for i in range(levels)
        )
        shapes = 4  # default boxes over a cell
        self.heads = nn.ModuleList(
            nn.Conv2d(count, shapes * (num_classes + 1 + 4), 3, padding=1) for count in channels[1:]
        )
        rows = image_size
        boxes, numbers = [], []
        for level in range(levels):
            stride = 4 * 2**level
            rows = -(-image_size // stride)
            boxes.append(default_boxes(rows, stride))
            numbers.append(torch.full((len(boxes[-1]),), level))
        self.register_buffer("defaults", torch.cat(boxes), persistent=False)  # (D, 4) centre, width, height
        self.register_buffer("levels", torch.cat(numbers), persistent=False)  # (D,)

    def forward(self, images: Tensor) -> Any:
        features, answers = self.stem(images), []
        for stage, head in zip(self.stages, self.heads, strict=True):
            features = stage(features)  # (batch, channels, rows, columns), half the rows of the stage before
            maps = head(features)  # (batch, shapes * (1 + classes + 4), rows, columns)
            answers.append(maps.permute(0, 2, 3, 1).reshape(len(images), -1, self.num_classes + 5))
        logits, codes = torch.cat(answers, dim=1).split([self.num_classes + 1, 4], dim=2)  # (batch, D, …)
        return (logits, codes) if self.training else self.detect(logits, codes)

    def detect(self, logits: Tensor, codes: Tensor, most: int = 100) -> Detections:
        """Of each picture the surest boxes that are left by non-maximum suppression, class by class."""
        scores = logits.softmax(dim=2)[:, :, 1:]  # (batch, D, classes); 0 is background
        boxes = decode(codes, self.defaults).clamp(0, self.image_size)  # (batch, D, 4)
        found = []
        for picture_boxes, picture_scores in zip(boxes, scores, strict=True):
            surest = picture_scores.flatten().topk(min(4 * most, picture_scores.numel()))
            places = surest.indices[surest.values > 0.02]
            chosen, labels = places // self.num_classes, places % self.num_classes
            score = picture_scores[chosen, labels]
            stays = nms(picture_boxes[chosen], score, 0.45, labels)[:most]
            found.append({
                "boxes": picture_boxes[chosen[stays]],
                "scores": score[stays],
                "labels": labels[stays],
                "levels": self.levels[chosen[stays]],
            })
        return found


def default_boxes(rows: int, stride: int) -> Tensor:
    """The default boxes of a map: four over the middle of each cell.

    Their side is 2.5 strides, in the shapes 1:1, 1:2 and 2:1, and once more 1:1, between this map's side
    and the next one's.

    Returns:
        (rows * rows * 4, 4) centre, width and height in pixels, row by row.
    """
    side = 2.5 * stride
    middle = (torch.arange(rows) + 0.5) * stride
    down, across = torch.meshgrid(middle, middle, indexing="ij")
    half = math.sqrt(0.5)
    shapes = torch.tensor([[1, 1], [half, 2 * half], [2 * half, half], [2 * half, 2 * half]]) * side  # (4, 2)
    centres = torch.stack([across, down], dim=2).view(-1, 1, 2).expand(-1, 4, -1)  # (rows * rows, 4, 2)
    return torch.cat([centres, shapes.expand(len(centres), -1, -1)], dim=2).view(-1, 4)


def corners(boxes: Tensor) -> Tensor:
    """Left, top, right, bottom (…, 4) from centre, width and height (…, 4)."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def encode(boxes: Tensor, defaults: Tensor) -> Tensor:
    """What moves and stretches default boxes (N, 4; centre and size) onto boxes (N, 4; corners)."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    shift, stretch = (centre - defaults[:, :2]) / defaults[:, 2:], (size / defaults[:, 2:]).log()
    return torch.cat([shift, stretch], dim=1) / boxes.new_tensor(VARIANCES)


def decode(codes: Tensor, defaults: Tensor) -> Tensor:
    """The boxes (…, N, 4; corners) that codes (…, N, 4) make of default boxes (N, 4); undoes `encode`."""
    codes = codes * codes.new_tensor(VARIANCES)
    centre = defaults[:, :2] + codes[..., :2] * defaults[:, 2:]
    size = defaults[:, 2:] * codes[..., 2:].clamp(max=4).exp()
    return corners(torch.cat([centre, size], dim=-1))


def match(boxes: Tensor, defaults: Tensor, threshold: float = 0.5) -> Tensor:
    """Which object each default box answers for.

    Args:
        boxes: (objects, 4) true boxes, corners.
        defaults: (D, 4) centre and size.
        threshold: least overlap (IoU) at which a default box answers for an object.

    Returns:
        (D,) indices of objects, -1 for background. Each object has at least its best default box,
        unless two objects have the same one.
    """
    if len(boxes) == 0:
        return torch.full((len(defaults),), -1, device=defaults.device)
    overlaps = box_iou(boxes, corners(defaults))  # (objects, D)
    overlap, matched = overlaps.max(dim=0)  # the best object of each default box
    matched[overlap < threshold] = -1
    matched[overlaps.argmax(dim=1)] = torch.arange(len(boxes), device=boxes.device)
    return matched


def ssd_loss(logits: Tensor, codes: Tensor, targets: Detections, defaults: Tensor, negatives: float = 3) -> Tensor:
    """Cross-entropy of the matched default boxes and of the hardest others, and smooth L1 of the codes.

    Args:
        logits: (batch, D, 1 + classes).
        codes: (batch, D, 4).
        targets: the true boxes and labels of each picture.
        defaults: (D, 4).
        negatives: default boxes without an object that count, for each one with an object.
    """
    labels = torch.zeros(logits.shape[:2], dtype=torch.long, device=logits.device)  # 0 is background
    goals = torch.zeros_like(codes)
    for i, target in enumerate(targets):
        matched = match(target["boxes"], defaults)
        own = matched >= 0
        labels[i, own] = target["labels"][matched[own]] + 1
        goals[i, own] = encode(target["boxes"][matched[own]], defaults[own])
    positive = labels > 0  # (batch, D)

    each = F.cross_entropy(logits.mT, labels, reduction="none")  # (batch, D)
    # Hard negative mining: sort the background by its loss, and keep three for each positive.
    hardness = each.detach().masked_fill(positive, -1)
    rank = hardness.argsort(dim=1, descending=True).argsort(dim=1)
    hard = (rank < negatives * positive.sum(dim=1, keepdim=True)) & ~positive
    classification = each[positive | hard].sum()
    location = F.smooth_l1_loss(codes[positive], goals[positive], reduction="sum")
    return (classification + location) / positive.sum().clamp(min=1)


def train(
    model: SSD,
    train_set: Boxes,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    negatives: float = 3,
    **engine: Unpack[Engine],
) -> Loop:
    """Minimises the loss with AdamW; gives the loop with its history."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01),
        batches(train_set, batch_size, seed=seed),
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        **engine,
    )
    for images, targets in loop:
        images, targets = shift_and_zoom(images, targets)
        logits, codes = loop.model(images)
        loop.step(ssd_loss(logits, codes, targets, model.defaults, negatives))
    return loop
