"""A network without some of its channels: whole groups that must go together, the weakest first."""

import copy
import math
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from recipes.compression.coupling import NORMS, Coupling, Ends, couple, is_depthwise, is_producer
from recipes.compression.layers import TRANSPOSED, is_conv1d, plain_copy, tell_reached
from recipes.core.errors import InputError, tell

# Of the neurons between two linear layers, by the names that configs of transformers have for it.
INNER_SIZES = ("intermediate_size", "n_inner", "d_ff")


def class_groups(coupling: Coupling) -> list[list[int]]:
    """Classes that compete for a place: those given by the same layers, without what must stay."""
    groups: list[set[int]] = []
    for layer, ends in coupling.layers.items():
        if is_producer(layer) and not is_depthwise(layer):
            classes = {coupling.find(label) for label in ends.outs}
            if 0 not in classes:
                meeting = [group for group in groups if group & classes]
                groups = [group for group in groups if not group & classes] + [classes.union(*meeting)]
    return [sorted(group) for group in groups]


def channel_groups(model: nn.Module, example: Any) -> list[list[str]]:
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
        from_ins = isinstance(layer, TRANSPOSED) or is_conv1d(layer)
        first, second = (ends.ins, ends.outs) if from_ins else (ends.outs, ends.ins)
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
            if name in layer._parameters:
                tensor = nn.Parameter(tensor, layer._parameters[name].requires_grad)
            setattr(layer, name, tensor)

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
    elif is_conv1d(layer):
        select("weight", ins, outs)
        select("bias", outs)
        layer.nx, layer.nf = len(ins), len(outs)
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


def update_config(model: Any, sizes: dict[int, int]) -> None:
    """Writes the new sizes of its layers into the config of a transformers model, for `from_pretrained`; in place."""
    config, key = copy.deepcopy(model.config), next((key for key in INNER_SIZES if hasattr(model.config, key)), None)
    if key is not None:
        before = getattr(config, key) or 4 * config.hidden_size  # as GPT-2 has it
        setattr(config, key, sizes.get(before, before))
    with torch.device("meta"):
        fresh = type(model)(config).state_dict()
    unlike = [
        name for name, tensor in model.state_dict().items() if name not in fresh or fresh[name].shape != tensor.shape
    ]
    if unlike:
        tell(f"prune_channels: from_pretrained cannot build this network, as no config tells the size of {unlike[0]}")
    elif key is not None:
        setattr(model.config, key, getattr(config, key))


def prune_channels(model: nn.Module, example: Any, share: float, *, keep: Collection[str] = ()) -> nn.Module:
    """A copy of the model without the channels and neurons whose weights are smallest.

    From each group of layers that must shrink together the same share goes. What reaches the network's
    output stays, and what a function needs whose need is not known: attention, unequal parts. Parameters that
    the network adds to channels, or multiplies them with, shrink with them.

    Args:
        model: any network with linear or convolutional layers.
        example: an input it can take, a tuple of them or a dict of named ones, on the model's device; a batch of 1
            is enough.
        share: of each group's channels to remove, at least 0 and below 1; one is always left.
        keep: beginnings of the names of layers that keep all they give, such as a transformers model's embeddings:
            it is then still one that a config describes, and `from_pretrained` reads it.

    Raises:
        InputError: the share is out of range, the model has no layer to prune, or a size that is written into
            its code stands in the way; names the layer.
    """
    if not 0 <= share < 1:
        raise InputError(f"option share: expected a share of at least 0 and below 1, got {share!r}")
    model = plain_copy(model)
    coupling = couple(model, example)
    for layer, ends in coupling.layers.items():
        if coupling.names[layer].startswith(tuple(keep)):
            coupling.join(ends.outs, [0] * len(ends.outs))
    norms, gone = class_norms(coupling), set()
    for group in class_groups(coupling):
        gone |= set(sorted(group, key=lambda label: norms[label])[: int(share * len(group))])

    def left(labels: list[int]) -> list[int]:
        return [place for place, label in enumerate(labels) if coupling.find(label) not in gone]

    kept = {layer: Ends(left(ends.ins), left(ends.outs)) for layer, ends in coupling.layers.items()}
    added = {parameter: left(coupling.labels[parameter].channels) for parameter in coupling.added}
    smaller = [layer for layer in kept if [*map(len, kept[layer])] != [*map(len, coupling.layers[layer])]]
    fewer = [value for value in added if len(added[value]) < len(coupling.labels[value].channels)]
    if share:
        reached = [value for layer in smaller for value in layer.parameters(recurse=False)]
        tell_reached("prune_channels", model, reached + fewer)
    for layer in smaller:
        shrink(layer, *kept[layer])
    for parameter in fewer:
        module, name = coupling.added[parameter]
        places = torch.tensor(added[parameter], device=parameter.device)
        smaller_one = parameter.index_select(coupling.labels[parameter].dim, places)
        setattr(module, name, nn.Parameter(smaller_one, parameter.requires_grad))
    couple(model, example)  # it can still answer
    if smaller and any(kind.__name__ == "PreTrainedModel" for kind in type(model).mro()):
        update_config(model, {len(coupling.layers[layer].outs): len(kept[layer].outs) for layer in smaller})
    return model
