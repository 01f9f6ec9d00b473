"""VGG: nothing but 3×3 convolutions, and why two of them replace a 5×5.

The second of two 3×3 convolutions sees, through the first, a field of 5×5 pixels. For C channels in and out the two
have 18 C² weights where the 5×5 has 25 C², and a nonlinearity more. The paper's network B lost 7 points with 5×5
in their place; the bundled digits do not need the depth, and both networks read them equally well.

Notes: 81
Paper: Simonyan, Zisserman (2014), "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    https://arxiv.org/abs/1409.1556
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Precision, Result, batches, main, option, recipe
from recipes.core.measure import macs, parameter_count
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate, result_of, shifted
from recipes.vision.classification.using import Classification


@dataclass(kw_only=True)
class VGGOptions(Options):
    model: Literal["small", "vgg11", "vgg13", "vgg16", "vgg19"] = option("small", "small for sides of 8 to 64 pixels")
    width: int = option(16, "channels of the first stage; the paper's networks have 64", least=1)
    fives: bool = option(False, "one 5×5 convolution in place of each stage's last two 3×3")
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = 15
    lr: float = 5e-3
    precision: Precision = "auto"
    channels_last: bool = True


# Kernels of the convolutions in each stage: the paper's columns A, B, D and E, and one for small pictures.
STAGES: dict[str, list[tuple[int, ...]]] = {
    "vgg11": [(3,), (3,), (3, 3), (3, 3), (3, 3)],
    "vgg13": [(3, 3), (3, 3), (3, 3), (3, 3), (3, 3)],
    "vgg16": [(3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)],
    "vgg19": [(3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)],
    "small": [(3, 3, 3), (3, 3, 3), (3, 3, 3)],
}


def with_fives(stages: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The same stages with one 5×5 in place of the last two 3×3 of each, where it has two."""
    return [(*kernels[:-2], 5) if len(kernels) > 1 else kernels for kernels in stages]


def convolution(channels: int, width: int, kernel: int, *, batch_norm: bool) -> list[nn.Module]:
    """A convolution that keeps the picture's size, batch norm if wanted, and ReLU."""
    norm: list[nn.Module] = [nn.BatchNorm2d(width)] if batch_norm else []
    return [nn.Conv2d(channels, width, kernel, padding=kernel // 2), *norm, nn.ReLU()]


class VGG(nn.Module):
    """Stages of convolutions, each ended by pooling, then three linear layers, with torchvision's names.

    Each stage has twice the channels of the one before, up to eight times the first's, which has `width`.

    Args:
        stages: for each stage the kernel sizes of its convolutions.
        hidden: neurons of the first two linear layers.
        grid: the last stage's maps are averaged to this many cells along a side.
        dropout: share of the inputs of the last two linear layers that is left out.
        batch_norm: normalize after every convolution, which came after the paper and makes training easier.
    """

    def __init__(
        self,
        stages: list[tuple[int, ...]],
        *,
        channels: int = 3,
        num_classes: int = 1000,
        width: int = 64,
        hidden: int = 4096,
        grid: int = 7,
        dropout: float = 0.5,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        reached = channels
        for stage, kernels in enumerate(stages):
            out = width * min(2**stage, 8)
            for kernel in kernels:
                layers += convolution(reached, out, kernel, batch_norm=batch_norm)
                reached = out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(grid)
        first = [nn.Linear(reached * grid * grid, hidden), nn.ReLU(), nn.Dropout(dropout)]
        second = [nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.classifier = nn.Sequential(*first, *second, nn.Linear(hidden, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # preserves variance through the layers
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:  # (batch, channels, height, width)
        features = self.avgpool(self.features(images))  # (batch, 8 * width, grid, grid)
        return self.classifier(features.flatten(1))  # (batch, num_classes)


def build(options: VGGOptions, data: Images | ImageFiles) -> VGG:
    """The network for pictures and classes like these."""
    stages, channels, num_classes = STAGES[options.model], data.shape[0], len(data.classes)
    if min(data.shape[1:]) < 2 ** len(stages):
        raise InputError(f"option model: {options.model} expects pictures of at least {2 ** len(stages)} pixels a side")
    head = {"hidden": 64 * options.width} if options.model != "small" else {"hidden": 128, "grid": 1, "dropout": 0.2}
    stages = with_fives(stages) if options.fives else stages
    return VGG(stages, channels=channels, num_classes=num_classes, width=options.width, batch_norm=True, **head)


def train(model: nn.Module, train_set: Images | ImageFiles, test_set: Images | ImageFiles, options: VGGOptions) -> Loop:
    """Minimizes the cross-entropy with AdamW, on pictures that are shifted at random."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05),
        batches(train_set, options),
        options,
        evaluate=lambda: {"accuracy": evaluate(model, test_set, options.device)["accuracy"]},
    )
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(shifted(images)), labels))
    return loop


@recipe(VGGOptions)
def run(options: VGGOptions) -> Result:
    """Trains a VGG and measures it on held-out pictures."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return result_of(model, loop, train_set, test_set, bar=0.96)


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    threes, fives = run(), run(fives=True)
    exchanged = exchanged_layers(threes.options["width"])
    fields = {name: int((field_of_view(layers) > 0).any(dim=0).sum()) for name, layers in exchanged.items()}
    weights = {name: parameter_count(layers) for name, layers in exchanged.items()}
    image = threes.test_set.__getitems__([0])[0].to(next(threes.model.parameters()).device)
    threes.rows = [
        {"network with": name, "field of view": fields[name], "parameters": parameter_count(one.model)}
        | {"macs": macs(one.model, image), "accuracy": one["accuracy"], "training loss": one.history[-1]["loss"]}
        for name, one in zip(fields, (threes, fives), strict=True)
    ]
    text = "two 3×3 convolutions depend on a field of pixels as wide as one 5×5 does"
    yield Claim(text, fields["two 3×3"], ">=", fields["one 5×5"], kind="fact")
    text = "they have at most three quarters of its parameters"
    yield Claim(text, weights["two 3×3"], "<", 0.75 * weights["one 5×5"], kind="fact")
    text = "with them, as many pictures are recognized, within three points, and more than by a linear classifier"
    least = max(fives["accuracy"] - 0.03, threes.baseline["accuracy"])
    yield Claim(text, threes["accuracy"], ">", least, margin=0.005)


def exchanged_layers(width: int) -> dict[str, nn.Sequential]:
    """What the two networks differ in, alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        once, twice, wide = (convolution(width, width, kernel, batch_norm=False) for kernel in (3, 3, 5))
    return {"two 3×3": nn.Sequential(*once, *twice), "one 5×5": nn.Sequential(*wide)}


def field_of_view(layers: nn.Sequential, size: int = 15) -> Tensor:
    """How much the center of the output depends on each pixel of the input: (size, size), zero where it does not.

    Gradients of 64 random inputs are added up, since ReLU and pooling let only some of them pass.
    """
    channels = next(layers.parameters()).shape[1]
    images = torch.randn(64, channels, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    outputs = layers.eval()(images)  # in training, batch norm would let every position depend on all others
    center = outputs[:, :, outputs.shape[2] // 2, outputs.shape[3] // 2]  # (64, channels going out)
    (gradients,) = torch.autograd.grad(center.sum(), images)
    return gradients.abs().sum(dim=(0, 1))


@run.figure
def figure(result: Result) -> Any:
    """Both networks' loss and accuracy over the epochs, and how much their exchanged layers depend on each pixel."""
    drawn, axes = new_figure(1, 4, width=3.0, height=2.8)
    for name, one in {"two 3×3": result, "one 5×5": result.runs.get("fives=True")}.items():
        history = [] if one is None else one.history
        for panel, metric in zip(axes[0], ("loss", "accuracy"), strict=False):
            panel.plot([row["epoch"] for row in history], [row[metric] for row in history], label=name)
    axes[0, 0].set(title="training loss", xlabel="epoch", yscale="log")
    axes[0, 1].set(title="held-out accuracy", xlabel="epoch")
    axes[0, 0].legend(frameon=False)
    for panel, (name, layers) in zip(axes[0, 2:], exchanged_layers(16).items(), strict=True):
        panel.imshow(field_of_view(layers).numpy(), cmap="Blues")
        panel.set(title=f"field of view, {name}", xlabel="pixel")
    return drawn


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
