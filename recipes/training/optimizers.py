"""Optimizers: Adam written out, beside those of torch.optim.

All of them step against the gradient; they differ in how far. SGD's step is the learning rate times the gradient.
Momentum steps along a running sum of past gradients: it picks up speed along a ravine, whose sides it would otherwise
bounce between, and rolls through some shallow minima. RMSprop divides each weight's step by the usual size of its
gradient; Adam does so with a running mean of the gradient, and AdamW also shrinks the weights.

Steps that do not depend on the gradient's size make a good learning rate easier to hit. They do not make the result
better: it is often said that SGD with momentum ends ahead of Adam, or the reverse, but when each gets a rate of its
own, chosen on held-out pictures, the two end level here. Only in a deeper network without normalization, where
gradients differ in size from layer to layer, does plain SGD stay behind at every rate.

Notes: 41
Paper: Kingma, Ba (2014), "Adam: A Method for Stochastic Optimization", https://arxiv.org/abs/1412.6980;
    Wilson, Roelofs, Stern, Srebro, Recht (2017), "The Marginal Value of Adaptive Gradient Methods in Machine
    Learning", https://arxiv.org/abs/1705.08292
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import mean, median
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, Loop, Options, Result, batches, hold_out, main, option, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.training.scoring import evaluate, least_squares
from recipes.vision.classification.using import Classification


class Adam(torch.optim.Optimizer):
    """Adam as in the paper's algorithm 1, with its names and defaults; equal to torch.optim.Adam."""

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
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
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "rmsprop": torch.optim.RMSprop,
    "adam_by_hand": Adam,
    "adam": torch.optim.Adam,
    "adamw": partial(torch.optim.AdamW, weight_decay=0.05),
}


@dataclass(kw_only=True)
class OptimizersOptions(Options):
    optimizer: Literal["sgd", "momentum", "rmsprop", "adam_by_hand", "adam", "adamw"] = option(
        "adam_by_hand", "sgd, momentum (SGD with it), rmsprop, adam_by_hand, or torch's adam or adamw"
    )
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    width: int = option(64, "units of each hidden layer", least=1)
    depth: int = option(3, "hidden layers", least=1)
    epochs: int = 12
    batch_size: int = 64


def build(options: OptimizersOptions, data: Images | ImageFiles) -> nn.Sequential:
    """A perceptron without normalization: it leaves the size of its gradients to the optimizer."""
    channels, height, width = data.shape
    sizes = [channels * height * width, *[options.width] * options.depth]
    hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(options.width, len(data.classes)))


def train(
    model: nn.Module, train_set: Images | ImageFiles, test_set: Images | ImageFiles, options: OptimizersOptions
) -> Loop:
    """Minimizes the cross-entropy with the optimizer that the options name."""
    loop = Loop(
        model,
        OPTIMIZERS[options.optimizer](model.parameters(), lr=options.lr),
        batches(train_set, options),
        options,
        schedule=lambda progress: 1 - progress,
        evaluate=lambda: evaluate(model, test_set, options.device),
    )
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(images), labels))
    return loop


@recipe(OptimizersOptions)
def run(options: OptimizersOptions) -> Result:
    """Trains a small network with one optimizer and measures it on held-out pictures."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=least_squares(train_set, test_set),
        baseline_name="linear classifier, solved",
        bars={"accuracy": 0.955},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    written, torchs = (descend(name, 0.03, ravine, (1.0, 1.0)) for name in ("adam_by_hand", "adam"))
    text = "largest distance of the written Adam's path from torch.optim.Adam's, over 400 steps"
    yield Claim(text, (written - torchs).abs().max().item(), "<=", 1e-6, kind="fact")
    steps, deepest = {}, {}
    for name in ("sgd", "momentum"):  # each at its best rate
        rates = [10 ** (step / 4) for step in range(-10, 1)]
        paths = [descend(name, rate, ravine, (1.0, 1.0)) for rate in rates]
        steps[name] = min(int((~(ravine(path.T) <= 1e-4)).sum()) for path in paths)
        ends = [descend(name, rate, wells, torch.linspace(-6, 6, 121).tolist())[-1] for rate in rates]
        deepest[name] = max((end.abs() < 0.4).double().mean().item() for end in ends)
    text = "steps along a ravine: fewer with momentum than without"
    yield Claim(text, steps["momentum"], "<", steps["sgd"], kind="fact")
    text = "share of the starting points that reach the deepest of several minima: larger with momentum"
    yield Claim(text, deepest["momentum"], ">", deepest["sgd"], kind="fact")

    with torch.random.fork_rng(devices=[]):
        _, momentum, _, adam = swept = [Sweep(result, optimizer=name) for name in SWEPT]
        deep = [Sweep(result, optimizer=name, depth=6) for name in SWEPT]
    bests = [max(max(one.held_out.values()) for one in sweeps) for sweeps in (swept, deep)]
    result.rows = [one.row(best) for best, sweeps in zip(bests, (swept, deep), strict=True) for one in sweeps]
    near = {name: mean(row["near best"] for row in result.rows if row["optimizer"] == name) for name in SWEPT}
    text = "share of the trainings, over rates and depths, within 2 points of the best: larger for Adam than for SGD"
    yield Claim(text, near["adam_by_hand"], ">", near["sgd"], margin=0.06)
    text = "at a learning rate that suits Adam, SGD is far behind"
    yield Claim(text, run(optimizer="sgd")["accuracy"], "<", result["accuracy"], margin=0.2)
    text = "tuned, SGD with momentum and Adam are closer than half the lead of Adam on the linear classifier"
    lead = adam.tested - result.baseline["accuracy"]
    yield Claim(text, abs(momentum.tested - adam.tested), "<", lead / 2, margin=0.003)
    text = "with six hidden layers, SGD stays behind Adam at every rate"
    yield Claim(text, deep[0].tested, "<", deep[-1].tested, margin=0.05)


SWEPT = ("sgd", "momentum", "rmsprop", "adam_by_hand")


class Sweep:
    """Accuracy at ten rates on a held-out fifth of the train part, and at the best of them on the test part.

    The mean of three trainings, and the median of five, of at most 300 steps; one that diverges is never right.
    """

    def __init__(self, result: Result, **changed: Any) -> None:
        here = {"out": None, "checkpoint": None, "device": next(result.model.parameters()).device}
        self.options = OptimizersOptions(**result.options | here | changed)
        rates = [self.options.lr * 10 ** (step / 2) for step in range(-4, 6)]
        parts, whole = hold_out(result.train_set, 0.2, self.options.seed), (result.train_set, result.test_set)
        self.runs = {rate: [self.accuracy(rate, number, *parts) for number in range(3)] for rate in rates}
        self.held_out = {rate: mean(runs) for rate, runs in self.runs.items()}
        self.rate = max(rates, key=lambda rate: self.held_out[rate])
        self.tested = median(self.accuracy(self.rate, number, *whole) for number in range(5))

    def accuracy(
        self, rate: float, number: int, train_set: Images | ImageFiles, test_set: Images | ImageFiles
    ) -> float:
        steps = min(300, self.options.steps or self.options.epochs * len(batches(train_set, self.options)))
        options = self.options.with_changes(lr=rate, seed=self.options.seed + number, steps=steps)
        torch.manual_seed(options.seed)
        model = build(options, train_set).to(options.device)
        try:
            train(model, train_set, test_set, options)
        except FloatingPointError:
            return 0.0
        return evaluate(model, test_set, options.device)["accuracy"]

    def near(self, best: float) -> float:
        return mean(accuracy >= best - 0.02 for runs in self.runs.values() for accuracy in runs)

    def row(self, best: float) -> dict[str, Any]:
        by_rate = {f"{rate:.0e}": round(accuracy, 3) for rate, accuracy in self.held_out.items()}
        ends = {"near best": round(self.near(best), 3), "tuned, test": round(self.tested, 4)}
        return {"optimizer": self.options.optimizer, "hidden layers": self.options.depth} | by_rate | ends


def ravine(points: Tensor) -> Tensor:
    return (points[0] ** 2 + 100 * points[1] ** 2) / 2  # a hundred times steeper across than along


def wells(points: Tensor) -> Tensor:
    return points**2 / 20 - torch.cos(3 * points) / 4  # minima about every 2, the deepest of them at 0


def descend(name: str, rate: float, function: Any, start: Sequence[float]) -> Tensor:
    """The 400 points on the way down, one a step: (400, numbers of the start)."""
    point, path = torch.tensor(start, dtype=torch.double, requires_grad=True), []
    optimizer = OPTIMIZERS[name]([point], lr=rate)
    for _ in range(400):
        path.append(point.detach().clone())
        optimizer.zero_grad()
        function(point).sum().backward()
        optimizer.step()
    return torch.stack(path)


@run.figure
def figure(result: Result) -> Any:
    drawing, axes = new_figure(1, 2, width=4.8, height=3.6)
    for row in result.rows:  # measured with the claims
        rates = {float(name): value for name, value in row.items() if name[0].isdigit()}
        style, layers = (":", ", 6 layers") if row["hidden layers"] == 6 else (".-", "")
        axes[0, 0].plot(list(rates), list(rates.values()), style, label=row["optimizer"] + layers)
    axes[0, 0].set(xscale="log", xlabel="learning rate", ylabel="held-out accuracy")
    for name, rate in (("sgd", 0.0178), ("momentum", 0.0056), ("adam_by_hand", 0.03)):
        axes[0, 1].plot(*descend(name, rate, ravine, (1.0, 0.3))[:100].T, ".-", markersize=3, label=name)
    axes[0, 1].set(xlabel="along a ravine, 100 steps", ylabel="across")
    for one in axes[0] if result.rows else axes[0, 1:]:
        one.legend(frameon=False, fontsize=7)
    return drawing


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
