"""Fast R-CNN: the network sees the picture once, and every region is cut out of its features.

To run a network on each proposed region, as R-CNN does, is slow: the regions overlap, and the same pixels are seen
again and again. Here the convolutions pass over the picture once. A region is then a rectangle of the map of features,
and RoI pooling makes a small square of fixed size of it: the rectangle is divided into that many parts, and of each
part only the strongest feature is kept, channel by channel. Two layers tell from the square what the region holds,
and how to move and stretch it. One loss trains both, and the features below them. The regions still come from
outside, by selective search.

What is gained grows with the number of regions. What is lost is precision, as a region is rounded to whole cells of
the map; RoI align (Faster R-CNN) mends that.

Notes: 83
Paper: Girshick (2015), "Fast R-CNN", https://arxiv.org/abs/1504.08083
Data: handwritten digits of four kinds on cluttered backgrounds, 64×64 pixels; yours as COCO, Pascal VOC, or PNG masks
    of numbered objects.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.core.figures import draw_curves, new_figure, show_picture
from recipes.core.frame import Claim, Loop, Options, Precision, Result, batches, main, option, predict, recipe
from recipes.core.measure import interleaved, macs, ratio
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection.backbone import BackboneFeatures
from recipes.vision.detection.drawing import draw_frames, show_boxes
from recipes.vision.detection.features import SmallFeatures
from recipes.vision.detection.rcnn import RCNN, without_moving
from recipes.vision.detection.region_backbone import on_backbone, open_features
from recipes.vision.detection.region_detector import RegionDetector
from recipes.vision.detection.regions import Proposed, RegionDetection, moved_along, propose
from recipes.vision.detection.scoring import commonest_places, evaluate

PARTS = 5  # along either side of a region


@dataclass(kw_only=True)
class FastRCNNOptions(Options):
    image_size: int | None = option(None, "side in pixels of the square that pictures are fitted into", least=8)
    regions: int = option(80, "proposed for each picture; photos want 500 to 2000", least=1)
    width: int = option(12, "channels of the first convolution", least=1)
    backbone: str | None = option(
        None, "for photos, with 500 regions: timm:NAME or torchvision:NAME, not the small network", copied=False
    )
    weights: str | None = option(None, "of the backbone: pretrained, a file, or a name of torchvision's", copied=False)
    epochs: int = 6
    batch_size: int = 16
    lr: float = 6e-3
    precision: Precision = "auto"
    channels_last: bool = True


class FastRCNN(RegionDetector):
    """Features of the whole picture, RoI pooling, and a head that judges each region."""

    def __init__(self, num_classes: int, *, width: int = 12) -> None:
        super().__init__(num_classes, inputs=4 * width * PARTS**2, samples=16)
        self.layers = SmallFeatures(width)

    def features_under(self, images: Tensor, regions: Tensor) -> Tensor:
        """The picture is seen once; regions are cut out of what was seen."""
        features = self.layers(images).float()  # (batch, 4 · width, height / 4, width / 4)
        return roi_pool(features, regions, PARTS, self.layers.stride).flatten(2)


def roi_pool(features: Tensor, boxes: Tensor, side: int, stride: int) -> Tensor:
    """Squares (batch, R, channels, side, side) of the strongest features under boxes (batch, R, 4; in pixels).

    A box is first rounded to whole cells, both ends included. Part i of n cells reaches from cell ⌊i n / side⌋ up to
    but not including ⌈(i + 1) n / side⌉. To have the strongest of any rectangle of features (batch, channels, rows,
    columns), those of all windows of 1, 2, 4 … cells a side are kept: four of them cover it.
    """
    features = F.pad(features, (0, 1, 0, 1))  # a box that ends at the border rounds to the cell beyond it
    rows, columns = features.shape[2:]
    corners = (boxes / stride + 0.5).floor().long()  # (batch, R, 4) cells
    spans = []
    for start, end, limit in ((corners[..., 1], corners[..., 3], rows), (corners[..., 0], corners[..., 2], columns)):
        cells, part = (end - start + 1).clamp(min=1)[..., None], torch.arange(side, device=boxes.device)
        first = (start[..., None] + part * cells // side).clamp(max=limit - 1)  # (batch, R, side)
        last = (start[..., None] - (-(part + 1) * cells // side)).clamp(max=limit) - 1
        length = (last - first + 1).clamp(min=1)
        level = sum((length >= 2**power).long() for power in range(1, limit.bit_length()))  # its windows: 2^level
        spans.append((first, torch.maximum(last + 1 - 2**level, first), level))
    windows, high, (heights, widths) = [], features, ((limit // side + 2).bit_length() for limit in (rows, columns))
    for tall in range(heights):
        large = high
        for wide in range(widths):
            windows.append(large)  # what begins in a cell and is 2^tall high and 2^wide wide
            large = torch.maximum(large, large.roll(-(2**wide), dims=3))
        high = torch.maximum(high, high.roll(-(2**tall), dims=2))
    table = torch.stack(windows, dim=2).flatten(2)  # (batch, channels, windows · rows · columns)
    (top, bottom, tall), (left, right, wide) = spans
    level = tall[..., :, None] * widths + wide[..., None, :]  # (batch, R, side, side)
    four = [(level * rows + y[..., :, None]) * columns + x[..., None, :] for y in (top, bottom) for x in (left, right)]
    strongest = [table.gather(2, one.flatten(1)[:, None].expand(-1, table.shape[1], -1)) for one in four]
    return torch.stack(strongest).amax(dim=0).unflatten(2, level.shape[1:]).transpose(1, 2)


def build(options: FastRCNNOptions, data: Boxes) -> FastRCNN:
    """The network for classes like these."""
    return FastRCNN(len(data.classes), width=options.width)


def train(model: FastRCNN, train_set: Proposed, options: FastRCNNOptions) -> Loop:
    """Minimizes the loss with AdamW on shifted and scaled pictures, whose regions move along."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.01)
    loop = Loop(model, optimizer, batches(train_set, options), options)
    for (images, regions), targets in loop:
        images, seen, targets = moved_along(images, regions, targets)
        loop.step(loop.model((images, seen), targets))
    return loop


@recipe(FastRCNNOptions)
def run(options: FastRCNNOptions) -> Result:
    """Trains Fast R-CNN on proposed regions and scores it on held-out pictures."""
    parts = open_boxes(options.data, image_size=options.image_size, seed=options.seed, letterbox=True)
    train_set, test_set = (propose(part, options.regions) for part in parts)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=commonest_places(train_set, test_set),
        baseline_name="commonest places",
        bars={"map_50": 0.65},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full = run()
    device, tenth = full.model.heads.weight.device, max(1, full.test_set.regions.shape[1] // 10)
    few = evaluate(full.model, replace(full.test_set, regions=full.test_set.regions[:, :tenth]), device)["map_50"]
    text = "what is not proposed is not found: with a tenth of the regions it does worse"
    yield Claim(text, few, "<", full["map_50"], margin=0.1)
    unmoved = without_moving(full)["map_75"]
    text = "box regression moves regions onto objects: map_75 without it"
    yield Claim(text, unmoved, "<", full["map_75"], margin=0.05)
    images, regions = (one.to(device) for one in full.test_set.__getitems__([0])[0])
    rcnn, fast = as_rcnn(full).to(device).eval(), full.model.eval()
    each, once = (macs(model, (images, regions)) for model in (rcnn, fast))
    with torch.inference_mode():
        passes = {"R-CNN": lambda: rcnn.raw(images, regions), "Fast R-CNN": lambda: fast.raw(images, regions)}
        seconds = interleaved(passes, rounds=9, device=device.type)
    times = ratio(*seconds.values())[1]
    full.rows = [{"over Fast R-CNN": "R-CNN", "multiplications, a ratio": each / once, "seconds, a ratio": times}]
    yield Claim("R-CNN computes more for the same regions: multiplications, a ratio", each / once, ">", 2, kind="fact")


def as_rcnn(result: Result) -> RCNN:
    """R-CNN of the same width."""
    return RCNN(result.model.num_classes, width=result.model.layers.channels // 4)


@run.figure
def figure(result: Result) -> Any:
    """Above, a picture's regions and the loss; below, its strongest features and what is found."""
    dataset, model = result.test_set, result.model.eval()
    device = model.heads.weight.device
    found = predict(model, dataset, device, batch_size=32)
    picture, axes = new_figure(2, 5, width=2.5, height=2.6)
    draw_curves(axes[0, 0], result.history, ["loss"])
    crowded = sorted(range(len(dataset)), key=lambda index: -len(dataset.boxes[index]))[:4]
    with torch.inference_mode():
        features = model.layers(dataset.images[crowded[:1]].to(device).float() / 255)[0].cpu()
    strongest = features[features.amax(dim=(1, 2)).argsort(descending=True)[:16]]
    tiles = F.pad(strongest / strongest.amax().clamp(min=1e-6), (1, 1, 1, 1), value=1.0)
    show_picture(axes[1, 0], torch.cat([torch.cat(list(row), dim=1) for row in tiles.split(4)])[None], "its features")
    for index, above, below in zip(crowded, axes[0, 1:], axes[1, 1:], strict=False):
        show_picture(above, dataset.images[index], "thirty regions")
        draw_frames(above, dataset.regions[index][:30], "gold")
        show_boxes(below, dataset.images[index], found[index], dataset.__getitems__([index])[1][0], dataset.classes)
    return picture


class FastRCNNOnBackbone(RegionDetector):
    """The same over the maps of a pretrained network, which are added up."""

    def __init__(self, num_classes: int, features: Any) -> None:
        layers = BackboneFeatures(features)
        super().__init__(num_classes, inputs=layers.channels * 7**2, samples=32)
        self.layers = layers

    def features_under(self, images: Tensor, regions: Tensor) -> Tensor:
        return roi_pool(self.layers(images).float(), regions, 7, self.layers.stride).flatten(2)


def build_on_backbone(options: FastRCNNOptions, data: Any) -> FastRCNNOnBackbone:
    return FastRCNNOnBackbone(len(data.classes), open_features(options, data, [8, 16, 32]))


run.predicts(RegionDetection, build, on_backbone(build_on_backbone, figure))


if __name__ == "__main__":
    main(run)
