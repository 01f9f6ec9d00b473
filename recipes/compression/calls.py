"""Calling any network: with a tensor, several or named ones; and the tensors in what it answers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from recipes.core.errors import InputError


def call(model: Any, inputs: Any) -> Any:
    """What the model answers to a tensor, to a tuple of arguments, or to a dict of named ones."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


def each_tensor(values: Any) -> Iterator[Tensor]:
    """Tensors in nested lists, tuples, dicts and dataclasses."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple, Mapping)):
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from each_tensor(value)
    elif is_dataclass(values):
        for field in fields(values):
            yield from each_tensor(getattr(values, field.name, None))


def logits_of(outputs: Any) -> Tensor:
    """The logits among what a model answers: those named so, as transformers has it, or the first tensor."""
    logits = getattr(outputs, "logits", None)
    logits = next(each_tensor(outputs), None) if logits is None else logits
    if logits is None:
        raise InputError(f"model: expected a tensor among its outputs, found none in {type(outputs).__name__}")
    return logits


def named_call(model: nn.Module, inputs: Any) -> Any:
    """The same as `call`, or an InputError that names the layer which could not give its own answer."""
    place = "model"

    def note(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal place
            place = name or "model"

        return hook

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in model.named_modules()]
    try:
        return call(model, inputs)
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"layer {place}: cannot take what it is given ({reason})") from None
    finally:
        for hook in hooks:
            hook.remove()
