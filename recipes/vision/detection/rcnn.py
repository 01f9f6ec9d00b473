"""R-CNN: regions are proposed from outside, and a convolutional network looks at each of them.

R-CNN showed that a deep network finds objects far better than features made by hand; the rest of a detector it left
as it was. Selective search proposes regions: small segments of one color are merged step by step, and each on the way
may be an object. Every region is cut out with a little of its surroundings, warped to a square of fixed size, and
classified by a network as any picture would be: a class, or background. A region is only roughly where the object is,
so the network also says how to move and stretch it (box regression). Non-maximum suppression thins what was found
twice.

What is not proposed is never found, so the paper proposes 2,000 regions for each photo, and most of the same pixels
are seen by the network again and again. (It trains linear SVMs and the box regression on the network's features
afterwards; here both are the network's own last layer, as in Fast R-CNN, and the claims compare the SVMs.)

Notes: 83
Paper: Girshick, Donahue, Darrell and Malik (2014), "Rich feature hierarchies for accurate object detection and
    semantic segmentation", https://arxiv.org/abs/1311.2524
Data: handwritten digits of four kinds on cluttered backgrounds, 64×64 pixels; yours as COCO, Pascal VOC, or PNG masks
    of numbered objects.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import draw_curves, new_figure, show_picture
from recipes.core.frame import Claim, Loop, Options, Precision, Result, batches, main, option, predict, recipe
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection.boxes import box_iou
from recipes.vision.detection.drawing import draw_frames, show_boxes
from recipes.vision.detection.features import conv_block
from recipes.vision.detection.proposals import recall
from recipes.vision.detection.region_backbone import on_backbone, open_features
from recipes.vision.detection.region_detector import RegionDetector
from recipes.vision.detection.regions import Proposed, RegionDetection, moved_along, propose
from recipes.vision.detection.scoring import commonest_places, evaluate, mean_average_precision, truths

SIDE = 32  # pixels; what every region is warped to
AROUND = 1.25  # how much larger than the region the piece is that the network sees


@dataclass(kw_only=True)
class RCNNOptions(Options):
    image_size: int | None = option(None, "side in pixels of the square that pictures are fitted into", least=8)
    regions: int = option(80, "proposed for each picture; photos want 500 to 2000", least=1)
    width: int = option(12, "channels of the first convolution", least=1)
    backbone: str | None = option(
        None, "for photos, with 500 regions: timm:NAME or torchvision:NAME, not the small network", copied=False
    )
    weights: str | None = option(None, "of the backbone: pretrained, a file, or a name of torchvision's", copied=False)
    epochs: int = 6
    batch_size: int = 16
    lr: float = 4e-3
    precision: Precision = "auto"
    channels_last: bool = True


class RCNN(RegionDetector):
    """A classifier of warped regions, which also says how to move each of them."""

    def __init__(self, num_classes: int, *, width: int = 12) -> None:
        super().__init__(num_classes, inputs=4 * width * (SIDE // 8) ** 2, samples=16)
        self.layers = nn.Sequential(
            conv_block(3, width, 2),
            conv_block(width, 2 * width, 2),
            conv_block(2 * width, 4 * width),
            conv_block(4 * width, 4 * width, 2),
        )

    def features_under(self, images: Tensor, regions: Tensor) -> Tensor:
        """Each region is seen by itself, as a picture of its own."""
        crops = warp(images, regions)  # (batch, R, 3, SIDE, SIDE)
        return self.layers(crops.flatten(0, 1)).unflatten(0, crops.shape[:2]).flatten(2)


def warp(images: Tensor, boxes: Tensor, side: int = SIDE) -> Tensor:
    """Pieces (batch, R, 3, side, side) of pictures: each box (batch, R, 4) and some of its surroundings, stretched.

    They are read bilinearly, and black where they leave the picture.
    """
    steps = ((torch.arange(side, device=boxes.device) + 0.5) / side - 0.5) * AROUND
    center, size = (boxes[:, :, None, :2] + boxes[:, :, None, 2:]) / 2, (boxes[..., 2:] - boxes[..., :2])[:, :, None]
    points = center + steps[:, None] * size  # (batch, R, side, 2) x and y
    points = 2 * points / points.new_tensor([images.shape[3], images.shape[2]]) - 1
    grid = torch.stack(torch.broadcast_tensors(points[:, :, None, :, 0], points[:, :, :, None, 1]), dim=4)
    read = F.grid_sample(images, grid.flatten(1, 2), align_corners=False)  # (batch, 3, R · side, side)
    return read.unflatten(2, (-1, side)).transpose(1, 2)


def build(options: RCNNOptions, data: Boxes) -> RCNN:
    """The network for classes like these."""
    return RCNN(len(data.classes), width=options.width)


def train(model: RCNN, train_set: Proposed, options: RCNNOptions) -> Loop:
    """Minimizes the loss with AdamW on shifted and scaled pictures, whose regions move along."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.01)
    loop = Loop(model, optimizer, batches(train_set, options), options)
    for (images, regions), targets in loop:
        images, seen, targets = moved_along(images, regions, targets)
        loop.step(loop.model((images, seen), targets))
    return loop


@recipe(RCNNOptions)
def run(options: RCNNOptions) -> Result:
    """Trains R-CNN on proposed regions and scores it on held-out pictures."""
    parts = open_boxes(options.data, image_size=options.image_size, seed=options.seed, letterbox=True)
    train_set, test_set = (propose(part, options.regions) for part in parts)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=commonest_places(train_set, test_set),
        baseline_name="commonest places",
        bars={"map_50": 0.8},
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
    yield Claim(
        "box regression moves regions onto objects: map_75 without it", unmoved, "<", full["map_75"], margin=0.05
    )
    if full.options["data"] is None:  # elsewhere a class may have no example
        text = "linear SVMs on its features, as in the paper, do no better than its own last layer"
        yield Claim(text, with_svms(full)["map_50"], "<", full["map_50"], margin=0.005)
    again = seen_again(full.test_set)
    yield Claim(
        "the network sees the same pixels again: all regions' areas over the picture's", again, ">", 2, kind="fact"
    )


def with_svms(result: Result, pictures: int = 160) -> dict[str, float]:
    """The scores where linear SVMs on the network's features, one a class, take the place of its last layer.

    As in the paper, true boxes are a class's examples, and regions that overlap no object by 0.3 its background.
    """
    from sklearn.svm import LinearSVC

    model, dataset, features, labels = copy.deepcopy(result.model).eval(), result.train_set, [], []
    device = model.heads.weight.device
    for index in range(min(pictures, len(dataset))):
        (image, regions), (target,) = dataset.__getitems__([index])
        beside = regions[0][(box_iou(regions[0], target["boxes"]) < 0.3).all(dim=1)]
        boxes = torch.cat([target["boxes"], beside])
        with torch.inference_mode():
            seen = model.hidden(model.features_under(image.to(device), boxes[None].to(device))).relu()
        features.append(seen[0].cpu())
        labels.append(torch.cat([target["labels"], -torch.ones(len(beside))]))
    examples, kinds = torch.cat(features).double().numpy(), torch.cat(labels).numpy()
    scale = examples.mean()
    svms = [LinearSVC(dual=False).fit(examples / scale, kinds == kind) for kind in range(model.num_classes)]
    weight = torch.cat([torch.from_numpy(svm.coef_ / scale) for svm in svms]).float().to(device)
    bias = torch.cat([torch.from_numpy(svm.intercept_) for svm in svms]).float().to(device)

    def raw(images: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        seen = model.hidden(model.features_under(images, regions)).relu()
        return (seen @ weight.T + bias).sigmoid(), result.model.raw(images, regions)[1]

    model.raw = raw
    return mean_average_precision(predict(model, result.test_set, device, batch_size=32), truths(result.test_set))


def without_moving(result: Result) -> dict[str, float]:
    """The scores where regions are left where they were proposed."""
    model = copy.deepcopy(result.model)
    judge = model.judge

    def still(features: Tensor) -> tuple[Tensor, Tensor]:
        logits, codes = judge(features)
        return logits, torch.zeros_like(codes)

    model.judge = still
    found = predict(model, result.test_set, model.heads.weight.device, batch_size=32)
    return mean_average_precision(found, truths(result.test_set))


def seen_again(dataset: Proposed) -> float:
    """The area of all regions of a picture over its own, each region once."""
    height, width = dataset.images.shape[2:]
    whole = dataset.regions.new_tensor([0, 0, width, height])
    areas = (dataset.regions[..., 2:] - dataset.regions[..., :2]).prod(dim=2)
    return (areas * (dataset.regions != whole).any(dim=2)).sum().item() / (len(dataset) * height * width)


@run.figure
def figure(result: Result) -> Any:
    """Recall over the number of regions; above, the ten that fit best; below, what the network makes of all."""
    dataset = result.test_set
    found = predict(result.model, dataset, result.model.heads.weight.device, batch_size=32)
    picture, axes = new_figure(2, 5, width=2.5, height=2.6)
    draw_curves(axes[0, 0], result.history, ["loss"])
    counts = sorted({round(dataset.regions.shape[1] ** (step / 20)) for step in range(21)})
    axes[1, 0].semilogx(counts, [recall(list(dataset.regions), dataset, count) for count in counts])
    axes[1, 0].set(xlabel="regions", ylabel="recall", ylim=(0, 1.02))
    crowded = sorted(range(len(dataset)), key=lambda index: -len(dataset.boxes[index]))[:4]
    for index, above, below in zip(crowded, axes[0, 1:], axes[1, 1:], strict=False):
        fit = box_iou(dataset.regions[index], dataset.boxes[index]).amax(dim=1)
        show_picture(above, dataset.images[index], f"the best of {len(fit)} regions")
        draw_frames(above, dataset.regions[index][fit.topk(min(10, len(fit))).indices], "gold")
        show_boxes(below, dataset.images[index], found[index], dataset.__getitems__([index])[1][0], dataset.classes)
    return picture


class RCNNOnBackbone(RegionDetector):
    """The same classifier, but for larger pieces and the last map of a pretrained network."""

    side = 96

    def __init__(self, num_classes: int, features: Any) -> None:
        super().__init__(num_classes, inputs=features.channels[0] * (self.side // 32) ** 2, samples=16)
        self.layers = features

    def features_under(self, images: Tensor, regions: Tensor) -> Tensor:
        crops = warp(images, regions, self.side)  # (batch, R, 3, side, side)
        return self.layers(crops.flatten(0, 1))[0].unflatten(0, crops.shape[:2]).flatten(2)


def build_on_backbone(options: RCNNOptions, data: Any) -> RCNNOnBackbone:
    return RCNNOnBackbone(len(data.classes), open_features(options, data, [32]))


run.predicts(RegionDetection, build, on_backbone(build_on_backbone, figure))


if __name__ == "__main__":
    main(run)
