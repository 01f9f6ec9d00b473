"""Optimizers: Adam written out, beside those of torch.optim.

All of them go against the gradient; they differ in how far. SGD's step is the learning rate times the
gradient. Momentum steps along a running sum of past gradients. RMSprop divides each weight's step by the
usual size of its gradient, Adam does so with a running mean of the gradient, and AdamW shrinks the weights
a little besides. Where steps do not depend on the gradient's size, a good rate is easier to hit: here each
optimizer is trained at rates over four decades, and judged at the one that did best on held-out pictures.
Whether SGD with momentum then ends ahead of Adam, as is often told, is measured too.

Notes: 41
Paper: Kingma, Ba (2014), "Adam: A Method for Stochastic Optimization", https://arxiv.org/abs/1412.6980;
    Wilson, Roelofs, Stern, Srebro, Recht (2017), "The Marginal Value of Adaptive Gradient Methods in Machine
    Learning", https://arxiv.org/abs/1705.08292
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import copy
import itertools
import statistics
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.loading import holdout
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.training.scoring import evaluate, majority


class Adam(torch.optim.Optimizer):
    """Adam as in the paper's algorithm 1; gives what torch.optim.Adam gives.

    Args:
        params: of the model, as for every optimizer of torch.
        lr: learning rate, about the largest step of a weight.
        betas: how much of the running means of the gradient and of its square is kept at each step.
        eps: keeps the division finite where a gradient has always been zero.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                g, state = weight.grad, self.state[weight]
                if not state:
                    state |= {"t": 0, "m": torch.zeros_like(weight), "v": torch.zeros_like(weight)}
                state["t"] += 1
                t, m, v = state["t"], state["m"], state["v"]
                # m ← β₁ m + (1 - β₁) g, the gradient's running mean
                m.mul_(beta1).add_(g, alpha=1 - beta1)
                # v ← β₂ v + (1 - β₂) g², the running mean of its square
                v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
                # m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ): both began at zero, and are still too small
                m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
                # θ ← θ - lr m̂ / (√v̂ + ε)
                weight.addcdiv_(m_hat, v_hat.sqrt_().add_(group["eps"]), value=-group["lr"])


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "SGD with momentum": partial(torch.optim.SGD, momentum=0.9),
    "RMSprop": torch.optim.RMSprop,
    "Adam, by hand": Adam,
    "Adam": torch.optim.Adam,
    "AdamW": partial(torch.optim.AdamW, weight_decay=0.05),
}


def build_model(shape: tuple[int, int, int], num_classes: int, *, width: int = 64, depth: int = 3) -> nn.Module:
    """A perceptron without normalization: it leaves the size of its gradients to the optimizer.

    Args:
        shape: (channels, height, width) of a picture.
        num_classes: of the last layer.
        width: units of each hidden layer.
        depth: hidden layers.
    """
    sizes = [shape[0] * shape[1] * shape[2], *[width] * depth]
    hidden = [layer for ins, outs in itertools.pairwise(sizes) for layer in (nn.Linear(ins, outs), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, num_classes))


def linear(progress: float) -> float:
    """The schedule that takes the rate from its full value to zero along a line."""
    return 1 - progress


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_set: Images | ImageFiles,
    *,
    epochs: int,
    batch_size: int,
    device: torch.device,
    seed: int = 0,
    name: str = "model",
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises the cross-entropy while the rate sinks to zero; raises FloatingPointError where it diverges."""
    loader = old_batches(train_set, batch_size, seed=seed, workers=2 if isinstance(train_set, ImageFiles) else 0)
    loop = OldLoop(model, optimizer, loader, epochs=epochs, device=device, schedule=linear, name=name, **engine)
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(images), labels)
        loop.step(loss)
    return loop


def largest_difference(model: nn.Module, train_set: Images | ImageFiles, *, steps: int = 100) -> float:
    """The largest difference of a weight after training with the written Adam and with torch.optim.Adam.

    In double precision: in single, a rounding can grow in a hundred steps to what looks like another method.

    Args:
        model: where both start; it is not changed.
        train_set: whose batches of 32, in one order, both see.
        steps: of each optimizer.
    """
    ends = []
    for optimizer_class in (Adam, torch.optim.Adam):
        network = copy.deepcopy(model).cpu().double()
        optimizer = optimizer_class(network.parameters(), lr=1e-3)
        epochs = itertools.cycle(old_batches(train_set, 32))
        for images, labels in itertools.islice(epochs, steps):
            optimizer.zero_grad()
            F.cross_entropy(network(images.cpu().double()), labels.cpu()).backward()
            optimizer.step()
        ends.append(nn.utils.parameters_to_vector(network.parameters()).detach())
    return (ends[0] - ends[1]).abs().max().item()


def draw_sweep(
    sweep: dict[str, dict[float, list[float]]], best: float, histories: dict[str, list[dict[str, float]]]
) -> Any:
    """Held-out accuracy against the learning rate, and the loss over the epochs at each chosen rate."""
    figure, axes = new_figure(1, 2, width=4.8, height=3.6)
    for name, by_rate in sweep.items():
        rates, seeds = list(by_rate), list(by_rate.values())
        (line,) = axes[0, 0].plot(rates, [statistics.mean(one) for one in seeds], marker="o", markersize=4, label=name)
        low, high = [min(one) for one in seeds], [max(one) for one in seeds]
        axes[0, 0].fill_between(rates, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        history = histories[name]
        axes[0, 1].plot([row["epoch"] for row in history], [row["loss"] for row in history], marker=".", label=name)
    axes[0, 0].axhspan(best - 0.02, 1, color="0.9", zorder=0)
    axes[0, 0].set(xscale="log", xlabel="learning rate", ylabel="held-out accuracy", ylim=(0, 1))
    axes[0, 1].set(yscale="log", xlabel="epoch, at the chosen rate", ylabel="training loss")
    axes[0, 1].legend(frameon=False, fontsize=8)
    for place in axes.flat:
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    epochs: int = 6,
    batch_size: int = 64,
    lr: float = 1e-2,
    rates: int = 9,
    seeds: int = 3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a small network with each optimizer at many learning rates, and measures what they reach.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        epochs: passes over the training pictures, in each training.
        batch_size: pictures in an optimizer step, over all processes.
        lr: the middle one of the learning rates, which reach from a hundredth to a hundred times of it.
        rates: how many learning rates, evenly spaced on a logarithmic scale.
        seeds: trainings with each optimizer and rate.
        device: auto, cpu, cuda or mps.
        seed: of the first training's weights and order of pictures; the others count up from it.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if rates < 2 or seeds < 1:
        raise InputError(f"options rates and seeds: expected at least 2 and 1, got {rates} and {seeds}")
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    fit_rows, held_out_rows = holdout(train_set.labels.cpu(), seed=seed)
    fit_set, held_out = train_set.subset(fit_rows), train_set.subset(held_out_rows)

    def trained(optimizer: str, rate: float, number: int, part: Images | ImageFiles) -> tuple[nn.Module, OldLoop]:
        torch.manual_seed(number)
        model = build_model(train_set.shape, len(train_set.classes)).to(place)
        stepper = OPTIMIZERS[optimizer](model.parameters(), lr=rate)
        name = f"{optimizer}-{rate:.2g}-{number}-{len(part)}"
        options: Any = {"epochs": epochs, "batch_size": batch_size, "device": place, "seed": number, **engine}
        return model, train(model, stepper, part, name=name, **options)

    def held_out_accuracy(optimizer: str, rate: float, number: int) -> float:
        try:
            return evaluate(trained(optimizer, rate, number, fit_set)[0], held_out, place)["accuracy"]
        except FloatingPointError:
            return 0.0  # a network of NaNs is never right

    grid = [lr * 100 ** (2 * step / (rates - 1) - 1) for step in range(rates)]
    numbers = range(seed, seed + seeds)
    swept = [name for name in OPTIMIZERS if name != "Adam"]  # it is the same as the one by hand, as claimed below
    sweep = {name: {rate: [held_out_accuracy(name, rate, n) for n in numbers] for rate in grid} for name in swept}
    best = max(statistics.mean(accuracies) for by_rate in sweep.values() for accuracies in by_rate.values())

    rows: list[dict[str, Any]] = []
    histories: dict[str, list[dict[str, float]]] = {}
    networks: dict[str, nn.Module] = {}
    for name, by_rate in sweep.items():
        chosen = max(grid, key=lambda rate: statistics.mean(by_rate[rate]))
        ends = [trained(name, chosen, number, train_set) for number in numbers]
        tested = [evaluate(model, test_set, place) for model, _ in ends]
        networks[name], histories[name] = ends[0][0], ends[0][1].history
        runs = [accuracy for accuracies in by_rate.values() for accuracy in accuracies]
        rows.append(
            {
                "optimizer": name,
                "runs near the best": statistics.mean(accuracy >= best - 0.02 for accuracy in runs),
                "chosen rate": chosen,
                **{key: statistics.mean(one[key] for one in tested) for key in ("accuracy", "loss")},
            }
        )
    by_name = {row["optimizer"]: row for row in rows}
    adam, sgd, momentum = (by_name[name] for name in ("Adam, by hand", "SGD", "SGD with momentum"))
    torch.manual_seed(seed)
    start = build_model(train_set.shape, len(train_set.classes))
    near = "share of all runs within 2 points of the best: "
    return Result(
        metrics={key: adam[key] for key in ("accuracy", "loss")},
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.95},
        claims=[
            claim(
                "largest difference of a weight to torch.optim.Adam's after 100 steps",
                largest_difference(start, train_set),
                "<=",
                1e-6,
            ),
            claim(f"{near}more for Adam than for SGD", adam["runs near the best"], ">", sgd["runs near the best"]),
            claim("how many times Adam's best rate is SGD's", sgd["chosen rate"] / adam["chosen rate"], ">", 3),
            claim(
                "at its best rate, SGD with momentum ends ahead of Adam", momentum["accuracy"], ">", adam["accuracy"]
            ),
        ],
        history=histories["Adam, by hand"],
        rows=rows,
        model=networks["Adam, by hand"],
        draw=lambda: draw_sweep(sweep, best, histories),
    )


if __name__ == "__main__":
    main(run)
