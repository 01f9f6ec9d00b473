"""Boxes: how far they overlap, thinning those found twice, and moving them with their picture."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# For each picture boxes (n, 4) as left, top, right, bottom in pixels, labels (n,) and, of a detector, scores (n,).
Detections = list[dict[str, Tensor]]
VARIANCES = (0.1, 0.1, 0.2, 0.2)  # the usual spread of each code, which they are divided by


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Shared area over joined area of every box with every other.

    Args:
        boxes: (…, N, 4) left, top, right, bottom.
        others: (…, M, 4).

    Returns:
        (…, N, M), from 0 to 1.
    """
    corner = torch.maximum(boxes[..., :, None, :2], others[..., None, :, :2])  # (…, N, M, 2)
    opposite = torch.minimum(boxes[..., :, None, 2:], others[..., None, :, 2:])
    shared = (opposite - corner).clamp(min=0).prod(dim=-1)
    areas, other_areas = ((given[..., 2:] - given[..., :2]).prod(dim=-1) for given in (boxes, others))
    return shared / (areas[..., :, None] + other_areas[..., None, :] - shared)


def giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalized IoU (N,) of each box with the other of its row, -1 to 1: below 0 the farther apart they lie.

    Source: Rezatofighi et al. (2019), https://arxiv.org/abs/1902.09630.
    """
    inner = torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])
    outer = torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])
    shared, around = inner.clamp(min=0).prod(dim=1), outer.prod(dim=1)
    joined = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) + (others[:, 2:] - others[:, :2]).prod(dim=1) - shared
    return shared / joined - (around - joined) / around


def encode(boxes: Tensor, references: Tensor) -> Tensor:
    """Codes that move and stretch references (N, 4) onto boxes (N, 4), both corners.

    Source: Girshick et al. (2014), https://arxiv.org/abs/1311.2524, divided by the usual spread of each code.
    """
    center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    middle, sides = (references[:, :2] + references[:, 2:]) / 2, references[:, 2:] - references[:, :2]
    return torch.cat([(center - middle) / sides, (size / sides).log()], dim=1) / boxes.new_tensor(VARIANCES)


def decode(codes: Tensor, references: Tensor) -> Tensor:
    """Boxes (…, N, 4; corners) from codes (…, N, 4) and references (…, N, 4; corners); the inverse of `encode`."""
    middle, sides = (references[..., :2] + references[..., 2:]) / 2, references[..., 2:] - references[..., :2]
    codes = codes * codes.new_tensor(VARIANCES)
    center, half = middle + codes[..., :2] * sides, sides * codes[..., 2:].clamp(max=4).exp() / 2
    return torch.cat([center - half, center + half], dim=-1)


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression: from the surest box down, each removes those that overlap it too much.

    Args:
        boxes: (N, 4).
        scores: (N,).
        labels: (N,); boxes with different labels leave each other alone.
        threshold: the largest overlap (IoU) at which both boxes stay.

    Returns:
        Indices of the boxes that stay, the surest first.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    removes = (box_iou(boxes, boxes) > threshold) & (labels[order, None] == labels[order])  # (N, N)
    gone, stays = removes.cpu().numpy(), np.ones(len(order), dtype=bool)  # numpy walks rows faster
    for i in range(len(order)):
        if stays[i]:
            stays[i + 1 :] &= ~gone[i, i + 1 :]
    return order[torch.from_numpy(stays).to(order.device)]


def shift_and_zoom(images: Tensor, targets: Detections, *, mirror: bool = False) -> tuple[Tensor, Detections]:
    """Each picture moved by up to an eighth of its side and scaled by 0.8 to 1.25, its boxes with it.

    What enters from outside is black; a box is clipped, and dropped where less than half of it is left. With `mirror`
    every second picture on average is turned from left to right.
    """
    count, _, height, width = images.shape
    zoom = torch.empty(count, device=images.device).uniform_(math.log(0.8), math.log(1.25)).exp()
    shift = torch.empty(count, 2, device=images.device).uniform_(-0.25, 0.25)  # in halves of a side, as grids count
    turn = torch.ones(count, 2, device=images.device)
    if mirror:
        turn[torch.rand(count, device=images.device) < 0.5, 0] = -1
    matrix = torch.cat([torch.diag_embed(turn / zoom[:, None]), shift[:, :, None]], dim=2)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)  # (batch, height, width, 2): where to look
    moved = F.grid_sample(images, grid, align_corners=False)
    middle = torch.tensor([width, height], device=images.device) / 2
    follow: Detections = []
    for target, z, s, t in zip(targets, zoom, shift, turn, strict=True):
        corners = (target["boxes"].view(-1, 2, 2) - middle * (1 + s)) * z * t + middle
        boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
        seen = boxes.clamp(min=0).minimum(2 * middle.repeat(2))
        stays = (seen[:, 2:] - seen[:, :2]).prod(1) >= 0.5 * (boxes[:, 2:] - boxes[:, :2]).prod(1)
        follow.append({"boxes": seen[stays], "labels": target["labels"][stays]})
    return moved, follow
