"""What all detectors start from: options, pictures, and the features of a small network."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Options, Precision, option
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection.boxes import Detections, shift_and_zoom
from recipes.vision.photos import recolor

ENOUGH, PER_CLASS = 300, 20  # optimizer steps on photos: at least so many, and so many for each class


@dataclass(kw_only=True)
class DetectorOptions(Options):
    image_size: int | None = option(None, "side in pixels of the square that pictures are fitted into", least=8)
    backbone: str | None = option(None, "for photos: timm:NAME or torchvision:NAME, in place of the small network")
    model: str | None = option(
        None, "torchvision:NAME, a detector in this one's place, whose `weights` are given", copied=False
    )
    weights: str | None = option(None, "of the backbone: pretrained, a file, or a name of torchvision's")
    mirror: bool = option(False, "mirror half of the training pictures from left to right, as with a backbone")
    precision: Precision = "auto"
    channels_last: bool = True


def open_pictures(options: DetectorOptions) -> tuple[Boxes, Boxes]:
    """The train and the test part, and a line where steps are few.

    If no size is given, pictures have 320 pixels for a backbone, and of files more than 128 where objects are small.
    """
    side = options.image_size or (320 if options.backbone else None)
    given: dict[str, Any] = {"seed": options.seed, "letterbox": True, "enlarged": side_for_small}
    train_set, test_set = open_boxes(options.data, image_size=side, **given)
    options.few_steps = 0  # which are told here
    steps = options.steps or options.epochs * max(1, len(train_set) // options.batch_size)
    enough = max(ENOUGH, PER_CLASS * len(train_set.classes))
    if options.data is not None and steps < enough:
        photos = "" if options.backbone else "; photos want --backbone timm:tf_efficientnet_lite0 --weights pretrained"
        many = f" of {len(train_set.classes)} classes" if enough > ENOUGH else ""
        told = f"{steps} steps on {len(train_set)} pictures{many} are few: --steps {enough} would find more{photos}"
        print(told, file=sys.stderr)
    return train_set, test_set


def side_for_small(
    boxes: Sequence[Tensor], labels: Sequence[Tensor], side: int, least: float = 12.0, most: int = 256
) -> int:
    """The size of pictures, a multiple of 32, at which objects have so many pixels a side: those of most classes.

    A class counts by the median of its objects; a quarter of the classes may be smaller than wanted.

    Args:
        boxes, labels: of each picture of the train part, (n, 4) and (n,).
        side: of the pictures that the boxes are in.
        least: pixels a side of an object.
        most: the largest size.
    """
    corners, kinds = torch.cat([*boxes]), torch.cat([*labels])
    if len(kinds) == 0:
        return side
    sides = (corners[:, 2:] - corners[:, :2]).prod(dim=1).sqrt()
    medians = torch.stack([sides[kinds == kind].median() for kind in kinds.unique()])
    small = medians.quantile(0.25, interpolation="lower").item()
    return min(32 * round(side * least / max(small, 1.0) / 32), most)


def conv_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution, batch norm, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class SmallFeatures(nn.Module):
    """Pictures (N, 3, H, W) to features (N, 4 · width, H / 4, W / 4), which see twice as far through a coarser map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = conv_block(3, width, 2), conv_block(width, width)
        quarter = conv_block(width, 2 * width, 2), conv_block(2 * width, 2 * width)
        self.fine = nn.Sequential(*half, *quarter)
        self.coarse = nn.Sequential(conv_block(2 * width, 4 * width, 2), conv_block(4 * width, 4 * width))
        self.merge = conv_block(6 * width, 4 * width)
        self.channels, self.stride = 4 * width, 4

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)  # (batch, 2 · width, height / 4, width / 4)
        coarse = F.interpolate(self.coarse(fine), size=fine.shape[2:])
        return self.merge(torch.cat([fine, coarse], dim=1))


def augment(images: Tensor, targets: Detections, *, photos: bool, mirror: bool = False) -> tuple[Tensor, Detections]:
    """Pictures moved and scaled, their boxes with them; photos are mirrored and recolored too."""
    images, targets = shift_and_zoom(images, targets, mirror=photos or mirror)
    return recolor(images) if photos else images, targets
