"""Object detection: the task with a center-point detector, and one module an architecture."""

from recipes.catalog import submodules
from recipes.vision.detection.boxes import Detections, box_iou, nms, shift_and_zoom
from recipes.vision.detection.drawing import draw_detections, draw_frames, show_boxes
from recipes.vision.detection.scoring import (
    commonest_places,
    evaluate,
    mean_average_precision,
    precision_curves,
    truths,
)
from recipes.vision.detection.task import CenterNet, center_loss, run, train

__getattr__ = submodules(__name__)
