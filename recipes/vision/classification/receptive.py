"""Which pixels of a picture an output of a network depends on."""

import torch
from torch import Tensor, nn


def centre_gradients(layers: nn.Module, channels: int, *, size: int = 15) -> Tensor:
    """How much the centre of the output depends on each pixel of the input.

    Gradients of 64 random inputs are added up, since ReLU and pooling let only some of them pass, and others for
    other inputs.

    Args:
        layers: from (N, channels, size, size) to (N, any, height, width).
        channels: of the input.
        size: of the input in pixels, more than the layers see.

    Returns:
        Absolute gradients (size, size); exactly zero where the layers do not look.
    """
    images = torch.randn(64, channels, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    was_training = layers.training
    outputs = layers.eval()(images)  # in training, batch norm would let every place depend on all others
    layers.train(was_training)
    centre = outputs[:, :, outputs.shape[2] // 2, outputs.shape[3] // 2]  # (64, channels going out)
    (gradients,) = torch.autograd.grad(centre.sum(), images)
    return gradients.abs().sum(dim=(0, 1))
