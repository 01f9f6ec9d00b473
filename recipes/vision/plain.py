"""What copies get in place of longer parts of this family."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import predict
from recipes.datasets.images import open_images
from recipes.vision.few_labels import other_digits


class Features(nn.Module):
    """Pictures (N, 3, H, W) in 0 to 1 to maps from fine to coarse; batch norms of trained weights stay as they are."""

    def __init__(self, maps: Any, channels: Any, strides: Any, *, mean: Any, std: Any, pretrained: bool) -> None:
        super().__init__()
        self.maps, self.channels, self.strides, self.pretrained = maps, list(channels), list(strides), pretrained
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(values).view(3, 1, 1))

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        for part in self.modules():
            if self.pretrained and isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.maps((images - self.mean) / self.std)  # type: ignore[operator]


def open_backbone(name: str, weights: str | None = None, *, strides: Any = (4, 8, 16, 32)) -> Features:
    """The network timm:NAME as maps of these strides; weights are None, "pretrained" or a file of the classifier's."""
    import timm

    create: Any = timm.create_model
    name, pretrained = name.removeprefix("timm:"), weights is not None
    source = {} if weights in (None, "pretrained") else {"file": weights}
    found = [one["reduction"] for one in create(name, features_only=True).feature_info.info]
    indices = [max(i for i, one in enumerate(found) if one == stride) for stride in strides]
    maps = create(name, features_only=True, out_indices=indices, pretrained=pretrained, pretrained_cfg_overlay=source)
    scale = {key: maps.pretrained_cfg[key] for key in ("mean", "std")}
    return Features(maps, maps.feature_info.channels(), strides, **scale, pretrained=pretrained)


def parameter_groups(model: nn.Module, lr: float, share: float = 0.1) -> list[dict[str, Any]]:
    """For an optimizer: pretrained backbones learn at a share of the rate."""
    backbones = [part for part in model.modules() if isinstance(part, Features) and part.pretrained]
    known = {id(parameter) for part in backbones for parameter in part.parameters()}
    trained = [[one for one in model.parameters() if (id(one) in known) == side] for side in (False, True)]
    return [{"params": part, "lr": rate} for part, rate in zip(trained, (lr, lr * share), strict=True) if part]


def named_model(name: str, channels: int, num_classes: int) -> nn.Module:
    """A network with random weights: timm:NAME or torchvision:NAME."""
    library, _, model = name.partition(":")
    if library == "timm":
        import timm

        return timm.create_model(model, in_chans=channels, num_classes=num_classes)
    from torchvision import models

    return models.get_model(model, weights=None, num_classes=num_classes)


def last_linear(network: nn.Module) -> str:
    """The name of the network's last linear layer, which is its head."""
    return [name for name, part in network.named_modules() if isinstance(part, nn.Linear)][-1]


def load_pretrained(model: str, weights: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network timm:NAME with weights ("pretrained" or a file), and the scale of the pictures they expect."""
    import timm

    source = {} if weights == "pretrained" else {"file": weights}
    network: Any = timm.create_model(model.removeprefix("timm:"), pretrained=True, pretrained_cfg_overlay=source)
    return network, {name: torch.tensor(network.pretrained_cfg[name]) for name in ("mean", "std")}


class Whole(nn.Module):
    """All of a network but its head, as one map of a single cell."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.network(images)[:, :, None, None]]


def backbone_for(task: str, name: str, weights: str | None) -> Features:
    """The network timm:NAME without its head; weights are None, "pretrained" or a file of the classifier's."""
    import timm

    given: Any = {"pretrained_cfg_overlay": {} if weights in (None, "pretrained") else {"file": weights}}
    given |= {"pretrained": weights is not None, "num_classes": 0}
    network: Any = timm.create_model(name.removeprefix("timm:"), **given)
    scale = {key: network.pretrained_cfg[key] for key in ("mean", "std")}
    return Features(Whole(network), [network.num_features], [1], **scale, pretrained=given["pretrained"])


class Classifier(nn.Module):
    """Pictures (N, 1 or 3, H, W) to logits (N, num_classes), from the maxima of the backbone's coarsest map."""

    def __init__(self, backbone: Features, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images.expand(-1, 3, -1, -1))[-1].amax(dim=(2, 3)))


def with_head(backbone: Features, task: str, num_classes: int) -> nn.Module:
    """The backbone under a new head; a copy has the one task, the library detection and segmentation too."""
    return Classifier(backbone, num_classes)


def open_task(options: Any) -> tuple[Any, Any]:
    """The pictures to learn from and those held out, in 0 to 1: bundled ones, or yours."""
    if options.data is None:
        return other_digits(options.samples, options.seed)
    parts = open_images(options.data, image_size=options.image_size or 320, seed=options.seed)
    for part in parts:
        part.mean, part.std = torch.zeros(part.shape[0]), torch.ones(part.shape[0])
    return parts


def loss_of(model: nn.Module, outputs: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy."""
    return F.cross_entropy(outputs, targets)


def varied(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Half of the photographs mirrored."""
    return images.flip(3).where(torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5, images), targets


def score(model: nn.Module, dataset: Any, device: Any) -> dict[str, float]:
    """The share of pictures that are recognized."""
    right = torch.stack(predict(model, dataset, device, 64)).argmax(dim=1) == dataset.labels
    return {"accuracy": right.double().mean().item()}
