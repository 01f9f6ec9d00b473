"""LeNet-5: convolutions that share their weights, against a network that does not.

An edge is an edge wherever it is. A convolution looks for it everywhere with the same few weights, and pooling makes
its exact position matter less; a fully connected layer has a weight for every pixel, and learns each position anew.
That pays once pictures are moved: shown digits that are shifted by up to four pixels, in training and in testing,
LeNet reads more of them than a fully connected network of as many weights. Where all digits are centered the two
tie, and a LeNet that was shown those alone fails on shifted ones too: two poolings forget a pixel or two, not four.

(The paper's pooling has weights too, its second convolution leaves out some connections, and its output compares
with drawn digits. Without these, the network has the 61,706 parameters that are usually given.)

Notes: 81
Paper: LeCun, Bottou, Bengio, Haffner (1998), "Gradient-Based Learning Applied to Document Recognition",
    http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf
Data: handwritten digits (UCI), 8×8 pixels, enlarged to 32×32; yours as IDX files, a folder a class,
    torchvision:NAME, or Datasets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure, show_picture
from recipes.core.frame import Claim, Loop, Options, Result, batches, main, option, recipe
from recipes.core.measure import parameter_count
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate, result_of, shifted
from recipes.vision.classification.using import Classification
from recipes.vision.pixels import evenly


@dataclass(kw_only=True)
class LeNetOptions(Options):
    model: Literal["lenet", "mlp"] = option("lenet", "lenet, or one hidden layer with as many parameters")
    shift: bool = option(True, "move each training picture at random by up to 4 pixels")
    epochs: int = 12
    batch_size: int = 32
    lr: float = 5e-3


class LeNet(nn.Sequential):
    """Three 5×5 convolutions with tanh, means over 2×2 pixels after the first two, and two linear layers."""

    def __init__(self, channels: int = 1, num_classes: int = 10) -> None:
        super().__init__(  # pictures (batch, channels, 32, 32)
            nn.Conv2d(channels, 6, 5),  # (batch, 6, 28, 28)
            nn.Tanh(),
            nn.AvgPool2d(2),  # (batch, 6, 14, 14)
            nn.Conv2d(6, 16, 5),  # (batch, 16, 10, 10)
            nn.Tanh(),
            nn.AvgPool2d(2),  # (batch, 16, 5, 5)
            nn.Conv2d(16, 120, 5),  # (batch, 120, 1, 1)
            nn.Tanh(),
            nn.Flatten(),  # (batch, 120)
            nn.Linear(120, 84),
            nn.Tanh(),
            nn.Linear(84, num_classes),
        )


class MLP(nn.Sequential):
    """One hidden layer on all pixels, wide enough to have about as many parameters."""

    def __init__(self, channels: int, num_classes: int, *, parameters: int) -> None:
        pixels = channels * 32 * 32
        hidden = round((parameters - num_classes) / (pixels + 1 + num_classes))
        super().__init__(nn.Flatten(), nn.Linear(pixels, hidden), nn.Tanh(), nn.Linear(hidden, num_classes))


def build(options: LeNetOptions, data: Images | ImageFiles) -> nn.Module:
    """The network for channels and classes like these."""
    lenet = LeNet(data.shape[0], len(data.classes))
    if options.model == "lenet":
        return lenet
    return MLP(data.shape[0], len(data.classes), parameters=sum(one.numel() for one in lenet.parameters()))


def train(
    model: nn.Module, train_set: Images | ImageFiles, test_set: Images | ImageFiles, options: LeNetOptions
) -> Loop:
    """Minimizes the cross-entropy with AdamW."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05),
        batches(train_set, options),
        options,
        evaluate=lambda: {"accuracy": evaluate(model, test_set, options.device)["accuracy"]},
    )
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(shifted(images) if options.shift else images), labels))
    return loop


@recipe(LeNetOptions)
def run(options: LeNetOptions) -> Result:
    """Trains LeNet-5 and measures it on held-out pictures."""
    train_set, test_set = open_images(options.data, image_size=32, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return result_of(model, loop, train_set, test_set, bar=0.95)


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    lenet, centered = run(), run(shift=False)
    mlp, centered_mlp = run(model="mlp"), run(model="mlp", shift=False)
    by_training = {"shifted": (lenet, mlp), "as they are": (centered, centered_mlp)}
    lenet.rows = [
        {"network": name, "parameters": parameter_count(result.model), "training pictures": pictures}
        | {"accuracy": result["accuracy"], "on shifted pictures": accuracy_on_shifted(result)}
        for pictures, results in by_training.items()
        for name, result in zip(("LeNet-5", "MLP"), results, strict=True)
    ]
    convolved, connected, convolved_centered, _ = (row["on shifted pictures"] for row in lenet.rows)
    text = "on shifted pictures, it makes less than two thirds of the mistakes of a fully connected network"
    yield Claim(text, 1 - convolved, "<", 2 / 3 * (1 - connected), margin=0.015)
    text = "without shifts in training, convolutions too recognize shifted pictures less often"
    yield Claim(text, convolved_centered, "<", convolved, margin=0.15)


@torch.no_grad()
def accuracy_on_shifted(result: Result, draws: int = 5) -> float:
    """The mean over so many draws of shifts of (at most 1000) held-out pictures."""
    device = next(result.model.parameters()).device
    images, labels = (
        one.to(device) for one in result.test_set.__getitems__(evenly(len(result.test_set), 1000).tolist())
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        moved = [shifted(images.cpu()).to(device) for _ in range(draws)]
    result.model.eval()
    return sum((result.model(one).argmax(dim=1) == labels).double().mean().item() for one in moved) / draws


@run.figure
@torch.no_grad()
def figure(result: Result) -> Any:
    """Accuracy over the epochs, with and without convolutions, and what the two of LeNet make of a picture."""
    drawn, axes = new_figure(1, 4, width=3.0, height=2.8)
    axes[0, 0].set_ylim(0.5, 1)
    for name, one in {"LeNet-5": result, "MLP": result.runs.get("model=mlp")}.items():
        history = [] if one is None else one.history
        axes[0, 0].plot([row["epoch"] for row in history], [row["accuracy"] for row in history], label=name)
    axes[0, 0].set(xlabel="epoch", title="held-out accuracy")
    axes[0, 0].legend(frameon=False)
    image = result.test_set.__getitems__([0])[0].to(next(result.model.parameters()).device)
    show_picture(axes[0, 1], mosaic(image[0].mean(dim=0, keepdim=True), 1), "a held-out picture")
    layers = list(result.model)
    first, second = (nn.Sequential(*layers[:end])(image)[0] for end in (2, 5))  # (6, 28, 28), (16, 10, 10)
    show_picture(axes[0, 2], mosaic(first, 3), "after the first convolution")
    show_picture(axes[0, 3], mosaic(second, 4), "after the second")
    return drawn


def mosaic(maps: Tensor, columns: int) -> Tensor:
    """Maps (N, height, width), each stretched to 0 to 1, as one picture (1, H, W) with gaps of a pixel."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    framed = F.pad((maps - low) / (high - low).clamp(min=1e-6), (1, 1, 1, 1), value=1.0)  # (N, height + 2, width + 2)
    return torch.cat([torch.cat(list(row), dim=1) for row in framed.split(columns)]).unsqueeze(0)


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
