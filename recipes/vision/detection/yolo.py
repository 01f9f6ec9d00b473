"""YOLO: one look at the picture, and every cell of a grid names its object.

The picture is divided into cells, and an object belongs to the cell that holds its centre. One pass of a
convolutional network gives every cell two boxes, each with a confidence, and one guess of the class. A
confidence learns how far its box overlaps an object, so it is to be 0 where there is none; times the
probability of the class it is the score. Of a cell's two boxes, the one that fits an object better answers
for it and learns from it, so that they may come to share the work; the table says how they did. A cell can
name one class only, so that a coarse grid misses what stands close together.

The loss is the paper's sum of squares, in which boxes count five times and empty cells half. Its fully
connected last layers are convolutions here, as they are in the versions that followed.

Notes: 83
Paper: Redmon, Divvala, Girshick, Farhadi (2016), "You Only Look Once: Unified, Real-Time Object Detection",
    https://arxiv.org/abs/1506.02640
Data: scenes with handwritten digits on clutter, 64×64; yours as COCO, Pascal VOC or PNG masks.
"""

import itertools
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.claims import Claim
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
from recipes.vision.detection.scoring import commonest_places, evaluate, mean_average_precision, truths
from recipes.vision.detection.task import FAST, conv_block

BOXES = 2  # predicted by each cell


class YOLO(nn.Module):
    """Convolutions that halve the picture until a position is a cell, and a last one that gives its numbers.

    In training it gives codes of boxes, confidences and logits of the classes of all cells, in evaluation
    `Detections`, with each box's number in its cell under `slots`, and its `confidences`.

    Args:
        num_classes: of the objects.
        stride: side of a cell in pixels, a power of two.
        width: channels of the first convolution.
    """

    def __init__(self, num_classes: int, *, stride: int = 8, width: int = 12) -> None:
        super().__init__()
        self.num_classes, self.stride = num_classes, stride
        self.overlap = 0.5  # where two boxes of a class overlap by more, the less sure one is removed
        channels = [3] + [width * 2**level for level in range(stride.bit_length() - 1)]
        self.features = nn.Sequential(
            *(
                nn.Sequential(conv_block(before, after, 2), conv_block(after, after))
                for before, after in itertools.pairwise(channels)
            ),
            conv_block(channels[-1], 8 * width),
            conv_block(8 * width, 8 * width),
        )
        self.head = nn.Conv2d(8 * width, BOXES * 5 + num_classes, 1)

    def forward(self, images: Tensor) -> Any:
        cells = self.head(self.features(images)).permute(0, 2, 3, 1)  # (batch, rows, columns, 2 * 5 + classes)
        numbers, logits = cells.float().split([BOXES * 5, self.num_classes], dim=3)
        # Centre within the cell, roots of width and height as shares of the picture, confidence: all from 0 to 1.
        codes, confidences = numbers.sigmoid().unflatten(3, (BOXES, 5)).split([4, 1], dim=4)
        outputs = codes, confidences.squeeze(4), logits
        return outputs if self.training else self.detect(*outputs, images.shape[-2:])

    def detect(self, codes: Tensor, confidences: Tensor, logits: Tensor, size: Any, most: int = 100) -> Detections:
        """Of each picture the surest boxes that are left by non-maximum suppression, class by class."""
        boxes = decode(codes, size, self.stride).flatten(1, 3)  # (batch, rows * columns * 2, 4)
        probabilities = logits.softmax(dim=3)[:, :, :, None]  # (batch, rows, columns, 1, classes)
        scores = (confidences[..., None] * probabilities).flatten(1)  # (batch, rows * columns * 2 * classes)
        found = []
        for picture_boxes, picture_scores, picture_confidences in zip(
            boxes, scores, confidences.flatten(1), strict=True
        ):
            surest = picture_scores.topk(min(2 * most, len(picture_scores)))
            places = surest.indices[surest.values > 0.01]
            chosen, labels = places // self.num_classes, places % self.num_classes
            some = {"boxes": picture_boxes[chosen], "scores": picture_scores[places], "labels": labels}
            some |= {"confidences": picture_confidences[chosen], "slots": chosen % BOXES}
            stays = nms(some["boxes"], some["scores"], self.overlap, labels)[:most]
            found.append({key: value[stays] for key, value in some.items()})
        return found


def decode(codes: Tensor, size: Any, stride: int) -> Tensor:
    """Boxes (batch, rows, columns, 2, 4), as corners in pixels and within the picture, from the codes of cells.

    Args:
        codes: (batch, rows, columns, 2, 4): centre within the cell, roots of width and height as shares
            of the picture.
        size: height and width of the picture.
        stride: pixels in a cell.
    """
    rows, columns = codes.shape[1:3]
    height, width = size
    across, down = torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy")
    corner = torch.stack([across, down], dim=2)[:, :, None].to(codes)  # (rows, columns, 1, 2)
    centre, half = stride * (corner + codes[..., :2]), codes[..., 2:] ** 2 * codes.new_tensor([width, height]) / 2
    limit = codes.new_tensor([width, height, width, height])
    return torch.cat([centre - half, centre + half], dim=-1).clamp(min=0).minimum(limit)


def yolo_loss(
    codes: Tensor, confidences: Tensor, logits: Tensor, targets: Detections, size: Any, stride: int = 8
) -> Tensor:
    """Squared errors of boxes (five times), confidences (half in cells without an object) and classes.

    Args:
        codes: (batch, rows, columns, 2, 4), see `decode`.
        confidences: (batch, rows, columns, 2).
        logits: (batch, rows, columns, classes).
        targets: the true boxes and labels of each picture.
        size: height and width of the pictures.
        stride: pixels in a cell.
    """
    boxes = torch.cat([target["boxes"] for target in targets])  # (objects, 4)
    labels = torch.cat([target["labels"] for target in targets])
    counts = torch.tensor([len(target["labels"]) for target in targets], device=codes.device)
    picture = torch.arange(len(targets), device=codes.device).repeat_interleave(counts)  # (objects,) the one it is in
    centre, share = (
        (boxes[:, :2] + boxes[:, 2:]) / 2 / stride,
        (boxes[:, 2:] - boxes[:, :2]) / codes.new_tensor(size[::-1]),
    )
    column = centre[:, 0].long().clamp(0, codes.shape[2] - 1)
    row = centre[:, 1].long().clamp(0, codes.shape[1] - 1)

    # The box of the cell that overlaps the object more answers for it, and its overlap is the confidence to learn.
    offered = decode(codes.detach(), size, stride)[picture, row, column]  # (objects, 2, 4)
    overlaps = torch.stack([box_iou(offered[:, slot], boxes).diagonal() for slot in range(BOXES)], dim=1)
    overlap, slot = overlaps.max(dim=1)  # (objects,)

    goal = torch.cat([centre - torch.stack([column, row], dim=1), share.sqrt()], dim=1)  # (objects, 4)
    location = (codes[picture, row, column, slot] - goal).square().sum()
    wanted, weight = torch.zeros_like(confidences), torch.full_like(confidences, 0.5)
    wanted[picture, row, column, slot], weight[picture, row, column, slot] = overlap, 1.0
    confidence = (weight * (confidences - wanted).square()).sum()
    probabilities = logits[picture, row, column].softmax(dim=1)  # (objects, classes)
    classes = (probabilities - F.one_hot(labels, logits.shape[3])).square().sum()
    return (5 * location + confidence + classes) / len(targets)


def train(model: YOLO, train_set: Boxes, *, batch_size: int, lr: float, seed: int, **settings: Any) -> OldLoop:
    """Minimises `yolo_loss` with AdamW on shifted and scaled pictures; `settings` are those of `Loop`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    loop = OldLoop(model, optimizer, old_batches(train_set, batch_size, seed=seed), schedule=one_cycle, **settings)
    for images, targets in loop:
        images, targets = shift_and_zoom(images, targets)
        codes, confidences, logits = loop.model(images)
        loop.step(yolo_loss(codes, confidences, logits, targets, images.shape[-2:], model.stride))
    return loop


def finders(found: Detections, targets: Detections) -> Tensor:
    """For each object the slot of the surest right detection, or -1."""
    slots = []
    for picture, target in zip(found, targets, strict=True):
        right = (box_iou(target["boxes"], picture["boxes"]) >= 0.5) & (target["labels"][:, None] == picture["labels"])
        slots += [int(picture["slots"][row][0]) if row.any() else -1 for row in right]
    return torch.tensor(slots)


def probe_scores(model: YOLO, test_set: Boxes, found: Detections, device: torch.device) -> list[Claim]:
    """What the confidence and non-maximum suppression are worth."""
    targets = truths(test_set)
    kinds = [picture | {"scores": picture["scores"] / picture["confidences"]} for picture in found]
    overlaps = torch.cat([box_iou(p["boxes"], t["boxes"]).amax(1) for p, t in zip(found, targets, strict=True)])
    confidences = torch.cat([picture["confidences"] for picture in found])
    model.overlap = 1.0
    repeated = evaluate(model, test_set, device)["map_50"]
    model.overlap = 0.5
    of = [mean_average_precision(answers, targets)["map_50"] for answers in (found, kinds)]
    told = torch.corrcoef(torch.stack([confidences, overlaps]))[0, 1].item()
    return [
        claim("a confidence tells how far its box overlaps an object: their correlation", told, ">", 0.5),
        claim("the class alone does not say how sure a box is: map_50 by it, by both", of[1], "<", of[0]),
        claim("neighbouring cells claim an object too: map_50 without non-maximum suppression", repeated, "<", of[0]),
    ]


def probe_company(model: YOLO, test_set: Boxes, device: torch.device) -> Claim:
    """Recall of objects that share their cell with another, and of the others."""
    found = finders(predict(model, test_set, device, batch_size=32), truths(test_set)) >= 0
    shared = []
    for boxes in test_set.boxes:
        cells = (boxes[:, :2] + boxes[:, 2:]) / 2 // model.stride
        shared.append((cells[:, None] == cells).all(dim=2).sum(dim=1) > 1)
    company = torch.cat(shared)
    together, alone = (found[chosen].double().mean().item() for chosen in (company, ~company))
    text = (
        f"with cells four times as wide, what shares one is missed: recall of {int(company.sum())} such, of the others"
    )
    return claim(text, together, "<", alone)


def draw(model: YOLO, dataset: Boxes, device: torch.device, history: list[dict[str, float]]) -> Any:
    """Above, the confidence of each cell; below, what is found."""
    found, targets = predict(model, dataset, device, batch_size=32), truths(dataset)
    figure, axes = new_figure(2, 5, width=2.5, height=2.6)
    draw_curves(axes[0, 0], history)
    overlaps = torch.cat([box_iou(p["boxes"], t["boxes"]).amax(1) for p, t in zip(found, targets, strict=True)])
    axes[1, 0].scatter(torch.cat([picture["confidences"] for picture in found]), overlaps, s=4, alpha=0.4)
    axes[1, 0].set(xlabel="confidence", ylabel="overlap with an object (IoU)", xlim=(0, 1), ylim=(0, 1))
    axes[1, 0].spines[["top", "right"]].set_visible(False)
    model.train(False)
    chosen = sorted(range(len(dataset)), key=lambda index: -len(dataset.boxes[index]))[:4]
    with torch.inference_mode():
        cells = model.head(model.features(dataset.__getitems__(chosen)[0].to(device)))
    confidences = cells[:, 4 : 5 * BOXES : 5].sigmoid().amax(dim=1).cpu()  # (4, rows, columns)
    height, width = dataset.images.shape[-2:]
    for index, sure, above, below in zip(chosen, confidences, axes[0, 1:], axes[1, 1:], strict=False):
        show_picture(above, dataset.images[index], "confidence of the cells")
        rows, columns = sure.shape
        extent = (-0.5, columns * model.stride - 0.5, rows * model.stride - 0.5, -0.5)
        above.imshow(sure, cmap="inferno", vmin=0, vmax=1, alpha=0.6, extent=extent)
        above.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        draw_frames(above, dataset.boxes[index], "white", "--")
        show_boxes(below, dataset.images[index], found[index], targets[index], dataset.classes, score=0.25)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    compare: bool = True,
    epochs: int = 9,
    batch_size: int = 16,
    lr: float = 8e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains YOLO and scores it on held-out scenes.

    Args:
        data: folder of your pictures with boxes; the bundled scenes if not given.
        image_size: side in pixels that pictures are warped to; small square ones keep their own if not given.
        compare: train again, for half the epochs, with cells four times as wide.
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

    def trained(stride: int, passes: int) -> tuple[YOLO, OldLoop]:
        torch.manual_seed(seed)
        model = YOLO(len(train_set.classes), stride=stride).to(place)
        settings: dict[str, Any] = {"epochs": passes, "device": place, "name": f"stride {stride}", **options}
        return model, train(model, train_set, batch_size=batch_size, lr=lr, seed=seed, **settings)

    model, loop = trained(8, epochs)
    found = predict(model, test_set, place, batch_size=32)
    slots, boxes = finders(found, truths(test_set)), torch.cat(test_set.boxes)
    sizes = boxes[:, 2:] - boxes[:, :2]
    claims = probe_scores(model, test_set, found, place)
    if compare:
        claims.append(probe_company(trained(32, -(-epochs // 2))[0], test_set, place))
    return Result(
        metrics=mean_average_precision(found, truths(test_set)),
        baseline=commonest_places(train_set, test_set),
        baseline_name="commonest places",
        bars={"map_50": 0.8},
        claims=claims,
        history=loop.history,
        rows=[
            {
                "objects found by": name,
                "share": (slots == slot).double().mean().item(),
                "mean width": sizes[slots == slot, 0].mean().item(),
                "mean height": sizes[slots == slot, 1].mean().item(),
            }
            for slot, name in [*((slot, f"box {slot + 1} of a cell") for slot in range(BOXES)), (-1, "none")]
        ],
        model=model,
        draw=lambda: draw(model, test_set, place, loop.history),
    )


if __name__ == "__main__":
    main(run)
