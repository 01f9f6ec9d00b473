"""SSD: default boxes on maps of several scales, classified and adjusted in one stage.

Every cell of every map has four default boxes of fixed sizes and shapes: small ones on the fine maps, large ones on
the coarse. One convolution per map classifies each, background included, and predicts how to move and stretch it.
In training, default boxes are matched to the object that they overlap by half, and each object to the one that
overlaps it most; of the background, the three hardest for each matched one enter the loss. Non-maximum suppression
keeps the highest score of boxes of a class that overlap.

Notes: 83
Paper: Liu et al. (2016), "SSD: Single Shot MultiBox Detector", https://arxiv.org/abs/1512.02325
Data: digits of four kinds on clutter, 64×64 pixels; yours as COCO, Pascal VOC, or PNG masks of numbered objects. For
    photos add --backbone timm:tf_efficientnet_lite0 --weights pretrained --steps 300 --lr 2e-3
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure, show_picture
from recipes.core.frame import Claim, Loop, Result, batches, main, option, predict, recipe
from recipes.datasets.scenes import Boxes
from recipes.vision.detection.backbone import backbone_features, parameter_groups
from recipes.vision.detection.boxes import Detections, box_iou, decode, encode, nms
from recipes.vision.detection.drawing import draw_frames, show_boxes
from recipes.vision.detection.features import DetectorOptions, augment, conv_block, open_pictures
from recipes.vision.detection.scoring import commonest_places, evaluate
from recipes.vision.detection.torchvision_detectors import torchvision_detector
from recipes.vision.detection.using import Detection


@dataclass(kw_only=True)
class SSDOptions(DetectorOptions):
    width: int = option(16, "channels of the small network at half the picture's size", least=1)
    maps: int | None = option(None, "maps that predict, from the finest; all of them if not given", least=1)
    mining: Literal["hard", "random", "all"] = option("hard", "which background boxes enter the loss")
    overlap: float = option(0.45, "largest IoU of two boxes of a class that are both kept", least=0, most=1)
    epochs: int = 7
    batch_size: int = 16
    lr: float = 8e-3


class SSD(nn.Module):
    """A small network (or given features, and more layers) whose maps, down to about 4×4 cells, all predict.

    It returns logits and codes of all default boxes in training, else `Detections` with the map's level of each box.
    """

    defaults: Tensor
    levels: Tensor

    def __init__(self, num_classes: int, image_size: int, options: SSDOptions, features: Any = None) -> None:
        super().__init__()
        self.num_classes, self.image_size, self.overlap, width = num_classes, image_size, options.overlap, options.width
        self.stem = features or nn.Sequential(conv_block(3, width, 2), conv_block(width, width))
        finest, step, inputs = (4, 2, width) if features is None else (features.stride, 1, features.channels)
        width = width if features is None else inputs // 4
        count = max(2, round(math.log2(image_size / finest / 2)))
        self.strides = [finest * 2**level for level in range(count)][: options.maps]
        channels = ([inputs, 2 * width] + [4 * width] * (count - 1))[: len(self.strides) + 1]
        self.stages = nn.ModuleList()
        for thin, wide in pairwise(channels):
            self.stages.append(nn.Sequential(conv_block(thin, wide, step), conv_block(wide, wide)))
            step = 2
        # Each of a cell's four default boxes gets a logit for background and every class, and four codes.
        self.heads = nn.ModuleList(nn.Conv2d(wide, 4 * (1 + num_classes + 4), 3, padding=1) for wide in channels[1:])
        boxes = [default_boxes(math.ceil(image_size / stride), stride) for stride in self.strides]
        levels = torch.arange(len(boxes)).repeat_interleave(torch.tensor([len(one) for one in boxes]))
        self.register_buffer("defaults", torch.cat(boxes), persistent=False)  # (D, 4) corners
        self.register_buffer("levels", levels, persistent=False)  # (D,)

    def logits_and_codes(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, answers = self.stem(images), []
        for stage, head in zip(self.stages, self.heads, strict=True):
            features = stage(features)  # (batch, channels, rows, columns), half as many rows as before
            maps = head(features)  # (batch, 4 · (1 + classes + 4), rows, columns)
            answers.append(maps.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 1 + self.num_classes + 4)))
        logits, codes = torch.cat(answers, dim=1).split([1 + self.num_classes, 4], dim=2)
        return logits, codes  # (batch, D, 1 + classes) and (batch, D, 4)

    def raw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, D, 1 + classes; 0 is background) and boxes (batch, D, 4; corners in pixels), unsuppressed."""
        logits, codes = self.logits_and_codes(images)
        return logits, decode(codes, self.defaults).clamp(0, self.image_size)

    def forward(self, images: Tensor) -> Any:
        return self.logits_and_codes(images) if self.training else self.detect(*self.raw(images))

    def detect(self, logits: Tensor, boxes: Tensor, most: int = 100) -> Detections:
        """The boxes with the highest scores that are left by non-maximum suppression, class by class."""
        found = []
        for picture_boxes, scores in zip(boxes, logits.softmax(dim=2)[:, :, 1:], strict=True):
            best = scores.flatten().topk(min(4 * most, scores.numel()))  # scores: (D, classes)
            chosen = best.indices[best.values > 0.02]
            box, label = chosen // self.num_classes, chosen % self.num_classes
            kept = nms(picture_boxes[box], scores[box, label], label, self.overlap)[:most]
            box, label = box[kept], label[kept]
            answer = {"boxes": picture_boxes[box], "scores": scores[box, label], "labels": label}
            found.append(answer | {"levels": self.levels[box]})
        return found


def default_boxes(rows: int, stride: int) -> Tensor:
    """Corners (rows · rows · 4, 4) of each cell's four default boxes: 1:1, 1:2, 2:1, and a larger 1:1."""
    middle = (torch.arange(rows) + 0.5) * stride
    centers = torch.cartesian_prod(middle, middle).flip(1).unsqueeze(1)  # (rows · rows, 1, 2)
    half = math.sqrt(0.5)
    shapes = torch.tensor([[1, 1], [half, 2 * half], [2 * half, half], [2 * half, 2 * half]]) * 2.5 * stride  # (4, 2)
    return torch.cat([centers - shapes / 2, centers + shapes / 2], dim=2).view(-1, 4)


def match(boxes: Tensor, defaults: Tensor, threshold: float = 0.5) -> Tensor:
    """The index of the object (objects, 4) that each default box (D, 4) is matched to, (D,); -1 is background."""
    if len(boxes) == 0:
        return torch.full((len(defaults),), -1, device=defaults.device)
    overlaps = box_iou(boxes, defaults)  # (objects, D)
    overlap, matched = overlaps.max(dim=0)  # (D,) the best object for each default box
    matched[overlap < threshold] = -1
    matched[overlaps.argmax(dim=1)] = torch.arange(len(boxes), device=boxes.device)  # the best default box for each
    return matched


def ssd_loss(logits: Tensor, codes: Tensor, targets: Detections, defaults: Tensor, mining: str = "hard") -> Tensor:
    """Cross-entropy of the matched default boxes and of the mined background, and smooth L1 of the codes.

    Logits are (batch, D, 1 + classes), codes (batch, D, 4), default boxes (D, 4); targets hold true boxes and labels.
    """
    labels = torch.zeros(logits.shape[:2], dtype=torch.long, device=logits.device)  # 0 is background
    goals = torch.zeros_like(codes)
    for i, target in enumerate(targets):
        matched = match(target["boxes"], defaults)
        on_object = matched >= 0
        labels[i, on_object] = target["labels"][matched[on_object]] + 1
        goals[i, on_object] = encode(target["boxes"][matched[on_object]], defaults[on_object])
    positive = labels > 0  # (batch, D)

    losses = F.cross_entropy(logits.mT, labels, reduction="none")  # (batch, D)
    hardness = torch.rand_like(losses) if mining == "random" else losses.detach()
    rank = hardness.masked_fill(positive, -1).argsort(dim=1, descending=True).argsort(dim=1)
    counted = positive | (rank < 3 * positive.sum(dim=1, keepdim=True))
    classification = losses.sum() if mining == "all" else losses[counted].sum()
    location = F.smooth_l1_loss(codes[positive], goals[positive], reduction="sum")
    return (classification + location) / positive.sum().clamp(min=1)


def build(options: SSDOptions, data: Boxes) -> SSD:
    """The network for pictures of that size and classes like these."""
    return SSD(len(data.classes), data.image_size, options, backbone_features(options, data))


def train(model: SSD, train_set: Boxes, options: SSDOptions) -> Loop:
    """Minimizes `ssd_loss` with AdamW on shifted and scaled pictures."""
    optimizer = torch.optim.AdamW(parameter_groups(model, options.lr), weight_decay=0.01)
    loop = Loop(model, optimizer, batches(train_set, options), options)
    for images, targets in loop:
        images, targets = augment(images, targets, photos=options.backbone is not None, mirror=options.mirror)
        logits, codes = loop.model(images)
        loop.step(ssd_loss(logits, codes, targets, model.defaults, options.mining))
    return loop


@recipe(SSDOptions)
def run(options: SSDOptions) -> Result:
    """Trains SSD and scores it on held-out pictures."""
    train_set, test_set = open_pictures(options)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=commonest_places(train_set, test_set),
        baseline_name="commonest places",
        bars={"map_50": 0.9},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full = run()
    sides, levels = sides_and_levels(full)
    small = sides <= sides.median()
    share, of_larger = ((levels[half] == 0).double().mean().item() for half in (small, ~small))
    yield Claim("the finest map finds smaller objects rather than larger: its share", share, ">", of_larger, margin=0.1)
    sized = {"image_size": 2 * full.model.image_size, "epochs": 3} if full.options["data"] is None else {}
    every, finest = (run(**sized, **changed)["map_50"] for changed in ({}, {"maps": 1}))
    yield Claim("where objects are large, it does worse alone", finest, "<", every, margin=0.1)
    flood, few = run(mining="all")["map_50"], run(mining="random")["map_50"]
    yield Claim("with all the background in the loss, SSD does worse", flood, "<", full["map_50"], margin=0.1)
    middle = (flood + full["map_50"]) / 2
    yield Claim("that is a matter of balance: three at random win back most of it", few, ">", middle, margin=0.05)
    keeps_all = copy.deepcopy(full.model)
    keeps_all.overlap = 1.0
    twice = evaluate(keeps_all, full.test_set, keeps_all.defaults.device)["map_50"]
    yield Claim("without non-maximum suppression it does worse", twice, "<", full["map_50"], margin=0.1)
    matched = torch.stack([match(boxes, full.model.defaults.cpu()) >= 0 for boxes in full.train_set.boxes])
    share = matched.double().mean().item()
    yield Claim("few default boxes are matched to an object: their share", share, "<", 0.05, kind="fact")


def sides_and_levels(result: Result) -> tuple[Tensor, Tensor]:
    """Each held-out object's side in pixels, and the level of the map that found it with a score of half, or -1."""
    dataset, levels = result.test_set, []
    answers = predict(result.model, dataset, result.model.defaults.device, batch_size=32)
    for found, boxes, labels in zip(answers, dataset.boxes, dataset.labels, strict=True):
        right = (labels[:, None] == found["labels"]) & (found["scores"] >= 0.5)
        right &= box_iou(boxes, found["boxes"]) >= 0.5
        levels += [int(found["levels"][row][0]) if row.any() else -1 for row in right]  # the highest score is first
    boxes = torch.cat(dataset.boxes)
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt(), torch.tensor(levels)


@run.figure
def figure(result: Result) -> Any:
    """The objects that each map finds, by size; on one picture its matched default boxes, and what is found."""
    dataset, model, (sides, levels) = result.test_set, copy.deepcopy(result.model).cpu(), sides_and_levels(result)
    index = max(range(len(dataset)), key=lambda one: len(dataset.boxes[one]))
    image, target = dataset.images[index], dataset.__getitems__([index])[1][0]
    picture, axes = new_figure(1, len(model.strides) + 2, width=2.8, height=2.8)
    by_level = [sides[levels == level].tolist() for level in range(len(model.strides))]
    axes[0, 0].hist(by_level, bins=12, stacked=True, label=[f"stride {stride}" for stride in model.strides])
    axes[0, 0].set(xlabel="side of the object (pixels)", ylabel="objects found")
    axes[0, 0].legend(frameon=False, fontsize=7)
    matched = match(target["boxes"], model.defaults) >= 0
    for level, panel in enumerate(axes[0, 1:-1]):
        chosen = model.defaults[matched & (model.levels == level)]
        show_picture(panel, image, f"stride {model.strides[level]}: {len(chosen)} default boxes")
        draw_frames(panel, chosen, "gold")
        draw_frames(panel, target["boxes"], "white", "--")
    show_boxes(axes[0, -1], image, predict(model, dataset, torch.device("cpu"), 32)[index], target, dataset.classes)
    return picture


run.predicts(Detection, build, torchvision_detector)


if __name__ == "__main__":
    main(run)
