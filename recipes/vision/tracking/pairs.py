"""Pairs of frames to learn from: an exemplar and a search, changed anew each time they are seen."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recipes.datasets.sequences import FrameSequence
from recipes.vision.tracking.following import EXEMPLAR, SEARCH, crops, square_around

WIDE = 112  # pixels of the crop that is kept of such a frame: a search, with room to move and to zoom


class Pairs:
    """Wide crops around the object in pairs of frames of one sequence, and its sizes in them.

    Args:
        sequences: they come from.
        frames: of each sequence, evenly spaced; every two of them make a pair.
    """

    def __init__(self, sequences: Sequence[FrameSequence], frames: int = 8) -> None:
        kept: list[Tensor] = []
        sizes: list[Tensor] = []
        pairs: list[tuple[int, int]] = []
        for sequence in sequences:
            chosen = torch.linspace(0, len(sequence) - 1, min(frames, len(sequence))).long().tolist()
            here = range(len(kept), len(kept) + len(chosen))
            pairs += [(one, other) for one in here for other in here if one != other]
            for index in chosen:
                center, size, side = square_around(sequence.boxes[index])
                scale = side / EXEMPLAR
                wide = crops(sequence.frame(index)[None], center[None], (scale * WIDE)[None], WIDE)[0]
                kept.append(((wide + 1) * 127.5).round().to(torch.uint8))
                sizes.append(size / scale)
        self.crops, self.sizes, self.pairs = torch.stack(kept), torch.stack(sizes), torch.tensor(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Crops (B, 3, WIDE, WIDE) uint8 of both frames, and the object's sizes (B, 2) in pixels of each."""
        one, other = self.pairs[indices].T
        return self.crops[one], self.crops[other], self.sizes[one], self.sizes[other]


def cut(first: Tensor, second: Tensor, shifts: Tensor, zooms: Tensor) -> tuple[Tensor, Tensor]:
    """Exemplars at the center, and searches where the object lies `shifts` (B, 2) pixels off it and is smaller."""
    middle = torch.full_like(shifts, WIDE / 2)
    exemplars = crops(first, middle, torch.full_like(zooms, EXEMPLAR), EXEMPLAR)
    return exemplars, crops(second, middle - shifts * zooms[:, None], SEARCH * zooms, SEARCH)


def alike(first: Tensor, second: Tensor, *sizes: Tensor) -> tuple[Tensor, ...]:
    """Both frames mirrored, turned and recolored in the same way."""
    axes, order = [axis for axis in (2, 3) if torch.rand(()) < 0.5], torch.randperm(3)
    turned, inverted = torch.rand(()) < 0.5, torch.rand(()) < 0.5
    changed = []
    for crop in (first, second):
        crop = crop[:, order].flip(axes)
        crop = crop.transpose(2, 3) if turned else crop
        changed.append(255 - crop if inverted else crop)
    return *changed, *(size.flip(1) if turned else size for size in sizes)


def recolored(pictures: Tensor, amount: float = 0.2) -> Tensor:
    """Each picture with a contrast and a brightness of its own in each channel."""
    gain, shift = (amount * (2 * torch.rand(2, len(pictures), 3, 1, 1, device=pictures.device) - 1)).unbind()
    return (pictures * (1 + gain) + shift).clamp(-1, 1)
