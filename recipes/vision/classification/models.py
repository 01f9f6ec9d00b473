"""Networks of timm and torchvision, by name."""

import difflib

from torch import Tensor, nn

from recipes.core.errors import InputError


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


class GrayToColor(nn.Module):
    """Repeats the one channel of gray pictures for a network that expects three."""

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1)
