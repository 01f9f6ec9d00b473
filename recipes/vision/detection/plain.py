"""What copies get in place of longer parts of this task."""

import contextlib
import io
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import predict
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection.boxes import Detections
from recipes.vision.detection.features import conv_block


def open_pictures(options: Any) -> tuple[Boxes, Boxes]:
    """The train and the test part, in 320 pixels for a backbone if no size is given."""
    side = options.image_size or (320 if options.backbone else None)
    return open_boxes(options.data, image_size=side, seed=options.seed, letterbox=True)


class BackboneFeatures(nn.Module):
    """The maps of timm:NAME, brought to equal channels, enlarged to the finest and added up."""

    def __init__(self, name: str, trained: bool, strides: list[int], channels: int = 128) -> None:
        super().__init__()
        import timm

        maps = [*range(-len(strides), 0)]  # the last; trained batch norms stay as they are
        network: Any = timm.create_model(name, pretrained=trained, features_only=True, out_indices=maps)
        self.backbone: Any = timm.layers.freeze_batch_norm_2d(network) if trained else network
        self.trained, self.channels, self.stride, config = trained, channels, strides[0], network.pretrained_cfg
        self.mean, self.std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, channels, 1) for inputs in network.feature_info.channels())
        self.smooth = nn.Sequential(conv_block(channels, channels), conv_block(channels, channels))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone((images - self.mean.to(images)) / self.std.to(images))
        maps = [lateral(one) for lateral, one in zip(self.laterals, maps, strict=True)]
        return self.smooth(sum(F.interpolate(one, size=maps[0].shape[2:], mode="bilinear") for one in maps))


def backbone_features(options: Any, data: Any, finest: int = 8) -> BackboneFeatures | None:
    """What the options' backbone sees in maps of that stride and coarser; None if they name none."""
    if options.backbone is None:
        return None
    strides = [one for one in (4, 8, 16, 32) if one >= finest]
    return BackboneFeatures(options.backbone.removeprefix("timm:"), options.weights is not None, strides)


def parameter_groups(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """A pretrained backbone learns at a tenth of the rate."""
    backbones = [part.backbone for part in model.modules() if isinstance(part, BackboneFeatures) and part.trained]
    slow = {id(one): one for part in backbones for one in part.parameters()}
    others = [one for one in model.parameters() if id(one) not in slow]
    return [{"params": others, "lr": lr}, *([{"params": [*slow.values()], "lr": lr / 10}] if slow else [])]


def nms(boxes: Tensor, scores: Tensor, threshold: float, labels: Tensor) -> Tensor:
    """Non-maximum suppression, class by class: indices of the boxes that stay, the highest score first."""
    from torchvision.ops import batched_nms

    return batched_nms(boxes, scores, labels, threshold)


def evaluate(model: nn.Module, dataset: Boxes, device: Any) -> dict[str, float]:
    """Mean average precision over the whole set."""
    return mean_average_precision(predict(model, dataset, device, batch_size=32), dataset)


def mean_average_precision(found: Detections, dataset: Boxes) -> dict[str, float]:
    """COCO's: at overlaps (IoU) of 0.5 and of 0.75, and the mean over 0.5, 0.55, …, 0.95."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    pairs = zip(dataset.boxes, dataset.labels, strict=True)
    true = [{"boxes": boxes, "labels": labels, "scores": torch.ones(len(labels))} for boxes, labels in pairs]
    kinds, sides = [{"id": kind} for kind in torch.cat(dataset.labels).unique().tolist()], []
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports every step
        for pictures in (true, found):
            rows: list[dict[str, Any]] = []
            for number, picture in enumerate(pictures):
                values = (picture[key].double().cpu().tolist() for key in ("boxes", "labels", "scores"))
                for (left, top, right, bottom), label, score in zip(*values, strict=True):
                    row = {"id": len(rows) + 1, "image_id": number, "category_id": int(label), "score": score}
                    row |= {"bbox": [left, top, right - left, bottom - top], "iscrowd": 0}
                    rows.append(row | {"area": (right - left) * (bottom - top)})
            sides.append(COCO())
            images = [{"id": number} for number in range(len(pictures))]
            sides[-1].dataset = {"images": images, "categories": kinds, "annotations": rows}
            sides[-1].createIndex()
        coco = COCOeval(*sides, "bbox")
        coco.params.areaRng, coco.params.areaRngLbl, coco.params.maxDets = [[0, 1e10]], ["all"], [100]
        coco.evaluate()
        coco.accumulate()
    precision = torch.from_numpy(coco.eval["precision"])  # (10 overlaps, 101 recalls, classes, 1, 1)
    return {"map_50": precision[0].mean().item(), "map_75": precision[5].mean().item(), "map": precision.mean().item()}
