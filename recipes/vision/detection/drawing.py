"""Pictures of what a detector finds."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, legend_name, new_figure, show_picture
from recipes.datasets.scenes import Boxes
from recipes.vision.detection.boxes import box_iou
from recipes.vision.detection.scoring import precision_curves, truths


def draw_frames(axes: Any, boxes: Tensor, color: str, line: str = "-", names: Sequence[str] = ()) -> None:
    """The outlines of boxes (n, 4) on a picture that is shown already, with names above them if given."""
    from matplotlib.patches import Rectangle

    for i, (left, top, right, bottom) in enumerate((boxes - 0.5).tolist()):  # pixel 0 is drawn from -0.5 to 0.5
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color=color, linestyle=line))
        if names:
            label = {"facecolor": color, "edgecolor": "none", "pad": 1}
            axes.text(left, top, names[i], fontsize=6, va="bottom", bbox=label)


def show_boxes(
    axes: Any,
    image: Tensor,
    found: dict[str, Tensor],
    true: dict[str, Tensor],
    classes: list[str],
    *,
    score: float = 0.4,
) -> None:
    """A picture with its true boxes (dashed white) and the boxes found (solid, named, with their score).

    A found box is green if it overlaps a true one of its class by at least half (IoU), else red; boxes
    less sure than `score` are left out.
    """
    show_picture(axes, image)
    boxes, labels, scores = (found[key][found["scores"] >= score] for key in ("boxes", "labels", "scores"))
    right = ((box_iou(boxes, true["boxes"]) >= 0.5) & (labels[:, None] == true["labels"])).any(dim=1)
    names = [f"{classes[label]} {sure:.2f}" for label, sure in zip(labels, scores, strict=True)]
    for color, chosen in (("tomato", ~right), ("limegreen", right)):
        draw_frames(axes, boxes[chosen], color, names=[names[i] for i in chosen.nonzero().flatten()])
    draw_frames(axes, true["boxes"], "white", "--")


def draw_detections(
    model: nn.Module,
    dataset: Boxes,
    device: torch.device,
    history: list[dict[str, float]],
    *,
    pictures: int = 6,
) -> Any:
    """The loss, precision over recall for each class, and pictures with true and found boxes.

    Args:
        model: see `evaluate`.
        dataset: held-out pictures with boxes.
        device: where the model lives.
        history: of the training.
        pictures: how many, the first of the set.
    """
    found, true = predict(model, dataset, device, batch_size=32), truths(dataset)
    curves = precision_curves(found, true)[0]  # (101, classes) at an overlap of 0.5
    pictures = min(pictures, len(dataset))
    figure, axes = new_figure(2, 2 + (pictures - 1) // 2, width=2.6, height=2.6)
    draw_curves(axes[0, 0], history, ["loss"])
    kinds = torch.cat(dataset.labels).unique().tolist()
    for kind, curve in zip(kinds, curves.T, strict=True):
        axes[1, 0].plot(torch.linspace(0, 1, 101), curve, label=legend_name(dataset.classes[kind]))
    axes[1, 0].set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes[1, 0].legend(frameon=False, fontsize=7, loc="lower left")
    axes[1, 0].spines[["top", "right"]].set_visible(False)
    for index, place in enumerate(axes[:, 1:].flatten()[:pictures]):
        show_boxes(place, dataset.images[index], found[index], true[index], dataset.classes)
    return figure
