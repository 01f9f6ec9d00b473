"""What layers are given: seen while a network answers, or changed before a layer is called."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from recipes.compression.calls import each_tensor, named_call
from recipes.compression.layers import CONVOLUTIONS, TRANSPOSED, is_conv1d
from recipes.compression.modes import in_mode
from recipes.core.errors import InputError
from recipes.core.evaluation import map_tensors
from recipes.datasets.images import ImageFiles, Images


def calibration(train_set: Images | ImageFiles, seed: int = 0, count: int = 512) -> Tensor:
    """Training pictures (N, C, H, W) on the CPU, drawn at random, that ranges are taken from."""
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(seed))
    return train_set.__getitems__(order[:count])[0].cpu()


def takes_one_input(layer: nn.Module) -> bool:
    """Whether this is a linear or convolutional layer: it has a weight, and one input."""
    return isinstance(layer, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)) or is_conv1d(layer)


@torch.no_grad()
def input_ranges(
    model: nn.Module, layers: list[nn.Module], inputs: Any, observer: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """The range of what each of the layers is given while the model answers, as the observer sees it.

    Raises:
        InputError: the model cannot take the inputs, or a layer is given NaN or infinity; names it.
    """
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    names = {layer: name or "model" for name, layer in model.named_modules()}

    def observe(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = next(each_tensor([args, kwargs])).float()
        if not given.isfinite().all():
            raise InputError(f"layer {names[layer]}: was given NaN or infinity")
        low, high = observer(given)
        before = seen.get(layer, (low, high))
        seen[layer] = torch.minimum(low, before[0]), torch.maximum(high, before[1])

    hooks = [layer.register_forward_pre_hook(observe, with_kwargs=True) for layer in layers]
    device = next(model.parameters()).device
    with in_mode(model, training=False):
        named_call(model, map_tensors(lambda one: one.to(device), inputs))
    for hook in hooks:
        hook.remove()
    return seen


def with_changed_input(layer: nn.Module, change: Callable[[Any, Tensor], Tensor], **buffers: Tensor) -> None:
    """From now on the layer's first argument becomes `change(layer, argument)`, computed in float32; in place.

    Args:
        layer: to change.
        change: has the layer's buffers at hand.
        **buffers: that the layer gets.
    """
    for name, value in buffers.items():
        layer.register_buffer(name, value)
    layer.register_forward_pre_hook(partial(changed_input, change), with_kwargs=True)


def changed_input(
    change: Callable[[Any, Tensor], Tensor], layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    name = "" if args else next(name for name, value in kwargs.items() if isinstance(value, Tensor))
    given = args[0] if args else kwargs[name]
    changed = change(layer, given.float()).to(given.dtype)
    return ((changed, *args[1:]), kwargs) if args else (args, kwargs | {name: changed})


def without_changed_inputs(model: nn.Module) -> nn.Module:
    """The model, whose layers take what they are given as it is; in place."""
    for layer in model.modules():
        for key, hook in list(layer._forward_pre_hooks.items()):
            if isinstance(hook, partial) and hook.func is changed_input:
                del layer._forward_pre_hooks[key], layer._forward_pre_hooks_with_kwargs[key]
    return model
