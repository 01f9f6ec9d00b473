"""Image classification with a small convolutional network.

The six steps of every classifier, each a few lines: data, model, loss, optimizer, train, test. The
network is three convolutions with the picture halved between them; whatever is left of it at the end is
reduced to the strongest answers in 3×3 places, so pictures of any size fit. Any network of timm or
torchvision takes its place by name.

Notes: 42, 81
Paper: LeCun, Bottou, Bengio, Haffner (1998), "Gradient-Based Learning Applied to Document Recognition",
    http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import difflib
import math
from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, new_figure, show_picture
from recipes.core.loop import Engine, Loop, one_cycle
from recipes.core.result import Claim, Result, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.datasets.loading import batches
from recipes.options import main
from recipes.vision.classification.averaging import Averaged

# Half precision and channels-last make these convolutions twice as fast where the device has them.
FAST: Engine = {"precision": "auto", "channels_last": True}


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
            nn.AdaptiveMaxPool2d(3),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
        )
        self.head = nn.Linear(9 * 4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)  # (batch, 4 * width, 3, 3)
        return self.head(features.flatten(1))  # (batch, num_classes)


def build_model(name: str, channels: int, num_classes: int, *, width: int = 16) -> nn.Module:
    """The network of that name, with random weights.

    Args:
        name: "small_cnn", "timm:NAME" or "torchvision:NAME".
        channels: of the pictures, 1 or 3.
        num_classes: of the last layer.
        width: channels of the small_cnn's first layer.

    Raises:
        InputError: there is no such network; names the nearest.
    """
    if name == "small_cnn":
        return SmallCNN(channels, num_classes, width=width)
    library, _, model = name.partition(":")
    if library == "timm":
        import timm

        known = timm.list_models()
        if model in known:
            return timm.create_model(model, in_chans=channels, num_classes=num_classes)
    elif library == "torchvision":
        from torchvision import models

        known = models.list_models(module=models)
        if model in known:
            network = models.get_model(model, weights=None, num_classes=num_classes)
            return network if channels == 3 else nn.Sequential(GreyToColour(), network)
    else:
        raise InputError(f"option model: expected small_cnn, timm:NAME or torchvision:NAME, got {name!r}")
    near = difflib.get_close_matches(model, known, n=1)
    raise InputError(f"option model: {library} has no {model!r}" + (f", did you mean {near[0]}?" if near else ""))


class GreyToColour(nn.Module):
    """Repeats the one channel of grey pictures for a network that expects three."""

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1)


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


def early_peak(progress: float) -> float:
    """A learning rate that rises over the first twentieth of training and falls to zero from there."""
    return min(progress / 0.05 + 0.02, 1.0) * (1 - progress)


def train(
    model: nn.Module,
    train_set: Images | ImageFiles,
    test_set: Images | ImageFiles,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    schedule: Callable[[float], float] = one_cycle,
    average: bool = False,
    **engine: Unpack[Engine],
) -> Loop:
    """Minimises the cross-entropy with AdamW; gives the loop, whose history follows both parts.

    With `average` the weights that are tested, and that the model ends with, are averages of recent ones.
    """
    learner = Averaged(model) if average else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05, fused=True)
    loop = Loop(
        learner,
        optimizer,
        batches(train_set, batch_size, seed=seed, workers=2 if isinstance(train_set, ImageFiles) else 0),
        epochs=epochs,
        device=device,
        schedule=schedule,
        evaluate=lambda: evaluate(learner, test_set, device),
        **engine,
    )
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(images), labels)
        loop.step(loss)
        if isinstance(learner, Averaged):
            learner.update()
    if isinstance(learner, Averaged):
        learner.settle()
    return loop


def evaluate(model: nn.Module, dataset: Images | ImageFiles, device: torch.device) -> dict[str, float]:
    """Accuracy and mean cross-entropy (nats) over the whole set."""
    logits = torch.stack(predict(model, dataset, device))  # (N, num_classes)
    labels = dataset.labels.cpu()
    return {
        "accuracy": (logits.argmax(dim=1) == labels).double().mean().item(),
        "loss": F.cross_entropy(logits, labels).item(),
    }


def majority(train_set: Images | ImageFiles, test_set: Images | ImageFiles) -> dict[str, float]:
    """The baseline that looks at no picture: the commonest class, and the loss of the classes' shares."""
    shares = torch.bincount(train_set.labels.cpu(), minlength=len(train_set.classes)) / len(train_set)
    labels = test_set.labels.cpu()
    return {
        "accuracy": (labels == shares.argmax()).double().mean().item(),
        "loss": -shares.clamp(min=1e-9).log()[labels].mean().item(),
    }


def draw(model: nn.Module, dataset: Images | ImageFiles, device: torch.device, history: list[dict[str, float]]) -> Any:
    """The curve, the confusion matrix, and the pictures the model is least right about."""
    logits = torch.stack(predict(model, dataset, device))
    labels, predicted = dataset.labels.cpu(), logits.argmax(dim=1)
    count = len(dataset.classes)
    confusion = torch.bincount(labels * count + predicted, minlength=count * count).view(count, count)
    figure, axes = new_figure(2, 4, width=2.6, height=2.6)
    draw_curves(axes[0, 0], history, ["loss", "accuracy"])
    axes[0, 1].imshow(confusion.double().div(confusion.sum(1, keepdim=True)).numpy(), cmap="Blues", vmin=0, vmax=1)
    axes[0, 1].set(xlabel="predicted class", ylabel="true class")
    worst = F.cross_entropy(logits, labels, reduction="none").argsort(descending=True)
    for place, index in zip(axes.flatten()[2:], worst.tolist(), strict=False):
        answer, truth = dataset.classes[predicted[index]], dataset.classes[labels[index]]
        show_picture(
            place,
            dataset.pixels(torch.tensor([index]))[0],
            f"{truth}, taken for {answer}" if answer != truth else truth,
        )
    return figure


@recipe
def run(
    *,
    data: str | None = None,
    model: str = "small_cnn",
    width: int = 24,
    image_size: int | None = None,
    epochs: int = 5,
    batch_size: int = 96,
    lr: float = 7e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a classifier and measures it on held-out pictures.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        model: small_cnn, timm:NAME or torchvision:NAME.
        width: channels of the small_cnn's first layer.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        epochs: passes over the training pictures.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate, soon reached, which then falls to zero.
        device: auto, cpu, cuda or mps.
        seed: of the weights and of the order of the pictures.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    network = build_model(model, train_set.shape[0], len(train_set.classes), width=width).to(place)
    untrained = evaluate(network, test_set, place)["loss"]

    options: Engine = {**FAST, **engine}
    loop = train(
        network,
        train_set,
        test_set,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        device=place,
        seed=seed,
        schedule=early_peak,
        average=True,
        **options,
    )
    chance = math.log(len(train_set.classes))
    return Result(
        metrics=evaluate(network, test_set, place),
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.97},
        claims=[
            Claim("before training the loss is near that of guessing, ln(classes)", untrained, "<", 1.5 * chance),
            Claim("training brings the loss far below it", loop.history[-1]["loss"], "<", 0.5 * chance),
        ],
        history=loop.history,
        model=network,
        draw=lambda: draw(network, test_set, place, loop.history),
    )


if __name__ == "__main__":
    main(run)
