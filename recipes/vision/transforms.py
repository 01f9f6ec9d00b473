"""Random changes of whole batches of pictures, on their device; boxes and masks follow.

Geometric transforms (`flip`, `rotate`, `scale`, `translate`, `crop`, `pad`) do not touch a pixel: each draws
one matrix a picture, (batch, 3, 3), that takes a point (x, y, 1) of the old picture to its place in the new
one, in pixels, with (0, 0) at the outer corner of the first pixel. Matrices are composed by `@`, the first
transform rightmost, and then applied once: by `warp` to pictures, by `warp_masks` to masks, by `warp_boxes`
to boxes. Sampling once instead of after each transform is faster and blurs less.

Color transforms (`brightness`, `contrast`, `saturation`, `hue`, `noise`, `erase`) take pictures on the scale
0 to 1 and give new ones; boxes and masks stay as they are.

All of them take `images`, float (batch, channels, height, width); a torch.Generator on the same device, or
None for torch's own random numbers; and the `amount` by which they change a picture at most.

`rand_augment` puts them together; `mixup` and `cutmix` join two pictures and their targets.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Generator = torch.Generator | None
Number = Tensor | float  # (batch,), or one for all pictures


def flip(images: Tensor, generator: Generator = None, amount: float = 0.5) -> Tensor:
    """Swaps left and right in a share `amount` of the pictures."""
    mirrored = uniform(images, 0, 1, generator) < amount
    return about_center(images, 1 - 2.0 * mirrored, 0, 0, 1)


def rotate(images: Tensor, generator: Generator = None, amount: float = 15) -> Tensor:
    """Turns by up to `amount` degrees either way."""
    angle = uniform(images, -amount, amount, generator).deg2rad()
    return about_center(images, angle.cos(), -angle.sin(), angle.sin(), angle.cos())


def scale(images: Tensor, generator: Generator = None, amount: float = 0.2) -> Tensor:
    """Enlarges by up to 1 + `amount`, or shrinks by as much."""
    factor = (1 + amount) ** uniform(images, -1, 1, generator)
    return about_center(images, factor, 0, 0, factor)


def translate(images: Tensor, generator: Generator = None, amount: float = 0.125) -> Tensor:
    """Moves by up to `amount` of the picture's width and height."""
    x, y = (uniform(images, -amount, amount, generator) for _ in range(2))
    return about_center(images, 1, 0, 0, 1, x * images.shape[3], y * images.shape[2])


def crop(images: Tensor, generator: Generator = None, amount: float = 0.3) -> Tensor:
    """Enlarges a window somewhere in the picture to the whole of it; at most `amount` of each side is lost."""
    return zoomed_somewhere(images, 1 / (1 - uniform(images, 0, amount, generator)), generator)


def pad(images: Tensor, generator: Generator = None, amount: float = 0.3) -> Tensor:
    """Shrinks the picture to a window somewhere in an empty one; at most `amount` of each side stays empty."""
    return zoomed_somewhere(images, 1 - uniform(images, 0, amount, generator), generator)


def zoomed_somewhere(images: Tensor, factor: Tensor, generator: Generator) -> Tensor:
    x, y = (uniform(images, -0.5, 0.5, generator) for _ in range(2))
    free = factor - 1  # of a side: by how much picture and window differ
    return about_center(images, factor, 0, 0, factor, x * free * images.shape[3], y * free * images.shape[2])


def about_center(
    images: Tensor, a: Number, b: Number, c: Number, d: Number, move_x: Number = 0, move_y: Number = 0
) -> Tensor:
    """Matrices (batch, 3, 3) of the linear map ((a, b), (c, d)) about the picture's center, and then of a move."""
    x, y = images.shape[3] / 2, images.shape[2] / 2
    values = [a, b, x + move_x - a * x - b * y, c, d, y + move_y - c * x - d * y, 0, 0, 1]
    columns = [torch.as_tensor(value, dtype=torch.float32, device=images.device) for value in values]
    return torch.stack([column.expand(len(images)) for column in columns], dim=1).view(-1, 3, 3)


def uniform(images: Tensor, low: float, high: float, generator: Generator) -> Tensor:
    """One number a picture, (batch,), drawn evenly between `low` and `high`."""
    return torch.rand(len(images), generator=generator, device=images.device) * (high - low) + low


def warp(
    images: Tensor,
    matrices: Tensor,
    size: tuple[int, int] | None = None,
    *,
    fill: float = 0.0,
    mode: str = "bilinear",
) -> Tensor:
    """Pictures (batch, channels, height, width) with every point moved by its picture's matrix.

    Args:
        images: on any scale.
        matrices: (batch, 3, 3), products of the transforms above.
        size: height and width of the new pictures, if they are not to stay.
        fill: value outside the old picture.
        mode: bilinear or nearest.
    """
    height, width = size or images.shape[2:]
    # A new pixel asks where it came from: from (-1, 1) in the new picture to pixels, back through the
    # matrix, and to (-1, 1) in the old one, as affine_grid counts.
    origin = to_unit(images.shape[2:], matrices) @ matrices.inverse() @ to_unit((height, width), matrices).inverse()
    grid = F.affine_grid(origin[:, :2], [len(images), 1, height, width], align_corners=False)  # (batch, h, w, 2)
    return F.grid_sample(images - fill, grid, mode, align_corners=False) + fill


def to_unit(size: Sequence[int], like: Tensor) -> Tensor:
    height, width = size
    return like.new_tensor([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])


def warp_masks(masks: Tensor, matrices: Tensor, size: tuple[int, int] | None = None, *, fill: int = 0) -> Tensor:
    """Masks (batch, height, width) of whole numbers, moved as `warp` moves pictures; no new numbers arise."""
    moved = warp(masks.unsqueeze(1).float(), matrices, size, fill=fill, mode="nearest")
    return moved.squeeze(1).to(masks.dtype)


def warp_boxes(boxes: Sequence[Tensor], matrices: Tensor, size: tuple[int, int]) -> tuple[list[Tensor], list[Tensor]]:
    """Boxes moved as `warp` moves pictures: the tight boxes around what is seen of the moved rectangles.

    Cutting the box of the moved corners at the picture's border would give too large a box wherever a
    corner of a turned rectangle leaves the picture. So each edge is cut instead.

    Args:
        boxes: for each picture (n, 4), left, top, right, bottom, in pixels.
        matrices: (batch, 3, 3).
        size: height and width of the new pictures.

    Returns:
        For each picture its boxes, without those of which less than a pixel is left; and (n,) which those
        are, True where kept, to choose their labels by.
    """
    height, width = size
    counts = [len(each) for each in boxes]
    old = torch.cat(list(boxes))  # (N, 4), all pictures' boxes
    moves = matrices.repeat_interleave(torch.tensor(counts, device=matrices.device), dim=0)  # (N, 3, 3)
    start = move_points(moves, old[:, [0, 1, 2, 1, 2, 3, 0, 3]].view(-1, 4, 2))  # (N, 4, 2) corners, in turn
    edge = start.roll(-1, dims=1) - start
    edge = torch.where(edge.abs() < 1e-6, 1e-6, edge)
    # The shares of its way at which an edge crosses the lines x = 0, y = 0 and x = width, y = height.
    crossings = torch.stack([-start / edge, (start.new_tensor([width, height]) - start) / edge])  # (2, N, 4, 2)
    enter = crossings.amin(dim=0).amax(dim=2, keepdim=True).clamp(min=0)  # (N, 4, 1)
    leave = crossings.amax(dim=0).amin(dim=2, keepdim=True).clamp(max=1)
    # Where a corner of the picture lies within the moved rectangle, the visible part reaches it.
    frame = start.new_tensor([[0, 0], [width, 0], [width, height], [0, height]]).expand(len(old), 4, 2)
    origin = move_points(moves.inverse(), frame)
    covered = ((origin >= old[:, None, :2]) & (origin <= old[:, None, 2:])).all(dim=2, keepdim=True)  # (N, 4, 1)

    points = torch.cat([start + enter * edge, start + leave * edge, frame], dim=1)  # (N, 12, 2)
    seen = torch.cat([enter <= leave, enter <= leave, covered], dim=1)  # (N, 12, 1)
    first, last = points.where(seen, torch.inf).amin(dim=1), points.where(seen, -torch.inf).amax(dim=1)
    kept = (last - first >= 1).all(dim=1).split(counts)
    new = torch.cat([first, last], dim=1).split(counts)
    return [each[keep] for each, keep in zip(new, kept, strict=True)], list(kept)


def move_points(matrices: Tensor, points: Tensor) -> Tensor:
    """Points (N, n, 2) moved by matrices (N, 3, 3)."""
    return points @ matrices[:, :2, :2].mT + matrices[:, None, :2, 2]


def brightness(images: Tensor, generator: Generator = None, amount: float = 0.3) -> Tensor:
    """Multiplies all values by 1 - `amount` to 1 + `amount`."""
    return (images * factors(images, amount, generator)).clamp(0, 1)


def contrast(images: Tensor, generator: Generator = None, amount: float = 0.3) -> Tensor:
    """Multiplies the distance of all values from the picture's mean gray."""
    middle = gray(images).mean(dim=(2, 3), keepdim=True)
    return (middle + (images - middle) * factors(images, amount, generator)).clamp(0, 1)


def saturation(images: Tensor, generator: Generator = None, amount: float = 0.5) -> Tensor:
    """Multiplies the distance of each color from the gray of the same pixel."""
    return (gray(images) + (images - gray(images)) * factors(images, amount, generator)).clamp(0, 1)


def hue(images: Tensor, generator: Generator = None, amount: float = 0.1) -> Tensor:
    """Turns all colors about the axis of the grays, by up to `amount` of a full turn; gray pictures stay."""
    if images.shape[1] != 3:
        return images
    angle = uniform(images, -amount, amount, generator).view(-1, 1, 1) * (2 * torch.pi)
    axis = images.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    turn = torch.eye(3, device=images.device) * angle.cos() + (1 - angle.cos()) / 3 + axis * angle.sin()
    return torch.einsum("bdc,bchw->bdhw", turn, images).clamp(0, 1)


def noise(images: Tensor, generator: Generator = None, amount: float = 0.1) -> Tensor:
    """Adds normal noise, its deviation drawn up to `amount` for each picture."""
    deviation = uniform(images, 0, amount, generator).view(-1, 1, 1, 1)
    drawn = torch.randn(images.shape, generator=generator, device=images.device)
    return (images + deviation * drawn).clamp(0, 1)


def erase(images: Tensor, generator: Generator = None, amount: float = 0.5) -> Tensor:
    """Random erasing (https://arxiv.org/abs/1708.04896): a rectangle of up to `amount` of each side turns black.

    The paper erases half of the pictures, best with random values.
    """
    height, width = (uniform(images, 0, amount, generator) for _ in range(2))
    return images.masked_fill(rectangles(images, height, width, generator), 0)


def rectangles(images: Tensor, heights: Tensor, widths: Tensor, generator: Generator) -> Tensor:
    """One rectangle a picture, (batch, 1, height, width), True within; its center is anywhere.

    Args:
        images: that it lies in.
        heights, widths: (batch,) as shares of the picture's.
        generator: of the places.
    """
    within = []
    for share, side in ((heights, images.shape[2]), (widths, images.shape[3])):
        center = uniform(images, 0, side, generator)
        places = torch.arange(side, device=images.device) + 0.5
        within.append((places - center[:, None]).abs() < share[:, None] * side / 2)  # (batch, side)
    return (within[0][:, :, None] & within[1][:, None, :]).unsqueeze(1)


def factors(images: Tensor, amount: float, generator: Generator) -> Tensor:
    return uniform(images, 1 - amount, 1 + amount, generator).view(-1, 1, 1, 1)


def gray(images: Tensor) -> Tensor:
    """The brightness (batch, 1, height, width) that the eye gives each color (ITU-R BT.601)."""
    if images.shape[1] != 3:
        return images
    return (images * images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)


MOVES = (flip, rotate, scale, translate, crop, pad)
COLORS = (brightness, contrast, saturation, hue, noise, erase)
# What RandAugment draws from, and how far each goes at full strength.
RANDOM_MOVES = [(rotate, 60.0), (scale, 1.0), (translate, 0.4)]
RANDOM_COLORS = [(brightness, 0.9), (contrast, 0.9), (saturation, 0.9), (noise, 0.5), (erase, 1.0)]


def rand_augment(
    images: Tensor, generator: Generator = None, operations: int = 2, strength: float = 0.4
) -> tuple[Tensor, Tensor]:
    """RandAugment (https://arxiv.org/abs/1909.13719): for each picture a few transforms drawn from one list.

    All are of one strength, 0 to 1, so that two numbers are to be tuned, however many transforms there are. The paper
    has 14 transforms, all at exactly their strength; these are 8 of them or like them, each at up to its strength.

    Returns:
        The pictures, and the matrices (batch, 3, 3) by which their boxes and masks can follow.
    """
    matrices = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    for _ in range(operations):
        drawn = torch.randint(
            len(RANDOM_MOVES) + len(RANDOM_COLORS), (len(images),), generator=generator, device=images.device
        )
        for number, (move, limit) in enumerate(RANDOM_MOVES):
            moved = move(images, generator, strength * limit) @ matrices
            matrices = moved.where((drawn == number).view(-1, 1, 1), matrices)
        for number, (color, limit) in enumerate(RANDOM_COLORS, start=len(RANDOM_MOVES)):
            rows = (drawn == number).nonzero().flatten()
            images = images.index_copy(0, rows, color(images[rows], generator, strength * limit))
    return warp(images, matrices), matrices


def mixup(images: Tensor, targets: Tensor, generator: Generator = None, alpha: float = 0.4) -> tuple[Tensor, Tensor]:
    """MixUp (https://arxiv.org/abs/1710.09412): share · one picture + (1 - share) · another, and targets alike.

    The share is drawn for each picture; the authors' code draws one for a batch.

    Args:
        images: (batch, channels, height, width).
        targets: (batch, classes), the share of each class.
        generator: of shares and pairs.
        alpha: the share is drawn from Beta(alpha, alpha): the smaller, the more often one picture prevails.
    """
    share, other = beta(images, alpha, generator)
    return (
        torch.lerp(images[other], images, share.view(-1, 1, 1, 1)),
        torch.lerp(targets[other], targets, share.view(-1, 1)),
    )


def cutmix(images: Tensor, targets: Tensor, generator: Generator = None, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """CutMix (https://arxiv.org/abs/1905.04899): a rectangle of another picture, targets shared by the areas.

    Rectangle and share are drawn for each picture; the authors' code draws them for a batch, and for half of those.
    """
    share, other = beta(images, alpha, generator)
    side = (1 - share).sqrt()
    pasted = rectangles(images, side, side, generator)  # cut off at the border, and so counted anew
    share = 1 - pasted.float().mean(dim=(1, 2, 3))
    return images[other].where(pasted, images), torch.lerp(targets[other], targets, share.view(-1, 1))


def beta(images: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """For each picture a share (batch,) from Beta(alpha, alpha), and the number of another one."""
    both = torch._sample_dirichlet(images.new_full((len(images), 2), alpha), generator=generator)
    return both[:, 0], torch.randperm(len(images), generator=generator, device=images.device)
