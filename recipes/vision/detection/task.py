"""Object detection with centre points, and how detections are scored.

A detector says what is where: a box, a label and a score for every object it finds. The simplest one
treats an object as a point. A convolutional network paints one heat map a class, which peaks at the
centres of objects, and beside it says for every cell how large an object centred there would be. The
peaks, with those sizes, are the detections.

They are scored by mean average precision. From the surest detection down, each is right if it overlaps
an object of its class by enough that no surer one has taken, and wrong otherwise; precision over recall
is averaged for each class, then over the classes. What the number rewards is shown on the true boxes.

Notes: 83
Paper: Zhou, Wang, Krähenbühl (2019), "Objects as Points", https://arxiv.org/abs/1904.07850
Data: scenes with handwritten digits on clutter, 64×64; yours as COCO, Pascal VOC or PNG masks.
"""

import contextlib
import difflib
import io
import math
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, new_figure, show_picture
from recipes.core.loop import Engine, Loop, one_cycle
from recipes.core.result import Claim, Result, recipe
from recipes.datasets.loading import batches
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.options import main

Detections = list[dict[str, Tensor]]  # a picture each: boxes (n, 4) in pixels, labels (n,), and scores (n,) if predicted


def conv_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class CenterNet(nn.Module):
    """Heat maps of object centres, and sizes, at a quarter of the picture's resolution.

    In training it gives the maps (see `paint`), in evaluation the detections, which are `Detections`.
    """

    stride = 4

    def __init__(self, num_classes: int, *, width: int = 16) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            conv_block(3, width, 2),
            conv_block(width, width),
            conv_block(width, 2 * width, 2),
            conv_block(2 * width, 2 * width),
        )
        self.coarse = nn.Sequential(conv_block(2 * width, 4 * width, 2), conv_block(4 * width, 4 * width))
        self.merge = conv_block(6 * width, 4 * width)
        self.heads = nn.Conv2d(4 * width, num_classes + 4, 1)
        nn.init.constant_(self.heads.bias[:num_classes], -math.log(99))  # a centre is rare: start at 1 %
        self.peaks_only = True

    def forward(self, images: Tensor) -> Any:
        fine = self.fine(images)  # (batch, 2 * width, height / 4, width / 4)
        coarse = F.interpolate(self.coarse(fine), size=fine.shape[-2:])  # seen with more of its surroundings
        maps = self.heads(self.merge(torch.cat([fine, coarse], dim=1)))  # (batch, classes + 4, rows, columns)
        return maps if self.training else self.decode(maps.float())

    def decode(self, maps: Tensor, most: int = 100) -> Detections:
        """The surest `most` peaks of each picture as boxes."""
        heat, size, offset = maps[:, :-4].sigmoid(), maps[:, -4:-2], maps[:, -2:]
        if self.peaks_only:
            heat = heat * (heat == F.max_pool2d(heat, 3, stride=1, padding=1))
        rows, columns = heat.shape[-2:]
        scores, places = heat.flatten(1).topk(min(most, heat[0].numel()))  # (batch, most)
        labels, cells = places // (rows * columns), places % (rows * columns)
        picked = cells.unsqueeze(1).expand(-1, 2, -1)
        size, offset = size.flatten(2).gather(2, picked), offset.flatten(2).gather(2, picked)  # (batch, 2, most)
        centre = torch.stack([cells % columns, cells // columns], dim=1) + offset
        boxes = self.stride * torch.cat([centre - size / 2, centre + size / 2], dim=1).mT  # (batch, most, 4)
        return [
            {"boxes": b[s > 0.01], "scores": s[s > 0.01], "labels": l[s > 0.01]}
            for b, s, l in zip(boxes, scores, labels, strict=True)
        ]


def centre_loss(maps: Tensor, targets: Detections, stride: int = 4) -> Tensor:
    """Focal loss of the heat maps plus the L1 distance of sizes and offsets at the true centres.

    Args:
        maps: (batch, classes + 4, rows, columns): logits of the heat, then width, height, and the
            centre's offset right and down from the cell's corner, in cells.
        targets: the true boxes and labels of each picture.
        stride: pixels in a cell.
    """
    batch, _, rows, columns = maps.shape
    num_classes = maps.shape[1] - 4
    boxes = torch.cat([target["boxes"] for target in targets]) / stride  # (objects, 4) in cells
    labels = torch.cat([target["labels"] for target in targets])
    counts = torch.tensor([len(target["labels"]) for target in targets], device=maps.device)
    picture = torch.arange(batch, device=maps.device).repeat_interleave(counts)  # (objects,) where each one is
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    column = centre[:, 0].long().clamp(0, columns - 1)
    row = centre[:, 1].long().clamp(0, rows - 1)

    # The target of the heat is 1 in the cell of a centre and falls off around it as a bell does, the wider
    # the larger the object; where two bells overlap the higher counts.
    across = (torch.arange(columns, device=maps.device) - column[:, None]) / (size[:, :1] / 8 + 0.2)
    down = (torch.arange(rows, device=maps.device) - row[:, None]) / (size[:, 1:] / 8 + 0.2)
    bells = torch.exp(-(across[:, None, :] ** 2 + down[:, :, None] ** 2) / 2)  # (objects, rows, columns)
    heat = maps.new_zeros(batch * num_classes, rows, columns)
    map_of = (picture * num_classes + labels)[:, None, None].expand_as(bells)
    heat = heat.scatter_reduce(0, map_of, bells, "amax").view(batch, num_classes, rows, columns)

    # Focal loss: cells already right count little, and cells beside a centre are forgiven for being warm.
    logits = maps[:, :num_classes]
    p = logits.sigmoid()
    centres = (1 - p) ** 2 * F.logsigmoid(logits)
    others = (1 - heat) ** 4 * p**2 * F.logsigmoid(-logits)
    focal = -torch.where(heat == 1, centres, others).sum()

    found = maps[picture, num_classes:, row, column]  # (objects, 4)
    offset = centre - torch.stack([column, row], dim=1)
    distance = 0.1 * (found[:, :2] - size).abs().sum() + (found[:, 2:] - offset).abs().sum()
    return (focal + distance) / max(len(boxes), 1)


class TorchvisionDetector(nn.Module):
    """A detector of torchvision with random weights, under the conventions of this task.

    In training it takes the targets too, and gives torchvision's dictionary of losses.

    Args:
        name: a detection model, such as ssdlite320_mobilenet_v3_large.
        num_classes: without a background class, which torchvision counts as class 0.

    Raises:
        InputError: there is no such model; names the nearest.
    """

    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__()
        from torchvision import models

        known = models.list_models(module=models.detection)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f", did you mean {near[0]}?" if near else f": it has {', '.join(known)}"
            raise InputError(f"option model: torchvision has no detector {name!r}{hint}")
        self.detector = models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes + 1)

    def forward(self, images: Tensor, targets: Detections | None = None) -> Any:
        if targets is not None:
            targets = [{"boxes": target["boxes"], "labels": target["labels"] + 1} for target in targets]
        answers = self.detector(list(images), targets)
        return answers if self.training else [answer | {"labels": answer["labels"] - 1} for answer in answers]


def train(
    model: nn.Module,
    train_set: Boxes,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    **engine: Unpack[Engine],
) -> Loop:
    """Minimises the detector's loss with AdamW; gives the loop with its history."""
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
        if isinstance(model, TorchvisionDetector):
            loss = torch.stack(list(loop.model(images, targets).values())).sum()
        else:
            loss = centre_loss(loop.model(images), targets)
        loop.step(loss)
    return loop


def shift_and_zoom(images: Tensor, targets: Detections) -> tuple[Tensor, Detections]:
    """Each picture moved by up to an eighth of its side and scaled by 0.8 to 1.25, its boxes with it.

    What enters from outside is black; a box is clipped, and dropped where less than half of it is left.
    """
    count, _, height, width = images.shape
    zoom = torch.empty(count, device=images.device).uniform_(-1, 1).mul_(math.log(1.25)).exp_()
    shift = torch.empty(count, 2, device=images.device).uniform_(-0.25, 0.25)  # in halves of a side, as grids count
    matrix = torch.cat([torch.eye(2, device=images.device) / zoom[:, None, None], shift[:, :, None]], dim=2)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)  # (batch, height, width, 2): where to look
    moved = F.grid_sample(images, grid, align_corners=False)
    middle = torch.tensor([width, height], device=images.device) / 2
    follow: Detections = []
    for target, z, s in zip(targets, zoom, shift, strict=True):
        boxes = ((target["boxes"].view(-1, 2, 2) - middle * (1 + s)) * z + middle).view(-1, 4)
        seen = boxes.clamp(min=0).minimum(middle.repeat(2) * 2)
        stays = (seen[:, 2:] - seen[:, :2]).prod(1) >= 0.5 * (boxes[:, 2:] - boxes[:, :2]).prod(1)
        follow.append({"boxes": seen[stays], "labels": target["labels"][stays]})
    return moved, follow


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Shared area over joined area of every box with every other.

    Args:
        boxes: (N, 4) left, top, right, bottom.
        others: (M, 4).

    Returns:
        (N, M), from 0 to 1.
    """
    corner = torch.maximum(boxes[:, None, :2], others[:, :2])  # (N, M, 2)
    opposite = torch.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = (opposite - corner).clamp(min=0).prod(dim=2)
    areas, other_areas = ((some[:, 2:] - some[:, :2]).prod(dim=1) for some in (boxes, others))
    return shared / (areas[:, None] + other_areas - shared)


def nms(boxes: Tensor, scores: Tensor, threshold: float, labels: Tensor | None = None) -> Tensor:
    """Non-maximum suppression: from the surest box down, each removes those that overlap it too much.

    Args:
        boxes: (N, 4).
        scores: (N,).
        threshold: the largest overlap (IoU) at which both boxes stay.
        labels: (N,); boxes with different labels leave each other alone.

    Returns:
        Indices of the boxes that stay, the surest first.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    removes = box_iou(boxes, boxes) > threshold  # (N, N)
    if labels is not None:
        removes &= labels[order, None] == labels[order]
    removes, stays = removes.cpu(), torch.ones(len(order), dtype=torch.bool)
    for i in range(len(order)):
        if stays[i]:
            stays[i + 1 :] &= ~removes[i, i + 1 :]
    return order[stays.to(order.device)]


def mean_average_precision(predictions: Detections, targets: Detections) -> dict[str, float]:
    """COCO's mean average precision over the classes that occur in the targets.

    Args:
        predictions: boxes, scores and labels of each picture; the surest 100 count.
        targets: the true boxes and labels of the same pictures.

    Returns:
        `map_50` and `map_75`, which ask of a detection an overlap (IoU) of at least 0.5 or 0.75 with
        the object, and `map`, the mean over 0.5, 0.55, …, 0.95. NaN if there is no object at all.
    """
    precision = precision_curves(predictions, targets)
    return {
        "map_50": precision[0].mean().item(),
        "map_75": precision[5].mean().item(),
        "map": precision.mean().item(),
    }


def precision_curves(predictions: Detections, targets: Detections) -> Tensor:
    """Precision at overlaps of 0.5, 0.55, …, 0.95 and recalls of 0, 0.01, …, 1, as COCO computes it.

    Returns:
        (10, 101, classes), a class for each label in the targets, in their order. At each recall stands
        the best precision that is reached at this recall or a higher one, 0 if it is never reached.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def as_coco(pictures: Detections, kinds: list[int]) -> COCO:
        annotations: list[dict[str, Any]] = []
        for number, picture in enumerate(pictures):
            corners, labels = picture["boxes"].double().cpu(), picture["labels"].tolist()
            boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
            scores = picture["scores"].tolist() if "scores" in picture else [1.0] * len(labels)
            for box, label, score in zip(boxes, labels, scores, strict=True):
                place = {"id": len(annotations) + 1, "image_id": number, "category_id": label}  # pycocotools reserves 0
                annotations.append(place | {"bbox": box, "area": box[2] * box[3], "score": score, "iscrowd": 0})
        coco = COCO()
        images = [{"id": number} for number in range(len(pictures))]
        coco.dataset = {"images": images, "categories": [{"id": kind} for kind in kinds], "annotations": annotations}
        coco.createIndex()
        return coco

    kinds = torch.cat([target["labels"] for target in targets]).unique().tolist()
    if not kinds:
        return torch.full((10, 101, 1), math.nan)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells of every step
        coco = COCOeval(as_coco(targets, kinds), as_coco(predictions, kinds), "bbox")
        coco.params.areaRng, coco.params.areaRngLbl, coco.params.maxDets = [[0, 1e10]], ["all"], [100]
        coco.evaluate()
        coco.accumulate()
    return torch.from_numpy(coco.eval["precision"][:, :, :, 0, 0])


def truths(dataset: Boxes) -> Detections:
    """The true boxes and labels of every picture."""
    return [{"boxes": b, "labels": l} for b, l in zip(dataset.boxes, dataset.labels, strict=True)]


def evaluate(model: nn.Module, dataset: Boxes, device: torch.device) -> dict[str, float]:
    """Mean average precision over the whole set.

    Args:
        model: in evaluation mode it gives `Detections` with scores for a batch of pictures.
        dataset: pictures with boxes.
        device: where the model lives.
    """
    return mean_average_precision(predict(model, dataset, device), truths(dataset))


def commonest_places(train_set: Boxes, test_set: Boxes, cells: int = 8) -> dict[str, float]:
    """The baseline that looks at no picture: each class in its mean size at every place, the commonest surest.

    Places are the cells of a grid over the picture, and the score is the class's share of train objects there.
    """
    boxes, labels = torch.cat(train_set.boxes), torch.cat(train_set.labels)
    side = train_set.images.shape[-1] / cells
    column, row = ((boxes[:, :2] + boxes[:, 2:]) / 2 / side).long().clamp(0, cells - 1).T
    count = torch.bincount((labels * cells + row) * cells + column, minlength=len(train_set.classes) * cells**2)
    label, row, column = torch.unravel_index(count.argsort(descending=True), (len(train_set.classes), cells, cells))
    sizes = torch.stack([(boxes[:, 2:] - boxes[:, :2])[labels == kind].mean(0) for kind in range(len(train_set.classes))])
    centre, half = (torch.stack([column, row], dim=1) + 0.5) * side, sizes[label] / 2
    answer = {
        "boxes": torch.cat([centre - half, centre + half], dim=1),
        "scores": count.sort(descending=True).values / len(labels),
        "labels": label,
    }
    return mean_average_precision([answer] * len(test_set), truths(test_set))


def show_boxes(axes: Any, image: Tensor, found: dict[str, Tensor], true: dict[str, Tensor], classes: list[str]) -> None:
    """A picture with its true boxes (dashed white) and the boxes found (solid, named, with their score).

    A found box is green if it overlaps a true one of its class by at least half (IoU), else red.
    """
    from matplotlib.patches import Rectangle

    show_picture(axes, image)
    matches = (box_iou(found["boxes"], true["boxes"]) >= 0.5) & (found["labels"][:, None] == true["labels"])
    boxes = [(box, "white", "--", "") for box in true["boxes"].tolist()]
    for box, label, score, right in zip(
        found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), matches.any(1).tolist(), strict=True
    ):
        boxes.append((box, "limegreen" if right else "tomato", "-", f"{classes[label]} {score:.2f}"))
    for (left, top, right, bottom), colour, line, text in boxes:
        frame = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, color=colour, linestyle=line)
        axes.add_patch(frame)
        axes.text(left, top - 1.5, text, color=colour, fontsize=7)


def draw_detections(
    model: nn.Module,
    dataset: Boxes,
    device: torch.device,
    history: list[dict[str, float]],
    *,
    pictures: int = 6,
    score: float = 0.3,
) -> Any:
    """The loss, precision over recall for each class, and pictures with true and found boxes.

    Args:
        model: see `evaluate`.
        dataset: held-out pictures with boxes.
        device: where the model lives.
        history: of the training.
        pictures: how many, the first of the set.
        score: boxes less sure than this are not drawn.
    """
    found, true = predict(model, dataset, device), truths(dataset)
    curves = precision_curves(found, true)[0]  # (101, classes) at an overlap of 0.5
    figure, axes = new_figure(2, 2 + (pictures - 1) // 2, width=2.6, height=2.6)
    draw_curves(axes[0, 0], history, ["loss"])
    kinds = torch.cat(dataset.labels).unique().tolist()
    for kind, curve in zip(kinds, curves.T, strict=True):
        axes[1, 0].plot(torch.linspace(0, 1, 101), curve, label=dataset.classes[kind])
    axes[1, 0].set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes[1, 0].legend(frameon=False, fontsize=7)
    axes[1, 0].spines[["top", "right"]].set_visible(False)
    for place, index in zip(axes[:, 1:].flatten(), range(pictures), strict=False):
        sure = {key: value[found[index]["scores"] >= score] for key, value in found[index].items()}
        show_boxes(place, dataset.images[index], sure, true[index], dataset.classes)
    return figure


def score_altered_truth(test_set: Boxes) -> dict[str, dict[str, float]]:
    """What the metric says of the true boxes when they are given as detections, altered in four ways."""
    exact, moved, twice, late = [], [], [], []
    for target in truths(test_set):
        boxes, labels, scores = target["boxes"], target["labels"], torch.ones(len(target["labels"]))
        quarter = (boxes[:, 2:] - boxes[:, :2]) * torch.tensor([0.25, 0.0])
        exact.append({"boxes": boxes, "labels": labels, "scores": scores})
        moved.append({"boxes": boxes + quarter.repeat(1, 2), "labels": labels, "scores": scores})
        again = {"boxes": boxes.repeat_interleave(2, 0), "labels": labels.repeat_interleave(2)}
        twice.append(again | {"scores": scores.repeat_interleave(2)})
        late.append(again | {"scores": torch.tensor([1.0, 0.5]).repeat(len(labels))})
    answers = {"exact": exact, "moved": moved, "twice": twice, "late": late}
    return {name: mean_average_precision(answer, truths(test_set)) for name, answer in answers.items()}


def compare_peaks(model: CenterNet, test_set: Boxes, device: torch.device) -> list[Claim]:
    """Whether taking only the peaks of the heat does what non-maximum suppression does."""
    peaks = predict(model, test_set, device)
    model.peaks_only = False
    every = mean_average_precision(predict(model, test_set, device), truths(test_set))["map_50"]
    model.peaks_only = True
    suppressed = []
    for found in peaks:
        stays = nms(found["boxes"], found["scores"], 0.5, found["labels"])
        suppressed.append({key: value[stays] for key, value in found.items()})
    with_peaks, with_both = (mean_average_precision(some, truths(test_set))["map_50"] for some in (peaks, suppressed))
    return [
        Claim("taking warm cells that are no peak as well finds objects twice: map_50", every, "<", with_peaks),
        Claim("non-maximum suppression after the peaks adds next to nothing", with_both - with_peaks, "<", 0.01),
    ]


@recipe
def run(
    *,
    data: str | None = None,
    model: str = "centernet",
    image_size: int | None = None,
    epochs: int = 16,
    batch_size: int = 32,
    lr: float = 8e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a detector and scores it on held-out scenes.

    Args:
        data: folder of your pictures with boxes; the bundled scenes if not given.
        model: centernet, or torchvision:NAME for a detector of torchvision with random weights.
        image_size: side in pixels that pictures are warped to; small square ones keep their own if not given.
        epochs: passes over the training pictures.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the pictures and of their shifts.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    train_set, test_set = open_boxes(data, image_size=image_size, seed=seed)
    library, _, name = model.partition(":")
    if library not in ("centernet", "torchvision"):
        raise InputError(f"option model: expected centernet or torchvision:NAME, got {model!r}")
    classes = len(train_set.classes)
    network = (CenterNet(classes) if library == "centernet" else TorchvisionDetector(name, classes)).to(place)

    fast: Engine = {"precision": "auto", "channels_last": True} if library == "centernet" else {}
    options: Engine = {**fast, **engine}
    loop = train(
        network, train_set, epochs=epochs, batch_size=batch_size, lr=lr, device=place, seed=seed, **options
    )
    altered = score_altered_truth(test_set)
    claims = [
        Claim("the true boxes score 1 at every overlap", altered["exact"]["map"], ">=", 1.0),
        Claim("moved by a quarter of their width they overlap by 0.6: map_50 stays", altered["moved"]["map_50"], ">=", 0.99),
        Claim("… and map_75 finds none of them right", altered["moved"]["map_75"], "<=", 0.01),
        Claim("given twice, with the same score, they lose nearly half of map_50", altered["twice"]["map_50"], "<", 0.6),
        Claim("… but nothing if each second box is less sure than all the first", altered["late"]["map_50"], ">=", 1.0),
    ]
    return Result(
        metrics=evaluate(network, test_set, place),
        baseline=commonest_places(train_set, test_set),
        baseline_name="commonest places",
        bars={"map_50": 0.8},
        claims=claims + (compare_peaks(network, test_set, place) if isinstance(network, CenterNet) else []),
        history=loop.history,
        model=network,
        draw=lambda: draw_detections(network, test_set, place, loop.history),
    )


if __name__ == "__main__":
    main(run)
