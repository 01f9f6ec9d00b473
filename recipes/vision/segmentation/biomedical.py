"""What U-Net's paper adds for pictures of cells, of which there are few: elastic deformation and a map of weights."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.datasets.scenes import VOID


def deform(images: Tensor, masks: Tensor, deviation: float) -> tuple[Tensor, Tensor]:
    """Pictures (N, C, H, W) and masks (N, H, W) bent like a sheet of rubber, each in its own way (section 3.1).

    Displacements in pixels, normal with that standard deviation, are drawn for the points of a 3×3 grid, and those of
    the pixels interpolated between them by cubic curves. What enters from outside repeats the border.
    """
    count, _, height, width = images.shape
    coarse = deviation * torch.randn(count, 2, 3, 3, device=images.device)
    moves = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)  # (N, 2, H, W): x and y
    identity = torch.eye(2, 3, device=images.device).expand(count, 2, 3)
    grid = F.affine_grid(identity, [count, 1, height, width], align_corners=False)
    grid = grid + moves.permute(0, 2, 3, 1) * 2 / moves.new_tensor([width, height])
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    moved = F.grid_sample(masks[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    return images, moved[:, 0].to(masks.dtype)


def border_weights(masks: Tensor, w0: float = 10.0, sigma: float = 5.0) -> Tensor:
    """The weight of each pixel in the loss, (N, H, W) float32, from masks (N, H, W) (equation 2).

        w(x) = wc(x) + w0 · exp(-(d1(x) + d2(x))² / 2σ²) on background, wc(x) elsewhere

    wc balances the classes: as if all that the masks show had equally many pixels, with a mean of 1. d1 and d2 are the
    distances in pixels to the nearest and to the second nearest object: a connected region of one class.
    """
    from scipy import ndimage

    known = masks[masks != VOID].long()
    counts = torch.bincount(known, minlength=256).clamp(min=1)
    weights = len(known) / (len(known.unique()) * counts[masks.long()].float())  # wc
    for mask, weight in zip(masks.cpu().numpy(), weights, strict=True):
        regions = [ndimage.label(mask == value) for value in np.unique(mask) if value not in (0, VOID)]
        objects = [labels == number for labels, count in regions for number in range(1, count + 1)]
        if len(objects) < 2:
            continue
        distances = np.stack([ndimage.distance_transform_edt(~one) for one in objects])
        nearest = np.partition(distances, 1, axis=0)[:2].sum(axis=0)  # d1 + d2
        gap = torch.from_numpy(w0 * np.exp(-(nearest**2) / (2 * sigma**2)) * (mask == 0))
        weight += gap.to(weight)
    return weights
