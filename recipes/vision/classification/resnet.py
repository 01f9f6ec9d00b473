"""Residual networks, and the same depth without the shortcuts.

A layer added to a network could copy its input and do no harm, yet plain networks of many layers train
worse than shallow ones: copying is hard to learn, and the gradient is distorted on its way back through
every layer. A residual block computes x + f(x) instead of f(x). To copy, f has only to be zero, and the
sum hands the gradient on unchanged beside whatever f does to it. The recipe trains two networks of 50
layers that differ in nothing but this sum.

Notes: 50
Paper: He, Zhang, Ren, Sun (2015), "Deep Residual Learning for Image Recognition",
    https://arxiv.org/abs/1512.03385
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

from collections import OrderedDict
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import draw_curves, new_figure
from recipes.core.loop import Engine, Loop, one_cycle
from recipes.core.result import Claim, Result, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.datasets.loading import batches
from recipes.options import main
from recipes.vision.classification.task import evaluate, majority


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, f(x); the block gives relu(x + f(x)), or relu(f(x)) if not `residual`."""

    expansion = 1  # channels going out for each of `width`

    def __init__(self, channels: int, width: int, *, stride: int = 1, residual: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.residual = residual
        self.downsample = projection(channels, width, stride) if residual else None

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, height, width)
        f = F.relu(self.bn1(self.conv1(x)))
        f = self.bn2(self.conv2(f))  # (batch, width, height / stride, width / stride)
        if self.residual:
            f = f + (x if self.downsample is None else self.downsample(x))
        return F.relu(f)


class Bottleneck(nn.Module):
    """A 1×1 convolution to few channels, a 3×3 there, and a 1×1 back to four times as many."""

    expansion = 4

    def __init__(self, channels: int, width: int, *, stride: int = 1, residual: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)  # the paper strides in conv1
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.residual = residual
        self.downsample = projection(channels, 4 * width, stride) if residual else None

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, height, width)
        f = F.relu(self.bn1(self.conv1(x)))
        f = F.relu(self.bn2(self.conv2(f)))
        f = self.bn3(self.conv3(f))  # (batch, 4 * width, height / stride, width / stride)
        if self.residual:
            f = f + (x if self.downsample is None else self.downsample(x))
        return F.relu(f)


def projection(channels: int, out: int, stride: int) -> nn.Sequential | None:
    """What a shortcut needs where its block changes the shape; None where x can be added as it is."""
    if channels == out and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class ResNet(nn.Sequential):
    """A stem, stages of blocks, the mean over the picture, and one linear layer.

    Each stage after the first halves the picture and doubles the channels. The parts bear torchvision's
    names, so that its weights load.

    Args:
        block: BasicBlock or Bottleneck.
        blocks: number of blocks in each stage.
        channels: of the pictures.
        num_classes: of the last layer.
        width: channels of the first stage.
        small_pictures: start with one 3×3 convolution, instead of the 7×7 and the pooling that make
            pictures of 224 pixels four times smaller.
        residual: False leaves the shortcuts out.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: list[int],
        *,
        channels: int = 3,
        num_classes: int = 1000,
        width: int = 64,
        small_pictures: bool = False,
        residual: bool = True,
    ) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if small_pictures:
            parts["conv1"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        else:
            parts["conv1"] = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        parts["bn1"], parts["relu"] = nn.BatchNorm2d(width), nn.ReLU()
        if not small_pictures:
            parts["maxpool"] = nn.MaxPool2d(3, stride=2, padding=1)
        reached = width
        for stage, count in enumerate(blocks):
            layers: list[nn.Module] = []
            for place in range(count):
                stride = 2 if stage > 0 and place == 0 else 1
                layers.append(block(reached, width * 2**stage, stride=stride, residual=residual))
                reached = width * 2**stage * block.expansion
            parts[f"layer{stage + 1}"] = nn.Sequential(*layers)
        parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()  # (batch, channels)
        parts["fc"] = nn.Linear(reached, num_classes)
        super().__init__(parts)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resnet18(channels: int = 3, num_classes: int = 1000, *, residual: bool = True) -> ResNet:
    """The paper's 18 layers, for pictures of about 224 pixels."""
    return ResNet(BasicBlock, [2, 2, 2, 2], channels=channels, num_classes=num_classes, residual=residual)


def resnet34(channels: int = 3, num_classes: int = 1000, *, residual: bool = True) -> ResNet:
    """The paper's 34 layers."""
    return ResNet(BasicBlock, [3, 4, 6, 3], channels=channels, num_classes=num_classes, residual=residual)


def resnet50(channels: int = 3, num_classes: int = 1000, *, residual: bool = True) -> ResNet:
    """The paper's 50 layers, of bottlenecks."""
    return ResNet(Bottleneck, [3, 4, 6, 3], channels=channels, num_classes=num_classes, residual=residual)


def small_resnet(channels: int = 1, num_classes: int = 10, *, depth: int = 50, residual: bool = True) -> ResNet:
    """The paper's network for small pictures (section 4.2): three stages of 16, 32 and 64 channels.

    Args:
        channels: of the pictures.
        num_classes: of the last layer.
        depth: layers with weights, 6n + 2: n blocks a stage, the first convolution and the last layer.
        residual: False leaves the shortcuts out.
    """
    if depth < 8 or depth % 6 != 2:
        raise InputError(f"option depth: expected 8, 14, 20 and so on in steps of 6, got {depth}")
    return ResNet(
        BasicBlock,
        [(depth - 2) // 6] * 3,
        channels=channels,
        num_classes=num_classes,
        width=16,
        small_pictures=True,
        residual=residual,
    )


def shifted(images: Tensor) -> Tensor:
    """Each picture (B, C, H, W) moved at random by up to an eighth of its side: padded with black, and cropped."""
    count, _, height, width = images.shape
    y, x = -(-height // 8), -(-width // 8)
    black = images.amin()
    padded = F.pad(images - black, (x, x, y, y)) + black
    top = torch.randint(0, 2 * y + 1, (count, 1), device=images.device)
    left = torch.randint(0, 2 * x + 1, (count, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)  # (B, H)
    columns = left + torch.arange(width, device=images.device)  # (B, W)
    picture = torch.arange(count, device=images.device)
    return padded[picture[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def gradient_norms(model: nn.Module, images: Tensor, labels: Tensor) -> list[float]:
    """Norm of the loss's gradient at each convolution, first to last, shortcuts' projections left out."""
    convolutions = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and "downsample" not in name
    ]
    loss = F.cross_entropy(model(images), labels)
    gradients = torch.autograd.grad(loss, [convolution.weight for convolution in convolutions])
    return [gradient.norm().item() for gradient in gradients]


def train(
    model: ResNet,
    train_set: Images | ImageFiles,
    test_set: Images | ImageFiles,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    name: str = "model",
    **engine: Unpack[Engine],
) -> Loop:
    """Minimises the cross-entropy; the history also follows the gradient at the first layer, a mean an epoch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    norms: list[Tensor] = []

    def measure() -> dict[str, float]:
        gradient = torch.stack(norms).mean().item() if norms else float("nan")
        norms.clear()
        return evaluate(model, test_set, device) | {"gradient": gradient}

    loop = Loop(
        model,
        optimizer,
        batches(train_set, batch_size, seed=seed, workers=2 if isinstance(train_set, ImageFiles) else 0),
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        evaluate=measure,
        name=name,
        **engine,
    )
    model.conv1.weight.register_hook(lambda gradient: norms.append(gradient.detach().norm()))
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(shifted(images)), labels)
        loop.step(loss)
    return loop
