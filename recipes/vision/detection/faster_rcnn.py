"""Faster R-CNN: one stage proposes where something is, a second looks there and says what.

Both stand on one map of features. Over every cell of it lie nine anchors, boxes of three sizes in three
shapes, and the region proposal network says of each whether it holds any object, and how to move and
stretch it onto that. The best of these, thinned by non-maximum suppression, are the proposals. From each a
small square of features is cut by RoI align, whatever the proposal's size, and a head of two layers gives
its class, or background, and moves and stretches it once more. An anchor is right if it overlaps an object
by 0.7, and wrong if by less than 0.3; of each stage only a balanced sample enters the loss.

Earlier detectors had to be given their proposals. Here they are compared with such outside ones: boxes
around regions of one colour, which suit these scenes well.

Notes: 83
Paper: Ren, He, Girshick, Sun (2015), "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
    Networks", https://arxiv.org/abs/1506.01497; RoI align is from He, Gkioxari, Dollár, Girshick (2017),
    "Mask R-CNN", https://arxiv.org/abs/1703.06870
Data: scenes with handwritten digits on clutter, 64×64; yours as COCO, Pascal VOC or PNG masks.
"""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.device import setup
from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, new_figure, show_picture
from recipes.core.loop import Engine, Loop, one_cycle
from recipes.core.measure import interleaved, ratio
from recipes.core.result import Claim, Result, recipe
from recipes.datasets.loading import batches
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.options import main
from recipes.vision.detection.boxes import Detections, box_iou, nms, shift_and_zoom
from recipes.vision.detection.drawing import draw_frames, show_boxes
from recipes.vision.detection.proposals import colour_regions
from recipes.vision.detection.scoring import commonest_places, evaluate, truths
from recipes.vision.detection.task import FAST, conv_block

STRIDE = 4  # pixels in a cell of the features
SPREAD = (0.1, 0.1, 0.2, 0.2)  # the usual spread of each code, which they are divided by


class FasterRCNN(nn.Module):
    """A shared map of features, region proposals from it, and a head that judges each of them.

    In training it takes the targets too and gives the loss of each stage, in evaluation `Detections`.

    Args:
        num_classes: of the objects; the head adds one for background.
        width: channels of the first convolution.
        proposals: how many the second stage looks at in a picture.
    """

    def __init__(self, num_classes: int, *, width: int = 12, proposals: int = 50) -> None:
        super().__init__()
        self.num_classes, self.proposals = num_classes, proposals
        self.adjusts, self.rounds = True, False
        self.fine = nn.Sequential(
            conv_block(3, width, 2),
            conv_block(width, width),
            conv_block(width, 2 * width, 2),
            conv_block(2 * width, 2 * width),
        )
        self.coarse = nn.Sequential(conv_block(2 * width, 4 * width, 2), conv_block(4 * width, 4 * width))
        self.merge = conv_block(6 * width, 4 * width)
        self.region = conv_block(4 * width, 4 * width)
        self.region_heads = nn.Conv2d(4 * width, 9 * 5, 1)  # of each anchor the logit of an object, and four codes
        self.hidden = nn.Linear(4 * width * 5 * 5, 128)
        self.heads = nn.Linear(128, 1 + num_classes + 4 * num_classes)  # logits, and four codes a class

    def forward(self, images: Tensor, targets: Detections | None = None) -> Any:
        features, logits, codes, anchors = self.look(images)
        size = images.shape[-2:]
        proposals = self.propose(logits.detach(), codes.detach(), anchors, size)
        if targets is None:
            return self.detect(features, proposals, size)
        matches = [sample(target["boxes"], anchors, 0.7, 0.3, 64) for target in targets]
        first = stage_loss(logits[:, :, None], codes, targets, [anchors] * len(targets), matches)
        # True boxes stand in for good proposals while there are none.
        offered = [torch.cat([some, target["boxes"]]) for some, target in zip(proposals, targets, strict=True)]
        matches = [sample(t["boxes"], some, 0.5, 0.5, 32) for t, some in zip(targets, offered, strict=True)]
        offered = [some[chosen] for some, (chosen, _) in zip(offered, matches, strict=True)]
        return first
