"""Fast R-CNN: the network sees the picture once, and every region is cut out of its features.

To run a network on each proposed region is slow, for the regions overlap and the same pixels are seen again and
again. Here its convolutions pass over the picture once. A region is then a rectangle of the map of features,
and RoI pooling makes a small square of fixed size of it: the rectangle is divided into that many parts, and of
each part only the strongest feature is kept, channel by channel. Two layers tell from the square what the region
holds, and how to move and stretch it. One loss trains both, and the features below them. The regions still come
from outside, by colour.

What is gained grows with the number of regions: the paper has 2,000 a picture, these scenes fewer than 20. What
is lost is precision, as a region is rounded to whole cells of the map; RoI align (Faster R-CNN) mends that.

Notes: 83
Paper: Girshick (2015), "Fast R-CNN", https://arxiv.org/abs/1504.08083
Data: scenes with handwritten digits on clutter, 64×64; yours as COCO, Pascal VOC or PNG masks.
"""

from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, new_figure, show_picture
from recipes.core.loop import one_cycle
from recipes.core.measure import interleaved, ratio
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.scenes import open_boxes
from recipes.vision.detection.boxes import Detections
from recipes.vision.detection.drawing import draw_frames, show_boxes
from recipes.vision.detection.proposals import examples, found_in, recall
from recipes.vision.detection.regions import Proposed, moved_along, propose, what_moving_gains
from recipes.vision.detection.scoring import commonest_places, evaluate, truths
from recipes.vision.detection.task import FAST, conv_block

STRIDE = 4  # pixels in a cell of the features
PARTS = 5  # along either side of a region
CROP = 32  # pixels along either side of a piece, where each region is seen by itself


class FastRCNN(nn.Module):
    """Features of the whole picture, RoI pooling, and a head that judges each region.

    In training it takes the targets too and gives the loss, in evaluation `Detections`.
    """

    def __init__(self, num_classes: int, *, width: int = 12) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.adjusts, self.one_by_one = True, False  # what the claims switch
        self.fine = nn.Sequential(
            conv_block(3, width, 2),
            conv_block(width, width),
            conv_block(width, 2 * width, 2),
            conv_block(2 * width, 2 * width),
        )
        self.coarse = nn.Sequential(conv_block(2 * width, 4 * width, 2), conv_block(4 * width, 4 * width))
        self.merge = conv_block(6 * width, 4 * width)
        self.hidden = nn.Linear(4 * width * PARTS**2, 128)
        self.heads = nn.Linear(128, 1 + 5 * num_classes)  # logits of background and classes, four codes a class

    def forward(self, inputs: Any, targets: Detections | None = None) -> Any:
        if targets is not None:
            return self.loss(inputs["images"], inputs["regions"], targets)
        return self.detect(inputs["images"], inputs["regions"])

    def features_of(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, 4 * width, height / 4, width / 4), none below 0."""
        fine = self.fine(images)
        return self.merge(torch.cat([fine, F.interpolate(self.coarse(fine), size=fine.shape[-2:])], dim=1))

    def judge(self, images: Tensor, regions: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (R, 1 + classes) and codes (R, classes, 4) of all regions of all pictures, one after the other."""
        if self.one_by_one:  # as R-CNN does: through the network again for each region
            pieces = torch.cat([cut(image, some) for image, some in zip(images, regions, strict=True)])
            squares = F.adaptive_max_pool2d(self.features_of(pieces), PARTS)
        else:
            maps = self.features_of(images)
            squares = torch.cat([roi_pool(map, some, PARTS) for map, some in zip(maps, regions, strict=True)])
        answers = self.heads(self.hidden(squares.flatten(1)).relu()).float()  # (R, 1 + 5 * classes)
        logits, codes = answers.split([1 + self.num_classes, 4 * self.num_classes], dim=1)
        return logits, codes.unflatten(1, (self.num_classes, 4))

    def loss(self, images: Tensor, offered: list[Tensor], targets: Detections) -> Tensor:
        """Cross-entropy of a sample of the regions, and smooth L1 of the codes of those on objects."""
        offered = [torch.cat([some, target["boxes"]]) for some, target in zip(offered, targets, strict=True)]
        # Among the regions stand the true boxes, which are good examples. A label (R,) of 0 is background.
        regions, label, goals = examples(offered, targets, count=24)
        logits, codes = self.judge(images, regions)
        own = label > 0
        location = F.smooth_l1_loss(codes[own, label[own] - 1], goals, reduction="sum")
        return F.cross_entropy(logits, label) + location / own.sum().clamp(min=1)

    def detect(self, images: Tensor, regions: list[Tensor]) -> Detections:
        """What the head makes of the regions, thinned class by class."""
        logits, codes = self.judge(images, regions)
        return found_in(regions, logits, codes, images.shape[-2:], overlap=0.4, adjusts=self.adjusts)


def roi_pool(features: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Squares of the strongest features under boxes.

    A box is first rounded to whole cells, both ends included. Part i of n cells reaches from cell ⌊i n / side⌋
    up to but not including ⌈(i + 1) n / side⌉: parts share a cell where n is no multiple of side.

    Args:
        features: (channels, rows, columns), none below 0.
        boxes: (R, 4) in pixels.
        side: of the squares.

    Returns:
        (R, channels, side, side).
    """
    padded = F.pad(features, (0, 1, 0, 1))  # a box that ends at the border rounds to the cell beyond it
    squares = []
    for left, top, right, bottom in (boxes / STRIDE + 0.5).floor().int().tolist():
        under = padded[:, top : max(bottom, top) + 1, left : max(right, left) + 1]
        squares.append(F.adaptive_max_pool2d(under, side))
    return torch.stack(squares) if squares else features.new_zeros(0, len(features), side, side)


def cut(image: Tensor, boxes: Tensor) -> Tensor:
    """The pieces of a picture (3, height, width) under boxes (R, 4), each warped to (3, CROP, CROP)."""
    pieces = []
    for left, top, right, bottom in boxes.round().int().tolist():
        piece = image[None, :, top : max(bottom, top + 1), left : max(right, left + 1)]
        pieces.append(F.interpolate(piece, size=(CROP, CROP), mode="bilinear")[0])
    return torch.stack(pieces) if pieces else image.new_zeros(0, 3, CROP, CROP)


def train(model: FastRCNN, train_set: Proposed, *, batch_size: int, lr: float, seed: int, **settings: Any) -> OldLoop:
    """Minimises the loss with AdamW on shifted and scaled pictures; `settings` are those of `Loop`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    loop = OldLoop(model, optimizer, old_batches(train_set, batch_size, seed=seed), schedule=one_cycle, **settings)
    for inputs, targets in loop:
        loop.step(loop.model(*moved_along(inputs, targets)))
    return loop


def times(model: FastRCNN, dataset: Proposed, device: torch.device) -> tuple[float, float, float]:
    """Seconds a picture with one pass over it, with one pass a region, and the second over the first."""
    few = replace(dataset, images=dataset.images[:8])

    def one_by_one() -> None:
        model.one_by_one = True
        predict(model, few, device)
        model.one_by_one = False

    seconds = interleaved(
        {"each": one_by_one, "once": lambda: predict(model, few, device)}, rounds=5, warmup=1, device=device.type
    )
    once = sorted(seconds["once"])[2] / len(few)
    slower = ratio(seconds["each"], seconds["once"])[1]
    return once, once * slower, slower


def draw(model: FastRCNN, dataset: Proposed, device: torch.device, history: list[dict[str, float]]) -> Any:
    """Above, a picture, its features and its regions; below, what the head makes of them."""
    found, targets = predict(model, dataset, device, batch_size=32), truths(dataset)
    figure, axes = new_figure(2, 5, width=2.5, height=2.6)
    draw_curves(axes[0, 0], history)
    crowded = sorted(range(len(dataset)), key=lambda index: -len(dataset.boxes[index]))[:4]
    with torch.inference_mode():
        features = model.eval().features_of(dataset.images[crowded[:1]].to(device).float() / 255)[0].cpu()
    strongest = features[features.amax(dim=(1, 2)).argsort(descending=True)[:16]]
    tiles = F.pad(strongest / strongest.amax().clamp(min=1e-6), (1, 1, 1, 1), value=1.0)
    show_picture(axes[1, 0], torch.cat([torch.cat(list(row), dim=1) for row in tiles.split(4)])[None], "its features")
    for index, above, below in zip(crowded, axes[0, 1:], axes[1, 1:], strict=False):
        show_picture(above, dataset.images[index], f"{len(dataset.regions[index])} regions")
        draw_frames(above, dataset.regions[index], "gold")
        show_boxes(below, dataset.images[index], found[index], targets[index], dataset.classes)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    epochs: int = 5,
    batch_size: int = 16,
    lr: float = 6e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains Fast R-CNN on proposed regions and scores it on held-out scenes.

    Args:
        data: folder of your pictures with boxes; the bundled scenes if not given.
        image_size: side in pixels that pictures are warped to; small square ones keep their own if not given.
        epochs: passes over the training pictures.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the pictures, of their shifts and of the samples.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    train_set, test_set = (propose(part) for part in open_boxes(data, image_size=image_size, seed=seed))
    model = FastRCNN(len(train_set.classes)).to(place)
    settings: dict[str, Any] = {"epochs": epochs, "device": place, **FAST, **engine}
    loop = train(model, train_set, batch_size=batch_size, lr=lr, seed=seed, **settings)
    metrics = evaluate(model, test_set, place)
    unmoved, back = what_moving_gains(model, test_set, place)
    once, each, slower = times(model, test_set, place)
    proposed = recall(test_set.regions, test_set, 50)
    return Result(
        metrics=metrics,
        baseline=commonest_places(train_set, test_set),
        baseline_name="commonest places",
        bars={"map_50": 0.6},
        claims=[
            claim("one pass over the picture is faster than one over each region: seconds, a ratio", slower, ">", 1),
            claim("regions moved at random by 15 % are moved back: map without box regression", unmoved, "<", back),
            claim("what is not proposed is not found: map_50 is at most the recall", metrics["map_50"], "<=", proposed),
        ],
        history=loop.history,
        rows=[
            {"the network sees": "the picture once", "seconds a picture": once},
            {"the network sees": "each region by itself", "seconds a picture": each},
        ],
        model=model,
        draw=lambda: draw(model, test_set, place, loop.history),
    )


if __name__ == "__main__":
    main(run)
