"""What copies get in place of longer parts of this task."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms as nms
from torchvision.ops import box_iou
from torchvision.ops import clip_boxes_to_image as within

from recipes.core.frame import predict
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection.boxes import Detections, shift_and_zoom
from recipes.vision.detection.features import conv_block
from recipes.vision.detection.regions import Proposed
from recipes.vision.detection.selective_search import selective_search

__all__ = ["BackboneFeatures", "anchor_sides", "augment", "backbone_features", "box_iou", "evaluate", "nms"]
__all__ += ["open_pictures", "parameter_groups", "propose", "within"]


def open_pictures(options: Any) -> tuple[Boxes, Boxes]:
    """The train and the test part, in 320 pixels for a backbone if no size is given, else 12 or more an object."""
    side = options.image_size or (320 if options.backbone else None)
    parts = open_boxes(options.data, image_size=side, seed=options.seed, letterbox=True)
    if side or not options.data:
        return parts
    boxes, labels = torch.cat(parts[0].boxes), torch.cat(parts[0].labels)
    sides, now = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt(), parts[0].image_size
    medians = torch.stack([sides[labels == label].median() for label in labels.unique()])
    side = 32 * round(now * 12 / max(medians.quantile(0.25, interpolation="lower").item(), 1) / 32)
    return open_boxes(options.data, image_size=min(max(side, now), 256), seed=options.seed, letterbox=True)


def augment(images: Tensor, targets: Detections, *, photos: bool, mirror: bool = False) -> tuple[Tensor, Detections]:
    """Pictures moved and scaled, their boxes with them; photos are mirrored and seen in another light too."""
    images, targets = shift_and_zoom(images, targets, mirror=photos or mirror)
    if photos:
        images = (images * torch.empty(len(images), 3, 1, 1, device=images.device).uniform_(0.7, 1.3)).clamp(0, 1)
    return images, targets


class BackboneFeatures(nn.Module):
    """The maps of timm:NAME from a stride on, brought to equal channels, enlarged to the finest and added up."""

    def __init__(self, name: str, trained: bool, stride: int, channels: int = 128) -> None:
        super().__init__()
        import timm

        maps = [i for i in range(5) if 2 ** (i + 1) >= stride]
        network: Any = timm.create_model(name, pretrained=trained, features_only=True, out_indices=maps)
        self.backbone: Any = timm.layers.freeze_batch_norm_2d(network) if trained else network
        self.trained, self.channels, self.stride, config = trained, channels, stride, network.pretrained_cfg
        self.mean, self.std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, channels, 1) for inputs in network.feature_info.channels())
        self.smooth = nn.Sequential(conv_block(channels, channels), conv_block(channels, channels))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone((images - self.mean.to(images)) / self.std.to(images))
        maps = [lateral(one) for lateral, one in zip(self.laterals, maps, strict=True)]
        return self.smooth(sum(F.interpolate(one, size=maps[0].shape[2:], mode="bilinear") for one in maps))


def backbone_features(options: Any, data: Any, finest: int = 8) -> BackboneFeatures | None:
    """What the options' backbone sees in maps of that stride and coarser; None if they name none."""
    name, trained = str(options.backbone).removeprefix("timm:"), options.weights is not None
    return BackboneFeatures(name, trained, finest) if options.backbone else None


def parameter_groups(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """A pretrained backbone learns at a tenth of the rate."""
    backbones: list[Any] = [part for part in model.modules() if getattr(part, "trained", False)]
    slow = {one for part in backbones for one in part.backbone.parameters()}
    groups = [[one for one in model.parameters() if (one in slow) is tenth] for tenth in (False, True)]
    return [{"params": part, "lr": rate} for part, rate in zip(groups, (lr, lr / 10), strict=True)]


def anchor_sides(dataset: Boxes, *, step: float = 1.8, least: float = 4.0) -> list[float]:
    """Sides of square anchors for the objects of a data set, in pixels, the smallest first."""
    boxes = torch.cat(dataset.boxes)
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt().clamp(min=least)
    first, last = sides.quantile(torch.tensor([0.01, 0.99])).tolist()
    steps = math.ceil(math.log(last / first, step))
    return [first * (last / first) ** (i / max(steps, 1)) for i in range(steps + 1)]


def propose(dataset: Boxes, most: int) -> Proposed:
    """The same pictures with so many regions each; the whole picture stands for those that lack."""
    whole = torch.tensor([[0.0, 0.0, *dataset.images.shape[:1:-1]]]).expand(most, 4)
    found = [torch.cat([selective_search(image, most), whole])[:most] for image in dataset.images]
    return Proposed(**vars(dataset), regions=torch.stack(found))


def evaluate(model: nn.Module, dataset: Boxes, device: Any) -> dict[str, float]:
    """COCO's mean average precision: at overlaps (IoU) of 0.5 and of 0.75, and the mean over 0.5, 0.55, …, 0.95."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    pairs, coco = zip(dataset.boxes, dataset.labels, strict=True), COCO()
    true = [{"boxes": boxes, "labels": labels, "scores": torch.ones(len(labels))} for boxes, labels in pairs]
    images, kinds = ([{"id": i} for i in range(len(one))] for one in (dataset, dataset.classes))
    coco.dataset = {"info": {}, "images": images, "categories": kinds}
    coco.createIndex()
    sides: list[Any] = []
    for pictures in (true, predict(model, dataset, device, batch_size=32)):
        rows = [torch.zeros(len(sides), 7)]  # a first one found, which counts for nothing: there must be one
        for i, one in enumerate(pictures):
            left, top, right, bottom = one["boxes"].double().T
            row = [torch.full_like(left, i), left, top, right - left, bottom - top, one["scores"], one["labels"]]
            rows.append(torch.stack(row, dim=1))
        sides.append(coco.loadRes(torch.cat(rows).numpy()))
    judge = COCOeval(*sides, "bbox")
    judge.params.areaRng, judge.params.areaRngLbl, judge.params.maxDets = [[0, 1e10]], ["all"], [100]
    judge.evaluate()
    judge.accumulate()
    precision = torch.from_numpy(judge.eval["precision"])  # (10 overlaps, 101 recalls, classes, 1, 1)
    means = [one[one >= 0].mean().item() for one in (precision[0], precision[5], precision)]  # -1: a class not there
    return dict(zip(("map_50", "map_75", "map"), means, strict=True))
