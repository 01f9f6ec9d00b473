"""Following an object without learning anything, and how well boxes follow it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recipes.core.figures import draw_curves, new_figure, show_picture
from recipes.datasets.sequences import FrameSequence
from recipes.vision.detection.boxes import box_iou
from recipes.vision.detection.drawing import draw_frames


def stay(sequence: FrameSequence) -> Tensor:
    """The first box in every frame, (T, 4)."""
    return sequence.boxes[:1].expand(len(sequence), -1)


def match_pixels(sequence: FrameSequence) -> Tensor:
    """Template matching: boxes (T, 4) where the grey pixels correlate best with those of the first box.

    It looks no farther from the last place than the box is large.
    """
    from skimage.feature import match_template

    def grey(index: int) -> Any:
        return sequence.frame(index).float().mean(dim=0).numpy()

    left, top, right, bottom = sequence.boxes[0].round().int().tolist()
    reach = (right - left + bottom - top) // 2
    x, y = max(left, 0), max(top, 0)
    template = grey(0)[y:bottom, x:right]
    height, width = template.shape
    boxes = [sequence.boxes[0]]
    for index in range(1, len(sequence)):
        x0, y0 = max(x - reach, 0), max(y - reach, 0)
        agreement = match_template(grey(index)[y0 : y + height + reach, x0 : x + width + reach], template)
        row, column = divmod(int(agreement.argmax()), agreement.shape[1])
        x, y = x0 + column, y0 + row
        boxes.append(torch.tensor([x, y, x + width, y + height], dtype=torch.float32))
    return torch.stack(boxes)


def overlaps(found: Sequence[Tensor], sequences: Sequence[FrameSequence]) -> list[Tensor]:
    """The IoU of boxes found with the true ones, for each sequence (T - 1,): the first is given, and left out."""
    pairs = zip(found, sequences, strict=True)
    return [box_iou(boxes, sequence.boxes).diagonal()[1:] for boxes, sequence in pairs]


def scores(ious: Sequence[Tensor]) -> dict[str, float]:
    """Mean overlap over all frames, and the share of frames with an overlap above a half."""
    values = torch.cat(list(ious))
    return {"mean_overlap": values.mean().item(), "success_50": (values > 0.5).double().mean().item()}


def draw_following(
    sequences: list[FrameSequence], ways: dict[str, list[Tensor]], history: list[dict[str, float]]
) -> Any:
    """The success curves, the loss, and what the first way follows best and worst (true boxes dashed).

    Args:
        sequences: that were followed.
        ways: by name, the boxes found in each sequence.
        history: of the training.
    """
    figure, axes = new_figure(2, 5, width=2.5, height=2.6)
    thresholds = torch.linspace(0, 1, 51)
    for name, boxes in ways.items():
        values = torch.cat(overlaps(boxes, sequences))
        axes[0, 0].plot(thresholds, (values > thresholds[:, None]).double().mean(dim=1), label=name)
    axes[0, 0].set(xlabel="overlap above", ylabel="share of frames", xlim=(0, 1), ylim=(0, 1.4), yticks=[0, 0.5, 1])
    axes[0, 0].legend(frameon=False, fontsize=7, loc="upper right")
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    draw_curves(axes[1, 0], history)
    found = next(iter(ways.values()))
    order = torch.stack([each.mean() for each in overlaps(found, sequences)]).argsort(descending=True).tolist()
    moments = [(chosen, i / 3) for chosen in (order[0], order[-1]) for i in range(4)]
    if len(sequences) == 1:
        moments = [(0, i / 7) for i in range(8)]
    for place, (chosen, share) in zip(axes[:, 1:].flatten(), moments, strict=True):
        sequence, index = sequences[chosen], round(share * (len(sequences[chosen]) - 1))
        show_picture(place, sequence.frame(index), f"{sequence.name}, frame {index + 1}")
        draw_frames(place, found[chosen][index][None], "limegreen")
        draw_frames(place, sequence.boxes[index][None], "white", "--")
    return figure
