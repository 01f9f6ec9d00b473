"""Semantic segmentation: the task with a small network, and one module an architecture."""

from recipes.catalog import submodules
from recipes.vision.segmentation.scoring import (
    commonest_class,
    confusion_matrix,
    draw,
    evaluate,
    iou_by_class,
    near_borders,
    predict_masks,
    scores,
)
from recipes.vision.segmentation.task import DilatedCNN, build, dice_loss, run, train

__getattr__ = submodules(__name__)
