"""What photographs need: there are few, and no two are taken alike."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import InputError
from recipes.vision.backbones import Features
from recipes.vision.photos import recolor


def photo_defaults(options: Any) -> None:
    """With a backbone: pictures of 192 pixels and 150 steps, unless others are given."""
    if options.weights is not None and options.backbone is None:
        raise InputError("option weights: expected a backbone, whose weights they are")
    if options.backbone is not None:
        options.image_size = options.image_size or 192
        options.steps = options.steps or 150


def augment(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, H, W) in 0 to 1 and masks (N, H, W): a part of each, mirrored or not, in other colors.

    The part is as wide as 60 to 100 % of the picture.
    """
    draw = torch.rand(4, len(images), device=images.device)
    zoom, sign = 0.6 + 0.4 * draw[0], (draw[1] < 0.5) * 2.0 - 1
    (right, down), zero = (1 - zoom) * (2 * draw[2:4] - 1), torch.zeros_like(zoom)
    matrices = torch.stack([zoom * sign, zero, right, zero, zoom, down], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    moved = F.grid_sample(masks[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    return recolor(images), moved[:, 0].long()


class SummedMaps(nn.Module):
    """Pictures (N, 3, H, W) to the sum of a backbone's maps at the finest one's size, (N, width, h, w)."""

    def __init__(self, backbone: Features, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in backbone.channels)

    def forward(self, images: Tensor) -> Tensor:
        finest, *coarser = (layer(one) for layer, one in zip(self.lateral, self.backbone(images), strict=True))
        for one in coarser:
            finest = finest + F.interpolate(one, size=finest.shape[2:], mode="bilinear")
        return finest
