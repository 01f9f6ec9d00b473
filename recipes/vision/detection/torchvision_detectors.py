"""Detectors of torchvision in place of a recipe's own: the same pictures, changes of them, scores and uses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.errors import tell
from recipes.core.frame import InputError, Loop, Result, batches, recipe
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection.boxes import Detections
from recipes.vision.detection.drawing import draw_detections
from recipes.vision.detection.features import DetectorOptions, augment
from recipes.vision.detection.scoring import commonest_places, evaluate
from recipes.vision.detection.using import Detection
from recipes.vision.torchvision_models import TorchvisionModel, names_a_model, open_model

PIXELS = 2**22  # of the pictures that are looked at together where nothing is learned


class TorchvisionDetector(TorchvisionModel):
    """Pictures (N, 3, side, side) in 0 to 1 to `Detections`; with targets, in training, to the sum of its losses.

    Background is torchvision's class 0, and not counted here.
    """

    def forward(self, images: Tensor, targets: Detections | None = None) -> Any:
        if targets is not None:
            own = [{"boxes": one["boxes"], "labels": one["labels"] + 1} for one in targets]
            return sum(loss.float() for loss in self.network(list(images), own).values())
        found: Detections = []
        for part in images.split(max(1, PIXELS // images[0, 0].numel())):
            for one in self.network(list(part)):
                on = one["labels"] > 0
                found.append({key: one[key][on] for key in ("boxes", "scores")} | {"labels": one["labels"][on] - 1})
        return found


class OneStage(nn.Module):
    """Scores (N, D, classes) and boxes (N, D, 4; in pixels) of an SSD, a RetinaNet or an FCOS, before suppression."""

    network: Any
    anchors: Tensor

    def __init__(self, model: TorchvisionDetector, side: int) -> None:
        super().__init__()
        self.network = model.network
        if not hasattr(self.network, "head"):
            kind = type(self.network).__name__
            raise InputError(f"{kind}: the second stage looks where the first found something: it has no export")
        from torchvision.models.detection.image_list import ImageList

        transform = self.network.transform
        own = transform.fixed_size[0] if transform.fixed_size else side
        self.side, self.padding, self.scale = own, -own % transform.size_divisible, side / own
        with torch.no_grad():
            inputs = self.seen(torch.zeros(1, 3, side, side, device=next(model.parameters()).device))
            anchors = self.network.anchor_generator(ImageList(inputs, [(own, own)]), self.features(inputs))[0]
        self.register_buffer("anchors", anchors)

    def seen(self, images: Tensor) -> Tensor:
        images = F.interpolate(self.network.transform.normalize(images), size=(self.side, self.side), mode="bilinear")
        return F.pad(images, (0, self.padding, 0, self.padding))

    def features(self, inputs: Tensor) -> list[Tensor]:
        return list(self.network.backbone(inputs).values())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        answers, coder = self.network.head(self.features(self.seen(images))), self.network.box_coder
        logits, codes = answers["cls_logits"], answers["bbox_regression"]  # (N, D, 1 + classes) and (N, D, 4)
        if "bbox_ctrness" in answers:  # FCOS
            scores = (logits.sigmoid() * answers["bbox_ctrness"].sigmoid()).sqrt()
            boxes = coder.decode(codes, self.anchors)
        else:
            scores = logits.softmax(dim=2) if self.network.transform.fixed_size else logits.sigmoid()  # SSD: softmax
            middle, sides = (self.anchors[:, :2] + self.anchors[:, 2:]) / 2, self.anchors[:, 2:] - self.anchors[:, :2]
            codes = codes / codes.new_tensor(coder.weights)
            center, half = middle + codes[..., :2] * sides, sides * codes[..., 2:].clamp(max=4).exp() / 2
            boxes = torch.cat([center - half, center + half], dim=2)
        return scores[..., 1:], boxes.clamp(0, self.side) * self.scale


class TorchvisionDetection(Detection):
    """Detection by a network of torchvision's, of which those with one stage have an export."""

    def to_export(self, model: nn.Module) -> nn.Module:
        assert isinstance(model, TorchvisionDetector)
        return OneStage(model, self.image_size)


def build_torchvision_detector(options: DetectorOptions, data: Any) -> TorchvisionDetector:
    """The network that the options name, for pictures and classes like these; a trained one brings its own weights."""
    name, weights = str(options.model), options.weights if isinstance(data, Boxes) else None
    given = {} if ":ssd" in name else {"min_size": data.image_size, "max_size": data.image_size}  # SSDs have their own
    network, new = open_model(name, "detection", 1 + len(data.classes), weights, **given)
    if ":maskrcnn" in name:  # of its losses, that of the masks asks for masks
        network.roi_heads.mask_roi_pool = network.roi_heads.mask_head = network.roi_heads.mask_predictor = None
        new = [one for one in new if ".mask_predictor." not in one]
        if isinstance(data, Boxes):
            tell(f"option model: of {name} the boxes are learned; its masks are left out")
    return TorchvisionDetector(network, new, pretrained=weights not in (None, "none"))


@recipe(DetectorOptions)
def fit_torchvision_detector(options: DetectorOptions) -> Result:
    """Trains a detector of torchvision's and scores it on held-out pictures."""
    side = options.image_size or (300 if ":ssd300" in str(options.model) else 320)
    train_set, test_set = open_boxes(options.data, image_size=side, seed=options.seed, letterbox=True)
    model = build_torchvision_detector(options, train_set).to(options.device)
    optimizer = torch.optim.AdamW(model.parameter_groups(options.lr), weight_decay=0.01)
    loop = Loop(model, optimizer, batches(train_set, options), options)
    for images, targets in loop:
        images, targets = augment(images, targets, photos=True)
        loop.step(loop.model(images, targets))
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=commonest_places(train_set, test_set),
        baseline_name="commonest places",
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@fit_torchvision_detector.figure
def draw_torchvision_detector(result: Result) -> Any:
    return draw_detections(result.model, result.test_set, next(result.model.parameters()).device, result.history)


fit_torchvision_detector.predicts(TorchvisionDetection, build_torchvision_detector)


def torchvision_detector(options: DetectorOptions) -> Callable[..., Result] | None:
    """What takes a recipe's place where its options name a detector of torchvision's."""
    return fit_torchvision_detector if names_a_model(options) else None
