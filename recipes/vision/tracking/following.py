"""Following an object from frame to frame: with a network that compares, and without learning anything."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import draw_curves, new_figure, show_picture
from recipes.datasets.sequences import FrameSequence
from recipes.vision.detection.boxes import box_iou
from recipes.vision.detection.drawing import draw_frames

EXEMPLAR, SEARCH = 32, 64  # pixels; the object fills about half of the first, and a quarter of the second
STRIDE = 2  # pixels of a crop in a cell of its features
WINDOW = 0.3  # weight of the cosine window, which prefers small moves, against the response
SCALES = (0.94, 1.0, 1.06)  # sizes of the search, relative to the last one
DAMPING = 0.5  # share of a new size that is taken on
MEMORY = 0.15  # pull of every new size toward the first one, as a share of the logarithm of their ratio


def square_around(box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A box's center (2,), its size (2,), and the side () of the square to see it in: the box and half of it around."""
    center, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    return center, size, (size + size.mean()).prod().sqrt()


def crops(pictures: Tensor, centers: Tensor, sides: Tensor, size: int) -> Tensor:
    """A square of each picture, resized: (B, 3, size, size) in -1 to 1, grey where it leaves the picture.

    Args:
        pictures: (B, 3, height, width) in 0 to 255.
        centers: (B, 2) x and y in pixels.
        sides: (B,) of the squares in pixels.
        size: of the crops.
    """
    fine = max(1, round(sides.amax().item() / size))  # that many points are averaged along either side of a pixel
    steps = (torch.arange(size * fine, device=pictures.device) + 0.5) / (size * fine) - 0.5
    height, width = pictures.shape[2:]
    across, down = (centers[:, i, None] + sides[:, None] * steps for i in range(2))  # (B, size * fine)
    grid = torch.broadcast_tensors((2 * across / width - 1)[:, None], (2 * down / height - 1)[:, :, None])
    pixels = pictures.float() / 127.5 - 1
    return F.avg_pool2d(F.grid_sample(pixels, torch.stack(grid, dim=3), align_corners=False), fine)


@torch.inference_mode()
def follow(
    model: nn.Module,
    sequence: FrameSequence,
    device: Any,
    scales: Sequence[float] = SCALES,
    damping: float = DAMPING,
) -> Tensor:
    """Follows what is in the first frame's box: boxes (T, 4) in pixels, the first as given.

    Args:
        model: the network, which stays as it is; its `compare` gives a response and box codes for each position.
        sequence: only its first box is looked at.
        device: where the model lives.
        scales: sizes of the search, relative to the last one; that with the highest response is taken.
        damping: share of a new size that is taken on; with 0 the box keeps its size.
    """
    was_training, count = model.training, len(scales)
    compare: Any = model.compare
    features: Any = model.features
    model.eval()
    center, size, side = square_around(sequence.boxes[0])
    first, anchor = size, size * EXEMPLAR / side
    frame = sequence.frame(0).to(device)
    exemplar = features(crops(frame[None], center[None].to(device), side[None].to(device), EXEMPLAR))
    corner, boxes = torch.tensor(frame.shape[:0:-1]), [sequence.boxes[0]]
    for index in range(1, len(sequence)):
        sides = side * torch.tensor(scales)
        frames, centers = sequence.frame(index).to(device).expand(count, -1, -1, -1), center.expand(count, -1)
        searches = features(crops(frames, centers.to(device), (sides * SEARCH / EXEMPLAR).to(device), SEARCH))
        responses, codes = (one.float().cpu() for one in compare(exemplar.expand(count, -1, -1, -1), searches))
        best = int(responses.amax(dim=(1, 2)).argmax())
        response = (responses[best] - responses.amin()) / (responses.amax() - responses.amin()).clamp(min=1e-6)
        near = torch.hann_window(len(response), periodic=False)
        wanted = (1 - WINDOW) * response + WINDOW * near[:, None] * near  # (17, 17)
        row, column = divmod(int(wanted.argmax()), wanted.shape[1])
        code, scale = codes[best, :, row, column], sides[best] / EXEMPLAR  # pixels of the frame in one of the crop
        moved = STRIDE * (torch.tensor([column, row]) - (len(response) - 1) / 2) + code[:2] * anchor
        center = (center + moved * scale).clamp(min=0).minimum(corner)  # whatever happens, it stays within the frame
        change = (anchor * scale / first).log() + code[2:]  # since the first frame, as a logarithm
        size = size + damping * (first * ((1 - MEMORY) * change).clamp(-1.6, 1.6).exp() - size)
        side = square_around(torch.cat([-size, size]) / 2)[2]
        boxes.append(torch.cat([center - size / 2, center + size / 2]))
    model.train(was_training)
    return torch.stack(boxes)


def stay(sequence: FrameSequence) -> Tensor:
    """The first box in every frame, (T, 4)."""
    return sequence.boxes[:1].expand(len(sequence), -1)


def match_pixels(sequence: FrameSequence) -> Tensor:
    """Template matching: boxes (T, 4) where the grey pixels correlate best with those of the first box.

    It looks no farther from the last position than the box is large.
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


def scores(found: Sequence[Tensor], sequences: Sequence[FrameSequence]) -> dict[str, float]:
    """How well boxes follow the true ones, over all frames but the first of each sequence.

    Returns:
        mean_overlap: mean IoU, the area below the success curve.
        success_50: share of frames with an overlap above a half.
        precision: share of frames in which the center is off by at most a quarter of the object's mean side. OTB
            counts 20 pixels in its large frames; this does not depend on their size.
    """
    ious = torch.cat(overlaps(found, sequences))
    off = []
    for boxes, sequence in zip(found, sequences, strict=True):
        centers, true = ((one[:, :2] + one[:, 2:]) / 2 for one in (boxes, sequence.boxes))
        sides = (sequence.boxes[:, 2:] - sequence.boxes[:, :2]).mean(dim=1)
        off.append(((centers - true).norm(dim=1) / sides)[1:])
    values = {"mean_overlap": ious, "success_50": ious > 0.5, "precision": torch.cat(off) <= 0.25}
    return {name: one.double().mean().item() for name, one in values.items()}


def draw_following(
    sequences: list[FrameSequence], ways: dict[str, list[Tensor]], history: list[dict[str, float]]
) -> Any:
    """The success curves, the training, and what the first way follows best and worst (true boxes dashed).

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
    draw_curves(axes[1, 0], history, ["loss", "found"])
    found = next(iter(ways.values()))
    order = torch.stack([each.mean() for each in overlaps(found, sequences)]).argsort(descending=True).tolist()
    moments = [(chosen, i / 3) for chosen in (order[0], order[-1]) for i in range(4)]
    if len(sequences) == 1:
        moments = [(0, i / 7) for i in range(8)]
    for panel, (chosen, share) in zip(axes[:, 1:].flatten(), moments, strict=True):
        sequence, index = sequences[chosen], round(share * (len(sequences[chosen]) - 1))
        show_picture(panel, sequence.frame(index), f"{sequence.name}, frame {index + 1}")
        draw_frames(panel, found[chosen][index][None], "limegreen")
        draw_frames(panel, sequence.boxes[index][None], "white", "--")
    return figure
