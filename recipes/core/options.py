"""The options of a recipe: a dataclass, each field with its default, its sentence and its range on one line."""

import dataclasses
import math
import operator
import os
import types
import typing
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, Self, Union

import torch

from recipes.core.errors import InputError

RANGES = {"above": (operator.gt, "above"), "least": (operator.ge, "of at least")}
RANGES |= {"below": (operator.lt, "below"), "most": (operator.le, "of at most")}
# What may differ between a run and the one that goes on from its checkpoint.
MAY_DIFFER = {"out", "device", "checkpoint", "save_every", "override", "claims", "epochs", "steps", "shard", "compile"}

Precision = Literal["fp32", "bf16", "fp16", "auto"]


def option(default: Any, sentence: str, *, copied: bool = True, **limits: float) -> Any:
    """A field of `Options`.

    Args:
        default: its value where none is given.
        sentence: what its help says.
        copied: whether a lean copy of the recipe has it too.
        **limits: `least`, `most`, `above` and `below`, which numbers are held to.
    """
    return field(default=default, metadata={"help": sentence} | limits)


@dataclass(kw_only=True)
class Options:
    """What every recipe takes; a recipe's own options add to it, or give another default."""

    data: Any = option(None, "your data, as a path or a pair of Datasets (train, test); the bundled ones if not given")
    epochs: int = option(5, "passes over the training part", least=1)
    steps: int | None = option(None, "optimizer steps to train for, in place of epochs", least=1)
    batch_size: int = option(32, "samples in a batch, over all processes", least=1)
    lr: float = option(1e-2, "highest learning rate of the schedule", above=0)
    device: Any = option("auto", "auto, cpu, cuda or mps")
    seed: int = option(
        0, "of the weights, the order of the samples and all else that is random", least=0, most=2**32 - 1
    )
    out: str | None = option(None, "folder to write the model, the result and the figure to")
    claims: bool = option(True, "also measure the claims, which may train variants of the model")
    precision: Precision = option(
        "fp32", "arithmetic of the forward pass; auto is bf16 where the device computes in it"
    )
    channels_last: bool = option(False, "keep pictures and convolutions in the memory order (N, H, W, C)")
    accumulate: int = option(1, "batches whose gradients are averaged for each optimizer step", least=1)
    clip: float | None = option(None, "largest norm of the gradient; a larger one is scaled down", above=0)
    compile: bool = option(False, "compile the model with torch.compile")
    sync_batch_norm: bool = option(False, "batch norm over all processes' samples, not over each one's (on GPUs)")
    shard: bool = option(False, "split the model over the processes of torchrun (FSDP2), not replicate it (DDP)")
    checkpoint: str | None = option(None, "folder to save the training in after each epoch, and to resume from")
    save_every: int | None = option(None, "also save after every so many optimizer steps", least=1)
    override: bool = option(False, "resume even where options differ from those the training was started with")

    few_steps = 100  # no option: of own data, fewer are told
    variant: str = field(default="", init=False, repr=False)  # what a claim changed, in words; names its checkpoint

    def __post_init__(self) -> None:
        hints, limits = field_types(type(self)), field_metadata(type(self))
        for name, hint in hints.items():
            setattr(self, name, checked(name, getattr(self, name), hint, limits[name]))

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON can hold them; what is no text or number is written as its type's name."""
        return {name: plain_value(getattr(self, name)) for name in field_types(type(self))}

    def with_changes(self, **changed: Any) -> Self:
        return dataclasses.replace(self, **changed)


def field_types(options: type[Options]) -> dict[str, Any]:
    """The type of each option, in order: the recipe's own first, then those that all recipes share."""
    hints = typing.get_type_hints(options)
    names = [one.name for one in dataclasses.fields(options) if one.init]
    shared = {one.name for one in dataclasses.fields(Options)}
    return {name: hints[name] for name in sorted(names, key=lambda name: name in shared)}


def field_metadata(options: type[Options]) -> dict[str, dict[str, Any]]:
    """Sentence and limits of each option; where a subclass gives another default alone, its parent's hold."""
    found: dict[str, dict[str, Any]] = {}
    for parent in reversed(options.__mro__):
        for one in getattr(parent, "__dataclass_fields__", {}).values():
            found[one.name] = found.get(one.name, {}) | dict(one.metadata)
    return found


def checked(name: str, value: Any, hint: Any, limits: dict[str, Any]) -> Any:
    """The value as the option's type has it: any integer is an int, any real number a float, any path a str.

    Raises:
        InputError: it is of another kind, or out of range.
    """
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    if (value is None and types.NoneType in kinds) or Any in kinds:
        return os.fspath(value) if isinstance(value, os.PathLike) else value
    kind = next(one for one in kinds if one is not types.NoneType)
    if typing.get_origin(kind) is Literal:
        if not isinstance(value, str) or value not in typing.get_args(kind):
            raise InputError(f"option {name}: expected one of {', '.join(typing.get_args(kind))}, got {shown(value)}")
        return value
    taken = conversion(value, kind)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    bounds = [(RANGES[key], limit) for key, limit in limits.items() if key in RANGES]
    wanted = words.get(kind, f"a {getattr(kind, '__name__', kind)}")
    wanted += " and".join(f" {word} {limit}" for (_, word), limit in bounds)
    finite = not isinstance(taken, float) or math.isfinite(taken)
    if taken is None or not finite or not all(holds(taken, limit) for (holds, _), limit in bounds):
        raise InputError(f"option {name}: expected {wanted}, got {shown(value)}")
    return taken


def shown(value: Any) -> str:
    """The value in at most a hundred characters; Python writes no numbers of thousands of digits."""
    large = isinstance(value, int) and abs(value) > 10**50
    return "a number of more than 50 digits" if large else f"{value!r:.100}"


def conversion(value: Any, kind: type) -> Any:
    """The value as that type, or None if it is of another kind."""
    is_bool = isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    try:
        if kind is bool:
            return bool(value) if is_bool else None
        if kind is int:
            whole = operator.index(value)
            return whole if not is_bool and abs(whole) < 2**63 else None
        if kind is float:
            real = isinstance(value, Real) or (hasattr(value, "__float__") and not isinstance(value, str))
            return float(value) if real and not is_bool else None
        if kind is str:
            value = os.fspath(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return value if isinstance(value, kind) else None


def plain_value(value: Any) -> Any:
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, str) and len(value) > 300:  # data, no path or name
        return f"<text of {len(value):,} characters>"
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain_value(one) for one in value]
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def differences(saved: dict[str, Any], options: Options) -> list[str]:
    """Options that differ from those a training was started with, in words; more epochs or steps may be asked for."""
    told = []
    for name, value in options.to_dict().items():
        if name not in saved:
            continue
        counts = name in ("epochs", "steps") and isinstance(saved[name], int)
        fewer = counts and (value or 0) < saved[name]
        if saved[name] != value and (fewer or name not in MAY_DIFFER):
            told.append(f"{name} {value!r} instead of {saved[name]!r}")
    return told
