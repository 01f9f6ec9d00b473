"""L1 and L2 regularization: penalties on the weights, in the loss.

A network with far more weights than training pictures can learn those by heart, even the wrong labels that
some are given here. A penalty makes it pay for weights: L1 for the sum of their magnitudes, L2 for the sum of
their squares. The pull of L2 towards zero fades as a weight shrinks, so that most weights end small and few end
at zero; that of L1 stays the same all the way, and takes to zero every weight that the pictures do not defend.

The L2 norm is the square root of the sum of squares. The penalty is that sum without the root, here with a half
in front for its gradient to be the weight itself: SGD then does what its option weight_decay does. Adam divides
the penalty's gradient by its usual size like any other; AdamW therefore shrinks the weights outside the loss.

Notes: 88
Paper: Tibshirani (1996), "Regression Shrinkage and Selection via the Lasso",
    https://doi.org/10.1111/j.2517-6161.1996.tb02080.x; Loshchilov, Hutter (2019), "Decoupled Weight Decay
    Regularization", https://arxiv.org/abs/1711.05101
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import copy
import dataclasses
import statistics
from collections.abc import Callable, Iterable
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.loading import holdout
from recipes.core.measure import parameter_count
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.training.scoring import evaluate

NEAR_ZERO = 1e-3  # a weight below this magnitude; at the start one in fifty is

Penalty = Callable[[Iterable[Tensor]], Tensor]


def no_penalty(weights: Iterable[Tensor]) -> Tensor:
    return torch.tensor(0.0)


def l1(weights: Iterable[Tensor]) -> Tensor:
    """Σ |w|, whose gradient is the sign of w: the same pull at any size."""
    return torch.stack([weight.abs().sum() for weight in weights]).sum()


def l2(weights: Iterable[Tensor]) -> Tensor:
    """½ Σ w², whose gradient is w: the smaller the weight, the weaker the pull."""
    return torch.stack([weight.square().sum() for weight in weights]).sum() / 2


PENALTIES: dict[str, Penalty] = {"no penalty": no_penalty, "L1": l1, "L2": l2}


def build_model(shape: tuple[int, int, int], num_classes: int, *, width: int = 256) -> nn.Module:
    """A perceptron with two hidden layers, of far more weights than it needs.

    Args:
        shape: (channels, height, width) of a picture.
        num_classes: of the last layer.
        width: units of each hidden layer.
    """
    inputs = shape[0] * shape[1] * shape[2]
    hidden = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, num_classes))


def weight_matrices(model: nn.Module) -> list[Tensor]:
    """What is penalised: weights, not biases."""
    return [parameter for parameter in model.parameters() if parameter.ndim > 1]


def train(
    model: nn.Module,
    train_set: Images | ImageFiles,
    penalty: Penalty,
    strength: float,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    name: str = "model",
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises cross-entropy + strength · penalty(weights) with SGD and momentum."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    loop = OldLoop(
        model,
        optimizer,
        old_batches(train_set, batch_size, seed=seed, workers=2 if isinstance(train_set, ImageFiles) else 0),
        epochs=epochs,
        device=device,
        schedule=lambda progress: 1 - progress,
        name=name,
        **engine,
    )
    weights = weight_matrices(model)
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(images), labels) + strength * penalty(weights)
        loop.step(loss)
    return loop


@torch.no_grad()
def share_near_zero(model: nn.Module) -> float:
    """Share of the penalised weights whose magnitude is below `NEAR_ZERO`."""
    magnitudes = torch.cat([weight.abs().flatten() for weight in weight_matrices(model)])
    return (magnitudes < NEAR_ZERO).double().mean().item()


def with_wrong_labels(dataset: Images | ImageFiles, share: float, seed: int) -> Images | ImageFiles:
    """The same pictures, this share of them under a label that is not theirs."""
    generator = torch.Generator().manual_seed(seed)
    labels, count = dataset.labels.clone(), len(dataset.classes)
    chosen = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))].to(labels.device)
    shift = torch.randint(1, count, (len(chosen),), generator=generator).to(labels.device)
    labels[chosen] = (labels[chosen] + shift) % count
    return dataclasses.replace(dataset, labels=labels)


def difference(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    in_loss: Callable[..., torch.optim.Optimizer],
    decaying: Callable[..., torch.optim.Optimizer],
    *,
    strength: float,
    steps: int = 50,
) -> float:
    """The largest difference of a weight between L2 in the loss and an optimizer's weight_decay.

    Args:
        model: where both start; it is not changed.
        images, labels: the one batch that both train on, in double precision, which keeps rounding out.
        in_loss: the optimizer for the loss with the penalty.
        decaying: the optimizer that is given the same strength as its weight_decay.
        strength: factor of the penalty, as large as the decay.
        steps: of each optimizer, at a rate of 0.01.
    """
    ends = []
    for optimizer_class, decay in ((in_loss, 0.0), (decaying, strength)):
        network = copy.deepcopy(model).cpu().double()
        weights = weight_matrices(network)
        biases = [parameter for parameter in network.parameters() if parameter.ndim == 1]
        optimizer = optimizer_class([{"params": weights, "weight_decay": decay}, {"params": biases}], lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images.cpu().double()), labels.cpu())
            if not decay:
                loss = loss + strength * l2(weights)
            loss.backward()
            optimizer.step()
        ends.append(nn.utils.parameters_to_vector(network.parameters()).detach())
    return (ends[0] - ends[1]).abs().max().item()


def draw_weights(networks: dict[str, nn.Module], rows: list[dict[str, Any]]) -> Any:
    """How the weights are spread with each penalty, and the loss on the train and the test part."""
    figure, axes = new_figure(1, len(networks) + 1, width=3.2)
    for place, (name, network), row in zip(axes[0], networks.items(), rows, strict=False):
        weights = torch.cat([weight.detach().flatten().cpu() for weight in weight_matrices(network)])
        place.hist(weights.clamp(-0.3, 0.3).numpy(), bins=121, range=(-0.3, 0.3), log=True, color="C0")
        place.set(ylim=(0.7, 2 * len(weights)), xlabel="weight")
        place.set_title(f"{name}: {row['near zero']:.0%} near zero", fontsize=9)
    axes[0, 0].set_ylabel("weights")
    for shift, part in ((-0.2, "train"), (0.2, "test")):
        heights = [row[f"{part} loss"] for row in rows]
        axes[0, -1].bar([place + shift for place in range(len(rows))], heights, width=0.36, label=part)
    axes[0, -1].set_xticks(range(len(rows)), [row["penalty"] for row in rows])
    axes[0, -1].set_ylabel("loss, nats")
    axes[0, -1].legend(frameon=False)
    for place in axes.flat:
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    pictures: int = 200,
    wrong_labels: float = 0.15,
    width: int = 256,
    l1_strength: float = 1e-3,
    l2_strength: float = 3e-2,
    epochs: int = 60,
    batch_size: int = 32,
    lr: float = 0.05,
    seeds: int = 3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains an over-sized network on few pictures without a penalty, with L1 and with L2.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        pictures: how many of the train part to train on, each class by the same share.
        wrong_labels: share of them that get a wrong label, to be learned by heart or not; 0 leaves all right.
        width: units of each hidden layer.
        l1_strength: factor of the sum of the weights' magnitudes in the loss.
        l2_strength: factor of half the sum of their squares.
        epochs: passes over the training pictures.
        batch_size: pictures in an optimizer step, over all processes.
        lr: learning rate at the start, from where it sinks to zero.
        seeds: trainings with each penalty, which every number is the mean of.
        device: auto, cpu, cuda or mps.
        seed: of the first training's pictures, weights and order; the others count up from it.
        out: folder for result.json, figure.png and model.safetensors, the network trained with L2.
    """
    if width < 1 or seeds < 1 or not 0 <= wrong_labels < 1:
        raise InputError("options width, seeds and wrong_labels: expected at least 1, at least 1, and a share below 1")
    if min(l1_strength, l2_strength) < 0:
        raise InputError(f"options l1_strength and l2_strength: expected 0 or more, got {l1_strength}, {l2_strength}")
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    if not 1 <= pictures <= len(train_set):
        raise InputError(f"option pictures: expected 1 to {len(train_set)}, the train part's, got {pictures}")
    common: Any = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "device": place, **engine}
    strengths = {"no penalty": 0.0, "L1": l1_strength, "L2": l2_strength}
    networks: dict[str, nn.Module] = {}  # of the first seed
    history: list[dict[str, float]] = []
    records: dict[str, list[dict[str, float]]] = {name: [] for name in PENALTIES}

    for number in range(seed, seed + seeds):
        _, few = holdout(train_set.labels.cpu(), share=pictures / len(train_set), seed=number)
        fit_set = with_wrong_labels(train_set.subset(few), wrong_labels, number)
        for name, penalty in PENALTIES.items():
            torch.manual_seed(number)
            model = build_model(train_set.shape, len(train_set.classes), width=width).to(place)
            options: Any = {"seed": number, "name": f"{name}-{number}", **common}
            loop = train(model, fit_set, penalty, strengths[name], **options)
            fitted, tested = evaluate(model, fit_set, place), evaluate(model, test_set, place)
            records[name].append(
                {
                    "near zero": share_near_zero(model),
                    **{f"train {key}": fitted[key] for key in ("loss", "accuracy")},
                    **{f"test {key}": tested[key] for key in ("loss", "accuracy")},
                    "gap": tested["loss"] - fitted["loss"],
                }
            )
            networks.setdefault(name, model)
            history = loop.history if name == "L2" and number == seed else history

    rows: list[dict[str, Any]] = [
        {"penalty": name, **{key: statistics.mean(one[key] for one in runs) for key in runs[0]}}
        for name, runs in records.items()
    ]
    none, lasso, ridge = rows
    torch.manual_seed(seed)
    start = build_model(train_set.shape, len(train_set.classes), width=width)
    images, labels = fit_set.__getitems__(range(min(batch_size, len(fit_set))))
    pairs = (torch.optim.SGD, torch.optim.SGD), (torch.optim.Adam, torch.optim.AdamW)
    with_sgd, with_adam = (difference(start, images, labels, *pair, strength=l2_strength) for pair in pairs)
    zero_l1, zero_l2 = lasso["near zero"], ridge["near zero"]
    return Result(
        metrics={"loss": ridge["test loss"], "accuracy": ridge["test accuracy"]},
        baseline={"loss": none["test loss"], "accuracy": none["test accuracy"]},
        baseline_name="without a penalty",
        bars={"loss": 0.7, "accuracy": 0.82},
        claims=[
            claim("parameters for each training picture", parameter_count(start) / len(fit_set), ">", 100),
            claim("share of weights near zero: with L1 over twice that with L2", zero_l1, ">", 2 * zero_l2),
            claim("L1 narrows the gap between train and test loss", lasso["gap"], "<", none["gap"]),
            claim("and so does L2", ridge["gap"], "<", none["gap"]),
            claim("SGD: largest difference of a weight between L2 in the loss and weight_decay", with_sgd, "<=", 1e-6),
            claim("Adam with L2 in the loss, and AdamW: largest difference of a weight", with_adam, ">", 1e-3),
        ],
        history=history,
        rows=rows,
        model=networks["L2"],
        draw=lambda: draw_weights(networks, rows),
    )


if __name__ == "__main__":
    main(run)
