"""R-CNN: regions are proposed from outside, and a convolutional network looks at each of them.

The first detector that stood on a deep network kept what was there before, and added it at one place. Regions
of one colour are proposed, some of which hold an object. Each is cut out with a little of its surroundings,
warped to a square of fixed size, and classified by a network as any picture would be: a class, or background.
A region is only roughly where the object is, so the network also says how to move and stretch it (box
regression). Non-maximum suppression thins what was found twice.

What is not proposed is never found; and as regions overlap, the network sees the same pixels again and again.
(The paper trains linear SVMs on the network's features; here the network's own last layer classifies.)

Notes: 83
Paper: Girshick, Donahue, Darrell, Malik (2014), "Rich feature hierarchies for accurate object detection and
    semantic segmentation", https://arxiv.org/abs/1311.2524
Data: scenes with handwritten digits on clutter, 64×64; yours as COCO, Pascal VOC or PNG masks.
"""

from typing import Any, Unpack

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
from recipes.datasets.scenes import open_boxes
from recipes.vision.detection.boxes import Detections
from recipes.vision.detection.drawing import draw_frames, show_boxes
from recipes.vision.detection.proposals import examples, found_in, recall
from recipes.vision.detection.regions import Proposed, moved_along, propose, what_moving_gains
from recipes.vision.detection.scoring import commonest_places, evaluate, truths
from recipes.vision.detection.task import FAST, conv_block

SIDE = 32  # pixels; what every region is warped to
AROUND = 1.25  # how much larger than the region the piece is that the network sees


class RCNN(nn.Module):
    """A classifier of warped regions, which also says how to move each of them.

    In training it takes the targets too and gives the loss, in evaluation `Detections`.
    """

    def __init__(self, num_classes: int, *, width: int = 12) -> None:
        super().__init__()
        self.num_classes, self.adjusts = num_classes, True
        self.features = nn.Sequential(
            conv_block(3, width, 2),
            conv_block(width, 2 * width, 2),
            conv_block(2 * width, 4 * width),
            conv_block(4 * width, 4 * width, 2),
        )
        self.hidden = nn.Linear(4 * width * (SIDE // 8) ** 2, 128)
        self.heads = nn.Linear(128, 1 + 5 * num_classes)  # logits of background and classes, four codes a class

    def forward(self, inputs: Any, targets: Detections | None = None) -> Any:
        if targets is not None:
            return self.loss(inputs["images"], inputs["regions"], targets)
        return self.detect(inputs["images"], inputs["regions"])

    def judge(self, images: Tensor, regions: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (R, 1 + classes) and codes (R, classes, 4) of all regions of all pictures, one after the other."""
        crops = torch.cat([warp(image, some) for image, some in zip(images, regions, strict=True)])
        features = self.features(crops)  # (R, 4 * width, SIDE / 8, SIDE / 8)
        answers = self.heads(self.hidden(features.flatten(1)).relu()).float()
        logits, codes = answers.split([1 + self.num_classes, 4 * self.num_classes], dim=1)
        return logits, codes.unflatten(1, (self.num_classes, 4))

    def loss(self, images: Tensor, offered: list[Tensor], targets: Detections) -> Tensor:
        """Cross-entropy of a sample of the regions, and smooth L1 of the codes of those on objects."""
        offered = [torch.cat([some, target["boxes"]]) for some, target in zip(offered, targets, strict=True)]
        # Among the regions stand the true boxes, which are good examples. A label (R,) of 0 is background.
        regions, label, goals = examples(offered, targets, count=16)
        logits, codes = self.judge(images, regions)
        own = label > 0
        location = F.smooth_l1_loss(codes[own, label[own] - 1], goals, reduction="sum")
        return F.cross_entropy(logits, label) + location / own.sum().clamp(min=1)

    def detect(self, images: Tensor, regions: list[Tensor]) -> Detections:
        """What the network makes of the regions, thinned class by class."""
        logits, codes = self.judge(images, regions)
        return found_in(regions, logits, codes, images.shape[-2:], overlap=0.4, adjusts=self.adjusts)


def warp(image: Tensor, boxes: Tensor, side: int = SIDE) -> Tensor:
    """Pieces of a picture, each box and some of its surroundings, stretched to a square.

    Args:
        image: (3, height, width).
        boxes: (R, 4) in pixels.
        side: of the squares in pixels.

    Returns:
        (R, 3, side, side), read bilinearly; black where they leave the picture.
    """
    steps = ((torch.arange(side, device=boxes.device) + 0.5) / side - 0.5) * AROUND
    centre, size = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2])[:, None]
    points = centre + steps[:, None] * size  # (R, side, 2) x and y
    points = 2 * points / points.new_tensor([image.shape[2], image.shape[1]]) - 1
    across, down = points[:, None, :, 0], points[:, :, None, 1]
    grid = torch.stack(torch.broadcast_tensors(across, down), dim=3)  # (R, side, side, 2): where to look
    read = F.grid_sample(image[None], grid.flatten(0, 1)[None], align_corners=False)  # (1, 3, R * side, side)
    return read.view(3, len(boxes), side, side).transpose(0, 1)


def train(model: RCNN, train_set: Proposed, *, batch_size: int, lr: float, seed: int, **settings: Any) -> OldLoop:
    """Minimises the loss with AdamW on shifted and scaled pictures; `settings` are those of `Loop`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    loop = OldLoop(model, optimizer, old_batches(train_set, batch_size, seed=seed), schedule=one_cycle, **settings)
    for inputs, targets in loop:
        loop.step(loop.model(*moved_along(inputs, targets)))
    return loop


def seen_again(dataset: Proposed) -> float:
    """How many pixels all the crops of a picture have for each pixel of it."""
    height, width = dataset.images.shape[-2:]
    return sum(len(some) for some in dataset.regions) * SIDE**2 / (len(dataset) * height * width)


def draw(model: RCNN, dataset: Proposed, device: torch.device, history: list[dict[str, float]]) -> Any:
    """Above, the proposed regions; below, what the network makes of them."""
    found, targets = predict(model, dataset, device, batch_size=32), truths(dataset)
    figure, axes = new_figure(2, 5, width=2.5, height=2.6)
    draw_curves(axes[0, 0], history)
    crowded = sorted(range(len(dataset)), key=lambda index: -len(dataset.boxes[index]))[:4]
    pieces = warp(dataset.images[crowded[0]].float() / 255, dataset.regions[crowded[0]][:16])
    tiles = F.pad(pieces, (1, 1, 1, 1), value=1.0)
    rows = [torch.cat(list(tiles[start : start + 4]), dim=2) for start in range(0, len(tiles) // 4 * 4, 4)]
    if rows:
        show_picture(axes[1, 0], torch.cat(rows, dim=1), "what the network sees")
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
    epochs: int = 4,
    batch_size: int = 16,
    lr: float = 4e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains R-CNN on proposed regions and scores it on held-out scenes.

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
    model = RCNN(len(train_set.classes)).to(place)
    settings: dict[str, Any] = {"epochs": epochs, "device": place, **FAST, **engine}
    loop = train(model, train_set, batch_size=batch_size, lr=lr, seed=seed, **settings)
    metrics = evaluate(model, test_set, place)
    unmoved, back = what_moving_gains(model, test_set, place)
    proposed = recall(test_set.regions, test_set, 50)
    return Result(
        metrics=metrics,
        baseline=commonest_places(train_set, test_set),
        baseline_name="commonest places",
        bars={"map_50": 0.5},
        claims=[
            claim("what is not proposed is not found: map_50 is at most the recall", metrics["map_50"], "<=", proposed),
            claim("regions moved at random by 15 % are moved back: map without box regression", unmoved, "<", back),
            claim(
                "pixels are seen again and again: those of all crops over the pictures'", seen_again(test_set), ">", 2
            ),
        ],
        history=loop.history,
        model=model,
        draw=lambda: draw(model, test_set, place, loop.history),
    )


if __name__ == "__main__":
    main(run)
