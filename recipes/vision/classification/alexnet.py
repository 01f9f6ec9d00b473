"""AlexNet: rectifiers that do not saturate, and dropout.

Where tanh is flat its gradient is near zero and learning stalls; max(0, x) has slope 1 however large x is. The paper
needed six times fewer steps with it. Here they differ by less than two: weights initialized to preserve variance, and
Adam, are later answers to the same trouble.

Dropout zeroes half of the inputs of two linear layers, others in every step, so that no neuron can rely on a certain
other one. The network then learns less by heart, which shows where 3 of 10 labels are wrong: without dropout it learns
these too, and errs on new pictures. Where all labels are right, dropout costs more than it gains on these pictures.

Notes: 81
Paper: Krizhevsky, Sutskever, Hinton (2012), "ImageNet Classification with Deep Convolutional Neural Networks",
    https://papers.nips.cc/paper/4824; in the version for one GPU (2014), https://arxiv.org/abs/1404.5997
Data: handwritten digits (UCI), 8×8 pixels, enlarged to 16×16; yours as IDX files, a folder a class,
    torchvision:NAME, or Datasets.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, Loop, Options, Result, batches, main, option, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate, result_of, shifted
from recipes.vision.classification.using import Classification


@dataclass(kw_only=True)
class AlexNetOptions(Options):
    width: int = option(12, "channels of the first convolution; the paper's network has 64", least=1)
    activation: Literal["relu", "tanh"] = option("relu", "after every layer but the last")
    dropout: float = option(0.5, "share of the linear layers' inputs that is zeroed in training", least=0, below=1)
    image_size: int = option(16, "side of pictures in pixels; from 64 on the network starts as the paper's", least=15)
    shift: bool = option(True, "move each training picture at random by up to an eighth of its side")
    wrong: float = option(0.0, "share of the training pictures that get a wrong label", least=0, below=1)
    epochs: int = 12
    lr: float = 2e-3


class AlexNet(nn.Module):
    """Five convolutions, three poolings, and three linear layers, with torchvision's names.

    `small_pictures` start with a 3×3 convolution, instead of the 11×11 with stride 4 that suits 224 pixels, and end
    in a single cell instead of 6×6. All other channels are multiples of the first convolution's, `width`.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        num_classes: int = 1000,
        width: int = 64,
        activation: type[nn.Module] = nn.ReLU,
        dropout: float = 0.5,
        small_pictures: bool = False,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(  # sizes for pictures of 224 pixels, and of 16
            nn.Conv2d(channels, width, 3, padding=1) if small_pictures else nn.Conv2d(channels, width, 11, 4, 2),
            activation(),  # (batch, width, 55, 55), or 16×16
            nn.MaxPool2d(3, stride=2),  # 27×27, or 7×7
            nn.Conv2d(width, 3 * width, 5, padding=2),
            activation(),
            nn.MaxPool2d(3, stride=2),  # 13×13, or 3×3
            nn.Conv2d(3 * width, 6 * width, 3, padding=1),
            activation(),
            nn.Conv2d(6 * width, 4 * width, 3, padding=1),
            activation(),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1),
            activation(),
            nn.MaxPool2d(3, stride=2),  # (batch, 4 * width, 6, 6), or 1×1
        )
        side = 1 if small_pictures else 6
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(4 * width * side * side, 64 * width),
            activation(),
            nn.Dropout(dropout),
            nn.Linear(64 * width, 64 * width),
            activation(),
            nn.Linear(64 * width, num_classes),
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):  # preserves variance through the layers
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu" if activation is nn.ReLU else "tanh")

    def forward(self, images: Tensor) -> Tensor:
        features = self.avgpool(self.features(images))  # (batch, 4 * width, 6, 6)
        return self.classifier(features.flatten(1))  # (batch, num_classes)


def build(options: AlexNetOptions, data: Images | ImageFiles) -> AlexNet:
    """The network for pictures and classes like these."""
    return AlexNet(
        channels=data.shape[0],
        num_classes=len(data.classes),
        width=options.width,
        activation=nn.ReLU if options.activation == "relu" else nn.Tanh,
        dropout=options.dropout,
        small_pictures=options.image_size < 64,
    )


def train(
    model: AlexNet, train_set: Images | ImageFiles, test_set: Images | ImageFiles, options: AlexNetOptions
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
        loop.step(F.cross_entropy(loop.model(shifted(images) if options.shift else images), labels))
    return loop


@recipe(AlexNetOptions)
def run(options: AlexNetOptions) -> Result:
    """Trains an AlexNet and measures it on held-out pictures."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    chosen, classes = torch.randperm(len(train_set))[: round(options.wrong * len(train_set))], len(train_set.classes)
    train_set.labels[chosen] = (train_set.labels[chosen] + torch.randint(1, max(2, classes), (len(chosen),))) % classes
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return result_of(model, loop, train_set, test_set, bar=0.94)


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    fast = {kind: run(activation=kind, dropout=0.0) for kind in ("relu", "tanh")}
    losses = {kind: [row["loss"] for row in one.history] for kind, one in fast.items()}
    halfway = losses["relu"][(len(losses["relu"]) - 1) // 2]
    text = "with preserved variance and Adam, tanh takes less than twice the epochs of ReLU to the same loss"
    yield Claim(text, losses["tanh"][-1], "<", min(halfway, 0.5 * math.log(len(run().train_set.classes))), margin=0.05)
    right = {run().options["dropout"]: run(), 0.0: fast["relu"]}
    longer = {"wrong": 0.3, "shift": False, "epochs": 2 * run().options["epochs"]}
    wrong = {dropout: run(dropout=dropout, **longer) for dropout in (0.5, 0.0)}
    run().rows = [
        {"labels": name, "dropout": dropout, "accuracy": one["accuracy"], "in training": fitted(one)}
        for name, runs in (("right", right), ("3 of 10 wrong", wrong))
        for dropout, one in runs.items()
    ]
    text = "where 3 of 10 labels are wrong, dropout fits fewer training labels"
    yield Claim(text, fitted(wrong[0.5]), "<", fitted(wrong[0.0]), margin=0.05)
    text = "and recognizes more held-out pictures"
    yield Claim(text, wrong[0.5]["accuracy"], ">", wrong[0.0]["accuracy"], margin=0.03)


def fitted(result: Result) -> float:
    """Accuracy, without dropout, on (about 2000 of) the pictures and labels it learned from."""
    known = result.train_set.subset(range(0, len(result.train_set), 1 + len(result.train_set) // 2000))
    return evaluate(result.model, known, next(result.model.parameters()).device)["accuracy"]


@run.figure
def figure(result: Result) -> Any:
    """Training loss with each activation, and held-out accuracy with wrong labels, with dropout and without."""
    drawn, axes = new_figure(1, 2, width=4.4)
    for label, one in result.runs.items():
        if "activation" in label:
            epochs, losses = ([row[key] for row in one.history] for key in ("epoch", "loss"))
            axes[0, 0].plot(epochs, losses, label="ReLU" if "relu" in label else "tanh")
        elif "wrong" in label:
            name = f"dropout {one.options['dropout']:g}, 3 of 10 labels wrong"
            epochs, accuracies = ([row[key] for row in one.history] for key in ("epoch", "accuracy"))
            axes[0, 1].plot(epochs, accuracies, label=name)
    axes[0, 0].set(title="training loss", xlabel="epoch", yscale="log")
    axes[0, 1].set(title="held-out accuracy", xlabel="epoch", ylim=(0.5, 1))
    for panel in axes[0]:
        panel.legend(frameon=False, fontsize=8)
    return drawn


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
