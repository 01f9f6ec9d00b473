"""Image classification with a small convolutional network.

The six steps of every classifier, each a few lines: data, model, loss, optimizer, train, test. The network is
three convolutions, with the picture halved between them; what is left of it is reduced to the maxima of a grid of
3×3 cells, so pictures of any size fit. Any network of timm or torchvision, or one of your own, takes its place.

On eight-by-eight digits that sit in the middle of their picture, comparing pixels does as well. A convolution looks
for its pattern everywhere, and pooling forgets where it was: moved by a pixel, the digits are still read.

Notes: 42, 81
Paper: LeCun, Bottou, Bengio, Haffner (1998), "Gradient-Based Learning Applied to Document Recognition",
    http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, Loop, Options, Precision, Result, batches, main, option, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.averaging import Averaged
from recipes.vision.classification.models import fine_tuning_of, other_model
from recipes.vision.classification.scoring import draw, evaluate
from recipes.vision.classification.using import Classification
from recipes.vision.pixels import evenly, flat, linear_classifier, nearest_classes, nearest_neighbor


@dataclass(kw_only=True)
class ClassificationOptions(Options):
    model: Any = option("small_cnn", "small_cnn, timm:NAME, torchvision:NAME, or an nn.Module of yours")
    weights: str | None = option(None, "to start a model by name from: pretrained, a file, or a name", copied=False)
    width: int = option(24, "channels of the small_cnn's first layer", least=1)
    image_size: int | None = option(
        None, "side in pixels that pictures are resized to; their own if not given", least=1
    )
    epochs: int = 5
    batch_size: int = 96
    lr: float = 7e-3
    precision: Precision = "auto"
    channels_last: bool = True


class SmallCNN(nn.Module):
    """Three 3×3 convolutions with pooling, batch norm and ReLU, then one linear layer.

    Pooling comes first, so that batch norm and ReLU, which cost as much as a convolution, have a quarter to do.
    """

    def __init__(self, channels: int, num_classes: int, *, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False),
            PoolTo(3),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
        )
        self.head = nn.Linear(9 * 4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)  # (batch, 4 * width, 3, 3)
        return self.head(features.flatten(1))  # (batch, num_classes)


class PoolTo(nn.Module):
    """Maxima in `side` by `side` cells of maps of any size: an nn.AdaptiveMaxPool2d that can be exported."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, features: Tensor) -> Tensor:
        lacking = [max(0, self.side - length) for length in features.shape[2:]]
        features = F.pad(features, (0, lacking[1], 0, lacking[0]), mode="replicate") if any(lacking) else features
        steps = [length // self.side for length in features.shape[2:]]
        cells = [n - (self.side - 1) * step for n, step in zip(features.shape[2:], steps, strict=True)]
        return F.max_pool2d(features, cells, steps)


def early_peak(progress: float) -> float:
    """A learning rate that rises over the first twentieth of training and falls to zero from there."""
    return min(progress / 0.05 + 0.02, 1.0) * (1 - progress)


def build(options: ClassificationOptions, data: Images | ImageFiles) -> nn.Module:
    """The network that the options name, for pictures and classes like these."""
    return other_model(options, data) or SmallCNN(data.shape[0], len(data.classes), width=options.width)


def train(
    model: nn.Module, train_set: Images | ImageFiles, test_set: Images | ImageFiles, options: ClassificationOptions
) -> Loop:
    """Minimizes the cross-entropy with AdamW; the model ends with the average of its recent weights."""
    learner = Averaged(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05, fused=True)
    loop = Loop(
        learner,
        optimizer,
        batches(train_set, options),
        options,
        schedule=early_peak,
        evaluate=lambda: evaluate(learner, test_set, options.device),
    )
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(images), labels))
        learner.update()
    learner.settle()
    return loop


@recipe(ClassificationOptions)
def run(options: ClassificationOptions) -> Result:
    """Trains a classifier and measures it on held-out pictures."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=linear_classifier(train_set, test_set),
        baseline_name="linear classifier on pixels",
        others={"nearest neighbor on pixels": nearest_neighbor(train_set, test_set)},
        bars={"accuracy": 0.97},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    chance = math.log(len(result.train_set.classes))
    text = "training brings the loss far below that of guessing, ln(classes)"
    yield Claim(text, result["loss"], "<", chance, margin=0.5 * chance)
    images, labels = result.test_set.__getitems__(evenly(len(result.test_set), 1000).tolist())
    result.model.eval()
    by_network, by_pixels = 0.0, 0.0
    for moved in (images.roll(step, dims=axis) for step in (-1, 1) for axis in (2, 3)):
        with torch.no_grad():
            found = result.model(moved.to(next(result.model.parameters()).device)).argmax(dim=1).cpu()
        by_network += (found == labels).double().mean().item() / 4
        by_pixels += (nearest_classes(result.train_set, flat(moved)) == labels).double().mean().item() / 4
    result.rows = [
        {"moved by a pixel": "this recipe", "accuracy": by_network},
        {"moved by a pixel": "nearest neighbor on pixels", "accuracy": by_pixels},
    ]
    text = "moved by a pixel, pictures are recognized more often than by their nearest neighbor in pixels"
    yield Claim(text, by_network, ">", by_pixels, margin=0.05)


@run.figure
def figure(result: Result) -> Any:
    return draw(result.model, result.test_set, next(result.model.parameters()).device, result.history)


run.predicts(Classification, build, fine_tuning_of)


if __name__ == "__main__":
    main(run)
