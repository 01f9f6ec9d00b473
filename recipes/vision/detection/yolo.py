"""YOLO: one look at the picture, and every cell of a grid names its object.

The picture is divided into cells, and an object belongs to the cell that holds its center. One pass of a
convolutional network gives every cell two boxes, each with a confidence, and one guess of the class. The confidence
learns how far its box overlaps an object, so it should be 0 where there is none; multiplied by the probability of
the class it is the score. Of a cell's two boxes, the one that fits an object better is responsible for it and learns
from it. A cell names one class only, so a coarse grid misses objects that stand close together.

The loss is the paper's sum of squares, in which boxes count five times and empty cells half. The paper's fully
connected last layers are convolutions here, as in the versions that followed. On your pictures a rule of the third
version holds too: a box that overlaps an object by half, though another is responsible, does not count as empty. Else
boxes that fit an object alike, in one cell or in two neighbors, hold each other's confidence down.

Notes: 83
Paper: Redmon, Divvala, Girshick and Farhadi (2016), "You Only Look Once: Unified, Real-Time Object Detection",
    https://arxiv.org/abs/1506.02640; Redmon and Farhadi (2018), "YOLOv3", https://arxiv.org/abs/1804.02767
Data: handwritten digits of four kinds on cluttered backgrounds, 64×64 pixels; yours as COCO, Pascal VOC, or PNG masks
    of numbered objects. For photos add
    --backbone timm:tf_efficientnet_lite0 --weights pretrained --steps 300 --lr 2e-3
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import draw_curves, new_figure, show_picture
from recipes.core.frame import Claim, InputError, Loop, Result, batches, main, option, predict, recipe
from recipes.datasets.scenes import Boxes
from recipes.vision.detection.backbone import backbone_features, parameter_groups
from recipes.vision.detection.boxes import Detections, box_iou, nms
from recipes.vision.detection.drawing import draw_frames, show_boxes
from recipes.vision.detection.features import DetectorOptions, augment, conv_block, open_pictures
from recipes.vision.detection.scoring import commonest_places, evaluate, mean_average_precision, truths
from recipes.vision.detection.torchvision_detectors import torchvision_detector
from recipes.vision.detection.using import Detection


@dataclass(kw_only=True)
class YOLOOptions(DetectorOptions):
    stride: int | None = option(None, "side of a cell in pixels, a power of two; 8, or 16 with a backbone", least=2)
    width: int = option(12, "channels of the small network's first convolution", least=1)
    overlap: float = option(0.5, "largest IoU of two boxes of a class that are both kept", least=0, most=1)
    ignore: float | None = option(None, "IoU with an object above which no box counts as empty; yours: 0.5", most=1)
    epochs: int = 20
    batch_size: int = 16
    lr: float = 8e-3


class YOLO(nn.Module):
    """Convolutions that halve the picture until a position is a cell, and a last one for the cells' predictions.

    It returns codes, confidences and class logits of all cells in training, else `Detections`. `features` of that
    stride may take the place of the first convolutions.
    """

    def __init__(
        self, num_classes: int, *, stride: int = 8, width: int = 12, overlap: float = 0.5, features: Any = None
    ) -> None:
        super().__init__()
        if stride & (stride - 1):
            raise InputError(f"option stride: expected a power of two, got {stride}")
        self.num_classes, self.stride, self.overlap = num_classes, stride, overlap
        channels = [3] + [width * 2**level for level in range(stride.bit_length() - 1)]
        self.features = features or nn.Sequential(
            *(nn.Sequential(conv_block(thin, wide, 2), conv_block(wide, wide)) for thin, wide in pairwise(channels)),
            conv_block(channels[-1], 8 * width),
            conv_block(8 * width, 8 * width),
        )
        inputs = 8 * width if features is None else features.channels
        self.head = nn.Conv2d(inputs, 2 * 5 + num_classes, 1)  # two boxes of four codes and a confidence

    def cells(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (batch, rows, columns, 2, 4), confidences (…, 2), both from 0 to 1, and logits (…, classes)."""
        predictions = self.head(self.features(images)).permute(0, 2, 3, 1)  # (batch, rows, columns, 2 · 5 + classes)
        boxes, logits = predictions.float().split([2 * 5, self.num_classes], dim=3)
        codes, confidences = boxes.sigmoid().unflatten(3, (2, 5)).split([4, 1], dim=4)
        return codes, confidences.squeeze(4), logits

    def raw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (batch, D, classes) and boxes (batch, D, 4; corners in pixels) of all cells, unsuppressed."""
        codes, confidences, logits = self.cells(images)
        scores = confidences[..., None] * logits.softmax(dim=3)[:, :, :, None]  # (batch, rows, columns, 2, classes)
        height, width = images.shape[2:]
        return scores.flatten(1, 3), decode_cells(codes, (height, width), self.stride).flatten(1, 3)

    def forward(self, images: Tensor) -> Any:
        return self.cells(images) if self.training else self.detect(*self.raw(images))

    def detect(self, scores: Tensor, boxes: Tensor, most: int = 100) -> Detections:
        """The boxes with the highest scores that are left by non-maximum suppression, class by class."""
        found = []
        for picture_scores, picture_boxes in zip(scores, boxes, strict=True):
            best = picture_scores.flatten().topk(min(2 * most, picture_scores.numel()))
            chosen = best.indices[best.values > 0.01]
            box, label = chosen // self.num_classes, chosen % self.num_classes
            kept = nms(picture_boxes[box], picture_scores[box, label], label, self.overlap)[:most]
            box, label = box[kept], label[kept]
            answer = {"boxes": picture_boxes[box], "scores": picture_scores[box, label], "labels": label}
            found.append(answer | {"confidences": picture_scores[box].sum(dim=1)})  # probabilities sum to 1
        return found


def decode_cells(codes: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Boxes (batch, rows, columns, 2, 4), as corners within a picture of that height and width, from cells' codes.

    Codes are the center within the cell, and the roots of width and height as shares of the picture.
    """
    rows, columns = codes.shape[1:3]
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    corner = torch.stack([x, y], dim=2)[:, :, None].to(codes)  # (rows, columns, 1, 2)
    limit = codes.new_tensor([size[1], size[0]])
    center, half = stride * (corner + codes[..., :2]), codes[..., 2:] ** 2 * limit / 2
    return torch.cat([center - half, center + half], dim=-1).clamp(min=0).minimum(limit.repeat(2))


def yolo_loss(
    codes: Tensor,
    confidences: Tensor,
    logits: Tensor,
    targets: Detections,
    size: tuple[int, int],
    stride: int = 8,
    ignore: float = 1.0,
) -> Tensor:
    """Squared errors of boxes (five times), confidences (half where no object is) and class probabilities.

    Codes are (batch, rows, columns, 2, 4), see `decode_cells`, confidences (batch, rows, columns, 2), logits (batch,
    rows, columns, classes); targets hold the true boxes and labels of each picture of that height and width. The
    confidence of a box that overlaps an object by more than `ignore`, and is not responsible for it, does not count.
    """
    boxes = torch.cat([target["boxes"] for target in targets])  # (objects, 4)
    labels = torch.cat([target["labels"] for target in targets])
    counts = torch.tensor([len(target["labels"]) for target in targets], device=codes.device)
    picture = torch.arange(len(targets), device=codes.device).repeat_interleave(counts)  # (objects,) the one it is in
    center = (boxes[:, :2] + boxes[:, 2:]) / 2 / stride  # in cells
    share = (boxes[:, 2:] - boxes[:, :2]) / codes.new_tensor([size[1], size[0]])
    column = center[:, 0].long().clamp(0, codes.shape[2] - 1)
    row = center[:, 1].long().clamp(0, codes.shape[1] - 1)

    # The box of the cell that overlaps the object more is responsible: its confidence is to be that overlap.
    decoded = decode_cells(codes.detach(), size, stride)
    offered = decoded[picture, row, column]  # (objects, 2, 4)
    overlaps = torch.stack([box_iou(offered[:, slot], boxes).diagonal() for slot in range(2)], dim=1)
    overlap, slot = overlaps.max(dim=1)  # (objects,)

    # A finer grid than the paper's 7×7 has more boxes without an object, so location counts more; and sizes, which
    # are shares of the picture, once more, to keep up with centers, which are in cells.
    grid = codes.new_tensor([codes.shape[2], codes.shape[1]]).div(8).clamp(min=1)
    goal = torch.cat([center - torch.stack([column, row], dim=1), share.sqrt()], dim=1)  # (objects, 4)
    errors = (codes[picture, row, column, slot] - goal).square() * F.pad(grid, (2, 0), value=1.0)
    location = errors.sum() * grid.prod().sqrt()
    wanted, weight = torch.zeros_like(confidences), torch.full_like(confidences, 0.5)
    if ignore < 1:
        for i, target in enumerate(targets):
            near = (box_iou(decoded[i].flatten(0, 2), target["boxes"]) > ignore).any(dim=1)
            weight[i][near.view(weight[i].shape)] = 0.0
    wanted[picture, row, column, slot], weight[picture, row, column, slot] = overlap, 1.0
    confidence = (weight * (confidences - wanted).square()).sum()
    probabilities = logits[picture, row, column].softmax(dim=1)  # (objects, classes)
    classes = (probabilities - F.one_hot(labels, logits.shape[3])).square().sum()
    return (5 * location + confidence + classes) / len(targets)


def build(options: YOLOOptions, data: Boxes) -> YOLO:
    """The network for classes like these."""
    stride = options.stride or (8 if options.backbone is None else 16)
    given: Any = {"width": options.width, "overlap": options.overlap}
    return YOLO(len(data.classes), stride=stride, features=backbone_features(options, data, stride), **given)


def train(model: YOLO, train_set: Boxes, options: YOLOOptions) -> Loop:
    """Minimizes `yolo_loss` with AdamW on shifted and scaled pictures."""
    optimizer = torch.optim.AdamW(parameter_groups(model, options.lr), weight_decay=0.01)
    loop = Loop(model, optimizer, batches(train_set, options), options)
    ignore = options.ignore if options.ignore is not None else 1.0 if options.data is None else 0.5
    for images, targets in loop:
        images, targets = augment(images, targets, photos=options.backbone is not None, mirror=options.mirror)
        codes, confidences, logits = loop.model(images)
        size = images.shape[2], images.shape[3]
        loop.step(yolo_loss(codes, confidences, logits, targets, size, model.stride, ignore))
    return loop


@recipe(YOLOOptions)
def run(options: YOLOOptions) -> Result:
    """Trains YOLO and scores it on held-out pictures."""
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
    found, targets = detections(full), truths(full.test_set)
    overlaps, confidences = overlaps_and_confidences(found, targets)
    correlation = torch.corrcoef(torch.stack([confidences, overlaps]))[0, 1].nan_to_num().item()
    text = "a confidence tells how far its box overlaps an object: their correlation"
    yield Claim(text, correlation, ">", 0.5, margin=0.1)
    kinds = [picture | {"scores": picture["scores"] / picture["confidences"]} for picture in found]
    by_class = mean_average_precision(kinds, targets)["map_50"]
    text = "the probability of the class alone does not say how sure a box is: ranked by it, map_50 is lower"
    yield Claim(text, by_class, "<", full["map_50"], margin=0.1)
    keeps_all = copy.deepcopy(full.model)
    keeps_all.overlap = 1.0
    twice = evaluate(keeps_all, full.test_set, keeps_all.head.weight.device)["map_50"]
    yield Claim("without non-maximum suppression it does worse", twice, "<", full["map_50"], margin=0.02)
    coarse = run(stride=2 * full.model.stride)["map_50"]
    yield Claim("with cells twice as wide it does worse", coarse, "<", full["map_50"], margin=0.1)
    if full.options["data"] is None:
        here, wide = (unnamed(full.test_set, full.model.stride * factor) for factor in (1, 4))
        text = "with cells four times as wide, objects share one with another class, and only one is named: their share"
        yield Claim(text, wide, ">", here + 0.1, kind="fact")


def detections(result: Result) -> Detections:
    """What the model finds on the held-out pictures."""
    return predict(result.model, result.test_set, result.model.head.weight.device, batch_size=32)


def overlaps_and_confidences(found: Detections, targets: Detections) -> tuple[Tensor, Tensor]:
    """Of every box found its overlap (IoU) with the nearest object, and its confidence."""
    pairs = [(box_iou(p["boxes"], t["boxes"]), p["confidences"]) for p, t in zip(found, targets, strict=True)]
    overlaps = [overlap.amax(dim=1) if overlap.shape[1] else torch.zeros(len(overlap)) for overlap, _ in pairs]
    return torch.cat(overlaps), torch.cat([confidence for _, confidence in pairs])


def unnamed(dataset: Boxes, stride: int) -> float:
    """The share of objects in whose cell lies the center of one of another class."""
    rows = []
    for boxes, labels in zip(dataset.boxes, dataset.labels, strict=True):
        cell = (boxes[:, :2] + boxes[:, 2:]) / 2 // stride
        rows.append(((cell[:, None] == cell).all(dim=2) & (labels[:, None] != labels)).any(dim=1))
    return torch.cat(rows).double().mean().item()


@run.figure
def figure(result: Result) -> Any:
    """Overlap over confidence; of four crowded pictures the cells' confidences, and what is found."""
    dataset, model, found = result.test_set, copy.deepcopy(result.model).cpu().eval(), detections(result)
    picture, axes = new_figure(2, 5, width=2.5, height=2.6)
    draw_curves(axes[0, 0], result.history, ["loss"])
    overlaps, confidences = overlaps_and_confidences(found, truths(dataset))
    axes[1, 0].scatter(confidences, overlaps, s=4, alpha=0.4)
    axes[1, 0].set(xlabel="confidence", ylabel="overlap with an object (IoU)", xlim=(0, 1), ylim=(0, 1))
    chosen = sorted(range(len(dataset)), key=lambda index: -len(dataset.boxes[index]))[:4]
    (images, true), side = dataset.__getitems__(chosen), dataset.image_size - 0.5
    with torch.inference_mode():
        confidence = model.cells(images)[1].amax(dim=3)  # (4, rows, columns)
    for index, truth, cells, above, below in zip(chosen, true, confidence, axes[0, 1:], axes[1, 1:], strict=False):
        show_picture(above, dataset.images[index], "confidence of the cells")
        right, bottom = cells.shape[1] * model.stride - 0.5, cells.shape[0] * model.stride - 0.5
        above.imshow(cells, cmap="inferno", vmin=0, vmax=1, alpha=0.6, extent=(-0.5, right, bottom, -0.5))
        above.set(xlim=(-0.5, side), ylim=(side, -0.5))
        draw_frames(above, dataset.boxes[index], "white", "--")
        show_boxes(below, dataset.images[index], found[index], truth, dataset.classes, score=0.25)
    return picture


run.predicts(Detection, build, torchvision_detector)


if __name__ == "__main__":
    main(run)
