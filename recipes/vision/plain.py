"""What copies get in place of longer parts of this family."""

from typing import Any

import torch
from torch import Tensor, nn


class Features(nn.Module):
    """Pictures (N, 3, H, W) in 0 to 1 to maps from fine to coarse; batch norms of trained weights stay as they are."""

    def __init__(self, maps: Any, pretrained: bool) -> None:
        super().__init__()
        self.maps, self.pretrained = maps, pretrained
        self.channels, self.strides = maps.feature_info.channels(), maps.feature_info.reduction()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(maps.pretrained_cfg[name]).view(3, 1, 1))

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
    chosen: dict[str, Any] = {
        "out_indices": [max(i for i, one in enumerate(found) if one == stride) for stride in strides]
    }
    chosen |= {"features_only": True, "pretrained": pretrained, "pretrained_cfg_overlay": source}
    return Features(create(name, **chosen), pretrained)


def parameter_groups(model: nn.Module, lr: float, share: float = 0.1) -> list[dict[str, Any]]:
    """For an optimizer: pretrained backbones learn at a share of the rate."""
    backbones = [part for part in model.modules() if isinstance(part, Features) and part.pretrained]
    known = {id(parameter) for part in backbones for parameter in part.parameters()}
    trained = [[one for one in model.parameters() if (id(one) in known) == side] for side in (False, True)]
    return [{"params": part, "lr": rate} for part, rate in zip(trained, (lr, lr * share), strict=True) if part]
