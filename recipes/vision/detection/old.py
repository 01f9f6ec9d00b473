"""What recipes of the first frame take from this task; it goes when the last of them has moved."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.old import Engine
from recipes.vision.detection.boxes import Detections
from recipes.vision.detection.features import conv_block

# Half precision and channels-last speed up convolutions where the device has them.
FAST: Engine = {"precision": "auto", "channels_last": True}


class CenterNet(nn.Module):
    """Heat maps of centres, with sizes and offsets, in cells of 4×4 pixels.

    In training it gives the maps as `centre_loss` takes them, in evaluation `Detections`.
    """

    stride = 4

    def __init__(self, num_classes: int, *, width: int = 16) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            conv_block(3, width, 2),
            conv_block(width, width),
            conv_block(width, 2 * width, 2),
            conv_block(2 * width, 2 * width),
        )
        self.coarse = nn.Sequential(conv_block(2 * width, 4 * width, 2), conv_block(4 * width, 4 * width))
        self.merge = conv_block(6 * width, 4 * width)
        self.heads = nn.Conv2d(4 * width, num_classes + 4, 1)
        start = [-math.log(99)] * num_classes + [0.0] * 4  # centres are rare: the heat starts at 1 %
        self.heads.bias = nn.Parameter(torch.tensor(start))
        self.peaks_only = True

    def forward(self, images: Tensor) -> Any:
        fine = self.fine(images)  # (batch, 2 * width, height / 4, width / 4)
        coarse = F.interpolate(self.coarse(fine), size=fine.shape[-2:])  # seen with more of its surroundings
        maps = self.heads(self.merge(torch.cat([fine, coarse], dim=1)))  # (batch, classes + 4, rows, columns)
        return maps if self.training else self.decode(maps.float())

    def decode(self, maps: Tensor, most: int = 100) -> Detections:
        """The boxes at the surest `most` peaks of each picture."""
        heat, size, offset = maps[:, :-4].sigmoid(), maps[:, -4:-2].clamp(min=0).flatten(2), maps[:, -2:].flatten(2)
        if self.peaks_only:
            heat = heat * (heat == F.max_pool2d(heat, 3, stride=1, padding=1))  # 0 beside a warmer cell
        rows, columns = heat.shape[-2:]
        scores, places = heat.flatten(1).topk(min(most, heat[0].numel()))  # (batch, most)
        labels, cells = places // (rows * columns), places % (rows * columns)
        here = cells[:, None].expand(-1, 2, -1)
        size, offset = size.gather(2, here), offset.gather(2, here)  # (batch, 2, most)
        centre = torch.stack([cells % columns, cells // columns], dim=1) + offset
        boxes = self.stride * torch.cat([centre - size / 2, centre + size / 2], dim=1).mT  # (batch, most, 4)
        found = zip(boxes, scores, labels, scores > 0.01, strict=True)
        return [{"boxes": b[sure], "scores": s[sure], "labels": l[sure]} for b, s, l, sure in found]


def centre_loss(maps: Tensor, targets: Detections, stride: int = 4) -> Tensor:
    """Focal loss of the heat maps plus the L1 distance of sizes and offsets at the true centres.

    Args:
        maps: (batch, classes + 4, rows, columns): logits of the heat, then width, height, and the
            centre's offset right and down from the cell's corner, in cells.
        targets: the true boxes and labels of each picture.
        stride: pixels in a cell.
    """
    batch, channels, rows, columns = maps.shape
    num_classes = channels - 4
    boxes = torch.cat([target["boxes"] for target in targets]) / stride  # (objects, 4) in cells
    labels = torch.cat([target["labels"] for target in targets])
    counts = torch.tensor([len(target["labels"]) for target in targets], device=maps.device)
    picture = torch.arange(batch, device=maps.device).repeat_interleave(counts)  # (objects,) the one it is in
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    column = centre[:, 0].long().clamp(0, columns - 1)
    row = centre[:, 1].long().clamp(0, rows - 1)

    # The heat to learn: a bell over each object, 1 in the cell of its centre, and wider for a larger object
    # (the paper takes the width from an overlap of 0.7). Where two bells meet, the higher counts.
    across = (torch.arange(columns, device=maps.device) - column[:, None]) / (size[:, :1] / 8 + 0.2)
    down = (torch.arange(rows, device=maps.device) - row[:, None]) / (size[:, 1:] / 8 + 0.2)
    bells = torch.exp(-(across[:, None, :] ** 2 + down[:, :, None] ** 2) / 2)  # (objects, rows, columns)
    heat = maps.new_zeros(batch * num_classes, rows, columns)
    map_of = (picture * num_classes + labels)[:, None, None].expand_as(bells)
    heat = heat.scatter_reduce(0, map_of, bells, "amax").view(batch, num_classes, rows, columns)

    # Focal loss: cells already right count little, and cells beside a centre are forgiven for being warm.
    logits = maps[:, :num_classes]
    p = logits.sigmoid()
    centres = (1 - p) ** 2 * F.logsigmoid(logits)
    others = (1 - heat) ** 4 * p**2 * F.logsigmoid(-logits)
    focal = -torch.where(heat == 1, centres, others).sum()

    found = maps[picture, num_classes:, row, column]  # (objects, 4)
    offset = centre - torch.stack([column, row], dim=1)
    distance = 0.1 * (found[:, :2] - size).abs().sum() + (found[:, 2:] - offset).abs().sum()
    return (focal + distance) / max(len(boxes), 1)
