"""What LoRA needs for other people's models: a causal model of transformers from a folder, and its attention layers."""

import re
from typing import Any

import torch
from torch import nn

from recipes.compression.causal_models import CausalModel, built, held_out_loss, open_causal_model, token_windows
from recipes.compression.layers import is_conv1d
from recipes.core.errors import InputError, tell
from recipes.core.figures import new_figure
from recipes.core.result import Result
from recipes.datasets.dates import dates
from recipes.datasets.running_text import Windows

HIGH_RATE = 5e-3  # above which a pretrained model forgets all it knows


def open_to_adapt(options: Any) -> tuple[CausalModel, dict[str, torch.dtype], list[Windows]]:
    """The model of a folder in float32, how its file holds each weight, and the windows of the texts.

    The texts are the train and the test part of the new one and, if `base_data` is given, the test part of an old one.

    Raises:
        InputError: as `open_causal_model` and `attention_layers` raise it.
    """
    data = options.data
    if data is None:
        data = (dates("spanish", 150, 3), dates("spanish", 300, 4))
    model, *sets = open_causal_model(options.weights, data, options.context, options.limit)
    attention_layers(model)
    if options.base_data is not None:
        sets.append(token_windows(model, options.base_data, options.context, None)[1])
    if options.method != "none" and options.lr > HIGH_RATE:
        tell(f"option lr: {options.lr:g} suits the recipe's own small model; one that is trained needs less, as 5e-4")
    kinds = {name: value.dtype for name, value in model.named_parameters()}
    for value in model.parameters():  # buffers are as they should be
        value.data = value.data.float()
    return model.to(options.device), kinds, sets


def attention_layers(model: CausalModel) -> dict[str, nn.Module]:
    """The linear layers of attention, nn.Linear or Conv1D, in the network's numbered blocks, by name.

    Raises:
        InputError: there is none, or one whose weights are no floating-point numbers, as quantized ones are.
    """
    found = {
        name: layer
        for name, layer in model.named_modules()
        if re.search(r"\.\d+\.(.*\.)?\w*att(n|ention)\w*\.", name)
        and (isinstance(layer, nn.Linear) or is_conv1d(layer))
    }
    kind = type(model.network).__name__
    if not found:
        raise InputError(f"option weights: expected linear layers of attention in numbered blocks, {kind} has none")
    for name, layer in found.items():
        weight: Any = layer.weight
        if not weight.is_floating_point():
            stored = str(weight.dtype).removeprefix("torch.")
            raise InputError(f"option weights: {name} holds {stored}: expected a model that is not quantized")
    return found


def as_in_file(model: nn.Module, kinds: dict[str, torch.dtype]) -> nn.Module:
    """The model with each weight as its file held it; in place."""
    for name, value in model.named_parameters():
        value.data = value.data.to(kinds[name])
    return model.eval()


def token_losses(model: nn.Module, sets: list[Windows], device: Any) -> dict[str, float]:
    """Nats a token on the held-out part of the new text and, where it is there, of the old one."""
    return {
        name: held_out_loss(model, dataset, device)
        for name, dataset in zip(("loss", "old_text_loss"), sets[1:], strict=False)
    }


def rebuild(options: Any, data: Any) -> nn.Module:
    """The network of the config that the task tells; its weights are yet to come."""
    return built(data, nn.Module).eval()


def draw_losses(result: Result) -> Any:
    """The loss over the training, beside the held-out one before and after it."""
    drawing, axes = new_figure(1, 1, width=5.0, height=3.6)
    epochs = [row["epoch"] for row in result.history]
    axes[0, 0].plot(epochs, [row["loss"] for row in result.history], marker=".", label="train text")
    axes[0, 0].axhline(result.baseline["loss"], color="black", linestyle="--", label="held out, before")
    axes[0, 0].axhline(result["loss"], color="black", label="held out, after")
    axes[0, 0].set(xlabel="epoch", ylabel="loss, nats a token")
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=8)
    return drawing
