"""AlexNet: rectifiers that do not saturate, and dropout.

Where tanh is flat its gradient is near zero and learning stalls; max(0, x) has slope 1 however large x is. The
paper needed six times fewer steps with it, each network at the learning rate that suits it best. The recipe counts
the steps in the same way, but its weights start at a size that keeps signals from growing, and Adam sizes the
steps: with these two later answers to the same trouble, tanh keeps up on the digits.

Dropout leaves out half of the inputs of two linear layers, others in every step, so that no neuron can rely on a
certain other. With few pictures to learn from, the network then learns those less by heart.

Notes: 81
Paper: Krizhevsky, Sutskever, Hinton (2012), "ImageNet Classification with Deep Convolutional Neural Networks",
    https://papers.nips.cc/paper/4824; in the version for one GPU (2014), https://arxiv.org/abs/1404.5997
Data: handwritten digits (UCI), 8×8 pixels, enlarged to 16×16; yours as IDX files, a folder a class, or
    torchvision:NAME.
"""

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import draw_curves, new_figure
from recipes.core.loading import holdout
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate, majority, shifted


class AlexNet(nn.Module):
    """Five convolutions, three poolings, and three linear layers. The parts bear torchvision's names.

    Args:
        channels: of the pictures.
        num_classes: of the last layer.
        width: channels of the first convolution; everything else is a multiple of it.
        activation: after every layer but the last.
        dropout: share of the linear layers' inputs that is left out.
        small_pictures: start with a 3×3 convolution, instead of the 11×11 with stride 4 that suits pictures
            of 224 pixels, and end with one place instead of 6×6.
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
        places = 1 if small_pictures else 6
        self.avgpool = nn.AdaptiveAvgPool2d(places)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(4 * width * places * places, 64 * width),
            activation(),
            nn.Dropout(dropout),
            nn.Linear(64 * width, 64 * width),
            activation(),
            nn.Linear(64 * width, num_classes),
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):  # signals keep their size through the layers
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu" if activation is nn.ReLU else "tanh")

    def forward(self, images: Tensor) -> Tensor:
        features = self.avgpool(self.features(images))  # (batch, 4 * width, 6, 6)
        return self.classifier(features.flatten(1))  # (batch, num_classes)


def train(
    model: AlexNet,
    train_set: Images | ImageFiles,
    batch_size: int,
    lr: float,
    seed: int,
    *,
    goal: float = 0.0,
    moved: bool = False,
    **loop_options: Any,
) -> tuple[OldLoop, int]:
    """Minimises the cross-entropy with AdamW.

    Args:
        goal: stop when the mean loss of the last 20 steps is below this.
        moved: show each picture moved a little at random.

    Returns:
        The loop, and the steps taken.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05, fused=True)
    loader = old_batches(train_set, batch_size, seed=seed, workers=2 if isinstance(train_set, ImageFiles) else 0)
    loop = OldLoop(model, optimizer, loader, **loop_options)
    losses: deque[float] = deque(maxlen=20)
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(shifted(images) if moved else images), labels)
        loop.step(loss)
        losses.append(loss.item())
        if len(losses) == 20 and sum(losses) < 20 * goal:
            break
    return loop, loop.steps


def draw(
    steps: dict[str, list[float]],
    rates: Sequence[float],
    gaps: dict[str, list[dict[str, float]]],
    history: list[dict[str, float]],
) -> Any:
    """The curve; steps to the goal at each learning rate; losses with dropout and without."""
    figure, axes = new_figure(1, 3, width=3.6, height=3.0)
    draw_curves(axes[0, 0], history, ["loss", "accuracy"])
    for name, color in zip(steps, ("tab:blue", "tab:orange"), strict=True):
        axes[0, 1].plot(range(len(rates)), steps[name], marker="o", color=color, label=name)
    axes[0, 1].set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    highest = max(max(counts) for counts in steps.values())
    axes[0, 1].set(xlabel="learning rate", title="steps to the training loss", ylim=(0, 1.1 * highest))
    axes[0, 1].legend(frameon=False)
    for number, part in enumerate(("train", "test")):
        means = [sum(score[part] for score in own) / len(own) for own in gaps.values()]
        places = [place + 0.4 * number for place in range(len(means))]
        axes[0, 2].bar(places, means, width=0.36, label=part, color=("tab:cyan", "tab:blue")[number])
    axes[0, 2].set_xticks([0.2, 1.2], list(gaps))
    axes[0, 2].set(title="loss, few pictures")
    axes[0, 2].margins(y=0.35)  # room for the legend
    axes[0, 2].legend(frameon=False, ncols=2)
    for place in axes[0]:
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    width: int = 12,
    image_size: int = 16,
    goal: float = 0.2,
    few: int = 200,
    epochs: int = 10,
    batch_size: int = 32,
    lr: float = 2e-3,
    seeds: int = 2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains AlexNet, counts the steps ReLU and tanh need, and measures what dropout does with few pictures.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        width: channels of the first convolution; the paper's network has 64.
        image_size: side in pixels that pictures are brought to; from 64 on the network starts as the paper's.
        goal: training loss, in nats, that steps are counted to.
        few: pictures to learn from with dropout and without, over three times as many epochs.
        epochs: passes over the training pictures; steps are counted over half as many.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule; steps are counted at a quarter and a half of it.
        seeds: trainings that the counts of steps and the gaps are means of.
        device: auto, cpu, cuda or mps.
        seed: of the first training's weights, order of pictures and how they are shifted; the others count up from it.
        out: folder for result.json, figure.png and model.safetensors.
    """
    for name, value, least in (
        ("width", width, 1),
        ("image_size", image_size, 15),
        ("seeds", seeds, 1),
        ("few", few, 20),
    ):
        if value < least:
            raise InputError(f"option {name}: expected a whole number of at least {least}, got {value}")
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    channels, num_classes = train_set.shape[0], len(train_set.classes)
    make = partial(AlexNet, channels=channels, num_classes=num_classes, width=width, small_pictures=image_size < 64)
    options: dict[str, Any] = {"device": place, **engine}

    rates = [lr / 4, lr / 2]
    steps: dict[str, list[float]] = {"ReLU": [], "tanh": []}
    for name, activation in (("ReLU", nn.ReLU), ("tanh", nn.Tanh)):
        for rate in rates:
            counts = []
            for number in range(seed, seed + seeds):
                torch.manual_seed(number)
                model = make(activation=activation, dropout=0.0)
                settings = {"epochs": max(1, epochs // 2), "name": f"{name}-{rate:g}-{number}", **options}
                counts.append(train(model, train_set, batch_size, rate, number, goal=goal, **settings)[1])
            steps[name].append(sum(counts) / seeds)

    sample = train_set.subset(holdout(train_set.labels, min(0.5, few / len(train_set)), seed)[1])
    gaps: dict[str, list[dict[str, float]]] = {"no dropout": [], "dropout": []}
    for name, dropout in (("no dropout", 0.0), ("dropout", 0.5)):
        for number in range(seed, seed + seeds):
            torch.manual_seed(number)
            model = make(dropout=dropout)
            settings = {"epochs": 3 * epochs, "name": f"{name}-{number}", "schedule": one_cycle, **options}
            train(model, sample, batch_size, lr, number, **settings)
            train_scores, test_scores = evaluate(model, sample, place), evaluate(model, test_set, place)
            gaps[name].append(
                {
                    "train": train_scores["loss"],
                    "test": test_scores["loss"],
                    "train accuracy": train_scores["accuracy"],
                    "test accuracy": test_scores["accuracy"],
                }
            )
    means = {name: {key: sum(score[key] for score in own) / seeds for key in own[0]} for name, own in gaps.items()}
    gap = {name: own["test"] - own["train"] for name, own in means.items()}

    relu, tanh = min(steps["ReLU"]), min(steps["tanh"])

    torch.manual_seed(seed)
    model = make()
    settings = {"epochs": epochs, "schedule": one_cycle, "evaluate": partial(evaluate, model, test_set, place)}
    loop, _ = train(model, train_set, batch_size, lr, seed, moved=True, **settings, **options)
    return Result(
        metrics=evaluate(model, test_set, place),
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.93},
        claims=[
            claim(f"ReLU takes at most 3/4 of tanh's steps to a loss of {goal:g}", relu, "<=", 0.75 * tanh),
            claim("dropout narrows the gap in loss, test less train", gap["dropout"], "<", gap["no dropout"]),
        ],
        history=loop.history,
        rows=[{"few pictures": name, **own, "gap": gap[name]} for name, own in means.items()],
        model=model,
        draw=lambda: draw(steps, rates, gaps, loop.history),
    )


if __name__ == "__main__":
    main(run)
