"""Faster R-CNN: one stage proposes where something is, a second looks there and says what.

Both stand on one map of features. Over every cell of it lie anchors: boxes as large as the objects to be learned, in
a few sizes and three shapes. For each, the region proposal network says whether it holds any object, and how to move
and stretch it onto that. The best of these, thinned by non-maximum suppression, are the proposals. From each a small
square of features is cut by RoI align, whatever the proposal's size, and a head of two layers gives its class, or
background, and moves and stretches it once more. An anchor is right if it overlaps an object by 0.7, wrong below 0.3;
of each stage only a balanced sample enters the loss.

Notes: 83
Paper: Ren, He, Girshick and Sun (2015), "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
    Networks", https://arxiv.org/abs/1506.01497; RoI align: He et al. (2017), https://arxiv.org/abs/1703.06870
Data: digits of four kinds on clutter, 64×64 pixels; yours as COCO, Pascal VOC, or PNG masks of numbered objects. For
    photos add --backbone timm:tf_efficientnet_lite0 --weights pretrained --steps 300 --lr 2e-3
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import draw_curves, new_figure, show_picture
from recipes.core.frame import Claim, Loop, Result, batches, main, option, predict, recipe
from recipes.core.measure import interleaved, ratio
from recipes.datasets.scenes import Boxes
from recipes.vision.detection.backbone import backbone_features, parameter_groups
from recipes.vision.detection.boxes import Detections, box_iou, decode, encode, nms
from recipes.vision.detection.drawing import draw_frames, show_boxes
from recipes.vision.detection.features import DetectorOptions, SmallFeatures, augment, conv_block, open_pictures
from recipes.vision.detection.proposals import anchor_sides, recall, sample, within
from recipes.vision.detection.scoring import commonest_places, evaluate, mean_average_precision, truths
from recipes.vision.detection.selective_search import selective_search
from recipes.vision.detection.torchvision_detectors import torchvision_detector
from recipes.vision.detection.using import AnchoredDetection
from recipes.vision.detection.yolo import YOLO


@dataclass(kw_only=True)
class FasterRCNNOptions(DetectorOptions):
    width: int = option(12, "channels of the small network's first convolution", least=1)
    proposals: int | None = option(None, "regions for the second stage; 50, in yours without a backbone 300", least=1)
    epochs: int = 10
    batch_size: int = 16
    lr: float = 6e-3


class FasterRCNN(nn.Module):
    """A map of features, proposals of regions from it by anchors of these sides, and a head that judges each of them.

    In training it takes the targets too and returns the loss, else `Detections`.
    """

    def __init__(self, num_classes: int, sides: list[float], features: Any, proposals: int, crowded: bool) -> None:
        super().__init__()
        self.crowded = crowded  # with many objects of very different sizes: larger samples, which they share evenly
        self.sides: Tensor = nn.Buffer(torch.tensor(sides))
        self.num_classes, self.proposals, self.features, width = num_classes, proposals, features, features.channels
        self.parts, self.samples = (5, 1) if features.stride == 4 else (7, 2)  # of RoI align
        self.region = conv_block(width, width)
        self.region_heads = nn.Conv2d(width, 3 * len(sides) * 6, 1)  # an anchor: no object, object, four codes
        self.hidden = nn.Linear(width * self.parts**2, 128)
        self.heads = nn.Linear(128, 1 + 5 * num_classes)  # logits of background and classes, four codes a class

    def first_stage(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The features; anchors (A, 4), their logits (batch, A, 2; 0 is background) and their codes (batch, A, 4)."""
        features = self.features(images)  # (batch, channels, rows, columns)
        answers = self.region_heads(self.region(features)).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 6)).float()
        anchors = anchor_boxes(self.sides, features.shape[2], features.shape[3], self.features.stride)
        return features.float(), anchors, answers[..., :2], answers[..., 2:]

    def propose(self, images: Tensor, anchors: Tensor, logits: Tensor, codes: Tensor) -> Tensor:
        """The best boxes of the first stage, thinned, (batch, proposals, 4); in training twice as many, unthinned."""
        scores, best = (logits[..., 1] - logits[..., 0]).topk(min(2 * self.proposals, len(anchors)))
        codes = codes.gather(1, best[..., None].expand(-1, -1, 4))
        boxes = within(decode(codes, anchors[best]), images.shape[2:])
        if self.training:  # the sample that is drawn from them thins them enough
            return boxes
        overlaps = (box_iou(boxes, boxes) > 0.7).triu(diagonal=1)  # (batch, N, N): the second has the lower score
        keep = torch.ones_like(scores, dtype=torch.bool)
        for _ in range(8):  # what is removed removes no other: settled after as many rounds as such chains are long
            keep = ~(overlaps & keep[:, :, None]).any(dim=1)
        best = scores.masked_fill(~keep, -torch.inf).topk(min(self.proposals, scores.shape[1])).indices
        return boxes.gather(1, best[..., None].expand(-1, -1, 4))

    def judge(self, features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, R, 1 + classes; 0 is background) and codes (batch, R, classes, 4) of boxes (batch, R, 4)."""
        cut = roi_align(features, boxes, self.parts, self.features.stride, self.samples)
        answers = self.heads(self.hidden(cut.flatten(2)).relu()).float()  # (batch, R, 1 + 5 · classes)
        logits, codes = answers.split([1 + self.num_classes, 4 * self.num_classes], dim=2)
        return logits, codes.unflatten(2, (self.num_classes, 4))

    def raw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (batch, proposals, classes) and boxes (batch, proposals, classes, 4; in pixels), unsuppressed."""
        features, *answers = self.first_stage(images)
        proposals = self.propose(images, *answers)
        logits, codes = self.judge(features, proposals)
        boxes = decode(codes.transpose(1, 2), proposals[:, None]).transpose(1, 2)  # moved for each class
        return logits.softmax(dim=2)[..., 1:], within(boxes, images.shape[2:])

    def forward(self, images: Tensor, targets: Detections | None = None) -> Any:
        return self.detect(*self.raw(images)) if targets is None else self.loss(images, targets)

    def detect(self, scores: Tensor, boxes: Tensor, overlap: float = 0.45) -> Detections:
        """The boxes with the highest scores that are left by non-maximum suppression, class by class."""
        found = []
        for score, box in zip(scores.flatten(1), boxes.flatten(1, 2), strict=True):  # of each picture
            best = (score > 0.02).nonzero()[:, 0]
            kept = best[nms(box[best], score[best], best % self.num_classes, overlap)[:100]]
            found.append({"boxes": box[kept], "scores": score[kept], "labels": kept % self.num_classes})
        return found

    def loss(self, images: Tensor, targets: Detections) -> Tensor:
        """The losses of both stages, each on a balanced sample of its boxes; a label of 0 is background."""
        features, anchors, logits, codes = self.first_stage(images)
        proposals = self.propose(images, anchors, logits.detach(), codes.detach())
        first, second, even = [], [], self.crowded
        for i, target in enumerate(targets):
            chosen, matched = sample(target["boxes"], anchors, high=0.7, low=0.3, count=128 if even else 64, even=even)
            on = matched >= 0
            goals = encode(target["boxes"][matched[on]], anchors[chosen[on]])
            first.append((logits[i, chosen], on.long(), codes[i, chosen[on]], goals))
            offered = torch.cat([proposals[i], target["boxes"]])  # true boxes: good examples while there are no others
            chosen, matched = sample(target["boxes"], offered, high=0.5, low=0.5, count=128 if even else 32, even=even)
            on = matched >= 0
            goals = encode(target["boxes"][matched[on]], offered[chosen[on]])
            label = torch.zeros_like(chosen).masked_scatter(on, target["labels"][matched[on]] + 1)
            class_logits, moves = self.judge(features[i : i + 1], offered[None, chosen])
            second.append((class_logits[0], label, moves[0, on, label[on] - 1], goals))
        return torch.stack([stage_loss(*map(torch.cat, zip(*one, strict=True))) for one in (first, second)]).sum()


def stage_loss(logits: Tensor, labels: Tensor, codes: Tensor, goals: Tensor) -> Tensor:
    """Cross-entropy of sampled boxes, whose label 0 is background, and smooth L1 of the codes of those on objects."""
    return F.cross_entropy(logits, labels) + F.smooth_l1_loss(codes, goals, reduction="sum") / max(len(codes), 1)


def anchor_boxes(sides: Tensor, rows: int, columns: int, stride: int) -> Tensor:
    """Corners (rows · columns · 3 · sides, 4) in pixels of the anchors over the middle of each cell, row by row.

    Of each side the square, and 1:2 and 2:1 of the same area.
    """
    shapes = sides.new_tensor([0.5, 1.0, 2.0]).sqrt()
    half = torch.stack([sides[:, None] * shapes, sides[:, None] / shapes], dim=2).view(-1, 2) / 2
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    center = (torch.stack([x, y], dim=2).view(-1, 1, 2).to(sides) + 0.5) * stride
    return torch.cat([center - half, center + half], dim=2).view(-1, 4)


def roi_align(features: Tensor, boxes: Tensor, side: int, stride: int, samples: int = 1) -> Tensor:
    """Squares of features (batch, R, channels, side, side) under boxes (batch, R, 4), read between cells where need be.

    Each box is divided into side × side parts, and in each the features at samples × samples points, interpolated
    bilinearly, are averaged. Features are (batch, channels, rows, columns), with `stride` pixels to a cell.
    """
    steps = (torch.arange(side * samples, device=boxes.device) + 0.5) / (side * samples)
    points = boxes[:, :, None, :2] + steps[:, None] * (boxes[..., 2:] - boxes[..., :2])[:, :, None]
    points = 2 * points / (stride * points.new_tensor([features.shape[3], features.shape[2]])) - 1
    x, y = points[:, :, None, :, 0], points[:, :, :, None, 1]
    grid = torch.stack(torch.broadcast_tensors(x, y), dim=4)  # (batch, R, steps, steps, 2): where to look
    read = F.grid_sample(features, grid.flatten(1, 2), padding_mode="border", align_corners=False)
    return F.avg_pool2d(read, samples).unflatten(2, (-1, side)).transpose(1, 2)


def build(options: FasterRCNNOptions, data: Any) -> FasterRCNN:
    """The network for classes like these, and anchors as large as the objects of the train part."""
    sides = anchor_sides(data) if isinstance(data, Boxes) else data.sides
    features = backbone_features(options, data) or SmallFeatures(options.width)
    crowded = options.data is not None and options.backbone is None
    proposals = options.proposals or (300 if crowded else 50)
    return FasterRCNN(len(data.classes), sides, features, proposals, crowded)


def train(model: FasterRCNN, train_set: Boxes, options: FasterRCNNOptions) -> Loop:
    """Minimizes the losses of both stages together with AdamW on shifted and scaled pictures."""
    optimizer = torch.optim.AdamW(parameter_groups(model, options.lr), weight_decay=0.01)
    loop = Loop(model, optimizer, batches(train_set, options), options)
    for images, targets in loop:
        images, targets = augment(images, targets, photos=options.backbone is not None, mirror=options.mirror)
        loop.step(loop.model(images, targets))
    return loop


@recipe(FasterRCNNOptions)
def run(options: FasterRCNNOptions) -> Result:
    """Trains Faster R-CNN and scores it on held-out pictures."""
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
    sources = (propose_for(full), [selective_search(image) for image in full.test_set.images])
    ten, ten_outside = (recall(proposals, full.test_set, 10) for proposals in sources)
    yield Claim("proposals are ranked: recall of ten, of selective search's", ten, ">", ten_outside, margin=0.1)
    unmoved, rounded = altered(full, moved=False)["map_75"], altered(full, rounded=True)["map_75"]
    yield Claim("the second stage moves boxes onto objects: map_75 if not", unmoved, "<", full["map_75"], margin=0.05)
    yield Claim("features must be read between cells: map_75 if not", rounded, "<", full["map_75"], margin=0.05)
    yield Claim("one stage is faster: time of YOLO over its own", seconds_of_yolo(full), "<", 1, kind="fact")


def propose_for(result: Result) -> list[Tensor]:
    """The first stage's proposals (n, 4) for each held-out picture, those with the highest scores first."""
    model = copy.deepcopy(result.model)
    model.forward = lambda images: model.propose(images, *model.first_stage(images)[1:])
    return predict(model, result.test_set, model.sides.device, batch_size=32)


def altered(result: Result, *, moved: bool = True, rounded: bool = False) -> dict[str, float]:
    """The scores where the second stage's codes are left out, or the boxes it looks at are rounded to cells."""
    model = copy.deepcopy(result.model)
    judge, stride = model.judge, model.features.stride

    def changed(features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        logits, codes = judge(features, (boxes / stride).round() * stride if rounded else boxes)
        return logits, codes if moved else torch.zeros_like(codes)

    model.judge = changed
    found = predict(model, result.test_set, model.sides.device, batch_size=32)
    return mean_average_precision(found, truths(result.test_set))


def seconds_of_yolo(result: Result) -> float:
    """The time of an untrained YOLO, which finds no less, over that of this model, on sixteen pictures."""
    model, device = result.model.eval(), result.model.sides.device
    yolo, indices = YOLO(model.num_classes).to(device).eval(), [index % len(result.test_set) for index in range(16)]
    images = result.test_set.__getitems__(indices)[0].to(device)
    with torch.inference_mode():
        seconds = interleaved({"one": lambda: yolo(images), "two": lambda: model(images)}, rounds=9, device=device.type)
    return ratio(seconds["one"], seconds["two"])[1]


@run.figure
def figure(result: Result) -> Any:
    """Above, the first ten proposals; below, what the second stage makes of them; recall over their number."""
    dataset, own = result.test_set, propose_for(result)
    found = predict(result.model, dataset, result.model.sides.device, batch_size=32)
    picture, axes = new_figure(2, 5, width=2.5, height=2.6)
    draw_curves(axes[0, 0], result.history, ["loss"])
    counts, outside = [1, 2, 3, 5, 7, 10, 15, 20, 30, 50], [selective_search(image) for image in dataset.images]
    for name, proposals in (("own", own), ("selective search", outside)):
        axes[1, 0].plot(counts, [recall(proposals, dataset, count) for count in counts], label=name)
    axes[1, 0].set(xlabel="proposals", ylabel="recall", ylim=(0, 1.02))
    axes[1, 0].legend(frameon=False, fontsize=7, loc="lower right")
    chosen = sorted(range(len(dataset)), key=lambda index: -len(dataset.boxes[index]))[:4]
    for index, above, below in zip(chosen, axes[0, 1:], axes[1, 1:], strict=False):
        show_picture(above, dataset.images[index], "ten proposals")
        draw_frames(above, own[index][:10], "gold")
        show_boxes(below, dataset.images[index], found[index], dataset.__getitems__([index])[1][0], dataset.classes)
    return picture


run.predicts(AnchoredDetection, build, torchvision_detector)


if __name__ == "__main__":
    main(run)
