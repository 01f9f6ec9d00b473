"""Tracking with a Siamese network: from a box in the first frame to one in every frame.

Nothing says what the object in the box is, so there is no class to learn. What is learned is to compare. One
network turns the object of the first frame, the exemplar, and a larger piece of the next frame, the search, into
features, and the exemplar's are slid over the search's: a cross-correlation, channel by channel. Its sum over the
channels peaks where the two agree. At each position a small head also reads off where the object's box is from
there, as a move and a change of size relative to the first box.

The network learns from pairs of frames of one sequence; mirrored, turned and recolored they show objects that no
frame shows. The response is a classification: which position is the object's? So what resembles the object most
counts most. Then it follows objects that it has never seen, and changes nothing in itself on the way. With random
weights the same correlation matches colors and coarse shapes, which is a strong tracker where nothing changes.

Notes: 49
Paper: Bertinetto, Valmadre, Henriques, Vedaldi, Torr (2016), "Fully-Convolutional Siamese Networks for Object
    Tracking", https://arxiv.org/abs/1606.09549; the box head after Li, Wu, Wang, Zhang, Xing, Yan (2019),
    "SiamRPN++", https://arxiv.org/abs/1812.11703
Data: a handwritten digit, or a card with one, that moves, turns and changes among others like it; yours as frames
    with a box each (OTB).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, Loop, Options, Precision, Result, batches, main, option, recipe
from recipes.datasets.sequences import FrameSequence, open_sequences
from recipes.vision.tracking.following import STRIDE, draw_following, follow, match_pixels, scores, stay
from recipes.vision.tracking.pairs import Pairs, alike, cut, recolored
from recipes.vision.tracking.using import Tracking

RADIUS = 2.5  # pixels of a search around the object's center within which a position is the object's


@dataclass(kw_only=True)
class TrackingOptions(Options):
    width: int = option(16, "channels of the first convolution; the others have twice as many", least=1)
    epochs: int = 20
    lr: float = 7e-3
    precision: Precision = "auto"
    channels_last: bool = True


class Siamese(nn.Module):
    """Exemplars and searches through the same convolutions, then one slid over the other.

    No convolution is padded, so the features of a position do not depend on where in the crop it lies.
    """

    def __init__(self, *, width: int = 16) -> None:
        super().__init__()
        wide = 2 * width
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 5, STRIDE, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, wide, 3, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, dilation=2, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, dilation=2, bias=False),
            nn.BatchNorm2d(wide),
        )
        self.norm = nn.BatchNorm2d(wide)
        codes = nn.Conv2d(wide, 4, 1)
        nn.init.zeros_(codes.weight)  # at first every box keeps its size
        nn.init.zeros_(codes.bias)  # type: ignore[arg-type]
        self.head = nn.Sequential(
            nn.Conv2d(2 * wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(), codes
        )

    def forward(self, exemplars: Tensor, searches: Tensor) -> tuple[Tensor, Tensor]:
        """Exemplars (B, 3, 32, 32) and searches (B, 3, 64, 64), see `compare`."""
        return self.compare(self.features(exemplars), self.features(searches))

    def compare(self, exemplars: Tensor, searches: Tensor) -> tuple[Tensor, Tensor]:
        """How much each position is the exemplar, as logits (B, 17, 17), and box codes (B, 4, 17, 17)."""
        side = exemplars.shape[3]
        response = cross_correlation(exemplars, searches) / side**2  # (B, channels, 17, 17)
        first, count = (side - 1) // 2, response.shape[3]
        middles = searches[:, :, first : first + count, first : first + count]  # of what the exemplar covers
        return response.mean(dim=1), self.head(torch.cat([self.norm(response), middles], dim=1))


def cross_correlation(exemplars: Tensor, searches: Tensor) -> Tensor:
    """Slides every exemplar over its own search, channel by channel.

    response[b, c, y, x] = Σ over i, j of exemplars[b, c, i, j] · searches[b, c, y + i, x + j]

    Args:
        exemplars: (B, channels, h, w).
        searches: (B, channels, H, W).

    Returns:
        (B, channels, H - h + 1, W - w + 1).
    """
    height, width = exemplars.shape[2:]
    rows, columns = searches.shape[2] - height + 1, searches.shape[3] - width + 1
    response = searches.new_zeros(())
    for i in range(height):
        for j in range(width):
            response = response + exemplars[:, :, i, j, None, None] * searches[:, :, i : i + rows, j : j + columns]
    return response


def localization_loss(response: Tensor, codes: Tensor, shifts: Tensor, anchors: Tensor, sizes: Tensor) -> Tensor:
    """Cross-entropy of the positions at the object against all, and smooth L1 of the box codes there.

    Args:
        response: (B, side, side) logits.
        codes: (B, 4, side, side) move over the anchor's size, and logarithm of the size over the anchor's.
        shifts: (B, 2) pixels from the middle of the search to the object's center.
        anchors, sizes: (B, 2) the object's in the exemplar and in the search.
    """
    side = response.shape[-1]
    steps = STRIDE * (torch.arange(side, device=response.device) - (side - 1) / 2)
    positions = torch.stack(torch.meshgrid(steps, steps, indexing="xy"))  # (2, side, side): x and y
    moves = shifts[:, :, None, None] - positions  # (B, 2, side, side)
    here = moves.norm(dim=1) <= RADIUS
    inside = response.masked_fill(~here, -math.inf)
    which = (response.flatten(1).logsumexp(dim=1) - inside.flatten(1).logsumexp(dim=1)).mean()
    stretches = (sizes / anchors).log()[:, :, None, None].expand_as(moves)
    wanted = torch.cat([moves / anchors[:, :, None, None], stretches], dim=1).movedim(1, 3)  # (B, side, side, 4)
    return which + 4 * F.smooth_l1_loss(codes.movedim(1, 3)[here], wanted[here], beta=0.1)


@torch.inference_mode()
def share_found(model: nn.Module, pairs: Pairs, device: Any) -> dict[str, float]:
    """The share of pairs of frames in which the response peaks within a quarter of the object's size of its center."""
    was_training, right = model.training, []
    model.eval()
    for chosen in torch.arange(len(pairs)).split(64):
        first, second, _, sizes = (one.to(device) for one in pairs.__getitems__(chosen))
        response = model(*cut(first, second, torch.zeros_like(sizes), torch.ones_like(sizes[:, 0])))[0]
        peaks = torch.stack(torch.unravel_index(response.flatten(1).argmax(dim=1), response.shape[1:]), dim=1)
        off = STRIDE * (peaks - (response.shape[1] - 1) / 2).norm(dim=1)
        right.append(off <= sizes.mean(dim=1) / 4)
    model.train(was_training)
    return {"found": torch.cat(right).float().mean().item()}


def build(options: TrackingOptions, data: Any) -> Siamese:
    """The network; it is the same for all objects."""
    return Siamese(width=options.width)


def train(
    model: nn.Module, train_set: list[FrameSequence], test_set: list[FrameSequence], options: TrackingOptions
) -> Loop:
    """Minimizes the localization loss with AdamW, on pairs that are changed anew each time."""
    held_out = Pairs(test_set, frames=4)
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=options.lr),
        batches(Pairs(train_set), options),
        options,
        evaluate=lambda: share_found(model, held_out, options.device),
    )
    for batch in loop:
        first, second, anchors, sizes = alike(*batch)
        shifts = torch.empty_like(sizes).uniform_(-12, 12)
        zooms = torch.empty_like(sizes[:, 0]).uniform_(-0.35, 0.35).exp()
        exemplars, searches = cut(first, second, shifts, zooms)
        response, codes = loop.model(recolored(exemplars), recolored(searches))
        loop.step(localization_loss(response, codes, shifts, anchors, sizes / zooms[:, None]))
    return loop


@recipe(TrackingOptions)
def run(options: TrackingOptions) -> Result:
    """Trains a Siamese tracker and follows objects through sequences that it has never seen."""
    train_set, test_set = open_sequences(options.data)
    model = build(options, None).to(options.device)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=scores([follow(model, one, options.device) for one in test_set], test_set),
        baseline=scores([match_pixels(one) for one in test_set], test_set),
        baseline_name="template matching",
        bars={"mean_overlap": 0.64},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result, control = run(), run(lr=1e-9, epochs=1)  # the control learns nothing but the statistics of batch norm
    test_set, device = result.test_set, next(result.model.parameters()).device

    def followed(model: Any, **how: Any) -> dict[str, float]:
        return scores([follow(model, one, device, **how) for one in test_set], test_set)

    ways = {
        "this recipe": result.metrics,
        "searching at one size": followed(result.model, scales=[1.0]),
        "keeping the box's size": followed(result.model, scales=[1.0], damping=0),
        "random weights": control.metrics,
        "random weights, undamped": followed(control.model, damping=1),
        "template matching": result.baseline,
        "standing still": scores([stay(one) for one in test_set], test_set),
    }
    result.rows = [{"follows": name} | measured for name, measured in ways.items()]
    whole, fixed = result["mean_overlap"], ways["keeping the box's size"]["mean_overlap"]
    random = max(ways[name]["mean_overlap"] for name in ("random weights", "random weights, undamped"))
    text = "training pays: random weights with the statistics of batch norm follow worse, damped or not"
    yield Claim(text, whole, ">", random, margin=0.1)
    text = "its response peaks at the object in more pairs of held-out frames than that of random weights"
    yield Claim(text, result.history[-1]["found"], ">", control.history[-1]["found"], margin=0.08)
    text = "it takes both: with random weights, or keeping the box's size, the box overlaps less"
    yield Claim(text, whole, ">", max(fixed, random), margin=0.05)


@run.figure
def figure(result: Result) -> Any:
    test_set, device = result.test_set, next(result.model.parameters()).device
    ways = {
        "this recipe": [follow(result.model, one, device) for one in test_set],
        "template matching": [match_pixels(one) for one in test_set],
        "standing still": [stay(one) for one in test_set],
    }
    return draw_following(test_set, ways, result.history)


run.predicts(Tracking, build)


if __name__ == "__main__":
    main(run)
