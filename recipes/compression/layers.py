"""Layers with weights: found in any network, and replaced by ones whose weights take fewer bytes."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recipes.compression.files import own_tensors, read_tensors
from recipes.core.errors import InputError

WEIGHTED_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
ROUNDED_LAYERS = (*WEIGHTED_LAYERS, nn.Embedding)  # in a small language model most numbers lie in the table


def plain_layers(model: nn.Module, kinds: tuple[type[nn.Module], ...] = ROUNDED_LAYERS) -> dict[str, nn.Module]:
    """The model's layers of these kinds by name, one that is used twice once.

    Raises:
        InputError: there is none, or the weight of one is no plain parameter or holds NaN; names the layer.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}
    if not layers:
        raise InputError(f"model: expected linear or convolutional layers, found none in {type(model).__name__}")
    for name, layer in layers.items():
        weight = layer._parameters.get("weight")
        if type(weight) is not nn.Parameter:
            raise InputError(f"layer {name or 'model'}: expected a plain weight, not a computed or sharded one")
        if not weight.isfinite().all():
            raise InputError(f"layer {name or 'model'}: expected finite weights, found NaN or infinity among them")
    return layers


class SmallLayer(nn.Module):
    """A layer whose weight is computed, whenever it is needed, from what takes fewer bytes."""

    layer: Any  # as it was, without its weight

    def __init__(self, layer: nn.Module, **tensors: Tensor) -> None:
        """Takes the layer's weight from it; the tensors, from which it is computed, become buffers."""
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self.layer = layer
        del layer.weight

    @property
    def weight(self) -> Tensor:
        """The weights as numbers again."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        self.layer.weight = self.weight
        outputs = self.layer(inputs)  # in its own way: some pad their inputs first, or normalize the weight
        del self.layer.weight
        return outputs

    def __getattr__(self, name: str) -> Any:
        """What else a network asks of its layer, such as the bias: attention reads it there."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


def copy_for_cpu(model: nn.Module) -> nn.Module:
    """A copy on the CPU, for evaluation, with tensors laid out as files hold them."""
    return copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()


def replace_layers(model: nn.Module, others: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The model with other layers in the place of its own, wherever these are used; in place."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in others:
                setattr(parent, name, others[child])
    return others.get(model, model)


def load_dense(model: nn.Module, path: str | Path, kind: str) -> nn.Module:
    """The model with the tensors in a file that `save_dense` wrote of such a one.

    Args:
        model: of the same layers, whatever its weights; changed in place.
        path: of the file.
        kind: of file, for the error.

    Raises:
        InputError: the file is no safetensors file, or is another network's.
    """
    tensors = read_tensors(path)
    try:
        unlike = own_tensors(model).keys() ^ tensors.keys()
        if unlike:
            raise KeyError(min(unlike))
        model.load_state_dict(tensors, strict=False)  # the other names of tied tensors are not in the file
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: expected {kind} ({reason})") from None
    return model
