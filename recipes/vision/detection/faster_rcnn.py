"""Faster R-CNN: one stage proposes where something is, a second looks there and says what.

Both stand on one map of features. Over every cell of it lie anchors: boxes as large as the objects to be
learned, in a few sizes and three shapes. Of each the region proposal network says whether it holds any
object, and how to move and stretch it onto that. The best of these, thinned by non-maximum suppression, are
the proposals. From each a small square of features is cut by RoI align, whatever the proposal's size, and a
head of two layers gives its class, or background, and moves and stretches it once more. An anchor is right
if it overlaps an object by 0.7, wrong below 0.3; of each stage only a balanced sample enters the loss.

Earlier detectors had to be given their proposals. Here they are compared with such outside ones: boxes
around regions of one colour, which suit these scenes well.

Notes: 83
Paper: Ren, He, Girshick, Sun (2015), "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
    Networks", https://arxiv.org/abs/1506.01497; RoI align is from He, Gkioxari, Dollár, Girshick (2017),
    "Mask R-CNN", https://arxiv.org/abs/1703.06870
Data: scenes with handwritten digits on clutter, 64×64; yours as COCO, Pascal VOC or PNG masks.
"""

from dataclasses import replace
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
from recipes.core.measure import interleaved, ratio
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection.boxes import Detections, decode, encode, nms, shift_and_zoom
from recipes.vision.detection.drawing import draw_frames, show_boxes
from recipes.vision.detection.proposals import (
    anchor_sides,
    colour_regions,
    examples,
    found_in,
    recall,
    sample,
    within,
)
from recipes.vision.detection.scoring import commonest_places, evaluate, truths
from recipes.vision.detection.task import FAST, conv_block

STRIDE = 4  # pixels in a cell of the features


class FasterRCNN(nn.Module):
    """A shared map of features, proposals of regions from it, and a head that judges each of them.

    In training it takes the targets too and gives the loss, in evaluation `Detections`.

    Args:
        num_classes: of the objects; the head adds one for background.
        sides: of the square anchors, in pixels, see `anchor_sides`; they are kept with the weights.
        width: channels of the first convolution.
        proposals: how many the second stage looks at in a picture.
    """

    sides: Tensor

    def __init__(self, num_classes: int, sides: list[float], *, width: int = 12, proposals: int = 50) -> None:
        super().__init__()
        self.register_buffer("sides", torch.tensor(sides))
        self.num_classes, self.proposals = num_classes, proposals
        self.first_only, self.adjusts, self.rounds = False, True, False  # what the claims switch
        self.fine = nn.Sequential(
            conv_block(3, width, 2),
            conv_block(width, width),
            conv_block(width, 2 * width, 2),
            conv_block(2 * width, 2 * width),
        )
        self.coarse = nn.Sequential(conv_block(2 * width, 4 * width, 2), conv_block(4 * width, 4 * width))
        self.merge = conv_block(6 * width, 4 * width)
        self.region = conv_block(4 * width, 4 * width)
        self.region_heads = nn.Conv2d(4 * width, 3 * len(sides) * 5, 1)  # an anchor's logit of an object, four codes
        self.hidden = nn.Linear(4 * width * 5 * 5, 128)
        self.heads = nn.Linear(128, 1 + 5 * num_classes)  # logits of background and classes, four codes a class

    def forward(self, images: Tensor, targets: Detections | None = None) -> Any:
        fine = self.fine(images)  # (batch, 2 * width, height / 4, width / 4)
        coarse = F.interpolate(self.coarse(fine), size=fine.shape[-2:])
        features = self.merge(torch.cat([fine, coarse], dim=1))  # (batch, channels, rows, columns)
        answers = self.region_heads(self.region(features)).permute(0, 2, 3, 1)
        answers = answers.reshape(len(images), -1, 5).float()  # (batch, A, 5)
        logits, codes, features = answers[..., 0], answers[..., 1:], features.float()
        anchors = anchor_boxes(self.sides, *features.shape[-2:])  # (A, 4)
        proposals = self.propose(logits.detach(), codes.detach(), anchors, images.shape[-2:])
        if targets is not None:
            first = region_loss(logits, codes, anchors, targets)
            # True boxes join the proposals, as good examples while there are no others.
            offered = [torch.cat([some, target["boxes"]]) for some, target in zip(proposals, targets, strict=True)]
            return first + self.head_loss(features, offered, targets)
        return proposals if self.first_only else self.detect(features, proposals, images.shape[-2:])

    def propose(self, logits: Tensor, codes: Tensor, anchors: Tensor, size: Any) -> list[Tensor]:
        """Of each picture the best boxes (n, 4) of the first stage, the surest first."""
        proposals = []
        for picture_logits, picture_codes in zip(logits, codes, strict=True):
            scores, best = picture_logits.topk(min(2 * self.proposals, len(anchors)))
            boxes = within(decode(picture_codes[best], anchors[best]), size)
            large = (boxes[:, 2:] - boxes[:, :2]).amin(dim=1) >= 1
            boxes, scores = boxes[large], scores[large]
            # In training the sample that is drawn from them thins them enough.
            proposals.append(boxes if self.training else boxes[nms(boxes, scores, 0.7)[: self.proposals]])
        return proposals

    def judge(self, features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (R, 1 + classes) and codes (R, classes, 4) of all boxes of all pictures, one after the other."""
        cut = torch.cat([roi_align(map, some, 5) for map, some in zip(features, boxes, strict=True)])
        answers = self.heads(self.hidden(cut.flatten(1)).relu()).float()  # (R, 1 + 5 * classes)
        logits, codes = answers.split([1 + self.num_classes, 4 * self.num_classes], dim=1)
        return logits, codes.unflatten(1, (self.num_classes, 4))

    def head_loss(self, features: Tensor, offered: list[Tensor], targets: Detections) -> Tensor:
        """Cross-entropy of a sample of the offered boxes, and smooth L1 of the codes of those on objects."""
        boxes, label, goals = examples(offered, targets, count=32)  # a label (R,) of 0 is background
        logits, codes = self.judge(features, boxes)
        own = label > 0
        location = F.smooth_l1_loss(codes[own, label[own] - 1], goals, reduction="sum")
        return F.cross_entropy(logits, label) + location / own.sum().clamp(min=1)

    def detect(self, features: Tensor, proposals: list[Tensor], size: Any) -> Detections:
        """What the second stage makes of the proposals, thinned class by class."""
        looked = [(some / STRIDE).round() * STRIDE for some in proposals] if self.rounds else proposals
        logits, codes = self.judge(features, looked)
        return found_in(proposals, logits, codes, size, overlap=0.45, adjusts=self.adjusts)


def anchor_boxes(sides: Tensor, rows: int, columns: int) -> Tensor:
    """Corners (rows * columns * 3 * sides, 4) in pixels of the anchors of a map, row by row.

    Over the middle of each cell: of each side the square, and 1:2 and 2:1 of the same area.
    """
    shapes = sides.new_tensor([0.5, 1.0, 2.0]).sqrt()
    half = torch.stack([sides[:, None] * shapes, sides[:, None] / shapes], dim=2).view(-1, 2) / 2
    across, down = torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy")
    centre = (torch.stack([across, down], dim=2).view(-1, 1, 2).to(sides) + 0.5) * STRIDE
    return torch.cat([centre - half, centre + half], dim=2).view(-1, 4)


def region_loss(logits: Tensor, codes: Tensor, anchors: Tensor, targets: Detections) -> Tensor:
    """Cross-entropy of a sample of anchors, object or not, and smooth L1 of the codes of those on objects.

    Args:
        logits: (batch, A).
        codes: (batch, A, 4).
        anchors: (A, 4).
        targets: the true boxes of each picture.
    """
    says, truth, given, goals = [], [], [], []
    for i, target in enumerate(targets):
        chosen, matched = sample(target["boxes"], anchors, high=0.7, low=0.3, count=64)
        own = matched >= 0
        says.append(logits[i, chosen])
        truth.append(own.float())
        given.append(codes[i, chosen[own]])
        goals.append(encode(target["boxes"][matched[own]], anchors[chosen[own]]))
    location = F.smooth_l1_loss(torch.cat(given), torch.cat(goals), reduction="sum")
    holds = torch.cat(truth)
    return F.binary_cross_entropy_with_logits(torch.cat(says), holds) + location / holds.sum().clamp(min=1)


def roi_align(features: Tensor, boxes: Tensor, side: int, samples: int = 1) -> Tensor:
    """Squares of features under boxes, read between the cells where need be.

    Each box is divided into side × side parts, and in each the features at samples × samples points,
    interpolated bilinearly, are averaged.

    Args:
        features: (channels, rows, columns).
        boxes: (R, 4) in pixels.
        side: of the squares.
        samples: points along either side of a part.

    Returns:
        (R, channels, side, side).
    """
    steps = (torch.arange(side * samples, device=boxes.device) + 0.5) / (side * samples)
    points = boxes[:, None, :2] + steps[:, None] * (boxes[:, 2:] - boxes[:, :2])[:, None]  # (R, steps, 2) x and y
    points = 2 * points / (STRIDE * points.new_tensor([features.shape[2], features.shape[1]])) - 1
    across, down = points[:, None, :, 0], points[:, :, None, 1]
    grid = torch.stack(torch.broadcast_tensors(across, down), dim=3)  # (R, steps, steps, 2): where to look
    read = F.grid_sample(features[None], grid.flatten(0, 1)[None], padding_mode="border", align_corners=False)
    return read.view(len(features), len(boxes), side, samples, side, samples).mean(dim=(3, 5)).transpose(0, 1)


def train(model: FasterRCNN, train_set: Boxes, *, batch_size: int, lr: float, seed: int, **settings: Any) -> OldLoop:
    """Minimises the losses of both stages together with AdamW; `settings` are those of `Loop`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    loop = OldLoop(model, optimizer, old_batches(train_set, batch_size, seed=seed), schedule=one_cycle, **settings)
    for images, targets in loop:
        loop.step(loop.model(*shift_and_zoom(images, targets)))
    return loop


def propose_for(model: FasterRCNN, dataset: Boxes, device: torch.device) -> list[Tensor]:
    """The first stage's proposals (n, 4) for each picture, the surest first."""
    model.first_only = True
    proposals = predict(model, dataset, device, batch_size=32)
    model.first_only = False
    return proposals


def probe_stages(model: FasterRCNN, test_set: Boxes, full: float, device: torch.device) -> list[Claim]:
    """What either stage does, found by leaving parts of them out; `full` is map_75 with all of them."""
    most, model.adjusts = model.proposals, False
    unmoved = evaluate(model, test_set, device)["map_75"]
    model.adjusts, model.rounds = True, True
    rounded = evaluate(model, test_set, device)["map_75"]
    model.rounds = False
    few = replace(test_set, images=test_set.images[:16])
    turns = {"both": lambda: predict(model, few, device), "first": lambda: propose_for(model, few, device)}
    seconds = interleaved(turns, rounds=5, device=device.type)
    own, outside = propose_for(model, test_set, device), [colour_regions(image) for image in test_set.images]
    ten, ten_outside, own_all, outside_all = (recall(p, test_set, n) for n in (10, most) for p in (own, outside))
    return [
        claim(f"{most} own proposals miss less than up to {most} outside ones: recall", own_all, ">", outside_all),
        claim("they are ranked by what was learned: recall of the first 10", ten, ">", ten_outside),
        claim("the second stage moves boxes onto objects: map_75 without it", unmoved, "<", full),
        claim("features must be read between the cells: map_75 where they are cut along cells", rounded, "<", full),
        claim("and costs time: that of both stages over that of the first", ratio(*seconds.values())[1], ">", 1.0),
    ]


def draw(model: FasterRCNN, dataset: Boxes, device: torch.device, history: list[dict[str, float]]) -> Any:
    """Above, the surest ten proposals; below, what the second stage makes of them."""
    found, targets = predict(model, dataset, device, batch_size=32), truths(dataset)
    own, outside = propose_for(model, dataset, device), [colour_regions(image) for image in dataset.images]
    figure, axes = new_figure(2, 5, width=2.5, height=2.6)
    draw_curves(axes[0, 0], history)
    counts = [1, 2, 3, 5, 7, 10, 15, 20, 30, 50]
    for name, some in (("own proposals", own), ("regions of colour", outside)):
        axes[1, 0].plot(counts, [recall(some, dataset, count) for count in counts], label=name)
    axes[1, 0].set(xlabel="proposals", ylabel="recall", ylim=(0, 1.02))
    axes[1, 0].legend(frameon=False, fontsize=7, loc="lower right")
    axes[1, 0].spines[["top", "right"]].set_visible(False)
    chosen = sorted(range(len(dataset)), key=lambda index: -len(dataset.boxes[index]))[:4]
    for index, above, below in zip(chosen, axes[0, 1:], axes[1, 1:], strict=False):
        show_picture(above, dataset.images[index], "ten proposals")
        draw_frames(above, own[index][:10], "gold")
        draw_frames(above, dataset.boxes[index], "white", "--")
        show_boxes(below, dataset.images[index], found[index], targets[index], dataset.classes)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    proposals: int = 50,
    epochs: int = 6,
    batch_size: int = 16,
    lr: float = 6e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains Faster R-CNN and scores it on held-out scenes.

    Args:
        data: folder of your pictures with boxes; the bundled scenes if not given.
        image_size: side in pixels that pictures are warped to; small square ones keep their own if not given.
        proposals: regions of a picture that the second stage looks at; some times as many as it has objects.
        epochs: passes over the training pictures.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the pictures, of their shifts and of the samples.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    train_set, test_set = open_boxes(data, image_size=image_size, seed=seed)
    model = FasterRCNN(len(train_set.classes), sides=anchor_sides(train_set), proposals=proposals).to(place)
    settings: dict[str, Any] = {"epochs": epochs, "device": place, **FAST, **engine}
    loop = train(model, train_set, batch_size=batch_size, lr=lr, seed=seed, **settings)
    metrics = evaluate(model, test_set, place)
    return Result(
        metrics=metrics,
        baseline=commonest_places(train_set, test_set),
        baseline_name="commonest places",
        bars={"map_50": 0.8},
        claims=probe_stages(model, test_set, metrics["map_75"], place),
        history=loop.history,
        model=model,
        draw=lambda: draw(model, test_set, place, loop.history),
    )


if __name__ == "__main__":
    main(run)
