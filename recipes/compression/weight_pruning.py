"""Weight pruning: a large network with few weights left beats a small one.

Most of a network's weights are not needed. While it trains, ever more of them are set to zero, those of smallest
magnitude first, and a mask keeps them there: the network adapts to each loss before the next. Done all at once
halfway through, it costs more; done after training, it costs nearly half of the right answers.

A zero takes as many bytes as any other number, until a file leaves it out and tells how many there are before each
number that is left. A dense network whose file is of that size has to be narrow, and is less accurate, trained as
long and with a learning rate of its own. It is the faster one, though: processors multiply by zero, too.

Digits in the middle of their picture are too easy to tell the two apart: here they are moved, in training at random,
and in testing to all sides.

Notes: 86
Paper: Han, Pool, Tran, Dally (2015), "Learning both Weights and Connections for Efficient Neural Networks",
    https://arxiv.org/abs/1506.02626; Zhu, Gupta (2017), "To prune, or not to prune: exploring the efficacy
    of pruning for model compression", https://arxiv.org/abs/1710.01878
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression.calls import call, logits_of
from recipes.compression.files import file_bytes, save_dense, save_sparse
from recipes.compression.layers import find_weights, tell_reached
from recipes.compression.moved import DeepNet, Moved, as_large_a_file, evaluate_moved
from recipes.compression.report import Version, compare, logarithmic
from recipes.compression.shipping import Shipped
from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, main, option, recipe
from recipes.datasets.images import open_images
from recipes.vision.classification.scoring import evaluate


@dataclass(kw_only=True)
class PruningOptions(Options):
    width: int = option(32, "channels of every block", least=1)
    sparsity: float = option(0.93, "share of the weights that are zero at the end", least=0, below=1)
    schedule: Literal["gradual", "halfway", "after"] = option(
        "gradual", "when they become zero: bit by bit, all at once halfway through, or after training"
    )
    small_lr: float = option(
        0.01, "highest learning rate of the small dense network, chosen like lr on held-out train pictures", above=0
    )
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = 40
    batch_size: int = 64
    lr: float = 5e-3


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of all layers but embeddings by name, one that layers share once; an InputError if there is none."""
    return {name: weight.value for name, weight in find_weights(model, tables=False).items()}


def prune(model: nn.Module, sparsity: float) -> dict[str, Tensor]:
    """Sets the weights of smallest magnitude to zero, in place, by one threshold for all layers.

    Biases, norms and embeddings stay as they are; what was zero before is the first to go.

    Args:
        model: any network with linear, convolutional or recurrent layers, or attention.
        sparsity: share of the weights that are zero afterwards, at least 0 and below 1; else an InputError.

    Returns:
        The masks by the weights' names: bool tensors of their shapes, false where a weight is zero now.
    """
    if not 0 <= sparsity < 1:
        raise InputError(f"option sparsity: expected a share of at least 0 and below 1, got {sparsity!r}")
    weights = prunable(model)
    tell_reached("prune", model, weights.values())
    masks = largest(weights, 1 - sparsity)
    apply_masks(model, masks)
    return masks


@torch.no_grad()
def largest(weights: dict[str, nn.Parameter], share: float) -> dict[str, Tensor]:
    """Masks of the weights of largest magnitude. Of equally large ones as many stay as may, at even distances."""
    magnitudes = torch.cat([weight.abs().flatten().float() for weight in weights.values()])  # (weights of all layers,)
    count = round((1 - share) * len(magnitudes))
    threshold = magnitudes.kthvalue(count).values if count else -1.0
    kept = magnitudes > threshold
    equal = (magnitudes == threshold).nonzero().flatten()
    due = len(kept) - count - int(kept.sum())  # of the equal ones stay
    kept[equal[torch.arange(due, device=equal.device) * len(equal) // max(due, 1)]] = True
    parts = kept.split([weight.numel() for weight in weights.values()])
    return {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}


@torch.no_grad()
def apply_masks(model: nn.Module, masks: dict[str, Tensor]) -> None:
    """Sets to zero, in place, the weights at which their mask is false."""
    for name, mask in masks.items():
        model.get_parameter(name).masked_fill_(~mask, 0)  # multiplying would leave negative zeros


def gradual(progress: float, sparsity: float) -> float:
    """The share that is zero by then: it rises fast while many weights are idle, and ends after 60 % of the steps."""
    t = min(progress / 0.6, 1.0)
    # s(t) = s_end + (s_start - s_end) (1 - t)³, Zhu and Gupta's equation 1, from s_start = 0
    return sparsity - sparsity * (1 - t) ** 3


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "gradual": gradual,
    "halfway": lambda progress, sparsity: sparsity if progress >= 0.5 else 0.0,
    "after": lambda progress, sparsity: 0.0,
}


def train(
    model: nn.Module,
    train_set: Any,
    options: Options,
    sparsity: float,
    *,
    schedule: Callable[[float, float], float] = gradual,
    evaluate: Any = dict,
    name: str = "pruned",
) -> Loop:
    """Minimizes the cross-entropy while weights are pruned, in place; the pruned ones stay zero.

    Args:
        model: a network that gives logits (batch, classes), by themselves or among other outputs.
        train_set: any map-style data set of (input, label); the input may be a tuple, or a dict of named ones.
        schedule: from the share of training done and the sparsity at the end to the sparsity so far.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05)
    loop = Loop(model, optimizer, batches(train_set, options), options, evaluate=evaluate, name=name)
    every = max(1, loop.total // 40)  # the network gets some steps to adapt before it is pruned again
    weights, masks = prunable(model), dict[str, Tensor]()
    for inputs, labels in loop:
        if not masks or loop.steps % every == 0:
            masks = largest(weights, 1 - schedule(loop.steps // every * every / loop.total, sparsity))
            apply_masks(model, masks)
        loop.step(F.cross_entropy(logits_of(call(loop.model, inputs)), labels))
        apply_masks(model, masks)  # the optimizer's momentum moves zeros too
    prune(model, sparsity)  # where the schedule has not come to its end
    return loop


def build(options: PruningOptions, data: Any, *, width: int | None = None) -> DeepNet:
    """The network for pictures and classes like these."""
    return DeepNet(data.shape[0], len(data.classes), width=options.width if width is None else width)


@recipe(PruningOptions)
def run(options: PruningOptions) -> Result:
    """Trains a network while most of its weights are pruned, and a dense one whose file is as large."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    model, moved = build(options, train_set).to(options.device), Moved(train_set)

    def scores() -> dict[str, float]:
        return evaluate(model, test_set, options.device)

    schedule = SCHEDULES[options.schedule]
    loop = train(model, moved, options, options.sparsity, schedule=schedule, evaluate=scores)
    size = file_bytes(model, save_sparse)
    small = as_large_a_file(lambda width: build(options, train_set, width=width), size, options.width)
    train(small, moved, replace(options, lr=options.small_lr), 0.0, name="small")
    return Result(
        metrics=evaluate_moved(model, test_set, options.device) | {"bytes": size},
        baseline=evaluate_moved(small, test_set, options.device) | {"bytes": file_bytes(small, save_dense)},
        baseline_name="a dense network of as many bytes",
        bars={"accuracy": 0.88},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    options = PruningOptions(**result.options | {"out": None, "checkpoint": None})
    zeros, seeds = f"{options.sparsity:.0%} zeros", (options.seed + 1, options.seed + 2)
    runs = [result, *(run(seed=seed) for seed in seeds)]
    pruned, small = mean(one["accuracy"] for one in runs), mean(one.baseline["accuracy"] for one in runs)
    after, dense, more = run(schedule="after"), run(sparsity=0.0), (options.sparsity + 2) / 3
    gradually, halfway = run(sparsity=more), run(sparsity=more, schedule="halfway")
    device, size = next(result.model.parameters()).device, int(result["bytes"])
    narrow = as_large_a_file(lambda width: build(options, result.train_set, width=width), size, options.width)
    narrow.to(device)
    versions = [
        Version("dense", dense.model, dense["accuracy"], file_bytes(dense.model, save_dense), dense.model),
        Version(zeros, result.model, pruned, size, result.model),
        Version("small dense network", narrow, small, int(result.baseline["bytes"]), narrow),
    ]
    rows = result.rows = compare(versions, result.test_set[0][0].to(device))
    text = f"with {zeros} it is ahead of a dense network of as many bytes: means of 3 trainings"
    yield Claim(text, pruned, ">", small, margin=0.01)
    text = f"{more:.0%} zeros that come bit by bit are ahead of as many at once, halfway through"
    yield Claim(text, gradually["accuracy"], ">", halfway["accuracy"], margin=0.015)
    text = f"{zeros} that come bit by bit are far ahead of as many after training"
    yield Claim(text, result["accuracy"], ">", after["accuracy"], margin=0.2)
    text = "its file, as a share of the large dense network's"
    yield Claim(text, result["bytes"] / rows[0]["bytes"], "<", 2 * (1 - options.sparsity), kind="fact")
    text = "but how many times the small network's arithmetic it takes"
    yield Claim(text, rows[1]["macs"] / rows[2]["macs"], ">", 4, kind="fact")


def fine_tune(
    model: nn.Module,
    train_set: Any,
    sparsity: float,
    *,
    schedule: Callable[[float, float], float] = gradual,
    **options: Any,
) -> Loop:
    """Trains a network on while weights are pruned, in place: `train` with the fields of `Options` given by name."""
    return train(model, train_set, Options(**options), sparsity, schedule=schedule)


@run.figure
def figure(result: Result) -> Any:
    drawing, axes = new_figure(1, 1, width=5.5, height=3.6)
    runs = [result, *result.runs.values()]
    for name, scores in (("pruned", [one.metrics for one in runs]), ("dense", [one.baseline for one in runs])):
        kilobytes = [one["bytes"] / 1000 for one in scores]
        axes[0, 0].plot(kilobytes, [one["accuracy"] for one in scores], "o", fillstyle="none", label=name)
    logarithmic(axes[0, 0], "kilobytes on disk")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return drawing


@dataclass(kw_only=True)
class Sparse(Shipped):
    """A pruned classifier: its packed file leaves the zeros out."""

    save = staticmethod(save_sparse)


run.predicts(Sparse, build)


if __name__ == "__main__":
    main(run)
