"""DenseNet: every layer sees what all layers before it made.

A layer of a dense block takes the maps of all earlier layers, concatenated, and adds a few of its own (the growth
rate). What was found once need not be found again or handed on: it stays in reach. So layers can be narrow, and the
network has fewer parameters than a residual one that is as accurate. Between blocks, a transition halves the channels
and the maps. Every convolution comes after its batch norm and ReLU, and a 1×1 before each 3×3 reduces the channels.

What a trained layer takes from each earlier one is seen in its weights, and in what is lost when all but the nearest
are silenced. Fewer parameters are not less time: concatenated maps are read again by every layer.

Notes: 84
Paper: Huang, Liu, van der Maaten, Weinberger (2016), "Densely Connected Convolutional Networks",
    https://arxiv.org/abs/1608.06993
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, main, option, recipe
from recipes.core.measure import macs, parameter_count
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.resnet import small_resnet
from recipes.vision.classification.scoring import evaluate, result_of, shifted
from recipes.vision.classification.using import Classification


@dataclass(kw_only=True)
class DenseNetOptions(Options):
    model: Literal["small", "densenet121", "densenet169", "densenet201"] = option(
        "small", "small for pictures of 8 to 64 pixels, the others for larger ones"
    )
    growth: int = option(8, "maps that each layer of the small network adds", least=1)
    layers: int = option(4, "layers in each of the small network's three blocks", least=1)
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = 10
    batch_size: int = 64
    lr: float = 1e-2


class DenseLayer(nn.Sequential):
    """Batch norm, ReLU and a 1×1 to few channels, then batch norm, ReLU and a 3×3 to `growth` more maps."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(channels), nn.ReLU()
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(4 * growth), nn.ReLU()
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, height, width)
        return torch.cat([x, super().forward(x)], dim=1)  # (batch, channels + growth, height, width)


class Transition(nn.Sequential):
    """Half the channels, by a 1×1, and half the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.relu = nn.BatchNorm2d(channels), nn.ReLU()
        self.conv, self.pool = nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)


class DenseNet(nn.Module):
    """A convolution, dense blocks with transitions between them, the mean over the picture, and one linear layer.

    By default it is DenseNet-121, with torchvision's names.

    Args:
        blocks: number of layers in each block.
        channels: of the pictures.
        num_classes: of the last layer.
        growth: maps that each layer adds.
        small_pictures: start with one 3×3 convolution, not the 7×7 and the pooling that divide the size by four.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (6, 12, 24, 16),
        *,
        channels: int = 3,
        num_classes: int = 1000,
        growth: int = 32,
        small_pictures: bool = False,
    ) -> None:
        super().__init__()
        reached = 2 * growth
        kernel, stride, padding = (3, 1, 1) if small_pictures else (7, 2, 3)
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv0"] = nn.Conv2d(channels, reached, kernel, stride, padding, bias=False)
        parts["norm0"], parts["relu0"] = nn.BatchNorm2d(reached), nn.ReLU()
        if not small_pictures:
            parts["pool0"] = nn.MaxPool2d(3, stride=2, padding=1)
        for number, count in enumerate(blocks, 1):
            layers = [(f"denselayer{i + 1}", DenseLayer(reached + i * growth, growth)) for i in range(count)]
            parts[f"denseblock{number}"] = nn.Sequential(OrderedDict(layers))
            reached += count * growth
            if number < len(blocks):
                parts[f"transition{number}"] = Transition(reached)
                reached //= 2
        parts["norm5"] = nn.BatchNorm2d(reached)
        self.features, self.classifier = nn.Sequential(parts), nn.Linear(reached, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:  # (batch, channels, height, width)
        features = F.relu(self.features(images))  # (batch, reached, height / 32, width / 32)
        return self.classifier(features.mean(dim=(2, 3)))  # (batch, num_classes)


SIZES = {
    "densenet121": ((6, 12, 24, 16), 32),
    "densenet169": ((6, 12, 32, 32), 32),
    "densenet201": ((6, 12, 48, 32), 32),
}


def build(options: DenseNetOptions, data: Images | ImageFiles) -> DenseNet:
    """The network for pictures and classes like these."""
    small = options.model == "small"
    blocks, growth = ([options.layers] * 3, options.growth) if small else SIZES[options.model]
    if min(data.shape[1:]) < (least := 4 if small else 32):
        raise InputError(f"option model: {options.model} expects pictures of at least {least} pixels a side")
    named = {"channels": data.shape[0], "num_classes": len(data.classes)}
    return DenseNet(blocks, growth=growth, small_pictures=small, **named)


def train(
    model: nn.Module, train_set: Images | ImageFiles, test_set: Images | ImageFiles, options: DenseNetOptions
) -> Loop:
    """Minimizes the cross-entropy with AdamW, on pictures that are shifted at random."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05, fused=True),
        batches(train_set, options),
        options,
        evaluate=lambda: {"accuracy": evaluate(model, test_set, options.device)["accuracy"]},
    )
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(shifted(images)), labels))
    return loop


@recipe(DenseNetOptions)
def run(options: DenseNetOptions) -> Result:
    """Trains a DenseNet and measures it on held-out pictures."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return result_of(model, loop, train_set, test_set, bar=0.97)


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    device, cut = next(result.model.parameters()).device, cut_to_the_nearest(result)
    result.rows = [size_of("dense", result.model, result) | {"accuracy": result["accuracy"], "nearest alone": cut}]
    if result.options["model"] == "small":
        residual = residual_network(result)
        scores = evaluate(residual, result.test_set, device)
        result.rows.append(size_of("residual, 14 layers", residual, result) | {"accuracy": scores["accuracy"]})
        dense, other = (row["parameters"] for row in result.rows)
        yield Claim("it has less than a third of a residual network's parameters", dense, "<", other / 3, kind="fact")
        text = "and is as accurate, within three points, and more accurate than a linear classifier"
        least = max(scores["accuracy"] - 0.025, result.baseline["accuracy"])
        yield Claim(text, result["accuracy"], ">", least, margin=0.005)
    text = "layers that see the mean of all maps but the nearest layer's recognize less: features are reused"
    yield Claim(text, result["accuracy"], ">", max(cut, result.baseline["accuracy"] - 0.1), margin=0.1)


def size_of(name: str, model: nn.Module, result: Result) -> dict[str, Any]:
    image = result.test_set.__getitems__([0])[0].to(next(model.parameters()).device)
    return {"network": name, "parameters": parameter_count(model), "macs": macs(model, image)}


def residual_network(result: Result) -> nn.Module:
    """A ResNet trained in as many steps, at the better of two learning rates by training loss."""
    trained: list[tuple[float, int, nn.Module]] = []
    channels, classes = result.train_set.shape[0], len(result.train_set.classes)
    names = ("epochs", "steps", "batch_size", "seed")
    for lr in (result.options["lr"], result.options["lr"] / 2):
        device = next(result.model.parameters()).device
        options = DenseNetOptions(lr=lr, device=device, **{name: result.options[name] for name in names})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            model = small_resnet(14, channels=channels, num_classes=classes).to(device)
            loop = train(model, result.train_set, result.test_set, options)
        trained.append((loop.history[-1]["loss"], len(trained), model))
    return min(trained)[2]


def cut_to_the_nearest(result: Result) -> float:
    """Accuracy if each layer sees, of all maps but those that the layer before it made, the mean alone."""
    hooks = []
    for name, block in result.model.features.named_children():
        for layer in block[1:] if name.startswith("denseblock") else ():
            growth = layer.conv2.out_channels

            def silence(norm: nn.Module, inputs: tuple[Tensor], growth: int = growth) -> tuple[Tensor]:
                mean = norm.running_mean.view(1, -1, 1, 1).expand_as(inputs[0])  # type: ignore[operator]
                return (torch.cat([mean[:, :-growth], inputs[0][:, -growth:]], dim=1),)

            hooks.append(layer.norm1.register_forward_pre_hook(silence))
    accuracy = evaluate(result.model, result.test_set, next(result.model.parameters()).device)["accuracy"]
    for hook in hooks:
        hook.remove()
    return accuracy


def weights_by_source(block: Any) -> Tensor:
    """How much each layer (column) weighs the block's input (row 0) and each earlier layer's maps: (layers, layers)."""
    growth, shares = block[0].conv2.out_channels, torch.full((len(block), len(block)), float("nan"))
    for target, layer in enumerate(block):
        weights = (
            (layer.conv1.weight.abs().mean(dim=(0, 2, 3)) * layer.norm1.weight.abs()).detach().cpu()
        )  # (channels,)
        first = len(weights) - target * growth
        groups = [weights[:first], *weights[first:].split(growth)]
        shares[: target + 1, target] = torch.stack([group.mean() for group in groups[: target + 1]])
    return shares


@run.figure
def figure(result: Result) -> Any:
    """Loss and accuracy over the epochs, and for each dense block what its layers take from the layers before."""
    blocks = [part for name, part in result.model.features.named_children() if name.startswith("denseblock")]
    drawn, axes = new_figure(1, 1 + len(blocks), width=3.2, height=3.0)
    for metric in ("loss", "accuracy"):
        axes[0, 0].plot([row["epoch"] for row in result.history], [row[metric] for row in result.history], label=metric)
    axes[0, 0].set(title="training loss, held-out accuracy", xlabel="epoch")
    axes[0, 0].legend(frameon=False, loc="upper right")
    for number, (panel, block) in enumerate(zip(axes[0, 1:], blocks, strict=True), 1):
        panel.imshow(weights_by_source(block).numpy(), cmap="Blues", vmin=0)
        ticks = range(len(block))
        panel.set(title=f"weights in block {number}", xlabel="layer", ylabel="of input, of earlier layers")
        panel.set(xticks=ticks, xticklabels=[at + 1 for at in ticks], yticks=ticks)
    return drawn


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
