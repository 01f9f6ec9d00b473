"""Weights in groups of one scale, and their integers of few bits, as many in a byte as have room there whole."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.core.errors import InputError


def require_bits(bits: int) -> None:
    """Raises InputError unless weights can have so many bits."""
    if bits not in range(2, 9):
        raise InputError(f"option bits: expected a whole number from 2 to 8, got {bits!r}")


def in_groups(weight: Tensor, most: int, dim: int = 0, multiple: int = 1) -> Tensor:
    """Weights of the output channels, along `dim`, in groups of one size, the last one filled up with zeros.

    Args:
        weight: of any shape.
        most: weights of a group.
        dim: of the output channels.
        multiple: that the size is one of, so that a group fills whole bytes.

    Returns:
        (out, groups, size).
    """
    rows = weight.float().movedim(dim, 0).flatten(1)  # (out, in)
    groups = math.ceil(rows.shape[1] / most)
    size = math.ceil(rows.shape[1] / groups / multiple) * multiple
    return F.pad(rows, (0, groups * size - rows.shape[1])).unflatten(1, (groups, size))


def out_of_groups(groups: Tensor, shape: torch.Size, dim: int) -> Tensor:
    """The weight of that shape which `in_groups` was given."""
    sizes = [shape[dim], *shape[:dim], *shape[dim + 1 :]]
    return groups.flatten(1)[:, : math.prod(sizes[1:])].view(sizes).movedim(0, dim)


def pack(integers: Tensor, bits: int = 4) -> Tensor:
    """Integers of so many bits side by side in bytes: (…, 8 // bits · n) to (…, n) of uint8, the first in the low bits.

    A byte holds four of 2 bits, two of 3 or 4, one of more.
    """
    each = 8 // (8 // bits)  # bits that one takes up
    parts = (integers.to(torch.int16) + 2 ** (each - 1)).unflatten(-1, (-1, 8 // bits)).unbind(-1)
    return sum((part << each * index for index, part in enumerate(parts)), torch.tensor(0)).to(torch.uint8)


def unpack(packed: Tensor, bits: int = 4) -> Tensor:
    """The integers that `pack` was given, as float32."""
    each = 8 // (8 // bits)
    integers = packed.int()  # ONNX knows no & of uint8 and a number
    parts = [(integers >> each * index) & (2**each - 1) for index in range(8 // bits)]
    return torch.stack(parts, dim=-1).flatten(-2).float() - 2 ** (each - 1)
