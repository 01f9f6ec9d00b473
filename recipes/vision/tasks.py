"""What a backbone is adapted to: three tasks, each with its pictures, its head, its loss and its score."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.evaluation import predict
from recipes.core.result import Result
from recipes.core.task import Task
from recipes.datasets.images import open_images
from recipes.datasets.scenes import VOID, Boxes, Masks, open_boxes, open_masks
from recipes.vision.backbones import Classifier, Features, open_backbone, open_whole
from recipes.vision.classification.using import Classification
from recipes.vision.detection.boxes import shift_and_zoom
from recipes.vision.detection.features import conv_block
from recipes.vision.detection.scoring import commonest_places, mean_average_precision, truths
from recipes.vision.detection.task import CenterNet, center_loss
from recipes.vision.detection.using import Detection
from recipes.vision.few_labels import SCENES, first, other_digits
from recipes.vision.photos import recolor
from recipes.vision.pixels import nearest_classes, shrunk
from recipes.vision.segmentation.photos import SummedMaps, augment
from recipes.vision.segmentation.scoring import commonest_class, predict_masks, scores
from recipes.vision.segmentation.task import dice_loss
from recipes.vision.segmentation.using import Segmentation


def open_task(options: Any) -> tuple[Any, Any]:
    """The pictures of the options' task, few to learn from and those held out: bundled ones, or yours."""
    data, seed = options.data, options.seed
    if options.task == "classification":
        if data is None:
            return other_digits(options.samples, seed)
        return open_images(data, image_size=options.image_size or 320, normalize=False, seed=seed)
    side = options.image_size or (None if data is None else {"detection": 320, "segmentation": 192}[options.task])
    if options.task == "detection":
        parts: tuple[Any, Any] = open_boxes(data, image_size=side, seed=seed, letterbox=True)
    else:
        parts = open_masks(data, image_size=side, seed=seed)
    return (first(parts[0], 0, SCENES), parts[1]) if data is None else parts


def backbone_for(task: str, name: str, weights: str | None) -> Features:
    """timm:NAME or torchvision:NAME without its head: to classify, all of it; for other tasks, its maps of features.

    The weights are as `load_pretrained` takes them; None are random ones.
    """
    if task == "classification":
        return open_whole(name, weights)
    return open_backbone(name, weights, strides=(8, 16, 32) if task == "detection" else (4, 8, 16, 32))


class Neck(SummedMaps):
    """Pictures to one map (N, channels, H / stride, W / stride), which the backbone's maps are added up in."""

    def __init__(self, backbone: Features, channels: int = 64) -> None:
        super().__init__(backbone, channels)
        self.stride, self.channels, self.smooth = backbone.strides[0], channels, conv_block(channels, channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.smooth(super().forward(images))


class Segmenter(nn.Module):
    """Pictures (N, 3, H, W) to logits (N, num_classes, H, W)."""

    def __init__(self, num_classes: int, neck: Neck) -> None:
        super().__init__()
        self.features, self.head = neck, nn.Conv2d(neck.channels, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(self.head(self.features(images)), size=images.shape[2:], mode="bilinear")


def with_head(backbone: Features, task: str, num_classes: int) -> nn.Module:
    """The backbone under a new head, which is all that the task adds."""
    if task == "classification":
        return Classifier(backbone, num_classes)
    return (CenterNet if task == "detection" else Segmenter)(num_classes, Neck(backbone))


def loss_of(model: nn.Module, outputs: Any, targets: Any) -> Tensor:
    """The loss of the model's task."""
    if isinstance(model, CenterNet):
        heat, boxes = outputs
        return center_loss(heat, boxes, targets, model.stride)
    loss = F.cross_entropy(outputs, targets, ignore_index=VOID)
    return loss + dice_loss(outputs, targets) if isinstance(model, Segmenter) else loss


def varied(images: Tensor, targets: Any) -> tuple[Tensor, Any]:
    """Photographs mirrored at random; with boxes or masks, which follow, also moved or cropped, and recolored."""
    if isinstance(targets, list):
        images, targets = shift_and_zoom(images, targets, mirror=True)
        return recolor(images), targets
    if targets.ndim == 3:
        return augment(images, targets)
    return images.flip(3).where(torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5, images), targets


def score(model: nn.Module, dataset: Any, device: torch.device) -> dict[str, float]:
    """The task's metrics on the whole set; that which it is judged by comes first."""
    if isinstance(dataset, Boxes):
        return mean_average_precision(predict(model, dataset, device, batch_size=32), truths(dataset))
    if isinstance(dataset, Masks):
        return scores(predict_masks(model, dataset, device), dataset.masks, len(dataset.classes))
    return accuracies(torch.stack(predict(model, dataset, device, 64)).argmax(dim=1), dataset.labels.cpu())


def accuracies(found: Tensor, labels: Tensor) -> dict[str, float]:
    """The mean over classes, which counts rare ones as much as others, and the share of all pictures."""
    right = (found == labels).double()
    recalls = [right[labels == label].mean() for label in labels.unique()]
    return {"balanced_accuracy": torch.stack(recalls).mean().item(), "accuracy": right.mean().item()}


def plain_method(backbone: Features, train_set: Any, test_set: Any, device: torch.device) -> dict[str, float]:
    """The baseline: the commonest places or class; to classify, ridge regression on the backbone's features as they
    are, or the nearest neighbor in pixels, whichever is better."""
    if isinstance(test_set, Boxes):
        return commonest_places(train_set, test_set)
    if isinstance(test_set, Masks):
        return commonest_class(train_set, test_set)
    headless = Classifier(backbone, 1).to(device).to(memory_format=torch.channels_last)
    headless.head = nn.Identity()
    x, y = (torch.stack(predict(headless, part, device, 64)).double() for part in (train_set, test_set))
    found = ridge(x, train_set.labels.cpu(), y), nearest_classes(train_set, shrunk(test_set))
    return max((accuracies(one, test_set.labels.cpu()) for one in found), key=lambda one: one["balanced_accuracy"])


def ridge(values: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Classes (M,) that ridge regression names for other pictures' values (M, channels).

    It has learned from values (N, channels) with labels (N,), by whose means and deviations all are scaled.
    """
    mean, deviation = values.mean(dim=0), values.std(dim=0) + 1e-6
    x, y = ((one - mean) / deviation for one in (values, others))
    wanted = F.one_hot(labels).double()
    weights = torch.linalg.solve(x.T @ x + len(x) * torch.eye(x.shape[1]), x.T @ (wanted - wanted.mean(dim=0)))
    return (y @ weights + wanted.mean(dim=0)).argmax(dim=1)


class TaskOfModel:
    """How an adapted model is used: as `Classification`, `Detection` or `Segmentation`."""

    takes = Classification.takes  # as all three do

    def __new__(cls, **given: Any) -> Any:
        pictures = Detection if "least_score" in given else Segmentation
        return (Classification if "shape" in given else pictures)(**given)

    @staticmethod
    def of(result: Result, options: Any) -> Task:
        kinds: dict[str, Any] = {"classification": Classification, "detection": Detection}
        return kinds.get(options.task, Segmentation).of(result, options)
