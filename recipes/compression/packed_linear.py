"""Linear layers whose weights are held as integers of two to eight bits, bit after bit across bytes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression.layers import is_conv1d
from recipes.core.errors import InputError


def pack_bits(integers: Tensor, bits: int) -> Tensor:
    """Integers from 0 to 2^bits - 1, (out, in), one after the other in bytes: uint8 (out, in · bits / 8)."""
    powers = 2 ** torch.arange(8, device=integers.device)
    ones = integers.int()[..., None] // powers[:bits] % 2  # (out, in, bits)
    return (ones.flatten(1).unflatten(1, (-1, 8)) * powers).sum(dim=2).to(torch.uint8)


def unpack_bits(packed: Tensor, bits: int) -> Tensor:
    """The integers that `pack_bits` was given."""
    powers = 2 ** torch.arange(8, device=packed.device)
    ones = packed.int()[..., None] // powers % 2  # (out, bytes, 8)
    return (ones.flatten(1).unflatten(1, (-1, bits)) * powers[:bits]).sum(dim=2)


class PackedLinear(nn.Module):
    """Takes the place of a linear layer: a weight of packed integers, a scale and a lowest value for each group.

    Args:
        layer: nn.Linear, or transformers' Conv1D.
        bits: of an integer, 2 to 8.
        group: neighboring weights of an output channel that share a scale, a multiple of 8.
    """

    def __init__(self, layer: Any, bits: int, group: int) -> None:
        super().__init__()
        if group % 8:
            raise InputError(f"option group: expected a multiple of 8, which fills whole bytes, got {group}")
        weight = weight_of(layer)
        self.shape, self.bits, self.group = weight.shape, bits, group
        self.dtype, self.bias = weight.dtype, layer.bias
        groups = -(-weight.shape[1] // group)  # the last one is filled up
        self.packed = nn.Buffer(weight.new_zeros(len(weight), groups * group * bits // 8, dtype=torch.uint8))
        self.scales = nn.Buffer(weight.new_zeros(len(weight), groups, dtype=torch.bfloat16))
        self.lowest = nn.Buffer(torch.zeros_like(self.scales))

    def store(self, integers: Tensor, scales: Tensor, lowest: Tensor) -> "PackedLinear":
        """Keeps integers (out, in), and scales and lowest values (out, groups); gives itself."""
        self.packed.copy_(pack_bits(F.pad(integers, (0, -integers.shape[1] % self.group)), self.bits))
        self.scales.copy_(scales)
        self.lowest.copy_(lowest)
        return self

    @property
    def weight(self) -> Tensor:
        """The numbers that the integers stand for, (out, in)."""
        groups = unpack_bits(self.packed, self.bits).unflatten(1, (-1, self.group))  # (out, groups, group)
        numbers = self.lowest.float()[..., None] + self.scales.float()[..., None] * groups
        return numbers.flatten(1)[:, : self.shape[1]].to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def weight_of(layer: Any) -> Tensor:
    """The layer's weight, (out, in)."""
    return layer.weight.T if is_conv1d(layer) else layer.weight
