"""Residual networks, and the same depth without the shortcuts.

A layer added to a network could copy its input and do no harm, yet a plain network of 50 layers fits even
its training pictures worse than a shallow one does. A residual block computes x + f(x) where a plain one
computes f(x): to copy, f need only be zero, and on the way back the sum hands the gradient on unchanged,
where plain layers with batch norm enlarge it at each step (https://arxiv.org/abs/1902.08129).

Notes: 50
Paper: He, Zhang, Ren, Sun (2015), "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

from collections import OrderedDict
from functools import partial
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.old import FAST
from recipes.vision.classification.scoring import evaluate, majority, shifted


class BasicBlock(nn.Module):
    """f(x) is two 3×3 convolutions; the block gives relu(x + f(x)), or relu(f(x)) if not `residual`."""

    expansion = 1  # channels going out for each of `width`

    def __init__(self, channels: int, width: int, stride: int, residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(channels, width, stride) if residual else None

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, height, width)
        f = F.relu(self.bn1(self.conv1(x)))
        f = self.bn2(self.conv2(f))  # (batch, width, height / stride, width / stride)
        return F.relu(f if self.downsample is None else self.downsample(x) + f)


class Bottleneck(nn.Module):
    """f(x) is a 1×1 convolution to few channels, a 3×3 among them, and a 1×1 to four times as many."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)  # the paper strides in conv1
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(channels, 4 * width, stride) if residual else None

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, height, width)
        f = F.relu(self.bn1(self.conv1(x)))
        f = F.relu(self.bn2(self.conv2(f)))
        f = self.bn3(self.conv3(f))  # (batch, 4 * width, height / stride, width / stride)
        return F.relu(f if self.downsample is None else self.downsample(x) + f)


def shortcut(channels: int, out: int, stride: int) -> nn.Module:
    """x as it is, or where the block changes its shape, x through a 1×1 convolution."""
    if channels == out and stride == 1:
        return nn.Identity()
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
            first, out = (2 if stage > 0 else 1), width * 2**stage * block.expansion
            layers = [block(reached, width * 2**stage, first, residual)]
            layers += [block(out, width * 2**stage, 1, residual) for _ in range(count - 1)]
            parts[f"layer{stage + 1}"] = nn.Sequential(*layers)
            reached = out
        parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()  # (batch, channels)
        parts["fc"] = nn.Linear(reached, num_classes)
        super().__init__(parts)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, (BasicBlock, Bottleneck)):
                # A block starts as almost a copy (https://arxiv.org/abs/1706.02677); plain, batch norm undoes it.
                nn.init.constant_((module.bn2 if isinstance(module, BasicBlock) else module.bn3).weight, 0.05)


resnet18 = partial(ResNet, BasicBlock, [2, 2, 2, 2])
resnet34 = partial(ResNet, BasicBlock, [3, 4, 6, 3])
resnet50 = partial(ResNet, Bottleneck, [3, 4, 6, 3])


def small_resnet(depth: int = 50, **options: Any) -> ResNet:
    """The paper's network for small pictures (section 4.2): three stages of 16, 32 and 64 channels.

    Args:
        depth: layers with weights, 6n + 2: n blocks a stage, the first convolution and the last layer.
        **options: channels, num_classes and residual, as of `ResNet`.
    """
    if depth < 8 or depth % 6 != 2:
        raise InputError(f"option depth: expected 8, 14, 20 and so on in steps of 6, got {depth}")
    return ResNet(BasicBlock, [(depth - 2) // 6] * 3, width=16, small_pictures=True, **options)


def gradient_norms(model: nn.Module, images: Tensor, labels: Tensor) -> list[float]:
    """Norm of the loss's gradient at each convolution, first to last, shortcuts' projections left out."""
    convolutions = [
        module for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and "downsample" not in name
    ]
    loss = F.cross_entropy(model(images), labels)
    gradients = torch.autograd.grad(loss, [convolution.weight for convolution in convolutions])
    return [gradient.norm().item() for gradient in gradients]


def train(
    model: ResNet,
    train_set: Images | ImageFiles,
    test_set: Images | ImageFiles,
    batch_size: int,
    lr: float,
    seed: int,
    *,
    device: torch.device,
    **loop_options: Any,
) -> OldLoop:
    """Minimises the cross-entropy; the history also follows the gradient at the first layer, a mean an epoch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    norms: list[Tensor] = []

    def measure() -> dict[str, float]:
        gradient = torch.stack(norms).mean().item() if norms else float("nan")  # none where it is sharded
        norms.clear()
        return {"accuracy": evaluate(model, test_set, device)["accuracy"], "gradient": gradient}

    workers = 2 if isinstance(train_set, ImageFiles) else 0
    loader = old_batches(train_set, batch_size, seed=seed, workers=workers)
    loop = OldLoop(model, optimizer, loader, device=device, schedule=one_cycle, evaluate=measure, **loop_options)
    next(model.parameters()).register_hook(lambda gradient: norms.append(gradient.detach().norm()))
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(shifted(images)), labels)
        loop.step(loss)
    return loop


def draw(norms: dict[str, list[float]], histories: dict[str, list[dict[str, float]]]) -> Any:
    """Both networks' loss and accuracy over the epochs, and their gradients over the layers."""
    figure, axes = new_figure(1, 4, width=3.4)
    for name, color in (("plain", "tab:orange"), ("residual", "tab:blue")):
        epochs = [row["epoch"] for row in histories[name]]
        for place, metric in zip(axes[0], ("loss", "accuracy", "gradient"), strict=False):
            place.plot(epochs, [row[metric] for row in histories[name]], color=color, label=name)
        axes[0, 3].plot(range(1, len(norms[name]) + 1), norms[name], color=color, label=name)
    titles = ("training loss", "held-out accuracy", "gradient at the first layer", "gradients before training")
    for place, title in zip(axes[0], titles, strict=True):
        place.set(title=title, xlabel="convolution" if place is axes[0, 3] else "epoch")
        place.xaxis.get_major_locator().set_params(integer=True)
        place.set_yscale("log" if "gradient" in title else "linear")
        place.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    model: Literal["small", "resnet18", "resnet34", "resnet50"] = "small",
    depth: int = 50,
    image_size: int | None = None,
    epochs: int = 9,
    batch_size: int = 64,
    lr: float = 5e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a deep network with and without shortcuts, and measures both on held-out pictures.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        model: small for pictures of 8 to 64 pixels, the others for larger ones.
        depth: layers of the small network, 6n + 2.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        epochs: passes over the training pictures, for each of the two networks.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the pictures and of how they are shifted.
        out: folder for result.json, figure.png and model.safetensors, the residual network's.
    """
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    large = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50}
    make = large[model] if model in large else partial(small_resnet, depth)
    images, labels = (each.to(place) for each in train_set.__getitems__(range(min(256, len(train_set)))))

    options: Engine = {**FAST, **engine}
    norms: dict[str, list[float]] = {}
    histories: dict[str, list[dict[str, float]]] = {}
    for name in ("plain", "residual"):
        torch.manual_seed(seed)
        network = make(channels=train_set.shape[0], num_classes=len(train_set.classes), residual=name == "residual")
        norms[name] = gradient_norms(network.to(place), images, labels)
        loop = train(
            network, train_set, test_set, batch_size, lr, seed, epochs=epochs, device=place, name=name, **options
        )
        histories[name] = loop.history
    plain, residual = histories["plain"], histories["residual"]
    first = norms["plain"][0], norms["residual"][0]
    return Result(
        metrics=evaluate(network, test_set, place),
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.97},
        claims=[
            claim("the residual net ends with the lower training loss", residual[-1]["loss"], "<", plain[-1]["loss"]),
            claim("and is better on held-out pictures", residual[-1]["accuracy"], ">", plain[-1]["accuracy"]),
            claim("the plain net's first layer gets 10 times its gradient, untrained", first[0], ">", 10 * first[1]),
            claim("and over the first epoch", plain[0]["gradient"], ">", 10 * residual[0]["gradient"]),
        ],
        history=residual,
        rows=[
            {
                "network": name,
                "training loss": history[-1]["loss"],
                "accuracy": history[-1]["accuracy"],
                "gradient, first layer": norms[name][0],
                "last convolution": norms[name][-1],
                "first layer, epoch 1": history[0]["gradient"],
            }
            for name, history in histories.items()
        ],
        model=network,
        draw=lambda: draw(norms, histories),
    )


if __name__ == "__main__":
    main(run)
