"""SSD: default boxes on maps of several scales, classified and adjusted in one stage.

Over every cell of every map stand a few default boxes of set sides and shapes: small ones on the fine
maps, large ones on the coarse. One convolution a map says for each of them which class it holds, if any,
and how to move and stretch it onto the object. In training a default box that overlaps an object by half
answers for it, and so does the best one of each object; nearly all the others hold nothing, so only the
most mistaken of them, three for each that holds an object, enter the loss. What several boxes find
together is thinned by non-maximum suppression: of two boxes of a class that overlap, the surer stays.

Notes: 83
Paper: Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg (2016), "SSD: Single Shot MultiBox Detector",
    https://arxiv.org/abs/1512.02325
Data: scenes with handwritten digits on clutter, 64×64; yours as COCO, Pascal VOC or PNG masks.
"""

import math
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, new_figure, show_picture
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection.boxes import Detections, box_iou, nms, shift_and_zoom
from recipes.vision.detection.drawing import draw_frames, show_boxes
from recipes.vision.detection.scoring import commonest_places, evaluate, truths
from recipes.vision.detection.task import FAST, conv_block

Mining = Literal["hard", "random", "all"]
VARIANCES = (0.1, 0.1, 0.2, 0.2)  # the usual spread of each code, which they are divided by


class SSD(nn.Module):
    """A small convolutional backbone, of which every map (at strides 4, 8, 16, …, the last about 4×4) predicts.

    In training it gives class logits and codes of all default boxes, in evaluation `Detections`, with
    the number of the map that found each box under `levels`.
    """

    defaults: Tensor
    levels: Tensor

    def __init__(self, num_classes: int, image_size: int, *, width: int = 16) -> None:
        super().__init__()
        self.num_classes, self.image_size = num_classes, image_size
        self.overlap = 0.45  # where two boxes of a class overlap by more, the less sure one is removed
        self.stem = nn.Sequential(conv_block(3, width, 2), conv_block(width, width))
        levels = max(2, round(math.log2(image_size / 8)))
        channels = [width, 2 * width] + [4 * width] * (levels - 1)
        self.stages = nn.ModuleList(
            nn.Sequential(conv_block(channels[i], channels[i + 1], 2), conv_block(channels[i + 1], channels[i + 1]))
            for i in range(levels)
        )
        # Each of the four default boxes over a cell gets a logit for background and every class, and four codes.
        self.heads = nn.ModuleList(nn.Conv2d(count, 4 * (1 + num_classes + 4), 3, padding=1) for count in channels[1:])
        self.strides = [4 * 2**level for level in range(levels)]
        boxes = [default_boxes(math.ceil(image_size / stride), stride) for stride in self.strides]
        numbers = [torch.full((len(some),), level) for level, some in enumerate(boxes)]
        self.register_buffer("defaults", torch.cat(boxes), persistent=False)  # (D, 4) centre, width, height
        self.register_buffer("levels", torch.cat(numbers), persistent=False)  # (D,) the map each one belongs to

    def forward(self, images: Tensor) -> Any:
        features, answers = self.stem(images), []
        for stage, head in zip(self.stages, self.heads, strict=True):
            features = stage(features)  # (batch, channels, rows, columns), half as many rows as before
            maps = head(features)  # (batch, 4 * (1 + classes + 4), rows, columns)
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
            some = {"boxes": picture_boxes[chosen], "scores": picture_scores[chosen, labels], "labels": labels}
            some["levels"] = self.levels[chosen]
            stays = nms(some["boxes"], some["scores"], self.overlap, labels)[:most]
            found.append({key: value[stays] for key, value in some.items()})
        return found


def default_boxes(rows: int, stride: int) -> Tensor:
    """Centre, width and height (rows * rows * 4, 4) of the default boxes of a map, row by row, in pixels.

    Four stand over the middle of each cell: 1:1, 1:2 and 2:1 with a side of 2.5 strides, and 1:1 larger.
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
    """The index of the object that each default box answers for, (D,), -1 for background.

    Args:
        boxes: (objects, 4) true boxes, corners.
        defaults: (D, 4) centre and size.
        threshold: least overlap (IoU) at which a default box answers for an object.
    """
    if len(boxes) == 0:
        return torch.full((len(defaults),), -1, device=defaults.device)
    overlaps = box_iou(boxes, corners(defaults))  # (objects, D)
    overlap, matched = overlaps.max(dim=0)  # (D,) the best object of each
    matched[overlap < threshold] = -1
    matched[overlaps.argmax(dim=1)] = torch.arange(len(boxes), device=boxes.device)  # the best one of each object
    return matched


def ssd_loss(logits: Tensor, codes: Tensor, targets: Detections, defaults: Tensor, mining: Mining = "hard") -> Tensor:
    """Cross-entropy of the matched default boxes and of the hardest others, and smooth L1 of the codes.

    Args:
        logits: (batch, D, 1 + classes).
        codes: (batch, D, 4).
        targets: the true boxes and labels of each picture.
        defaults: (D, 4).
        mining: which default boxes without an object count: the hardest, random ones, or all.
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
    # Three of the background for each box with an object: those with the highest loss, or any three.
    hardness = torch.rand_like(each) if mining == "random" else each.detach()
    rank = hardness.masked_fill(positive, -1).argsort(dim=1, descending=True).argsort(dim=1)
    counted = positive | (rank < 3 * positive.sum(dim=1, keepdim=True))
    classification = each.sum() if mining == "all" else each[counted].sum()
    location = F.smooth_l1_loss(codes[positive], goals[positive], reduction="sum")
    return (classification + location) / positive.sum().clamp(min=1)


def train(
    model: SSD, train_set: Boxes, mining: Mining, *, batch_size: int, lr: float, seed: int, **settings: Any
) -> OldLoop:
    """Minimises `ssd_loss` with AdamW on shifted and scaled pictures; `settings` are those of `Loop`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    shuffled = old_batches(train_set, batch_size, seed=seed)
    loop = OldLoop(model, optimizer, shuffled, schedule=one_cycle, name=mining, **settings)
    for images, targets in loop:
        images, targets = shift_and_zoom(images, targets)
        logits, codes = loop.model(images)
        loop.step(ssd_loss(logits, codes, targets, model.defaults, mining))
    return loop


def sides_and_levels(found: Detections, targets: Detections) -> tuple[Tensor, Tensor]:
    """The side of each object (root of its area, pixels), and the level of its surest right detection, or -1."""
    levels = []
    for picture, target in zip(found, targets, strict=True):
        right = (box_iou(target["boxes"], picture["boxes"]) >= 0.5) & (target["labels"][:, None] == picture["labels"])
        levels += [int(picture["levels"][row][0]) if row.any() else -1 for row in right]
    boxes = torch.cat([target["boxes"] for target in targets])
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt(), torch.tensor(levels)


def draw(model: SSD, dataset: Boxes, device: torch.device, history: list[dict[str, float]]) -> Any:
    """Above, the default boxes of each map that answer for an object; below, what is found, and by which map."""
    found, targets = predict(model, dataset, device, batch_size=32), truths(dataset)
    sides, levels = sides_and_levels(found, targets)
    figure, axes = new_figure(2, len(model.strides) + 1, width=2.6, height=2.7)
    draw_curves(axes[0, 0], history)
    by_level = [sides[levels == level].tolist() for level in range(len(model.strides))]
    axes[1, 0].hist(by_level, bins=12, stacked=True, label=[f"stride {stride}" for stride in model.strides])
    axes[1, 0].set(xlabel="side of the object (pixels)", ylabel="objects found")
    axes[1, 0].legend(frameon=False, fontsize=7)
    fullest = max(range(len(dataset)), key=lambda index: len(dataset.boxes[index]))
    answers = match(dataset.boxes[fullest], model.defaults.cpu()) >= 0
    for level, (stride, above, below) in enumerate(zip(model.strides, axes[0, 1:], axes[1, 1:], strict=True)):
        own = corners(model.defaults.cpu()[answers & (model.levels.cpu() == level)])
        show_picture(above, dataset.images[fullest], f"stride {stride}: {len(own)} default boxes")
        draw_frames(above, own, "gold")
        draw_frames(above, dataset.boxes[fullest], "white", "--")
        some = level % len(dataset)
        show_boxes(below, dataset.images[some], found[some], targets[some], dataset.classes)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    compare: bool = True,
    epochs: int = 7,
    batch_size: int = 16,
    lr: float = 8e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains SSD and scores it on held-out scenes.

    Args:
        data: folder of your pictures with boxes; the bundled scenes if not given.
        image_size: side in pixels that pictures are warped to; small square ones keep their own if not given.
        compare: train again without hard negative mining, once with random background and once with all of it.
        epochs: passes over the training pictures.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the pictures and of their shifts.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    train_set, test_set = open_boxes(data, image_size=image_size, seed=seed)
    options: Engine = {**FAST, **engine}

    def trained(mining: Mining) -> tuple[SSD, OldLoop, dict[str, float]]:
        torch.manual_seed(seed)  # the same weights and shifts for each choice
        model = SSD(len(train_set.classes), train_set.images.shape[-1])
        optimization: dict[str, Any] = {"batch_size": batch_size, "lr": lr, "seed": seed, "epochs": epochs}
        loop = train(model, train_set, mining, device=place, **optimization, **options)
        return model, loop, evaluate(model, test_set, place)

    model, loop, metrics = trained("hard")
    model.overlap = 1.0
    repeated = evaluate(model, test_set, place)["map_50"]
    model.overlap = 0.45
    sides, levels = sides_and_levels(predict(model, test_set, place, batch_size=32), truths(test_set))
    small, strides = sides <= sides.median(), torch.tensor(model.strides)[levels].double()
    finer, coarser = (strides[half & (levels >= 0)].mean().item() for half in (small, ~small))
    answering = torch.cat([match(boxes, model.defaults.cpu()) >= 0 for boxes in train_set.boxes]).double().mean()
    claims = [
        claim("smaller objects are found on finer maps: mean stride of either half", finer, "<", coarser),
        claim("without non-maximum suppression objects are found twice: map_50", repeated, "<", metrics["map_50"]),
        claim("few default boxes answer for an object: their share", answering.item(), "<", 0.05),
    ]
    if compare:
        every, few, hardest = trained("all")[2]["map_50"], trained("random")[2]["map_50"], metrics["map_50"]
        claims += [
            claim("all the empty ones drown them: map_50 with all, with the hardest three", every, "<", hardest),
            claim("it is mostly the balance: lost by a random three, by all", hardest - few, "<", hardest - every),
        ]
    return Result(
        metrics=metrics,
        baseline=commonest_places(train_set, test_set),
        baseline_name="commonest places",
        bars={"map_50": 0.8},
        claims=claims,
        history=loop.history,
        rows=[
            {
                "map of stride": stride,
                "default side": 2.5 * stride,
                "finds of smaller objects": (levels[small] == level).double().mean().item(),
                "of larger": (levels[~small] == level).double().mean().item(),
            }
            for level, stride in enumerate(model.strides)
        ],
        model=model,
        draw=lambda: draw(model, test_set, place, loop.history),
    )


if __name__ == "__main__":
    main(run)
