"""A network without some of its channels: whole groups that must go together, the weakest first."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from recipes.compression.coupling import NORMS, PRODUCERS, TRANSPOSED, Coupling, couple, is_depthwise
from recipes.core.errors import InputError


def class_groups(coupling: Coupling) -> list[list[int]]:
    """Classes that compete for a place: those given by the same layers, without what must stay."""
    groups: list[set[int]] = []
    for layer, ends in coupling.layers.items():
        if isinstance(layer, PRODUCERS) and not is_depthwise(layer):
            classes = {coupling.find(label) for label in ends.outs}
            if 0 not in classes:
                meeting = [group for group in groups if group & classes]
                groups = [group for group in groups if not group & classes] + [classes.union(*meeting)]
    return [sorted(group) for group in groups]


def channel_groups(model: nn.Module, example: Tensor) -> list[list[str]]:
    """Names of the layers whose outputs shrink together, a list for each group; what must stay is in none."""
    coupling = couple(model, example)
    return [
        [coupling.names[layer] for layer, ends in coupling.layers.items() if set(map(coupling.find, ends.outs)) & group]
        for group in map(set, class_groups(coupling))
    ]


@torch.no_grad()
def class_norms(coupling: Coupling) -> dict[int, float]:
    """Of each class, the mean norm of the weights that would go with it, as a share of their layer's mean."""
    norms: dict[int, list[float]] = {}
    for layer, ends in coupling.layers.items():
        weight = layer._parameters.get("weight")
        if weight is None:
            continue
        first, second = (ends.ins, ends.outs) if isinstance(layer, TRANSPOSED) else (ends.outs, ends.ins)
        if isinstance(layer, nn.Embedding):
            first, second = [], ends.outs
        for dim, labels in ((0, first), (1, second)):
            if weight.ndim > dim and weight.size(dim) == len(labels):
                each = weight.float().movedim(dim, 0).reshape(len(labels), -1).norm(dim=1)  # (channels,)
                for label, norm in zip(labels, (each / each.mean().clamp(min=1e-12)).tolist(), strict=True):
                    norms.setdefault(coupling.find(label), []).append(norm)
    return {label: math.fsum(values) / len(values) for label, values in norms.items()}


@torch.no_grad()
def shrink(layer: Any, ins: list[int], outs: list[int]) -> None:
    """Keeps these channels of a layer, by their places, in place."""

    def select(name: str, *places: list[int]) -> None:
        tensor = getattr(layer, name, None)
        if tensor is not None:
            for dim, kept in enumerate(places):
                tensor = tensor.index_select(dim, torch.tensor(kept, device=tensor.device))
            tensor = tensor.contiguous()
            setattr(layer, name, nn.Parameter(tensor) if name in layer._parameters else tensor)

    if isinstance(layer, NORMS):
        for name in ("weight", "bias", "running_mean", "running_var"):
            select(name, outs)
        if isinstance(layer, nn.LayerNorm):
            layer.normalized_shape = (len(outs),)
        elif isinstance(layer, nn.GroupNorm):
            layer.num_groups = len(outs) if layer.num_groups == layer.num_channels else layer.num_groups
            layer.num_channels = len(outs)
        else:
            layer.num_features = len(outs)
    elif isinstance(layer, nn.Embedding):
        select("weight", list(range(layer.num_embeddings)), outs)
        layer.embedding_dim = len(outs)
    elif isinstance(layer, nn.Linear):
        select("weight", outs, ins)
        select("bias", outs)
        layer.in_features, layer.out_features = len(ins), len(outs)
    else:  # a convolution's weight holds the channels of one group along its second dimension
        transposed = isinstance(layer, TRANSPOSED)
        first, second, size = (ins, outs, layer.out_channels) if transposed else (outs, ins, layer.in_channels)
        depthwise = is_depthwise(layer)
        if depthwise:
            select("weight", first)
        else:
            select("weight", first, [place for place in second if place < size // layer.groups])
        select("bias", outs)
        layer.in_channels, layer.out_channels = len(ins), len(outs)
        layer.groups = len(ins) if depthwise else layer.groups


def prune_channels(model: nn.Module, example: Tensor, share: float) -> nn.Module:
    """A copy of the model without the channels and neurons whose weights are smallest.

    From each group of layers that must shrink together the same share goes. What reaches the network's
    output stays, and what a function needs whose need is not known: attention, splits. Parameters that
    the network adds to channels, or multiplies them with, shrink with them.

    Args:
        model: any network with linear or convolutional layers.
        example: an input it can take, a batch of 1 is enough, on the model's device.
        share: of each group's channels to remove, at least 0 and below 1; one is always left.

    Raises:
        InputError: the share is out of range, the model has no layer to prune, or a size that is written into
            its code stands in the way; names the layer.
    """
    if not 0 <= share < 1:
        raise InputError(f"option share: expected a share of at least 0 and below 1, got {share!r}")
    model = copy.deepcopy(model)
    coupling = couple(model, example)
    norms, gone = class_norms(coupling), set()
    for group in class_groups(coupling):
        gone |= set(sorted(group, key=lambda label: norms[label])[: int(share * len(group))])

    def left(labels: list[int]) -> list[int]:
        return [place for place, label in enumerate(labels) if coupling.find(label) not in gone]

    for layer, ends in coupling.layers.items():
        ins, outs = map(left, ends)
        if (len(ins), len(outs)) != (len(ends.ins), len(ends.outs)):
            shrink(layer, ins, outs)
    for parameter, (module, name) in coupling.added.items():
        dim, labels = coupling.labels[parameter]
        places = torch.tensor(left(labels), device=parameter.device)
        setattr(module, name, nn.Parameter(parameter.index_select(dim, places), parameter.requires_grad))
    couple(model, example)  # it can still answer
    return model
