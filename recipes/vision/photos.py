"""What photographs need in training: no two are taken in the same light."""

import torch
from torch import Tensor


def recolor(images: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in 0 to 1 in other light: brightness, contrast and saturation change by up to 30 %."""
    brightness, contrast, saturation = torch.empty(3, len(images), 1, 1, 1, device=images.device).uniform_(0.7, 1.3)
    images = images.mean(dim=1, keepdim=True).lerp(images, saturation)
    images = images.mean(dim=(1, 2, 3), keepdim=True).lerp(images, contrast)
    return (brightness * images).clamp(0, 1)
