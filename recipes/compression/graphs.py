"""Exported graphs, rewritten so that torchao and the compiler make fast integer operations of them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOST_IN_PATCHES = 2**15  # numbers in the patches of a picture, up to which their product is faster than a convolution
CONVOLUTION = {"bias": None, "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}


def exported(model: nn.Module, pictures: Tensor) -> nn.Module:
    """The graph of a model in evaluation mode, for batches of any size."""
    sizes = ({0: torch.export.Dim("batch")},)
    return torch.export.export(model, (pictures,), dynamic_shapes=sizes).module()


class ProductOfPatches(nn.Module):
    """A convolution of maps (N, C, H, W), computed as a product of the patches that it sees with its weight.

    Args:
        weight: (out, C, height, width).
        bias: (out).
        stride, padding, dilation: of the convolution.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int]
    ) -> None:
        super().__init__()
        self.size, self.stride, self.padding, self.dilation = weight.shape[2:], stride, padding, dilation
        rows = weight.permute(0, 2, 3, 1).flatten(1)  # (out, height * width * C)
        self.short = -rows.shape[1] % 4  # instructions for 8-bit integers multiply four at once
        self.linear = nn.Linear(rows.shape[1] + self.short, len(rows), bias=bias is not None)
        self.linear.weight = nn.Parameter(F.pad(rows, (0, self.short)).contiguous())
        if bias is not None:
            self.linear.bias = nn.Parameter(bias)

    def forward(self, maps: Tensor) -> Tensor:
        top, left = self.padding
        places = F.pad(maps, (left, left, top, top)).permute(0, 2, 3, 1)  # (N, H, W, C)
        sides = zip(places.shape[1:3], self.size, self.stride, self.dilation, strict=True)
        height, width = ((side - step * (size - 1) - 1) // stride + 1 for side, size, stride, step in sides)
        parts = []
        for y in range(0, self.size[0] * self.dilation[0], self.dilation[0]):
            rows = places[:, y : y + self.stride[0] * (height - 1) + 1 : self.stride[0]]
            for x in range(0, self.size[1] * self.dilation[1], self.dilation[1]):
                parts.append(rows[:, :, x : x + self.stride[1] * (width - 1) + 1 : self.stride[1]])
        patches = torch.stack(parts, dim=3).flatten(3).flatten(0, 2)  # (N * height * width, size * size * C)
        if self.short:
            patches = F.pad(patches, (0, self.short))
        return self.linear(patches).unflatten(0, (maps.shape[0], height, width)).permute(0, 3, 1, 2)


def with_products(graph: Any, pictures: Tensor) -> nn.Module:
    """The exported graph, where convolutions of small maps have become products of patches; in place.

    Setting up oneDNN's integer convolution takes ten microseconds and more at every call, however small the map; a
    product becomes part of the compiled program. Batch norm that follows such a convolution goes into its weight.
    """
    found = 0
    for node in list(graph.graph.nodes):
        if node.target is not torch.ops.aten.conv2d.default:
            continue
        given = CONVOLUTION | dict(zip(("maps", "weight", *CONVOLUTION), node.args, strict=False))
        weight, bias = value_of(graph, given["weight"]), value_of(graph, given["bias"])
        if given["groups"] != 1 or weight[0].numel() * node.meta["val"].shape[2:].numel() > MOST_IN_PATCHES:
            continue
        after = next(iter(node.users))
        norm = after if len(node.users) == 1 and after.target is torch.ops.aten.batch_norm.default else None
        last = node if norm is None else norm
        if any("aten.add" in str(user.target) for user in last.users):
            continue  # a convolution beside it takes in the sum, and could not take a product's transposed result
        if norm is not None:
            weight, bias = normalized(weight, bias, [value_of(graph, one) for one in norm.args[1:5]], norm.args[7])
        layer = ProductOfPatches(weight, bias, given["stride"], given["padding"], given["dilation"])
        graph.add_submodule(f"product{found}", layer.eval())
        with graph.graph.inserting_before(node):
            answers = graph.graph.call_module(f"product{found}", (given["maps"],))
        last.replace_all_uses_with(answers)
        for one in (last, node)[: 1 if norm is None else 2]:
            graph.graph.erase_node(one)
        found += 1
    graph.recompile()
    return exported(graph, pictures) if found else graph


def value_of(graph: Any, node: Any) -> Any:
    """The tensor that a node of the graph reads, a parameter or buffer; None where there is no node."""
    if node is None:
        return None
    path, _, name = node.target.rpartition(".")
    return getattr(graph.get_submodule(path), name).detach()


def normalized(weight: Tensor, bias: Tensor | None, values: list[Any], eps: float) -> tuple[Tensor, Tensor]:
    """Weight (out, in, height, width) and bias of a convolution that does what batch norm behind it would do.

    Args:
        weight, bias: of the convolution before.
        values: the norm's weight and bias, where it has them, its mean and variance.
        eps: added to the variance.
    """
    scale, shift, mean, variance = values
    factor = (variance + eps).rsqrt() * (1 if scale is None else scale)
    bias = (0 if bias is None else bias) - mean
    return weight * factor.view(-1, 1, 1, 1), bias * factor + (0 if shift is None else shift)


def without_lone_batch_norm(graph: Any, pictures: Tensor) -> nn.Module:
    """The exported graph, where batch norm that follows no convolution has become a product and a sum.

    torchao looks for it as part of a convolution that is being trained, and takes a quarter of a minute to find none.
    """
    aten, lone = torch.ops.aten, False
    for node in graph.graph.nodes:
        if node.target is aten.batch_norm.default and node.args[0].target is not aten.conv2d.default:
            node.target, node.args, lone = scale_and_shift, (*node.args[:5], node.args[7]), True
    graph.recompile()
    return exported(graph, pictures) if lone else graph


def scale_and_shift(
    inputs: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> Tensor:
    """Batch norm in evaluation of inputs (N, C, …)."""
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    shape = [-1, *[1] * (inputs.ndim - 2)]
    return inputs * scale.view(shape) + shift.view(shape)
