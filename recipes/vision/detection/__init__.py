"""Object detection: the task with a centre-point detector, and one module an architecture."""

from recipes.catalog import submodules
from recipes.vision.detection.task import (
    CenterNet,
    box_iou,
    commonest_places,
    draw_detections,
    evaluate,
    mean_average_precision,
    nms,
    precision_curves,
    run,
    shift_and_zoom,
    show_boxes,
    train,
    truths,
)

__getattr__ = submodules(__name__)
