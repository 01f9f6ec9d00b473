"""LeNet-5: convolutions that share their weights, against a network that does not.

An edge is an edge wherever it lies. A convolution looks for it everywhere with the same few weights, and pooling
makes its exact place matter less. A fully connected layer has a weight for every pixel, and learns each place
anew. Here both get as many weights and the same pictures, each moved a little at random whenever it is shown;
since that may be too much for the fully connected network, it is also trained without.
(The paper's pooling has weights too, and its second convolution leaves out some connections; without these two
the network has the 61,706 parameters that are usually given.)

Notes: 81
Paper: LeCun, Bottou, Bengio, Haffner (1998), "Gradient-Based Learning Applied to Document Recognition",
    http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf
Data: handwritten digits (UCI), 8×8 pixels, enlarged to 32×32; yours as IDX files, a folder a class, or
    torchvision:NAME.
"""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure, show_picture
from recipes.core.loop import one_cycle
from recipes.core.measure import macs, parameter_count
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate, shifted

SIDE = 32  # pixels: the third convolution then ends in a single place


class LeNet(nn.Sequential):
    """Three 5×5 convolutions with tanh, the mean of 2×2 places after the first two, and two linear layers."""

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
    """One hidden layer over all the pixels, as wide as makes it have about `parameters` parameters."""

    def __init__(self, channels: int, num_classes: int, *, parameters: int) -> None:
        pixels = channels * SIDE * SIDE
        hidden = round((parameters - num_classes) / (pixels + 1 + num_classes))
        super().__init__(nn.Flatten(), nn.Linear(pixels, hidden), nn.Tanh(), nn.Linear(hidden, num_classes))


def train(
    model: nn.Module,
    train_set: Images | ImageFiles,
    test_set: Images | ImageFiles,
    batch_size: int,
    lr: float,
    seed: int,
    *,
    moved: bool,
    device: torch.device,
    **loop_options: Any,
) -> OldLoop:
    """Minimises the cross-entropy with AdamW, over pictures as they are or each `moved` a little at random."""
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
        loss = F.cross_entropy(loop.model(shifted(images) if moved else images), labels)
        loop.step(loss)
    return loop


def mosaic(maps: Tensor, columns: int) -> Tensor:
    """Maps (N, height, width), each stretched to 0 to 1, as one picture (1, H, W) with gaps of a pixel."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    framed = F.pad((maps - low) / (high - low).clamp(min=1e-6), (1, 1, 1, 1), value=1.0)  # (N, height + 2, width + 2)
    rows = [torch.cat(list(row), dim=1) for row in framed.split(columns)]
    return torch.cat(rows).unsqueeze(0)


@torch.no_grad()
def draw(lenet: nn.Module, image: Tensor, histories: dict[str, list[dict[str, float]]]) -> Any:
    """The networks' accuracy over the epochs, and what the convolutions make of a picture (C, 32, 32)."""
    figure, axes = new_figure(1, 4, width=3.0, height=2.8)
    for name, color in zip(histories, ("tab:blue", "tab:orange", "tab:grey"), strict=True):
        rows = histories[name]
        axes[0, 0].plot([row["epoch"] for row in rows], [row["accuracy"] for row in rows], color=color, label=name)
    axes[0, 0].set(xlabel="epoch", ylabel="held-out accuracy")
    axes[0, 0].xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=8)
    layers = list(lenet.children())
    first, second = (nn.Sequential(*layers[:end])(image.unsqueeze(0)) for end in (2, 5))  # (1, 6 or 16, height, width)
    show_picture(axes[0, 1], mosaic(image.mean(dim=0, keepdim=True), 1), "a held-out picture")
    show_picture(axes[0, 2], mosaic(first[0], 3), "what the first convolution makes of it")
    show_picture(axes[0, 3], mosaic(second[0], 4), "and the second")
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    epochs: int = 12,
    batch_size: int = 32,
    lr: float = 1e-2,
    seeds: int = 2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains LeNet-5 and a fully connected network of as many parameters, and measures both on held-out pictures.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        epochs: passes over the training pictures, for each training.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        seeds: trainings of each network that every accuracy is the mean of.
        device: auto, cpu, cuda or mps.
        seed: of the first training's weights, order of pictures and how they are shifted; the others count up from it.
        out: folder for result.json, figure.png and model.safetensors, the first LeNet's.
    """
    if seeds < 1:
        raise InputError(f"option seeds: expected a whole number of at least 1, got {seeds}")
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=SIDE, seed=seed)
    channels, num_classes = train_set.shape[0], len(train_set.classes)
    models: dict[str, nn.Module] = {}  # of the first seed, as the histories are
    histories: dict[str, list[dict[str, float]]] = {}
    scores: dict[str, list[dict[str, float]]] = {"LeNet-5": [], "MLP": [], "MLP, pictures not moved": []}
    for number in range(seed, seed + seeds):
        for name in scores:
            torch.manual_seed(number)
            model: nn.Module = LeNet(channels, num_classes)
            if name != "LeNet-5":
                model = MLP(channels, num_classes, parameters=parameter_count(model))
            options: dict[str, Any] = {"epochs": epochs, "device": place, "name": f"{name}-{number}", **engine}
            loop = train(model, train_set, test_set, batch_size, lr, number, moved="not" not in name, **options)
            scores[name].append(evaluate(model, test_set, place))
            models.setdefault(name, model)
            histories.setdefault(name, loop.history)
    means = {name: {key: sum(score[key] for score in own) / seeds for key in own[0]} for name, own in scores.items()}
    image = test_set.__getitems__([0])[0].to(place)
    parameters = {name: parameter_count(model) for name, model in models.items()}
    off = abs(parameters["MLP"] / parameters["LeNet-5"] - 1)
    lenet, mlp = means["LeNet-5"], max(means["MLP"], means["MLP, pictures not moved"], key=lambda own: own["accuracy"])
    return Result(
        metrics=lenet,
        baseline=mlp,
        baseline_name="the better MLP",
        bars={"accuracy": 0.95},
        claims=[
            claim("share by which the two networks' parameters differ", off, "<=", 0.02),
            claim("LeNet-5 is better on held-out pictures than either MLP", lenet["accuracy"], ">", mlp["accuracy"]),
        ],
        history=histories["LeNet-5"],
        rows=[
            {
                "network": name,
                "parameters": parameters[name],
                "macs": macs(models[name], image),
                "accuracy": means[name]["accuracy"],
                "loss": means[name]["loss"],
            }
            for name in means
        ],
        model=models["LeNet-5"],
        draw=lambda: draw(models["LeNet-5"], image[0], histories),
    )


if __name__ == "__main__":
    main(run)
