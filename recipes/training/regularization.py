"""L1 and L2 regularization: penalties on the weights, in the loss.

A network with far more weights than training pictures can learn those by heart, even the wrong labels that some are
given here. A penalty makes it pay for weights: L1 for the sum of their magnitudes, L2 for the sum of their squares.
The pull of L2 toward zero fades as a weight shrinks, so that most weights end small and few end at zero; that of L1
stays the same all the way, and takes to zero every weight that the pictures do not defend.

The L2 norm is the square root of the sum of squares. The penalty is that sum without the root, here with a half in
front for its gradient to be the weight itself: SGD then does what its option weight_decay does. Adam divides the
penalty's gradient by its usual size like any other; AdamW therefore shrinks the weights outside the loss.

Notes: 88
Paper: Tibshirani (1996), "Regression Shrinkage and Selection via the Lasso",
    https://doi.org/10.1111/j.2517-6161.1996.tb02080.x; Loshchilov, Hutter (2019), "Decoupled Weight Decay
    Regularization", https://arxiv.org/abs/1711.05101
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, hold_out, main, option, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.training.scoring import evaluate, least_squares
from recipes.vision.classification.using import Classification


@dataclass(kw_only=True)
class RegularizationOptions(Options):
    l1: float = option(0.0, "factor of the sum of the weights' magnitudes in the loss", least=0)
    l2: float = option(0.06, "factor of half the sum of the weights' squares in the loss", least=0)
    samples: int = option(200, "pictures of the train part to train on, each class by the same share", least=1)
    wrong_labels: float = option(0.15, "share of these that get a wrong label", least=0, below=1)
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    width: int = option(256, "units of each hidden layer", least=1)
    epochs: int = 60
    lr: float = 0.05


def build(options: RegularizationOptions, data: Images | ImageFiles) -> nn.Sequential:
    """A perceptron with two hidden layers, of far more weights than it needs."""
    channels, height, width = data.shape
    hidden = [nn.Linear(channels * height * width, options.width), nn.ReLU()]
    hidden += [nn.Linear(options.width, options.width), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(options.width, len(data.classes)))


def weight_matrices(model: nn.Module) -> list[Tensor]:
    """What is penalized: weights, not biases."""
    return [parameter for parameter in model.parameters() if parameter.ndim > 1]


def l1_penalty(weights: Iterable[Tensor]) -> Tensor:
    """Σ |w|, whose gradient is the sign of w: the same pull at any size."""
    return torch.stack([weight.abs().sum() for weight in weights]).sum()


def l2_penalty(weights: Iterable[Tensor]) -> Tensor:
    """½ Σ w², whose gradient is w: the smaller the weight, the weaker the pull."""
    return torch.stack([weight.square().sum() for weight in weights]).sum() / 2


def train(
    model: nn.Module, train_set: Images | ImageFiles, test_set: Images | ImageFiles, options: RegularizationOptions
) -> Loop:
    """Minimizes the cross-entropy and the penalties with SGD and momentum."""
    loop = Loop(
        model,
        torch.optim.SGD(model.parameters(), lr=options.lr, momentum=0.9),
        batches(train_set, options),
        options,
        schedule=lambda progress: 1 - progress,
    )
    weights = weight_matrices(model)
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(images), labels)
        if options.l1:
            loss = loss + options.l1 * l1_penalty(weights)
        if options.l2:
            loss = loss + options.l2 * l2_penalty(weights)
        loop.step(loss)
    return loop


def few_with_wrong_labels(dataset: Images | ImageFiles, options: RegularizationOptions) -> Images | ImageFiles:
    """A share of each class, and a share of these under a label that is not theirs."""
    if options.samples > len(dataset):
        raise InputError(f"option samples: expected at most {len(dataset)}, got {options.samples}")
    _, few = hold_out(dataset, options.samples / len(dataset), options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    labels, count = few.labels.clone(), len(few.classes)
    chosen = torch.randperm(len(labels), generator=generator)[: round(options.wrong_labels * len(labels))]
    shift = torch.randint(1, count, (len(chosen),), generator=generator)
    labels[chosen] = (labels[chosen] + shift.to(labels.device)) % count
    return replace(few, labels=labels)


@recipe(RegularizationOptions)
def run(options: RegularizationOptions) -> Result:
    """Trains an over-sized network on few pictures, some of them under a wrong label, with a penalty."""
    whole, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    train_set = few_with_wrong_labels(whole, options)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=least_squares(train_set, test_set),
        baseline_name="linear classifier, solved with an L2 penalty",
        bars={"accuracy": 0.82},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    # The strengths were chosen on held-out pictures of the train part, of four for each penalty.
    ways = {"L2": {}, "L1": {"l1": 2e-3, "l2": 0.0}, "no penalty": {"l2": 0.0}}
    seeds = range(result.seed, result.seed + 3)
    rows = {name: means([measured(run(seed=seed, **how)) for seed in seeds]) for name, how in ways.items()}
    result.rows = [{"penalty": name} | row for name, row in rows.items()]
    ridge, lasso, none = rows.values()
    text = "share of weights near zero: with L1 more than with L2"
    yield Claim(text, lasso["near zero"], ">", ridge["near zero"], margin=0.2)
    text = "gap between train and test loss: narrower with L1 than without a penalty"
    yield Claim(text, lasso["gap"], "<", none["gap"], margin=0.2)
    yield Claim("and narrower with L2", ridge["gap"], "<", none["gap"], margin=0.2)
    yield Claim("test accuracy: higher with L2 than without", ridge["accuracy"], ">", none["accuracy"], margin=0.03)
    yield Claim("and than with L1", ridge["accuracy"], ">", lasso["accuracy"], margin=0.01)
    text = "the largest weight: smaller with L2 than with L1, which leaves the work to a few"
    yield Claim(text, ridge["largest"], "<", lasso["largest"], margin=0.1)

    torch.manual_seed(result.seed)
    start = build(RegularizationOptions(**result.options), result.train_set)
    batch = result.train_set.__getitems__(range(min(32, len(result.train_set))))
    pairs = (torch.optim.SGD, torch.optim.SGD), (torch.optim.Adam, torch.optim.AdamW)
    sgd, adam = (difference(start, *batch, *pair) for pair in pairs)
    text = "SGD: largest difference of a weight between L2 in the loss and weight_decay"
    yield Claim(text, sgd, "<=", 1e-6, kind="fact")
    text = "Adam with L2 in the loss, and AdamW: largest difference of a weight"
    yield Claim(text, adam, ">", 1e-3, kind="fact")


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: mean(row[key] for row in rows) for key in rows[0]}


@torch.no_grad()
def measured(result: Result) -> dict[str, float]:
    """What a penalty did: to the weights, to what was learned by heart, and to new pictures."""
    fitted = evaluate(result.model, result.train_set, next(result.model.parameters()).device)
    magnitudes = torch.cat([weight.abs().flatten() for weight in weight_matrices(result.model)])
    return {
        "near zero": (magnitudes < 1e-3).double().mean().item(),  # at the start one weight in seventy is
        "largest": magnitudes.max().item(),
        "train loss": fitted["loss"],
        "test loss": result["loss"],
        "gap": result["loss"] - fitted["loss"],
        "accuracy": result["accuracy"],
    }


def difference(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    in_loss: Callable[..., torch.optim.Optimizer],
    decaying: Callable[..., torch.optim.Optimizer],
    strength: float = 0.03,
) -> float:
    """The largest difference of a weight, after 50 steps, between L2 in the loss and an optimizer's weight_decay."""
    ends = []
    for optimizer_class, decay in ((in_loss, 0.0), (decaying, strength)):
        network = copy.deepcopy(model).cpu().double()  # in double precision, which keeps rounding out
        weights = weight_matrices(network)
        biases = [parameter for parameter in network.parameters() if parameter.ndim == 1]
        optimizer = optimizer_class([{"params": weights, "weight_decay": decay}, {"params": biases}], lr=0.01)
        for _ in range(50):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images.cpu().double()), labels.cpu())
            (loss if decay else loss + strength * l2_penalty(weights)).backward()
            optimizer.step()
        ends.append(nn.utils.parameters_to_vector(network.parameters()).detach())
    return (ends[0] - ends[1]).abs().max().item()


@run.figure
def figure(result: Result) -> Any:
    """How the weights are spread, and with the claims the losses with each penalty."""
    drawing, axes = new_figure(1, 2 if result.rows else 1, width=4.2)
    weights = torch.cat([weight.detach().flatten().cpu() for weight in weight_matrices(result.model)])
    axes[0, 0].hist(weights.numpy(), bins=121, log=True, color="C0")
    axes[0, 0].set(xlabel="weight", ylabel="weights", title=f"l1={result.options['l1']}, l2={result.options['l2']}")
    for shift, name in ((-0.2, "train loss"), (0.2, "test loss")) if result.rows else ():
        positions = [position + shift for position in range(len(result.rows))]
        axes[0, 1].bar(positions, [row[name] for row in result.rows], width=0.36, label=name)
        axes[0, 1].set_xticks(range(len(result.rows)), [row["penalty"] for row in result.rows])
        axes[0, 1].set_ylabel("mean of three trainings, nats")
        axes[0, 1].legend(frameon=False)
    return drawing


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
