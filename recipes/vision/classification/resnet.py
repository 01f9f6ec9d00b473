"""Residual networks, and the same depth without the shortcuts.

A layer added to a network could copy its input and do no harm, yet a plain network of 50 layers fits even its
training pictures worse than a shallow one does. A residual block computes x + f(x) where a plain one computes f(x):
to copy, f need only be zero, and on the way back the sum hands the gradient on unchanged, where plain layers with
batch norm enlarge it at each step (https://arxiv.org/abs/1902.08129).

The bundled digits do not need such depth: a plain network of 8 layers reads them as well. And shortcuts help to
fit, not to generalize: with few pictures the network learns those by heart.

Notes: 50
Paper: He, Zhang, Ren, Sun (2015), "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import (
    Claim,
    InputError,
    Loop,
    Options,
    Precision,
    Result,
    batches,
    hold_out,
    main,
    option,
    recipe,
)
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate, result_of, shifted
from recipes.vision.classification.using import Classification


@dataclass(kw_only=True)
class ResNetOptions(Options):
    model: Literal["small", "resnet18", "resnet34", "resnet50"] = option(
        "small", "small for pictures of 8 to 64 pixels, the others for larger ones"
    )
    depth: int = option(50, "layers of the small network, 6n + 2: n blocks in each of three stages", least=8)
    residual: bool = option(True, "add each block's input to its output")
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    share: float = option(1.0, "share of the training pictures to learn from", above=0, most=1)
    epochs: int = 9
    batch_size: int = 64
    lr: float = 5e-3
    precision: Precision = "auto"
    channels_last: bool = True


class BasicBlock(nn.Module):
    """f(x) is two 3×3 convolutions; the block gives relu(x + f(x)), or relu(f(x)) if not `residual`."""

    expansion = 1  # channels going out for each of `width`

    def __init__(self, channels: int, width: int, stride: int, residual: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        nn.init.constant_(self.bn2.weight, 0.05)  # starts as almost a copy (https://arxiv.org/abs/1706.02677)
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
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        # As torchvision does, the stride is in the second convolution; the paper has it in the first.
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        nn.init.constant_(self.bn3.weight, 0.05)
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
    """A stem, stages of blocks, the mean over the picture, and one linear layer, with torchvision's names.

    Args:
        block: BasicBlock or Bottleneck.
        blocks: number of blocks in each stage; each stage after the first halves the picture and doubles the channels.
        channels: of the pictures.
        num_classes: of the last layer.
        width: channels of the first stage.
        small_pictures: start with one 3×3 convolution, not the 7×7 and the pooling that divide the size by four.
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
        kernel, stride, padding = (3, 1, 1) if small_pictures else (7, 2, 3)
        parts["conv1"] = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
        parts["bn1"], parts["relu"] = nn.BatchNorm2d(width), nn.ReLU()
        if not small_pictures:
            parts["maxpool"] = nn.MaxPool2d(3, stride=2, padding=1)
        reached = width
        for stage, count in enumerate(blocks):
            out = width * 2**stage * block.expansion
            layers = [block(reached, width * 2**stage, 2 if stage > 0 else 1, residual)]
            layers += [block(out, width * 2**stage, 1, residual) for _ in range(count - 1)]
            parts[f"layer{stage + 1}"] = nn.Sequential(*layers)
            reached = out
        parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()  # (batch, channels)
        parts["fc"] = nn.Linear(reached, num_classes)
        super().__init__(parts)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, images: Tensor) -> list[Tensor]:
        """The maps after each stage, finest first: as a backbone, what detectors and segmenters build on."""
        x, maps = images, []
        for name, part in list(self.named_children())[:-3]:  # without pooling, flattening and the last layer
            x = part(x)
            if name.startswith("layer"):
                maps.append(x)  # (batch, width · expansion · 2^stage, height / 2^stage, width / 2^stage)
        return maps


resnet18 = partial(ResNet, BasicBlock, [2, 2, 2, 2])
resnet34 = partial(ResNet, BasicBlock, [3, 4, 6, 3])
resnet50 = partial(ResNet, Bottleneck, [3, 4, 6, 3])


def small_resnet(depth: int = 50, **options: Any) -> ResNet:
    """The paper's network for small pictures (section 4.2): three stages of 16, 32 and 64 channels."""
    if depth < 8 or depth % 6 != 2:
        raise InputError(f"option depth: expected 8, 14, 20 and so on in steps of 6, got {depth}")
    return ResNet(BasicBlock, [(depth - 2) // 6] * 3, width=16, small_pictures=True, **options)


def build(options: ResNetOptions, data: Images | ImageFiles) -> ResNet:
    """The network for pictures and classes like these."""
    if min(data.shape[1:]) < 2:
        raise InputError("data: pictures of one pixel, expected at least 2 pixels a side; image_size enlarges them")
    named = {"small": partial(small_resnet, options.depth), "resnet18": resnet18, "resnet34": resnet34}
    make = (named | {"resnet50": resnet50})[options.model]
    return make(channels=data.shape[0], num_classes=len(data.classes), residual=options.residual)


def train(
    model: nn.Module, train_set: Images | ImageFiles, test_set: Images | ImageFiles, options: ResNetOptions
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


@recipe(ResNetOptions)
def run(options: ResNetOptions) -> Result:
    """Trains a residual network and measures it on held-out pictures."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    if options.share < 1:
        train_set, _ = hold_out(train_set, 1 - options.share, options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return result_of(model, loop, train_set, test_set, bar=0.97)


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    residual, plain = run(), run(residual=False)
    fit, plain_fit = (one.history[-1]["loss"] for one in (residual, plain))
    options = residual.options
    if options["model"] == "small" and options["depth"] > 8:
        shallow = run(residual=False, depth=8).history[-1]["loss"]
        text = "without shortcuts, the network fits its training pictures worse than one of 8 layers"
        yield Claim(text, plain_fit, ">", shallow, margin=0.5)
    yield Claim("with shortcuts, its training loss is lower", fit, "<", plain_fit, margin=0.5)
    yield Claim("and its held-out accuracy higher", residual["accuracy"], ">", plain["accuracy"], margin=0.2)
    norms = zip(gradients(residual, residual=True), gradients(residual, residual=False), strict=True)
    rows = [{"convolution": i, "gradient at the start": one, "plain": other} for i, (one, other) in enumerate(norms, 1)]
    residual.rows = rows[:: max(1, len(rows) // 6)]
    text = "before training, the gradient at the first layer is 10 times as large without them"
    yield Claim(text, rows[0]["plain"], ">", 10 * rows[0]["gradient at the start"], kind="fact")
    steps = options["steps"] or options["epochs"] * max(1, len(residual.train_set) // options["batch_size"])
    few = run(share=options["share"] / 10, steps=steps)
    text = "from a tenth of the pictures, in as many steps, held-out loss ends further above training loss"
    yield Claim(text, gap(few), ">", gap(residual), margin=0.04)


def gap(result: Result) -> float:
    """How much the held-out loss is above that on (about 2000 of) the training pictures, in nats."""
    known = result.train_set.subset(range(0, len(result.train_set), 1 + len(result.train_set) // 2000))
    return result["loss"] - evaluate(result.model, known, next(result.model.parameters()).device)["loss"]


def gradients(result: Result, *, residual: bool) -> list[float]:
    """Norm of the loss's gradient at each convolution before training, first to last, projections left out."""
    options = ResNetOptions(residual=residual, **{name: result.options[name] for name in ("model", "depth", "seed")})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = build(options, result.train_set)
    images, labels = result.train_set.__getitems__(range(0, len(result.train_set), 1 + len(result.train_set) // 32))
    loss = F.cross_entropy(network(images.cpu()), labels.cpu())
    parts = [(name, part.weight) for name, part in network.named_modules() if isinstance(part, nn.Conv2d)]
    weights = [weight for name, weight in parts if "downsample" not in name]
    return [gradient.norm().item() for gradient in torch.autograd.grad(loss, weights)]


@run.figure
def figure(result: Result) -> Any:
    """Loss and accuracy over the epochs, with shortcuts and without; the gradients over the layers before training."""
    drawn, axes = new_figure(1, 3, width=3.4)
    for name, one in {"residual": result, "plain": result.runs.get("residual=False")}.items():
        history = [] if one is None else one.history
        for panel, metric in zip(axes[0], ("loss", "accuracy"), strict=False):
            panel.plot([row["epoch"] for row in history], [row[metric] for row in history], label=name)
    for metric in ("gradient at the start", "plain"):
        axes[0, 2].plot([row["convolution"] for row in result.rows], [row[metric] for row in result.rows])
    axes[0, 0].set(title="training loss", xlabel="epoch")
    axes[0, 1].set(title="held-out accuracy", xlabel="epoch")
    axes[0, 2].set(title="gradient before training", xlabel="convolution", yscale="log")
    axes[0, 0].legend(frameon=False)
    return drawn


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
