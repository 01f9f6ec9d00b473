"""VGG: nothing but 3×3 convolutions, and why two of them replace a 5×5.

The second of two 3×3 convolutions sees, through the first, a field of 5×5 pixels. For C channels in and out the
two have 18 C² weights where the 5×5 has 25 C², and a nonlinearity more. The recipe measures all three: the field
by the pixels whose change would change an answer, the weights, and the accuracy of two networks that differ in
nothing but this.

Notes: 81
Paper: Simonyan, Zisserman (2014), "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    https://arxiv.org/abs/1409.1556
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

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
from recipes.core.measure import macs, parameter_count
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.old import FAST
from recipes.vision.classification.receptive import centre_gradients
from recipes.vision.classification.scoring import evaluate, majority, shifted


def convolution(channels: int, width: int, kernel: int, batch_norm: bool) -> list[nn.Module]:
    """A convolution that keeps the picture's size, batch norm if wanted, and ReLU."""
    norm: list[nn.Module] = [nn.BatchNorm2d(width)] if batch_norm else []
    return [nn.Conv2d(channels, width, kernel, padding=kernel // 2), *norm, nn.ReLU()]


class VGG(nn.Module):
    """Stages of convolutions, each stage ended by pooling, then three linear layers.

    Each stage has twice the channels of the one before, up to eight times the first's. The parts bear
    torchvision's names, so that its weights load.

    Args:
        stages: for each stage the kernel sizes of its convolutions.
        channels: of the pictures.
        num_classes: of the last layer.
        width: channels of the first stage.
        hidden: neurons of the first two linear layers.
        places: the last stage's picture is brought to so many places along a side.
        dropout: share of the inputs of the last two linear layers that is left out.
        batch_norm: normalise after every convolution, which came after the paper and makes training easier.
    """

    def __init__(
        self,
        stages: list[tuple[int, ...]],
        *,
        channels: int = 3,
        num_classes: int = 1000,
        width: int = 64,
        hidden: int = 4096,
        places: int = 7,
        dropout: float = 0.5,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        reached = channels
        for stage, kernels in enumerate(stages):
            for kernel in kernels:
                layers += convolution(reached, width * min(2**stage, 8), kernel, batch_norm)
                reached = width * min(2**stage, 8)
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(places)
        self.classifier = nn.Sequential(
            nn.Linear(reached * places * places, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # signals keep their size through the layers
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:  # (batch, channels, height, width)
        features = self.avgpool(self.features(images))  # (batch, 8 * width, places, places)
        return self.classifier(features.flatten(1))  # (batch, num_classes)


# The paper's columns A, B, D and E; and one for pictures of 8 to 64 pixels.
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


def receptive_field(layers: nn.Module, channels: int, *, size: int = 15) -> int:
    """Side, in pixels, of the square that the centre of the output depends on; arguments as above."""
    return int((centre_gradients(layers, channels, size=size) > 0).any(dim=0).sum())


def train(
    model: VGG,
    train_set: Images | ImageFiles,
    test_set: Images | ImageFiles,
    batch_size: int,
    lr: float,
    seed: int,
    *,
    device: torch.device,
    **loop_options: Any,
) -> OldLoop:
    """Minimises the cross-entropy with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    loop = OldLoop(
        model,
        optimizer,
        old_batches(train_set, batch_size, seed=seed, workers=2 if isinstance(train_set, ImageFiles) else 0),
        device=device,
        schedule=one_cycle,
        evaluate=lambda: evaluate(model, test_set, device),
        **loop_options,
    )
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(shifted(images)), labels)
        loop.step(loss)
    return loop


def draw(histories: dict[str, list[dict[str, float]]], gradients: dict[str, Tensor]) -> Any:
    """Both networks' loss and accuracy over the epochs, and how much their centre depends on each pixel (H, W)."""
    figure, axes = new_figure(1, 2 + len(gradients), width=3.0, height=2.8)
    for name, color in zip(histories, ("tab:blue", "tab:orange"), strict=True):
        epochs = [row["epoch"] for row in histories[name]]
        for place, metric in zip(axes[0], ("loss", "accuracy"), strict=False):
            place.plot(epochs, [row[metric] for row in histories[name]], color=color, label=name)
    for place, title in zip(axes[0], ("training loss", "held-out accuracy"), strict=False):
        place.set(title=title, xlabel="epoch")
        place.xaxis.get_major_locator().set_params(integer=True)
        place.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False)
    for place, (name, gradient) in zip(axes[0, 2:], gradients.items(), strict=True):
        place.imshow(gradient.numpy(), cmap="Blues")
        place.set(title=f"the field of {name}", xlabel="pixel")
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    model: Literal["small", "vgg11", "vgg13", "vgg16", "vgg19"] = "small",
    width: int = 16,
    image_size: int | None = None,
    epochs: int = 6,
    batch_size: int = 32,
    lr: float = 5e-3,
    seeds: int = 2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a VGG and the same with a 5×5 in place of each stage's last two 3×3; measures both on held-out pictures.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        model: small for pictures of 8 to 64 pixels, the others for those of at least 32.
        width: channels of the first stage; the paper's networks have 64, and 64 times as many hidden neurons.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        epochs: passes over the training pictures, for each training.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        seeds: trainings of each network that every accuracy is the mean of.
        device: auto, cpu, cuda or mps.
        seed: of the first training's weights, order of pictures and how they are shifted; the others count up from it.
        out: folder for result.json, figure.png and model.safetensors, the first VGG's.
    """
    for name, value in (("width", width), ("seeds", seeds)):
        if value < 1:
            raise InputError(f"option {name}: expected a whole number of at least 1, got {value}")
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    stages = STAGES[model]
    if min(train_set.shape[1:]) < 2 ** len(stages):
        raise InputError(f"option model: {model} expects pictures of at least {2 ** len(stages)} pixels a side")
    make = partial(VGG, channels=train_set.shape[0], num_classes=len(train_set.classes), width=width, batch_norm=True)
    make = partial(make, hidden=128, places=1, dropout=0.2) if model == "small" else partial(make, hidden=64 * width)
    networks: dict[str, VGG] = {}  # of the first seed, as the histories are
    histories: dict[str, list[dict[str, float]]] = {}
    scores: dict[str, list[dict[str, float]]] = {"two 3×3": [], "one 5×5": []}
    for number in range(seed, seed + seeds):
        for name in scores:
            torch.manual_seed(number)
            network = make(stages if name == "two 3×3" else with_fives(stages))
            options: dict[str, Any] = {"epochs": epochs, "device": place, "name": f"{name}-{number}", **FAST, **engine}
            loop = train(network, train_set, test_set, batch_size, lr, number, **options)
            scores[name].append(evaluate(network, test_set, place))
            networks.setdefault(name, network)
            histories.setdefault(name, loop.history)
    means = {name: {key: sum(score[key] for score in own) / seeds for key in own[0]} for name, own in scores.items()}

    torch.manual_seed(seed)
    exchanged = {  # what differs, alone
        "two 3×3": nn.Sequential(*convolution(width, width, 3, False), *convolution(width, width, 3, False)),
        "one 5×5": nn.Sequential(*convolution(width, width, 5, False)),
    }
    fields = {name: receptive_field(layers, width) for name, layers in exchanged.items()}
    weights = {name: parameter_count(layers) for name, layers in exchanged.items()}
    image = test_set.__getitems__([0])[0].to(place)
    accuracy, other = means["two 3×3"]["accuracy"], means["one 5×5"]["accuracy"]
    return Result(
        metrics=means["two 3×3"],
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.95},
        claims=[
            claim("two 3×3 see as wide a field as one 5×5, pixels", fields["two 3×3"], ">=", fields["one 5×5"]),
            claim("with fewer parameters at equal channels", weights["two 3×3"], "<", weights["one 5×5"]),
            claim("and do no worse on held-out pictures, within a point", accuracy, ">=", other - 0.01),
        ],
        history=histories["two 3×3"],
        rows=[
            {
                "network with": name,
                "field": fields[name],
                "parameters": parameter_count(networks[name]),
                "macs": macs(networks[name], image),
                "accuracy": means[name]["accuracy"],
                "loss": means[name]["loss"],
            }
            for name in means
        ],
        model=networks["two 3×3"],
        draw=lambda: draw(histories, {name: centre_gradients(layers, width) for name, layers in exchanged.items()}),
    )


if __name__ == "__main__":
    main(run)
