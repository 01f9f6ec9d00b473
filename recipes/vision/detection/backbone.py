"""Features of a pretrained backbone, in place of a detector's small network; `plain` has lean twins."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from recipes.datasets.scenes import Boxes
from recipes.vision.backbones import open_backbone, parameter_groups
from recipes.vision.detection.features import DetectorOptions, conv_block

__all__ = ["BackboneFeatures", "backbone_features", "parameter_groups"]


class BackboneFeatures(nn.Module):
    """A backbone's maps, brought to equal channels, enlarged to the finest and added up."""

    def __init__(self, backbone: Any, channels: int = 128) -> None:
        super().__init__()
        self.backbone, self.channels, self.stride = backbone, channels, backbone.strides[0]
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, channels, 1) for inputs in backbone.channels)
        self.smooth = nn.Sequential(conv_block(channels, channels), conv_block(channels, channels))

    def forward(self, images: Tensor) -> Tensor:
        maps = [lateral(one) for lateral, one in zip(self.laterals, self.backbone(images), strict=True)]
        size = maps[0].shape[2:]
        return self.smooth(maps[0] + sum(F.interpolate(one, size=size, mode="bilinear") for one in maps[1:]))


def backbone_features(options: DetectorOptions, data: Any, finest: int = 8) -> BackboneFeatures | None:
    """What the options' backbone sees in maps of that stride and coarser; None if they name none.

    A trained detector that is opened again brings its own weights.
    """
    if options.backbone is None:
        return None
    strides, weights = [one for one in (4, 8, 16, 32) if one >= finest], None
    if isinstance(data, Boxes):
        weights = options.weights
    return BackboneFeatures(open_backbone(options.backbone, weights, strides=strides))
