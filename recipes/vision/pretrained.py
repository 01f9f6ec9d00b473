"""Networks that name what is on photographs, with weights that were trained on ImageNet by others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recipes.vision.classification.using import Classification
from recipes.vision.networks import last_linear, load_pretrained


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
