"""Tracking with a Siamese network: from a box in the first frame to one in every frame.

Nobody says what the object in the box is, so there is no class to learn. What is learned is to compare. One
network turns the object of the first frame, the exemplar, and a larger piece of the next frame into features,
and the exemplar's are slid over the others: a cross-correlation, which peaks where the two agree. The network
is trained on pairs from one sequence, to answer yes at the object and no beside it; then it follows objects
that it never saw, and changes nothing of itself on the way.

From frame to frame the tracker looks around the last place, at three sizes. It prefers peaks that are near, by
a cosine window, and takes on a new size slowly.

Notes: 49
Paper: Bertinetto, Valmadre, Henriques, Vedaldi, Torr (2016), "Fully-Convolutional Siamese Networks for Object
    Tracking", https://arxiv.org/abs/1606.09549
Data: a handwritten digit that moves over clutter beside another; yours as frames with a box each (OTB).
"""

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.sequences import FrameSequence, open_sequences
from recipes.vision.following import draw_following, match_pixels, overlaps, scores, stay

STRIDE = 2  # pixels of a crop in a cell of the features
EXEMPLAR, SEARCH = 32, 64  # pixels; the object fills about half of the first, and a quarter of the second
FRAMES = 8  # of a training sequence, evenly spaced; every two of them make a pair
SCALES = (0.94, 1.0, 1.06)
PENALTY = 0.1  # logits that another size has to be ahead by


class SiamFC(nn.Module):
    """Exemplars and searches through the same convolutions, then one slid over the other.

    No convolution is padded, so the features of a place do not depend on where in the crop it lies.
    """

    def __init__(self, *, width: int = 12) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 5, STRIDE, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3),
        )
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, exemplars: Tensor, searches: Tensor) -> Tensor:
        return self.compare(self.features(exemplars), self.features(searches))

    def compare(self, exemplars: Tensor, searches: Tensor) -> Tensor:
        """How far each place of the searches' features is the exemplar: logits (batch, rows, columns)."""
        return cross_correlation(exemplars, searches) / exemplars[0, 0].numel() + self.bias


def cross_correlation(exemplars: Tensor, searches: Tensor) -> Tensor:
    """Slides every exemplar over its own search, and at each place sums the products of all features.

    response[b, y, x] = Σ over c, i, j of exemplars[b, c, i, j] · searches[b, c, y + i, x + j]

    Args:
        exemplars: (batch, channels, h, w).
        searches: (batch, channels, H, W).

    Returns:
        (batch, H - h + 1, W - w + 1).
    """
    # A convolution whose kernels are the exemplars: each in a group of its own meets its own search alone.
    return F.conv2d(searches.flatten(0, 1)[None], exemplars, groups=len(exemplars))[0]


def crop(frame: Tensor, centre: Tensor, side: float, size: int) -> Tensor:
    """A square of a frame, brought to a size: (3, size, size) in -1 to 1, grey where it leaves the frame.

    Args:
        frame: (3, height, width) uint8.
        centre: (2,) x and y in pixels.
        side: of the square in pixels.
        size: of the crop.
    """
    fine = max(1, round(side / size))  # so many points are averaged along either side of a pixel
    steps = (torch.arange(size * fine, device=frame.device) + 0.5) / (size * fine) - 0.5
    x, y = (2 * (at + side * steps) / length - 1 for at, length in zip(centre, frame.shape[:0:-1], strict=True))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2)[None]  # (1, size * fine, size * fine, 2)
    pixels = frame[None].float() / 127.5 - 1
    return F.avg_pool2d(F.grid_sample(pixels, grid, align_corners=False), fine)[0]


def place_of(box: Tensor) -> tuple[Tensor, Tensor, float]:
    """A box's centre (2,) and size (2,), and the side of the square to see it in: the box and half of it around."""
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    return centre, size, (size + size.mean()).prod().sqrt().item()


class Pairs:
    """Every two frames of every sequence, one cut as an exemplar and the other as a search around the object."""

    def __init__(self, sequences: Sequence[FrameSequence]) -> None:
        exemplars: list[Tensor] = []
        searches: list[Tensor] = []
        pairs: list[tuple[int, int]] = []
        for sequence in sequences:
            chosen = torch.linspace(0, len(sequence) - 1, min(FRAMES, len(sequence))).long().tolist()
            here = range(len(exemplars), len(exemplars) + len(chosen))
            pairs += [(one, other) for one in here for other in here if one != other]
            for index in chosen:
                frame, (centre, _, side) = sequence.frame(index), place_of(sequence.boxes[index])
                exemplars.append(crop(frame, centre, side, EXEMPLAR))
                searches.append(crop(frame, centre, side * SEARCH / EXEMPLAR, SEARCH))
        self.exemplars, self.searches, self.pairs = torch.stack(exemplars), torch.stack(searches), torch.tensor(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, indices: Any) -> tuple[Tensor, Tensor]:
        one, other = self.pairs[indices].T
        return self.exemplars[one], self.searches[other]


def balanced_loss(responses: Tensor, radius: float = EXEMPLAR / 8) -> Tensor:
    """Logistic loss of yes within a radius of the centre, and no beyond; both count as much.

    Args:
        responses: (batch, side, side) logits, the object at the centre.
        radius: in pixels of the crop, a quarter of the object's size.
    """
    steps = STRIDE * (torch.arange(responses.shape[-1], device=responses.device) - (responses.shape[-1] - 1) / 2)
    yes = torch.hypot(steps[:, None], steps) <= radius  # (side, side)
    return (F.softplus(-responses[:, yes]).mean() + F.softplus(responses[:, ~yes]).mean()) / 2


def train(model: SiamFC, pairs: Pairs, *, batch_size: int, lr: float, seed: int, **settings: Any) -> OldLoop:
    """Minimises the balanced logistic loss with AdamW; half of the pairs are mirrored. `settings` are `Loop`'s."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    loop = OldLoop(model, optimizer, old_batches(pairs, batch_size, seed=seed), schedule=one_cycle, **settings)
    for exemplars, searches in loop:
        mirrored = (torch.rand(len(exemplars), device=exemplars.device) < 0.5)[:, None, None, None]
        exemplars, searches = (torch.where(mirrored, some.flip(3), some) for some in (exemplars, searches))
        loop.step(balanced_loss(loop.model(exemplars, searches)))
    return loop


@torch.inference_mode()
def track(
    model: SiamFC,
    sequence: FrameSequence,
    device: torch.device,
    *,
    scales: Sequence[float] = SCALES,
    window: float = 0.2,
) -> Tensor:
    """Follows what is in the first frame's box: boxes (T, 4) in pixels, the first as given.

    Args:
        model: the network, which stays as it is.
        sequence: only its first box is looked at.
        device: where the model lives.
        scales: sizes to look at, relative to the last one.
        window: weight of the cosine window, which prefers small moves, against the response.
    """
    was_training = model.training
    model.eval()
    centre, size, side = place_of(sequence.boxes[0])
    first = sequence.frame(0).to(device)
    exemplar = model.features(crop(first, centre, side, EXEMPLAR)[None])
    corner, limits = torch.tensor(first.shape[:0:-1]), (side / 5, side * 5)
    boxes = [sequence.boxes[0]]
    for index in range(1, len(sequence)):
        frame = sequence.frame(index).to(device)
        searches = [crop(frame, centre, side * scale * SEARCH / EXEMPLAR, SEARCH) for scale in scales]
        features = model.features(torch.stack(searches))
        responses = model.compare(exemplar.expand(len(scales), -1, -1, -1), features)  # (scales, 17, 17)
        responses = F.interpolate(responses[:, None], scale_factor=8, mode="bicubic")[:, 0]  # to find peaks between
        peaks = responses.amax(dim=(1, 2)) - PENALTY * torch.tensor([scale != 1 for scale in scales], device=device)
        best = int(peaks.argmax())
        response = responses[best] - responses[best].amin()
        near = torch.hann_window(len(response), periodic=False, device=device)
        wanted = (1 - window) * response / response.amax().clamp(min=1e-6) + window * near[:, None] * near
        row, column = divmod(int(wanted.argmax()), wanted.shape[1])
        moved = torch.tensor([column, row]) - (wanted.shape[0] - 1) / 2  # in eighths of a cell
        centre = centre + moved * STRIDE / 8 * side * scales[best] / EXEMPLAR
        centre = centre.clamp(min=0).minimum(corner)  # whatever happens, it stays within the frame
        grown = 1 + 0.6 * (scales[best] - 1)
        if limits[0] < side * grown < limits[1]:
            size, side = size * grown, side * grown
        boxes.append(torch.cat([centre - size / 2, centre + size / 2]))
    model.train(was_training)
    return torch.stack(boxes)


@torch.inference_mode()
def peaks_on_object(model: SiamFC, pairs: Pairs, device: torch.device, radius: float = EXEMPLAR / 8) -> float:
    """The share of pairs of frames where the response peaks within a radius of the object's centre."""
    model.eval()
    right = []
    for some in torch.arange(len(pairs)).split(128):
        responses = model(*(crops.to(device) for crops in pairs.__getitems__(some)))  # (batch, 17, 17)
        peaks = torch.stack(torch.unravel_index(responses.flatten(1).argmax(dim=1), responses.shape[1:]), dim=1)
        right.append(STRIDE * (peaks - (responses.shape[-1] - 1) / 2).norm(dim=1) <= radius)
    model.train()
    return torch.cat(right).double().mean().item()


@old_recipe
def run(
    *,
    data: str | None = None,
    epochs: int = 5,
    batch_size: int = 32,
    lr: float = 4e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a Siamese tracker and follows objects through sequences that it never saw.

    Args:
        data: folder of your sequences; without a train part they are followed by what the bundled ones taught.
        epochs: passes over the pairs of frames.
        batch_size: pairs in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights and of the order of the pairs.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    train_set, test_set = open_sequences(data)
    model = SiamFC().to(place)

    unseen = Pairs(test_set)
    guessed = peaks_on_object(model, unseen, place)
    fast: Engine = {"precision": "auto", "channels_last": True}
    settings: dict[str, Any] = {"epochs": epochs, "device": place, **fast, **engine}
    loop = train(model, Pairs(train_set), batch_size=batch_size, lr=lr, seed=seed, **settings)
    ways = {
        "this recipe": [track(model, one, place) for one in test_set],
        "template matching": [match_pixels(one) for one in test_set],
        "standing still": [stay(one) for one in test_set],
    }
    rows = [{"follows": name, **scores(overlaps(found, test_set))} for name, found in ways.items()]
    metrics, matching, still = (scores(overlaps(found, test_set)) for found in ways.values())
    whole = metrics["mean_overlap"]
    return Result(
        metrics=metrics,
        baseline=matching,
        baseline_name="template matching",
        bars={"mean_overlap": 0.5},
        claims=[
            claim("it follows better than who searches for the first pixels", whole, ">", matching["mean_overlap"]),
            claim("and than who stays where the object was at first", whole, ">", still["mean_overlap"]),
            claim(
                "comparing is learned: in pairs of frames the response peaks on the object, untrained and now",
                guessed,
                "<",
                peaks_on_object(model, unseen, place),
            ),
        ],
        history=loop.history,
        rows=rows,
        model=model,
        draw=lambda: draw_following(test_set, ways, loop.history),
    )


if __name__ == "__main__":
    main(run)
