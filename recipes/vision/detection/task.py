"""Object detection with centre points, and how detections are scored.

A detector says what is where: a box, a label and a score for every object it finds. The simplest one
treats an object as a point. A convolutional network paints one heat map a class, which peaks at the
centres of objects, and beside it says for every cell how large an object centred there would be. The
peaks, with those sizes, are the detections.

They are scored by mean average precision. From the surest detection down, each is right if it overlaps
an object of its class by enough that no surer one has taken, and wrong otherwise; precision is averaged
over recall for each class, then over the classes. What that rewards is shown with the true boxes.

Notes: 83
Paper: Zhou, Wang, Krähenbühl (2019), "Objects as Points", https://arxiv.org/abs/1904.07850
Data: scenes with handwritten digits on clutter, 64×64; yours as COCO, Pascal VOC or PNG masks.
"""

import difflib
import math
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.claims import Claim
from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection.boxes import Detections, nms, shift_and_zoom
from recipes.vision.detection.drawing import draw_detections
from recipes.vision.detection.scoring import commonest_places, evaluate, mean_average_precision, truths

# Half precision and channels-last speed up convolutions where the device has them.
FAST: Engine = {"precision": "auto", "channels_last": True}


def conv_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class CenterNet(nn.Module):
    """Heat maps of centres, with sizes and offsets, in cells of 4×4 pixels.

    In training it gives the maps as `centre_loss` takes them, in evaluation `Detections`.
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
        start = [-math.log(99)] * num_classes + [0.0] * 4  # centres are rare: the heat starts at 1 %
        self.heads.bias = nn.Parameter(torch.tensor(start))
        self.peaks_only = True

    def forward(self, images: Tensor) -> Any:
        fine = self.fine(images)  # (batch, 2 * width, height / 4, width / 4)
        coarse = F.interpolate(self.coarse(fine), size=fine.shape[-2:])  # seen with more of its surroundings
        maps = self.heads(self.merge(torch.cat([fine, coarse], dim=1)))  # (batch, classes + 4, rows, columns)
        return maps if self.training else self.decode(maps.float())

    def decode(self, maps: Tensor, most: int = 100) -> Detections:
        """The boxes at the surest `most` peaks of each picture."""
        heat, size, offset = maps[:, :-4].sigmoid(), maps[:, -4:-2].clamp(min=0).flatten(2), maps[:, -2:].flatten(2)
        if self.peaks_only:
            heat = heat * (heat == F.max_pool2d(heat, 3, stride=1, padding=1))  # 0 beside a warmer cell
        rows, columns = heat.shape[-2:]
        scores, places = heat.flatten(1).topk(min(most, heat[0].numel()))  # (batch, most)
        labels, cells = places // (rows * columns), places % (rows * columns)
        here = cells[:, None].expand(-1, 2, -1)
        size, offset = size.gather(2, here), offset.gather(2, here)  # (batch, 2, most)
        centre = torch.stack([cells % columns, cells // columns], dim=1) + offset
        boxes = self.stride * torch.cat([centre - size / 2, centre + size / 2], dim=1).mT  # (batch, most, 4)
        found = zip(boxes, scores, labels, scores > 0.01, strict=True)
        return [{"boxes": b[sure], "scores": s[sure], "labels": l[sure]} for b, s, l, sure in found]


def centre_loss(maps: Tensor, targets: Detections, stride: int = 4) -> Tensor:
    """Focal loss of the heat maps plus the L1 distance of sizes and offsets at the true centres.

    Args:
        maps: (batch, classes + 4, rows, columns): logits of the heat, then width, height, and the
            centre's offset right and down from the cell's corner, in cells.
        targets: the true boxes and labels of each picture.
        stride: pixels in a cell.
    """
    batch, channels, rows, columns = maps.shape
    num_classes = channels - 4
    boxes = torch.cat([target["boxes"] for target in targets]) / stride  # (objects, 4) in cells
    labels = torch.cat([target["labels"] for target in targets])
    counts = torch.tensor([len(target["labels"]) for target in targets], device=maps.device)
    picture = torch.arange(batch, device=maps.device).repeat_interleave(counts)  # (objects,) the one it is in
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    column = centre[:, 0].long().clamp(0, columns - 1)
    row = centre[:, 1].long().clamp(0, rows - 1)

    # The heat to learn: a bell over each object, 1 in the cell of its centre, and wider for a larger object
    # (the paper takes the width from an overlap of 0.7). Where two bells meet, the higher counts.
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
            return self.detector(list(images), [target | {"labels": target["labels"] + 1} for target in targets])
        return [answer | {"labels": answer["labels"] - 1} for answer in self.detector(list(images))]


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
) -> OldLoop:
    """Minimises the detector's loss with AdamW on shifted and scaled pictures; gives the loop with its history."""
    loop = OldLoop(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01),
        old_batches(train_set, batch_size, seed=seed),
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


def probe_metric(test_set: Boxes) -> list[Claim]:
    """What the metric says of the true boxes, given as detections and altered in three ways."""
    exact, moved, twice, later = [], [], [], []
    for target in truths(test_set):
        boxes, labels, scores = target["boxes"], target["labels"], torch.ones(len(target["labels"]))
        width = boxes[:, 2:3] - boxes[:, :1]
        double = {"boxes": boxes.repeat_interleave(2, dim=0), "labels": labels.repeat_interleave(2)}
        exact.append({"boxes": boxes, "labels": labels, "scores": scores})
        moved.append({"boxes": boxes + width * torch.tensor([0.25, 0, 0.25, 0]), "labels": labels, "scores": scores})
        twice.append(double | {"scores": scores.repeat_interleave(2)})
        later.append(double | {"scores": torch.tensor([1.0, 0.5]).repeat(len(labels))})
    of = [mean_average_precision(answers, truths(test_set)) for answers in (exact, moved, twice, later)]
    return [
        claim("the true boxes score 1: map", of[0]["map"], ">=", 0.999),
        claim(
            "moved by a quarter of their width (overlap 0.6) they still do at 0.5: map_50", of[1]["map_50"], ">=", 0.99
        ),
        claim("and score nothing at 0.75: map_75", of[1]["map_75"], "<=", 0.01),
        claim("given twice with equal scores they lose nearly half: map_50", of[2]["map_50"], "<=", 0.6),
        claim("but nothing if every second one is less sure than all the first: map_50", of[3]["map_50"], ">=", 0.999),
    ]


def probe_peaks(model: CenterNet, test_set: Boxes, device: torch.device) -> list[Claim]:
    """Whether taking only the peaks of the heat does the work of non-maximum suppression."""
    peaks = predict(model, test_set, device, batch_size=32)
    model.peaks_only = False
    every = predict(model, test_set, device, batch_size=32)
    model.peaks_only = True
    thinned = []
    for found in peaks:
        stays = nms(found["boxes"], found["scores"], 0.5, found["labels"])
        thinned.append({key: value[stays] for key, value in found.items()})
    of = [mean_average_precision(answers, truths(test_set))["map_50"] for answers in (peaks, every, thinned)]
    return [
        claim("warm cells beside a peak find its object again: map_50 with them, without", of[1], "<", of[0]),
        claim("after that non-maximum suppression has nothing left to do: map_50 gained", of[2] - of[0], "<", 0.01),
    ]


@old_recipe
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
        lr: highest learning rate of the one-cycle schedule; torchvision's detectors want about 1e-3.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the pictures and of their shifts.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    train_set, test_set = open_boxes(data, image_size=image_size, seed=seed)
    classes = len(train_set.classes)
    library, _, name = model.partition(":")
    if library not in ("centernet", "torchvision"):
        raise InputError(f"option model: expected centernet or torchvision:NAME, got {model!r}")
    network = (CenterNet(classes) if library == "centernet" else TorchvisionDetector(name, classes)).to(place)
    options: Engine = {**FAST, **engine}
    loop = train(network, train_set, epochs=epochs, batch_size=batch_size, lr=lr, device=place, seed=seed, **options)
    claims = probe_metric(test_set)
    if isinstance(network, CenterNet):
        claims += probe_peaks(network, test_set, place)
    return Result(
        metrics=evaluate(network, test_set, place),
        baseline=commonest_places(train_set, test_set),
        baseline_name="commonest places",
        bars={"map_50": 0.8},
        claims=claims,
        history=loop.history,
        model=network,
        draw=lambda: draw_detections(network, test_set, place, loop.history),
    )


if __name__ == "__main__":
    main(run)
