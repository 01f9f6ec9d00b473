"""Linear layers whose weights are held as integers of two to eight bits, bit after bit across bytes."""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression.layers import is_conv1d, tell_reached
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

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        (x,) = (*args, *kwargs.values())  # called by the name that the layer has for it, or by none
        return F.linear(x, self.weight, self.bias)


def linear_layers(model: nn.Module, *, told: bool = False) -> dict[str, dict[str, Any]]:
    """The linear layers of each block by name: of those with a number in their names, as "blocks.0.to_qkv" has.

    Those that do more than that are left, as their weight alone would not do it: with a `forward` of their own, or
    hooks. If `told`, a line says which share of the parameters was reached, and what was left.
    """
    blocks: dict[str, dict[str, Any]] = {}
    for name, layer in model.named_modules():
        block = re.match(r".*?\.\d+\.", name)
        plain = getattr(layer.forward, "__func__", None) is nn.Linear.forward or is_conv1d(layer)
        if block and plain and not layer._forward_hooks and not layer._forward_pre_hooks:
            blocks.setdefault(block[0], {})[name] = layer
    if told:
        layers = [layer for block in blocks.values() for layer in block.values()]
        tell_reached("gptq", model, (one for layer in layers for one in layer.parameters() if one.ndim > 1))
    return blocks


def replace_layer(model: nn.Module, layer: nn.Module, other: nn.Module) -> None:
    """The other layer takes all places of the layer, which blocks may share; in place."""
    for name in [name for name, one in model.named_modules(remove_duplicate=False) if one is layer]:
        model.set_submodule(name, other)


def weight_of(layer: Any) -> Tensor:
    """The layer's weight, (out, in)."""
    return layer.weight.T if is_conv1d(layer) else layer.weight
