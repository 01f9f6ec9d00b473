"""Networks of timm and torchvision, by name."""

import difflib
from typing import Any

import torch
from torch import Tensor, nn

from recipes.core.errors import InputError
from recipes.datasets.images import ImageFiles, Images


def named_model(name: str, channels: int, num_classes: int) -> nn.Module:
    """The network of that name, with random weights.

    Args:
        name: "timm:NAME" or "torchvision:NAME".
        channels: of the pictures, 1 or 3.
        num_classes: of the last layer.

    Raises:
        InputError: there is no such network; names the nearest.
    """
    library, _, model = name.partition(":")
    if library == "timm":
        import timm

        known = timm.list_models()
        if model in known:
            return timm.create_model(model, in_chans=channels, num_classes=num_classes)
    elif library == "torchvision":
        from torchvision import models

        known = models.list_models(module=models)
        if model in known:
            network = models.get_model(model, weights=None, num_classes=num_classes)
            return network if channels == 3 else nn.Sequential(GrayToColor(), network)
    else:
        raise InputError(f"option model: expected small_cnn, timm:NAME or torchvision:NAME, got {name!r}")
    near = difflib.get_close_matches(model, known, n=1)
    raise InputError(f"option model: {library} has no {model!r}" + (f", did you mean {near[0]}?" if near else ""))


def own_model(model: Any, data: Images | ImageFiles) -> nn.Module:
    """The user's network, which was tried on two empty pictures.

    Raises:
        InputError: it is none, has no weights to train, or does not give a number for each class.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"option model: expected a name or an nn.Module, got {model!r:.100}")
    wanted = f"option model: expected a network from pictures (N, {', '.join(map(str, data.shape))})"
    wanted += f" to (N, {len(data.classes)}), a number for each class"
    if not any(one.requires_grad for one in model.parameters()):
        raise InputError(f"{wanted}, with weights to train: all of its are frozen, or it has none")
    was_training = model.training
    try:
        with torch.no_grad():
            outputs = model.eval()(torch.zeros(2, *data.shape, device=next(model.parameters()).device))
    except Exception as error:  # of the user's own code
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{wanted}, but it raises {type(error).__name__} ({reason})") from error
    model.train(was_training)
    if (shape := getattr(outputs, "shape", None)) != (2, len(data.classes)):
        raise InputError(f"{wanted}, but for 2 it gives {tuple(shape) if shape else type(outputs).__name__}")
    return model


class GrayToColor(nn.Module):
    """Repeats the one channel of gray pictures for a network that expects three."""

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1)
