"""What all detectors start from: options, pictures, and the features of a small network."""

import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Options, Precision, option
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection.boxes import Detections, shift_and_zoom
from recipes.vision.photos import recolor

ENOUGH = 300  # optimizer steps on photos


@dataclass(kw_only=True)
class DetectorOptions(Options):
    image_size: int | None = option(None, "side in pixels of the square that pictures are fitted into", least=8)
    backbone: str | None = option(None, "for photos: timm:NAME or torchvision:NAME, in place of the small network")
    model: str | None = option(
        None, "torchvision:NAME, a detector in this one's place, whose `weights` are given", copied=False
    )
    weights: str | None = option(None, "of the backbone: pretrained, a file, or a name of torchvision's")
    precision: Precision = "auto"
    channels_last: bool = True


def open_pictures(options: DetectorOptions) -> tuple[Boxes, Boxes]:
    """The train and the test part, and a line where steps are few.

    If no size is given, pictures have 320 pixels for a backbone, and of files more than 128 where objects are small.
    """
    side = options.image_size or (320 if options.backbone else None)
    train_set, test_set = open_boxes(options.data, image_size=side, seed=options.seed, letterbox=True)
    if side is None and isinstance(options.data, str) and (side := side_for_small(train_set)) > train_set.image_size:
        train_set, test_set = open_boxes(options.data, image_size=side, seed=options.seed, letterbox=True)
    steps = options.steps or options.epochs * max(1, len(train_set) // options.batch_size)
    if options.data is not None and steps < ENOUGH:
        photos = "" if options.backbone else "; photos want --backbone timm:tf_efficientnet_lite0 --weights pretrained"
        told = f"{steps} steps on {len(train_set)} pictures are few: --steps {ENOUGH} would find more{photos}"
        print(told, file=sys.stderr)
    return train_set, test_set


def side_for_small(dataset: Boxes, least: float = 12.0, most: int = 256) -> int:
    """The size of pictures, a multiple of 32, at which objects have so many pixels a side: those of most classes.

    A class counts by the median of its objects; a quarter of the classes may be smaller than wanted.
    """
    boxes, labels = torch.cat(dataset.boxes), torch.cat(dataset.labels)
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
    medians = torch.stack([sides[labels == label].median() for label in labels.unique()])
    small = medians.quantile(0.25, interpolation="lower").item()
    return min(32 * round(dataset.image_size * least / max(small, 1.0) / 32), most)


def conv_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class SmallFeatures(nn.Module):
    """Pictures (N, 3, H, W) to features (N, 4 · width, H / 4, W / 4), which see twice as far through a coarser map."""

    stride = 4

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            conv_block(3, width, 2),
            conv_block(width, width),
            conv_block(width, 2 * width, 2),
            conv_block(2 * width, 2 * width),
        )
        self.coarse = nn.Sequential(conv_block(2 * width, 4 * width, 2), conv_block(4 * width, 4 * width))
        self.merge = conv_block(6 * width, 4 * width)
        self.channels = 4 * width

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)  # (batch, 2 · width, height / 4, width / 4)
        coarse = F.interpolate(self.coarse(fine), size=fine.shape[2:])
        return self.merge(torch.cat([fine, coarse], dim=1))


def augment(images: Tensor, targets: Detections, *, photos: bool) -> tuple[Tensor, Detections]:
    """Pictures moved and scaled, their boxes with them; photos are mirrored and recolored too."""
    images, targets = shift_and_zoom(images, targets, mirror=photos)
    return recolor(images) if photos else images, targets
