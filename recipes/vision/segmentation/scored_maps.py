"""FCN as the paper has it, on a trained classifier: its maps are scored, and the sums upsampled, for photographs."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Options, Result, recipe
from recipes.datasets.scenes import Masks, open_masks
from recipes.vision.backbones import Features, open_backbone, parameter_groups
from recipes.vision.segmentation.photos import photo_defaults
from recipes.vision.segmentation.scoring import draw
from recipes.vision.segmentation.torchvision_segmenters import torchvision_segmenter, train_in_its_place
from recipes.vision.segmentation.using import Segmentation


class ScoredMaps(nn.Module):
    """Pictures (N, 3, H, W) in 0 to 1 to logits (N, num_classes, H, W): FCN-8s, or 16s or 32s for fewer maps.

    Each map has a score for each class. From the coarsest on, the sum so far is enlarged to the next finer map's size
    and its scores are added. Enlarging is bilinear, which the paper's learned layers start as.
    """

    def __init__(self, backbone: Features, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.scores = nn.ModuleList(scoring(channels, num_classes) for channels in backbone.channels)

    def forward(self, images: Tensor) -> Tensor:
        *finer, logits = (score(one) for score, one in zip(self.scores, self.backbone(images), strict=True))
        for scored in reversed(finer):
            logits = scored + F.interpolate(logits, size=scored.shape[2:], mode="bilinear")
        return F.interpolate(logits, size=images.shape[2:], mode="bilinear")


def scoring(channels: int, num_classes: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, num_classes, 1)
    nn.init.zeros_(layer.weight)  # as in the paper
    return layer


def build_scored_maps(options: Any, data: Any) -> ScoredMaps:
    """The network on the options' backbone, for classes like these; a trained one brings its own weights."""
    weights = options.weights if isinstance(data, Masks) else None
    strides = (8, 16, 32)[2 - options.skips :]
    return ScoredMaps(open_backbone(options.backbone, weights, strides=strides), len(data.classes))


@recipe(Options)
def fit_scored_maps(options: Any) -> Result:
    """Trains the scores, and the backbone at a lower rate, and measures them on held-out pictures."""
    photo_defaults(options)
    train_set, test_set = open_masks(options.data, image_size=options.image_size, seed=options.seed)
    model = build_scored_maps(options, train_set).to(options.device)
    return train_in_its_place(model, parameter_groups(model, options.lr), train_set, test_set, options, changed=True)


@fit_scored_maps.figure
def draw_scored_maps(result: Result) -> Any:
    return draw(result.model, result.test_set, next(result.model.parameters()).device, result.history)


fit_scored_maps.predicts(Segmentation, build_scored_maps)


def on_a_backbone(options: Any) -> Callable[..., Result] | None:
    """What takes FCN's place where its options name a backbone, or a segmenter of torchvision's."""
    return torchvision_segmenter(options) or (None if options.backbone is None else fit_scored_maps)
