"""Backbones: the maps of features that a network of timm or torchvision makes, from fine to coarse.

Detectors and segmenters put a head or a decoder on them; to classify, a network is taken whole. With weights trained on
ImageNet, a few dozen photos are enough to train the rest.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from recipes.core.errors import InputError
from recipes.vision.networks import as_scale, last_linear, load_pretrained, named_model

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
ONE_CELL = 2**16  # the stride of a map of a single cell: more pixels than pictures have


class KeepsStatistics(nn.Module):
    """A network whose batch norms, if it is pretrained, keep their statistics in training: a few photos' are worse."""

    pretrained: bool

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.modules() if self.pretrained else []:
            if isinstance(part, _BatchNorm):
                part.eval()
        return self


class Features(KeepsStatistics):
    """Pictures (N, 3, H, W) in 0 to 1, to maps (N, channels[i], H / strides[i], W / strides[i]), rounded up.

    Args:
        maps: from normalized pictures to a list or dict of maps, from fine to coarse.
        channels, strides: of the maps.
        mean, std: of each color, which pictures are normalized with.
        pretrained: whether the weights were trained before.
    """

    def __init__(
        self,
        maps: nn.Module,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        mean: Sequence[float] | Tensor = IMAGENET["mean"],
        std: Sequence[float] | Tensor = IMAGENET["std"],
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.maps, self.channels, self.strides, self.pretrained = maps, list(channels), list(strides), pretrained
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).view(3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.maps((images - self.mean) / self.std)
        maps = maps.values() if isinstance(maps, dict) else maps
        sizes = [[math.ceil(side / stride) for side in images.shape[2:]] for stride in self.strides]
        # Convolutions without padding, as Inception's, give fewer cells, which would be taken to lie elsewhere.
        return [
            one if list(one.shape[2:]) == size else F.interpolate(one, size=size, mode="bilinear")
            for one, size in zip(maps, sizes, strict=True)
        ]


def open_backbone(name: str, weights: str | None = None, *, strides: Sequence[int] = (4, 8, 16, 32)) -> Features:
    """The network of that name without its classifier, as maps of these strides.

    Args:
        name: "timm:NAME" or "torchvision:NAME".
        weights: None for random ones, "pretrained" (of timm:tf_efficientnet_lite0 without a network), a file of the
            classifier's weights, or a name of torchvision's such as "IMAGENET1K_V1".
        strides: pixels of the picture to a step in each map.

    Raises:
        InputError: there is no such network, it has no map of such a stride, or the weights cannot be had.
    """
    library, _, short = name.partition(":")
    if library not in ("timm", "torchvision"):
        raise InputError(f"option backbone: expected timm:NAME or torchvision:NAME, got {name!r}")
    try:
        network: nn.Module = named_model(name, 3, 1000)
        scale: dict[str, Any] = {}
        if weights is not None:
            network, scale = load_pretrained(name, weights)
    except InputError as error:
        raise InputError(str(error).replace("option model", "option backbone")) from None
    try:
        opened = maps_of_timm if library == "timm" else maps_of_torchvision
        maps, channels, usual = opened(short, network, strides)
    except InputError:
        raise
    except Exception as error:  # no maps, or not traceable
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"option backbone: {name} gives no maps of features ({reason})") from None
    return Features(maps, channels, strides, **(usual | scale), pretrained=weights is not None)


def maps_of_timm(name: str, network: Any, strides: Sequence[int]) -> tuple[nn.Module, list[int], dict[str, Any]]:
    """timm's own extractor with the network's weights, its channels, and the usual scale of its pictures."""
    import timm

    extractor: Any = timm.create_model(name, features_only=True)
    found = extractor.feature_info.info
    last = {one["reduction"]: index for index, one in enumerate(found)}  # the last map of each stride
    require_strides(f"timm:{name}", strides, last)
    indices = [last[stride] for stride in strides]
    maps = timm.create_model(name, features_only=True, out_indices=indices)
    # Its layers bear the network's names, but for dots that became underscores.
    weights = {key.replace(".", "_"): value for key, value in network.state_dict().items()}
    maps.load_state_dict({key: weights[key.removeprefix("model.").replace(".", "_")] for key in maps.state_dict()})
    config = network.pretrained_cfg
    return maps, [found[i]["num_chs"] for i in indices], {"mean": config["mean"], "std": config["std"]}


def maps_of_torchvision(name: str, network: Any, strides: Sequence[int]) -> tuple[nn.Module, list[int], dict[str, Any]]:
    """The last layer or block of each stride, measured on a picture, by torchvision's extractor."""
    from torchvision.models.feature_extraction import create_feature_extractor

    scale: dict[str, Any] = IMAGENET
    if getattr(network, "transform_input", False):  # weights from TensorFlow, which turn the scale to theirs
        network.transform_input = False
        scale = {"mean": [0.5] * 3, "std": [0.5] * 3}
    small, large = sizes_of_maps(network, 128), sizes_of_maps(network, 256)
    last = {}
    for part, (channels, height) in large.items():
        if height > small[part][1]:  # else it pools to a size that pictures have no part in
            last[2 ** round(torch.tensor(256 / height).log2().item())] = (part, channels)
    require_strides(f"torchvision:{name}", strides, last)
    maps = create_feature_extractor(network, {last[stride][0]: str(stride) for stride in strides})
    return maps, [last[stride][1] for stride in strides], scale


@torch.no_grad()
def sizes_of_maps(network: nn.Module, side: int) -> dict[str, tuple[int, int]]:
    """Channels and height of what each layer or block gives for a picture, in the order of computing."""
    sizes: dict[str, tuple[int, int]] = {}
    hooks = []

    def listen(parent: nn.Module, prefix: str) -> None:
        for name, part in parent.named_children():
            hooks.append(part.register_forward_hook(noted(prefix + name)))
            if isinstance(part, nn.Sequential):
                listen(part, f"{prefix}{name}.")

    def noted(name: str) -> Any:
        def note(_part: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3]:
                sizes[name] = (output.shape[1], output.shape[2])

        return note

    listen(network, "")
    was_training = network.training
    network.eval()(torch.zeros(1, 3, side, side))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return sizes


def require_strides(name: str, strides: Sequence[int], found: Any) -> None:
    missing = [stride for stride in strides if stride not in found]
    if missing:
        has = ", ".join(map(str, sorted(found)))
        raise InputError(f"option backbone: {name} has maps of stride {has}, and none of {missing[0]}")


class Whole(nn.Module):
    """A classifier's features before its last linear layer, as one map of a single cell, [(N, width, 1, 1)]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        name = last_linear(network)
        head: Any = network.get_submodule(name)
        network.set_submodule(name, nn.Identity())
        self.network, self.width = network, head.in_features

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.network(images)[:, :, None, None]]


def open_whole(name: str, weights: str | None = None) -> Features:
    """The network timm:NAME or torchvision:NAME without its head; weights are as `load_pretrained` takes them."""
    network, scale = named_model(name, 3, 1000), as_scale([0.0] * 3, [1.0] * 3)
    if weights is not None:
        network, scale = load_pretrained(name, weights)
    maps = Whole(network)
    return Features(maps, [maps.width], [ONE_CELL], **scale, pretrained=weights is not None)


class Classifier(nn.Module):
    """Pictures (N, 1 or 3, H, W) to logits (N, num_classes), from the maxima of the backbone's coarsest map."""

    def __init__(self, backbone: Features, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: nn.Module = nn.Linear(backbone.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images.expand(-1, 3, -1, -1))[-1].amax(dim=(2, 3)))


def parameter_groups(model: nn.Module, lr: float, share: float = 0.1) -> list[dict[str, Any]]:
    """For an optimizer: pretrained backbones learn at a share of the rate, so that what they know is not lost."""
    backbones = [part for part in model.modules() if isinstance(part, Features) and part.pretrained]
    known = {id(parameter) for part in backbones for parameter in part.parameters()}
    return two_rates(((one, id(one) in known) for one in model.parameters()), lr, share)


def two_rates(parameters: Iterable[tuple[nn.Parameter, bool]], lr: float, share: float = 0.1) -> list[dict[str, Any]]:
    """Groups for an optimizer, without empty ones: parameters told to be slow learn at that share of the rate."""
    trained = [(one, slow) for one, slow in parameters if one.requires_grad]
    groups = [
        {"params": [one for one, slow in trained if not slow], "lr": lr},
        {"params": [one for one, slow in trained if slow], "lr": lr * share},
    ]
    return [group for group in groups if group["params"]]
