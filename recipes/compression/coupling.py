"""Which channels of a network must go together."""

import contextlib
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from recipes.compression.calls import each_tensor, named_call
from recipes.compression.layers import CONVOLUTIONS, TRANSPOSED, is_conv1d
from recipes.compression.modes import in_mode
from recipes.core.errors import InputError
from recipes.core.evaluation import map_tensors

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)
PRODUCERS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear, nn.Embedding)

# Functions by name, without the underscores of methods and of what works in place.
ELEMENTWISE = {
    *("relu", "relu6", "hardtanh", "leaky_relu", "elu", "celu", "selu", "silu", "gelu", "mish", "softplus", "sigmoid"),
    *("tanh", "hardswish", "hardsigmoid", "dropout", "dropout1d", "dropout2d", "dropout3d", "clamp", "neg", "abs"),
    *("exp", "sqrt", "rsqrt", "pow", "add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "div"),
    *("truediv", "itruediv", "maximum", "minimum", "contiguous", "clone", "detach", "to", "float", "type_as"),
    *("masked_fill", "where"),
}
MOVING = {
    *("flatten", "view", "reshape", "permute", "transpose", "movedim", "squeeze", "unsqueeze", "expand", "expand_as"),
    *("repeat", "cat", "concat", "stack", "chunk", "split", "unbind", "getitem", "select", "narrow"),
}
REDUCING = {"mean", "sum", "amax", "amin"}


class Labels(NamedTuple):
    """The channels of a tensor: along which dimension they lie, counted from the last, and a label for each."""

    dim: int
    channels: list[int]


class Ends(NamedTuple):
    """Labels of the channels that a layer reads, and of those it gives."""

    ins: list[int]
    outs: list[int]


class Coupling(TorchFunctionMode):
    """Labels the channels that each layer gives and follows the labels while the network answers.

    Labels that meet become one class, whose channels can only go together: those added in a residual sum,
    those a depthwise convolution reads and gives. Label 0 is for what must stay. Channels join it when
    they reach the output or a function whose need is not known here.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.parent = [0]  # of each label; following the parents leads to the one that stands for the class
        self.labels: dict[Tensor, Labels] = {}
        self.layers: dict[nn.Module, Ends] = {}
        self.inside: nn.Module | None = None
        self.names = {layer: name for name, layer in model.named_modules() if is_plain(layer)}
        holders = Counter(value for layer in model.modules() for value in layer._parameters.values())
        for layer in list(self.names):
            if any(holders[value] > 1 for value in layer.parameters(recurse=False)):  # tied ones stay as they are
                del self.names[layer]
        self.added: dict[nn.Parameter, tuple[nn.Module, str]] = {}  # parameters that no such layer holds, and who does
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if module not in self.names and parameter is not None and parameter.ndim:
                    self.add(parameter, module, name)

    def find(self, label: int) -> int:
        """The label that stands for this one's class."""
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def join(self, first: list[int], second: list[int]) -> None:
        """Makes the classes of each pair one; the smaller label stands for it, so 0 always does."""
        for one, other in zip(first, second, strict=True):
            low, high = sorted((self.find(one), self.find(other)))
            self.parent[high] = low

    def keep(self, tensor: Tensor) -> None:
        """No channel of this tensor can go."""
        if tensor in self.labels:
            channels = self.labels[tensor].channels
            self.join(channels, [0] * len(channels))

    def fresh(self, count: int) -> list[int]:
        labels = list(range(len(self.parent), len(self.parent) + count))
        self.parent += labels
        return labels

    def add(self, parameter: nn.Parameter, module: nn.Module, name: str) -> None:
        """Labels a parameter along its last dimension, or along the only one that is larger than 1."""
        if parameter in self.added:
            self.keep(parameter)  # as it has two names
            return
        self.added[parameter] = module, name
        long = [dim for dim in range(-parameter.ndim, 0) if parameter.size(dim) > 1]
        dim = long[0] if len(long) == 1 else -1
        self.labels[parameter] = Labels(dim, self.fresh(parameter.size(dim)))

    def read(self, tensor: Tensor, dim: int) -> list[int]:
        """Labels along this dimension, from which a layer takes its channels."""
        if tensor in self.labels and self.labels[tensor].dim == dim:
            return self.labels[tensor].channels
        self.keep(tensor)
        return [0] * tensor.size(dim)

    def tie_groups(self, labels: list[int], groups: int) -> None:
        """Groups of channels stay equally large: the first of each go together, the second, and so on."""
        size = len(labels) // groups
        self.join(labels, labels[:size] * groups)

    def enter(self, layer: nn.Module, _: Any) -> None:
        self.inside = layer

    def leave(self, layer: Any, args: Any, kwargs: Any, output: Tensor) -> None:
        """What the layer's kind says of its channels; a layer called again gives the same ones."""
        self.inside = None
        last = isinstance(layer, (nn.Linear, nn.LayerNorm, nn.Embedding)) or is_conv1d(layer)
        dim = -1 if last else 1 - output.ndim  # channels lie last, else second
        given = next(each_tensor([args, kwargs]))
        own = self.labels.get(given)
        if isinstance(layer, nn.LayerNorm) and type(layer).forward is not nn.LayerNorm.forward and own is not None:
            dim = own.dim if len(own.channels) == layer.normalized_shape[0] else -1  # some norms are made for pictures
        ins = [] if isinstance(layer, nn.Embedding) else self.read(given, dim)
        before = self.layers.get(layer)
        if before is not None:
            self.join(before.ins, ins)
            outs = before.outs
        elif isinstance(layer, NORMS):
            outs = ins
            if isinstance(layer, nn.GroupNorm) and layer.num_groups < layer.num_channels:
                self.tie_groups(ins, layer.num_groups)
        elif is_depthwise(layer):
            outs = [label for label in ins for _ in range(output.size(dim) // len(ins))]
        else:
            outs = self.fresh(output.size(dim))
            if getattr(layer, "groups", 1) > 1:
                self.tie_groups(ins, layer.groups)
                self.tie_groups(outs, layer.groups)
        self.layers[layer] = Ends(ins, outs)
        self.labels[output] = Labels(dim, outs)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        tensors = list(each_tensor([args, kwargs]))
        if self.inside is not None or not any(tensor in self.labels for tensor in tensors):
            return result
        name = getattr(function, "__name__", "").strip("_")
        if name in ELEMENTWISE and isinstance(result, Tensor):
            self.combine(tensors, result)
        elif ("pool" in name or name in ("interpolate", "pad")) and isinstance(result, Tensor):
            own = self.labels[args[0]]
            if own.dim == 1 - args[0].ndim and result.size(own.dim) == len(own.channels):  # none are padded
                self.labels[result] = own
            else:
                self.keep(args[0])
        elif name in ("chunk", "glu") and args and self.part(args[0], result):
            pass
        elif name in MOVING and args:
            if name in ("cat", "concat"):
                self.join_beside(args[0], *args[1:], **kwargs)
            self.move(args[0], function(map_tensors(self.spread, args[0]), *args[1:], **kwargs), result)
        elif name in REDUCING and ("dim" in kwargs or len(args) > 1):
            # Of labels the largest is taken instead. Where several met, `move` sees that some are gone.
            options = {key: kwargs[key] for key in ("dim", "keepdim") if key in kwargs}
            self.move(args[0], torch.amax(self.spread(args[0]), *args[1:], **options), result)
        elif name == "setitem" or any(True for _ in each_tensor(result)):
            for tensor in tensors:
                self.keep(tensor)
        return result

    def combine(self, tensors: list[Tensor], result: Tensor) -> None:
        """Numbers at the same place meet, so their channels go together; what is repeated for all does not matter."""
        dim, channels = max((self.labels[one] for one in tensors if one in self.labels), key=lambda own: len(own[1]))
        fits = result.size(dim) == len(channels)
        for tensor in tensors:
            own, size = self.labels.get(tensor), tensor.size(dim) if tensor.ndim >= -dim else 1
            if own is not None and own.dim == dim and size == len(channels):
                self.join(channels, own.channels)
            elif (own is not None and own.dim != dim) or size > 1:
                self.keep(tensor)
                fits = False
        if fits:
            self.labels[result] = Labels(dim, channels)
        else:
            self.join(channels, [0] * len(channels))

    def part(self, whole: Tensor, result: Any) -> bool:
        """Whether channels became equal parts, as `chunk` makes and GLU multiplies: these then stay equally large."""
        parts, own = list(each_tensor(result)), self.labels[whole]
        count, sizes = max(len(parts), 2), {tensor.size(own.dim) for tensor in parts}
        if sizes != {len(own.channels) / count}:
            return False
        self.tie_groups(own.channels, count)
        for tensor in parts:
            self.labels[tensor] = Labels(own.dim, own.channels[: tensor.size(own.dim)])
        return True

    def join_beside(self, tensors: Any, dim: int = 0, **_: Any) -> None:
        """What is put one behind the other along another dimension is then one tensor, of the same channels."""
        owns = [self.labels.get(tensor) for tensor in tensors]
        along = dim if dim < 0 else dim - tensors[0].ndim
        for own in owns[1:]:
            if owns[0] is not None and own is not None and own.dim == owns[0].dim != along:
                self.join(owns[0].channels, own.channels)

    def spread(self, tensor: Tensor) -> Tensor:
        """A tensor of the same shape that holds each number's label."""
        own = self.labels.get(tensor)
        if own is None:
            return torch.zeros(tensor.shape, dtype=torch.long)
        return torch.tensor([*map(self.find, own.channels)]).view(-1, *[1] * (-own.dim - 1)).expand(tensor.shape)

    def move(self, before: Any, after: Any, result: Any) -> None:
        """Labels have been moved as the numbers were. They are of use if they still lie along one dimension."""
        every = set(torch.cat([self.spread(tensor).unique() for tensor in each_tensor(before)]).tolist())
        for labels, tensor in zip(each_tensor(after), each_tensor(result), strict=True):
            varying = [dim for dim in range(-labels.ndim, 0) if (labels != labels.narrow(dim, 0, 1)).any()]
            if len(varying) > 1 or set(labels.unique().tolist()) != every:
                for source in each_tensor(before):
                    self.keep(source)  # split up, which the sizes left may not allow
            elif varying:
                self.labels[tensor] = Labels(varying[0], labels.movedim(varying[0], 0).flatten(1)[:, 0].tolist())


def is_plain(layer: nn.Module) -> bool:
    """Whether this is a layer that can shrink, with weights of its own that nothing computes."""
    if isinstance(layer, nn.LayerNorm):
        return len(layer.normalized_shape) == 1
    return isinstance(layer, NORMS) or (is_producer(layer) and layer._parameters.get("weight") is not None)


def is_producer(layer: nn.Module) -> bool:
    return isinstance(layer, PRODUCERS) or is_conv1d(layer)


def is_depthwise(layer: Any) -> bool:
    return isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED)) and layer.groups == layer.in_channels > 1


def couple(model: nn.Module, example: Any) -> Coupling:
    """Follows the channels through one forward pass in evaluation mode, or, where that calls more, in training.

    Auxiliary classifiers such as GoogLeNet's are called in training alone.

    Raises:
        InputError: the model cannot take the example or gives no tensor that can be found, or none of its layers was
            called; names the layer.
    """
    with in_mode(model, training=False):
        coupling = followed(model, example)
        if coupling.layers.keys() < coupling.names.keys():
            for module in model.modules():
                module.training = any(True for _ in module.children())  # not the layers: no statistics may move
            with contextlib.suppress(Exception):  # in training some want more, such as targets
                coupling = max(coupling, followed(model, example), key=lambda one: len(one.layers))
    if not any(map(is_producer, coupling.layers)):
        raise InputError(f"model: expected linear or convolutional layers, found none in {type(model).__name__}")
    return coupling


@torch.no_grad()
def followed(model: nn.Module, example: Any) -> Coupling:
    """The channels of one forward pass."""
    coupling = Coupling(model)
    hooks = [layer.register_forward_pre_hook(coupling.enter) for layer in coupling.names]
    hooks += [layer.register_forward_hook(coupling.leave, with_kwargs=True) for layer in coupling.names]
    try:
        with coupling:
            outputs = named_call(model, example)
        found = list(each_tensor(outputs))
        if not found:
            kind = type(outputs).__name__
            raise InputError(f"model: expected tensors, lists, dicts or dataclasses as outputs, found none in {kind}")
        for output in found:
            coupling.keep(output)
    finally:
        for hook in hooks:
            hook.remove()
    return coupling
