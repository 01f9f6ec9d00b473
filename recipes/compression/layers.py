"""Weights: found in any network, and computed from what takes fewer bytes."""

import copy
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.weight_norm import WeightNorm

from recipes.compression.calls import each_tensor
from recipes.compression.files import load_tensors, own_tensors, read_tensors
from recipes.core.errors import InputError, tell

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PLAIN = (nn.Parameter,)  # weights of other types are sharded, quantized, or not yet made
MULTIPLYING = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
TABLES = (nn.Embedding, nn.EmbeddingBag)  # in a small language model most numbers lie in them


class Weight(NamedTuple):
    """A weight, the dimension of its output channels, and who holds it, by which name: several if it is tied."""

    value: nn.Parameter
    dim: int
    holders: list[tuple[nn.Module, str]]


def is_conv1d(layer: nn.Module) -> bool:
    """Whether this is transformers' Conv1D, a linear layer whose weight is (in, out)."""
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf")


def require_made(model: nn.Module) -> None:
    """Raises InputError, which names the layer, where a lazy one has not made its weights yet."""
    for path, layer in model.named_modules():
        if any(map(is_lazy, (*layer._parameters.values(), *layer._buffers.values()))):
            raise InputError(
                f"layer {path or 'model'}: expected weights, which it makes when the model is first called"
            )


def find_weights(model: nn.Module, *, tables: bool = True) -> dict[str, Weight]:
    """Weights of the linear, convolutional and recurrent layers and of attention by name, a tied one once.

    Args:
        model: any network.
        tables: of embeddings, too.

    Raises:
        InputError: there is none, or none that is a plain parameter, or one holds NaN; names the layer.
    """
    holders: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    require_made(model)
    for layer in model.modules():
        for name, value in layer._parameters.items():
            if value is not None:
                holders.setdefault(value, []).append((layer, name))
    weights: dict[nn.Parameter, tuple[str, Weight]] = {}
    others = []
    for path, layer in model.named_modules():
        if not (isinstance(layer, MULTIPLYING) or is_conv1d(layer) or (tables and isinstance(layer, TABLES))):
            continue
        dim = 1 if is_conv1d(layer) or isinstance(layer, TRANSPOSED) else 0
        normed = [hook.name for hook in layer._forward_pre_hooks.values() if isinstance(hook, WeightNorm)]
        computing = {f"{name}_{part}" for name in normed for part in "gv"}
        plain = {
            name: value for name, value in layer._parameters.items() if type(value) in PLAIN and name not in computing
        }
        found = [(name, value) for name, value in plain.items() if "weight" in name and value.ndim > 1]
        for name, value in found:
            if tables and value.is_complex():  # zeros, at least, can be complex
                raise InputError(f"layer {path or 'model'}: expected real weights, found complex ones")
            if not value.isfinite().all():
                raise InputError(f"layer {path or 'model'}: expected finite weights, found NaN or infinity among them")
            weights.setdefault(value, (f"{path}.{name}".lstrip("."), Weight(value, dim, holders[value])))
        if not found:
            others.append(path or "model")
    if not weights and others:
        raise InputError(f"layer {others[0]}: expected a plain weight, not a computed or sharded one")
    if not weights:
        raise InputError(f"model: expected linear or convolutional layers, found none in {type(model).__name__}")
    return dict(weights.values())


def tell_reached(what: str, model: nn.Module, reached: Iterable[nn.Parameter]) -> None:
    """Says in a line which share of the parameters that was, and which others are tables of numbers, where some are."""
    there = set(reached)
    every = dict(model.named_parameters())
    left: dict[str, list[str]] = {}  # names that differ in numbers alone are told as one
    for name, value in every.items():
        if value not in there and sum(size > 1 for size in value.shape) > 1:
            name = name.removesuffix(".weight")
            left.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    if left:
        share = sum(value.numel() for value in there) / sum(value.numel() for value in every.values())
        names = [pattern if len(same) > 1 else same[0] for pattern, same in left.items()]
        tell(f"{what}: reached {share:.1%} of the parameters, left {', '.join(names)}")


class ByGroup(nn.Module):
    """Shows a form the weight of a grouped transposed convolution with all output channels along dimension 1.

    The weight itself is (in, out / groups, …), and so would one scale serve a channel of every group. The form's is
    (in / groups, out, …).
    """

    def __init__(self, form: Any, groups: int) -> None:
        super().__init__()
        self.form, self.groups = form, groups

    def shown(self, weight: Tensor) -> Tensor:
        return weight.unflatten(0, (self.groups, -1)).transpose(0, 1).flatten(1, 2)

    def right_inverse(self, weight: Tensor) -> Any:
        return self.form.right_inverse(self.shown(weight)) if hasattr(self.form, "right_inverse") else weight

    def forward(self, *stored: Tensor) -> Tensor:
        weight = self.form(*stored) if hasattr(self.form, "right_inverse") else self.form(self.shown(*stored))
        return weight.unflatten(1, (self.groups, -1)).transpose(0, 1).flatten(0, 1)


def parametrized(layer: nn.Module, name: str, form: nn.Module) -> None:
    """The layer's weight of that name is computed by `form` from now on, whenever it is needed; in place."""
    if isinstance(layer, TRANSPOSED) and layer.groups > 1:
        form = ByGroup(form, layer.groups)
    parametrize.register_parametrization(layer, name, form, unsafe=True)
    if isinstance(layer, nn.RNNBase):  # it keeps its weights in a list, too
        layer.__dict__.pop("_flat_weights", None)
        kept = property(lambda self: [getattr(self, each) for each in self._flat_weights_names], lambda self, _: None)
        type(layer)._flat_weights = kept  # type: ignore[assignment]


def stored_as(weight: Weight, form: nn.Module) -> None:
    """The weight is held as the tensors of `form.right_inverse`, by all its holders together; in place."""
    weight.value.requires_grad_(False)
    first: Any = None
    for layer, name in weight.holders:
        parametrized(layer, name, form)
        stored: Any = layer.parametrizations
        first = stored[name] if first is None else first
        stored[name] = first


def with_plain_weights(model: nn.Module, kind: type[nn.Module] = nn.Module) -> nn.Module:
    """The model with what computed its weights, as weight_norm does, gone and its last values in place; in place.

    Args:
        model: any network.
        kind: of what computes them.
    """
    for layer in list(model.modules()):
        for hook in list(layer._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm) and kind is nn.Module:
                nn.utils.remove_weight_norm(layer, hook.name)
        if parametrize.is_parametrized(layer):
            stored: Any = layer.parametrizations
            cls = type(layer)  # which copies share, so that removing would reach them, too
            layer.__class__ = type(cls.__name__, cls.__bases__, dict(vars(cls)))
            for name in [
                name for name, forms in stored.items() if isinstance(getattr(forms[0], "form", forms[0]), kind)
            ]:
                parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
                frozen = layer._buffers.pop(name, None)  # where it leaves what was frozen
                if frozen is not None:
                    layer.register_parameter(name, nn.Parameter(frozen, requires_grad=False))
            if isinstance(layer, nn.RNNBase):
                layer._init_flat_weights()
    return model


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy whose weights are parameters, whatever computed them.

    Its transformer encoders take padded inputs as they are: rounding knows no nested tensors.
    """
    require_made(model)
    kept = [value for layer in model.modules() for value in vars(layer).values()]
    tensors = each_tensor([value for value in kept if isinstance(value, (Tensor, list, tuple, dict))])
    # By hooks, or as states of a recurrent layer: they could not be copied.
    computed = {id(tensor): tensor.detach().clone() for tensor in tensors if not tensor.is_leaf}
    model = with_plain_weights(copy.deepcopy(model, computed))
    for layer in model.modules():
        if isinstance(layer, nn.TransformerEncoder):
            layer.enable_nested_tensor = layer.use_nested_tensor = False
    return model


def copy_for_cpu(model: nn.Module) -> nn.Module:
    """A copy on the CPU, for evaluation, with plain weights laid out as files hold them."""
    return plain_copy(model).cpu().to(memory_format=torch.contiguous_format).eval()


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
        load_tensors(model, tensors, {})
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: expected {kind} ({reason})") from None
    return model
