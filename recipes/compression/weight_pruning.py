"""Weight pruning: most of a trained network's weights are not needed.

The weights of smallest magnitude are set to zero, all at once or a few at a time, and the others go on
training while a mask keeps the zeros at zero. Done gradually, the network adapts to each loss before the next.
A zero costs as much as any number: the file stays as large and the network as slow. What shrinks is a file
that leaves the zeros out: one bit a weight tells where the others belong.

Notes: 86
Paper: Han, Pool, Tran, Dally (2015), "Learning both Weights and Connections for Efficient Neural Networks",
    https://arxiv.org/abs/1506.02626; Zhu, Gupta (2017), "To prune, or not to prune: exploring the efficacy
    of pruning for model compression", https://arxiv.org/abs/1710.01878
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression.calls import call, logits_of
from recipes.compression.files import file_bytes, load_sparse, save_dense, save_sparse
from recipes.compression.layers import find_weights, tell_reached
from recipes.compression.report import Version, check_counts, compare, in_subfolder, logarithmic
from recipes.core.command_line import main
from recipes.core.device import rank_and_world, setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, open_images
from recipes.vision.classification.old import FAST, train
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of all layers but embeddings by name, one that layers share once.

    Raises:
        InputError: there is no such layer, or none whose weight is a plain parameter; names the layer.
    """
    return {name: weight.value for name, weight in find_weights(model, tables=False).items()}


@torch.no_grad()
def prune(model: nn.Module, sparsity: float) -> dict[str, Tensor]:
    """Sets the weights of smallest magnitude to zero, in place, by one threshold for all layers.

    Biases, norms and embeddings stay as they are. Weights that were zero before are the first to go, so
    pruning the same model again and further only adds zeros. Of equally large ones as many go as are due,
    at even distances.

    Args:
        model: any network with linear, convolutional or recurrent layers, or attention.
        sparsity: share of the weights that are zero afterwards, at least 0 and below 1.

    Returns:
        The masks by the weights' names: bool tensors of their shapes, false where a weight is zero now.

    Raises:
        InputError: the sparsity is out of range, or the model has no weight that can be pruned.
    """
    if not 0 <= sparsity < 1:
        raise InputError(f"option sparsity: expected a share of at least 0 and below 1, got {sparsity!r}")
    weights = prunable(model)
    tell_reached("prune", model, weights.values())
    magnitudes = torch.cat([weight.abs().flatten().float() for weight in weights.values()])  # (weights of all layers,)
    count = round(sparsity * len(magnitudes))
    threshold = magnitudes.kthvalue(count).values if count else -1.0
    kept = magnitudes > threshold
    equal = (magnitudes == threshold).nonzero().flatten()
    due = len(kept) - count - int(kept.sum())  # of the equal ones stay
    kept[equal[torch.arange(due, device=equal.device) * len(equal) // max(due, 1)]] = True
    parts = kept.split([weight.numel() for weight in weights.values()])
    masks = {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}
    apply_masks(model, masks)
    return masks


@torch.no_grad()
def apply_masks(model: nn.Module, masks: dict[str, Tensor]) -> None:
    """Sets to zero, in place, the weights at which their mask is false."""
    for name, mask in masks.items():
        model.get_parameter(name).masked_fill_(~mask, 0)  # multiplying would leave negative zeros


def one_shot(progress: float, sparsity: float) -> float:
    """Everything at once, before the first step."""
    return sparsity


def gradual(progress: float, sparsity: float) -> float:
    """The cubic schedule: fast while many weights are idle, ever slower, complete after 70 % of the steps.

    Args:
        progress: share of the training done, 0 to 1.
        sparsity: at the end.
    """
    t = min(progress / 0.7, 1.0)
    # s(t) = s_end + (s_start - s_end) (1 - t)³, Zhu and Gupta's equation 1, from s_start = 0
    return sparsity - sparsity * (1 - t) ** 3


def fine_tune(
    model: nn.Module,
    train_set: Any,
    sparsity: float,
    *,
    schedule: Callable[[float, float], float] = gradual,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    **engine: Unpack[Engine],
) -> OldLoop:
    """Trains on while weights are pruned, in place; the pruned ones stay zero.

    Args:
        model: a trained network that gives logits (batch, classes), by themselves or among other outputs.
        train_set: any map-style data set of (input, label); the input may be a tuple, or a dict of named ones.
        sparsity: share of the weights that are zero at the end.
        schedule: from the share of training done and the sparsity at the end to the sparsity so far.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    loader = old_batches(train_set, batch_size, seed=seed, workers=2 if isinstance(train_set, ImageFiles) else 0)
    loop = OldLoop(model, optimizer, loader, epochs=epochs, device=device, schedule=one_cycle, **engine)
    steps = epochs * -(-len(loader) // loop.options.accumulate)
    every = max(1, steps // 20)  # the network gets some steps to adapt before it is pruned again
    masks: dict[str, Tensor] = {}
    for inputs, labels in loop:
        if not masks or loop.steps % every == 0:
            masks = prune(model, schedule(loop.steps // every * every / steps, sparsity))
        loss = F.cross_entropy(logits_of(call(loop.model, inputs)), labels)
        loop.step(loss)
        apply_masks(model, masks)  # the optimizer's momentum moves zeros too
    prune(model, sparsity)  # where the steps were too few for the schedule to end
    return loop


WAYS: dict[str, Callable[[float, float], float] | None] = {
    "pruned, not trained on": None,
    "pruned at once, trained on": one_shot,
    "pruned gradually": gradual,
}


def mean_of(records: list[dict[str, Any]], way: str, sparsity: float, name: str = "accuracy") -> float:
    """Accuracy or bytes of that way and sparsity, averaged over the trainings."""
    values = [record[name] for record in records if (record["way"], record["sparsity"]) == (way, sparsity)]
    return sum(values) / len(values)


def draw_pruning(records: list[dict[str, Any]]) -> Any:
    """Accuracy against the share of weights left, and, closer, against the bytes of the file."""
    figure, axes = new_figure(1, 2, width=4.8, height=3.6)
    for way in dict.fromkeys(record["way"] for record in records):
        levels = sorted({record["sparsity"] for record in records if record["way"] == way})
        left = [100 * (1 - level) for level in levels]
        kilobytes = [mean_of(records, way, level, "bytes") / 1000 for level in levels]
        accuracy = [mean_of(records, way, level) for level in levels]
        style = {"linestyle": "", "marker": "*", "markersize": 11} if len(levels) == 1 else {"marker": "o"}
        axes[0, 0].plot(left, accuracy, label=way, **style)
        axes[0, 1].plot(kilobytes, accuracy, label=way, **style)
    logarithmic(axes[0, 0], "weights left, %")
    logarithmic(axes[0, 1], "kilobytes on disk, zeros left out")
    axes[0, 0].invert_xaxis()
    axes[0, 0].legend(frameon=False, fontsize=8)
    axes[0, 1].set_ylim(mean_of(records, "dense", 0.0) - 0.08)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    width: int = 32,
    sparsity: float = 0.8,
    epochs: int = 6,
    batch_size: int = 64,
    lr: float = 1e-2,
    fine_tune_lr: float = 5e-3,
    seeds: int = 3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Prunes a trained classifier in three ways to several sparsities, and measures what that saves.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        width: channels of the first convolution; the others have two and four times as many.
        sparsity: share of the weights to remove, at least 0 and below 1.
        epochs: passes over the training pictures before pruning; half as many follow it.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule before pruning.
        fine_tune_lr: the same for what follows.
        seeds: trainings that every accuracy is the mean of.
        device: auto, cpu, cuda or mps.
        seed: of the first training's weights and order of pictures; the others count up from it.
        out: folder for result.json, figure.png, model.safetensors and pruned.safetensors, the sparse file.
    """
    if not 0 < sparsity < 1:
        raise InputError(f"option sparsity: expected a share above 0 and below 1, got {sparsity!r}")
    check_counts(width=width, seeds=seeds)
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    options: Engine = {**FAST, **engine}
    fit = functools.partial(train, train_set=train_set, test_set=test_set, batch_size=batch_size, lr=lr, device=place)
    later = max(1, epochs // 2)
    tune = functools.partial(fine_tune, train_set=train_set, epochs=later, batch_size=batch_size, device=place)
    records: list[dict[str, Any]] = []
    networks: dict[tuple[str, float], nn.Module] = {}  # of the first seed
    history: list[dict[str, float]] = []

    def trained(name: str, width: int, epochs: int, number: int) -> nn.Module:
        torch.manual_seed(number)
        model = SmallCNN(train_set.shape[0], len(train_set.classes), width=width)
        loop = fit(model, epochs=epochs, seed=number, **in_subfolder(options, f"{name}-{number}"))
        history[:] = history or loop.history
        return model

    def note(way: str, level: float, model: nn.Module, save: Callable[[nn.Module, Path], object]) -> None:
        model.to(memory_format=torch.contiguous_format)  # as it will be when loaded: the same sums in the same order
        accuracy = evaluate(model, test_set, place)["accuracy"]
        records.append({"way": way, "sparsity": level, "accuracy": accuracy, "bytes": file_bytes(model, save)})
        networks.setdefault((way, level), model)

    for number in range(seed, seed + seeds):
        dense = trained("dense", width, epochs, number)
        ways = [(way, schedule, level) for level in sorted({0.95, 0.98, sparsity}) for way, schedule in WAYS.items()]
        for way, schedule, level in [("dense", one_shot, 0.0), *ways]:  # the dense one trains on just as long
            model = copy.deepcopy(dense)
            if schedule is None:
                prune(model, level)
            else:
                torch.manual_seed(number)
                own = in_subfolder(options, f"{way}-{level}-{number}")
                tune(model, sparsity=level, schedule=schedule, lr=fine_tune_lr, seed=number, **own)
            note(way, level, model, save_sparse if level else save_dense)
        narrow = max(1, round(width * (1 - sparsity) ** 0.5))  # weights grow with the square of the width
        note("small dense network", sparsity, trained("small", narrow, epochs + later, number), save_dense)

    dense, pruned = networks["dense", 0.0], networks["pruned gradually", sparsity]
    small, loaded = networks["small dense network", sparsity], copy.deepcopy(dense)
    with tempfile.TemporaryDirectory() as folder:
        save_sparse(pruned, Path(folder) / "pruned.safetensors")
        load_sparse(loaded, Path(folder) / "pruned.safetensors")
    if out is not None and rank_and_world()[0] == 0:
        save_sparse(pruned, Path(out) / "pruned.safetensors")

    before, accuracy = mean_of(records, "dense", 0.0), mean_of(records, "pruned gradually", sparsity)
    untrained, as_small = (mean_of(records, way, sparsity) for way in ("pruned, not trained on", "small dense network"))
    zeros = f"{sparsity:.0%} zeros"
    versions = [
        Version("dense", dense, before, file_bytes(dense, save_dense), dense),
        Version(f"{zeros}, dense file", pruned, accuracy, file_bytes(pruned, save_dense), pruned),
        Version(f"{zeros}, sparse file", loaded, accuracy, file_bytes(pruned, save_sparse), loaded),
        Version("small dense network", small, as_small, file_bytes(small, save_dense), small),
    ]
    in_full, without_zeros = (version.bytes / versions[0].bytes for version in versions[1:3])
    images = test_set.__getitems__(range(min(256, len(test_set))))[0].to(place)
    rows = compare(versions, images[0])
    with torch.no_grad():
        changed = int((pruned.eval()(images) != loaded.eval()(images)).sum())
    return Result(
        metrics={"accuracy": accuracy, "bytes": versions[2].bytes, "macs": rows[1]["macs"]},
        baseline={"accuracy": untrained, "bytes": versions[0].bytes, "macs": rows[0]["macs"]},
        baseline_name="not trained on, dense file",
        bars={"accuracy": 0.96},
        claims=[
            claim(f"points that {zeros} cost after fine-tuning", 100 * (before - accuracy), "<=", 1),
            claim("fine-tuning wins back what removing weights had cost", accuracy, ">", untrained),
            claim("with its zeros written out the file is no smaller: share of the dense one", in_full, ">=", 1),
            claim("and 32 pictures take as long: share of the dense one's time", rows[1]["latency_ratio_32"], ">", 0.9),
            claim(
                "without its zeros the file shrinks: share of the dense one", without_zeros, "<", 1.4 * (1 - sparsity)
            ),
            claim("answers that change when the sparse file is read back", changed, "<=", 0),
        ],
        history=history,
        rows=rows,
        model=pruned,
        draw=lambda: draw_pruning(records),
    )


if __name__ == "__main__":
    main(run)
