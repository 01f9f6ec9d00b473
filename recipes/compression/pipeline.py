"""Prune, share, code: a network in a fiftieth of its bytes.

Each way of making a network smaller leaves work for the next. Without half of its channels it has a quarter of
the weights; of those most are set to zero, and the rest take a few values; of symbols so uneven, most words of
Huffman's code are one bit long. Accuracy, bytes and time are measured after every step: only the first makes
the network faster.

Notes: 86
Paper: Han, Mao, Dally (2015), "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
    Quantization and Huffman Coding", https://arxiv.org/abs/1510.00149
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import copy
import functools
import itertools
import tempfile
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from recipes.compression.channels import prune_channels
from recipes.compression.files import file_bytes, save_dense, save_sparse
from recipes.compression.huffman import load_shared, save_shared
from recipes.compression.report import Version, check_counts, compare, in_subfolder, logarithmic
from recipes.compression.weight_pruning import fine_tune
from recipes.compression.weight_sharing import share_weights
from recipes.core.command_line import main
from recipes.core.device import rank_and_world, setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.old import Engine, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.vision.classification.old import FAST, train
from recipes.vision.classification.scoring import evaluate, majority
from recipes.vision.classification.task import SmallCNN

SAVERS = {
    "dense": save_dense,
    "fewer channels": save_dense,
    "most weights zero": save_sparse,
    "few values, Huffman's words": save_shared,
}


def draw_pipeline(rows: list[dict[str, Any]]) -> Any:
    """Accuracy against bytes, from step to step."""
    figure, axes = new_figure(1, 1, width=5.5, height=3.6)
    kilobytes = [row["bytes"] / 1000 for row in rows]
    axes[0, 0].plot(kilobytes, [row["accuracy"] for row in rows], color="gray", linewidth=0.8)
    for row, size in zip(rows, kilobytes, strict=True):
        axes[0, 0].plot(size, row["accuracy"], "o", label=row["version"])
    logarithmic(axes[0, 0], "kilobytes on disk")
    axes[0, 0].set_ylim(0.9, 1)
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower right")
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    width: int = 64,
    share: float = 0.5,
    sparsity: float = 0.7,
    count: int = 16,
    epochs: int = 4,
    batch_size: int = 64,
    lr: float = 1e-2,
    fine_tune_lr: float = 5e-3,
    seeds: int = 3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Compresses a trained classifier step by step, and measures each.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        width: channels of the first convolution; the others have two and four times as many.
        share: of the channels to remove, above 0 and below 1.
        sparsity: share of the weights left that become zero, above 0 and below 1.
        count: values that the other weights of a layer may take.
        epochs: passes over the training pictures before the first step, and again after channels went and
            while weights do.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule before the first step.
        fine_tune_lr: the same for what follows.
        seeds: trainings that every accuracy is the mean of.
        device: auto, cpu, cuda or mps.
        seed: of the first training's weights and order of pictures; the others count up from it.
        out: folder for result.json, figure.png, model.safetensors and compressed.safetensors, the coded file.
    """
    for name, value in (("share", share), ("sparsity", sparsity)):
        if not 0 < value < 1:
            raise InputError(f"option {name}: expected a share above 0 and below 1, got {value!r}")
    check_counts(width=width, seeds=seeds)
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    example = train_set.__getitems__([0])[0].to(place)
    options: Engine = {**FAST, **engine}
    fit = functools.partial(train, train_set=train_set, test_set=test_set, batch_size=batch_size, device=place)
    tune = functools.partial(
        fine_tune, train_set=train_set, epochs=epochs, batch_size=batch_size, lr=fine_tune_lr, device=place
    )
    accuracies: dict[str, list[float]] = {name: [] for name in SAVERS}
    sizes: dict[str, list[int]] = {name: [] for name in SAVERS}
    networks: dict[str, nn.Module] = {}  # of the first seed
    history: list[dict[str, float]] = []

    def note(name: str, model: nn.Module) -> nn.Module:
        model.to(memory_format=torch.contiguous_format)
        accuracies[name].append(evaluate(model, test_set, place)["accuracy"])
        sizes[name].append(file_bytes(model, SAVERS[name]))
        networks.setdefault(name, copy.deepcopy(model))
        return model

    dense, narrow, sparse, coded = SAVERS
    for number in range(seed, seed + seeds):
        torch.manual_seed(number)
        model: nn.Module = SmallCNN(train_set.shape[0], len(train_set.classes), width=width)
        loop = fit(model, epochs=epochs, lr=lr, seed=number, **in_subfolder(options, f"dense-{number}"))
        history = history or loop.history
        model = prune_channels(note(dense, model), example, share)
        fit(model, epochs=epochs, lr=fine_tune_lr, seed=number, **in_subfolder(options, f"narrow-{number}"))
        own = in_subfolder(options, f"sparse-{number}")
        tune(note(narrow, model), sparsity=sparsity, seed=number, **own)
        note(coded, share_weights(note(sparse, model), count))

    mean = {name: sum(values) / seeds for name, values in accuracies.items()}
    size = {name: sum(values) // seeds for name, values in sizes.items()}
    loaded = copy.deepcopy(networks[narrow])
    with tempfile.TemporaryDirectory() as folder:
        save_shared(networks[coded], Path(folder) / "compressed.safetensors")
        load_shared(loaded, Path(folder) / "compressed.safetensors")
    if out is not None and rank_and_world()[0] == 0:
        save_shared(networks[coded], Path(out) / "compressed.safetensors")
    images = test_set.__getitems__(range(min(256, len(test_set))))[0].to(place)
    with torch.no_grad():
        changed = int((networks[coded].eval()(images) != loaded.eval()(images)).sum())
    rows = compare(
        [Version(name, one, mean[name], size[name], one) for name, one in networks.items()], images[0], rounds=5
    )
    steps = [size[name] for name in SAVERS]
    times = [row["latency_ratio_32"] for row in rows]
    return Result(
        metrics={"accuracy": mean[coded], "bytes": size[coded], "macs": rows[-1]["macs"]},
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.96},
        claims=[
            claim("bytes of the coded file, as a share of the dense one's", size[coded] / size[dense], "<=", 0.05),
            claim("points that all steps cost", 100 * (mean[dense] - mean[coded]), "<=", 1),
            claim(
                "every step makes the file smaller: largest ratio",
                max(after / before for before, after in itertools.pairwise(steps)),
                "<",
                1,
            ),
            claim("answers that change when the file is read back", changed, "<=", 0),
            claim("fewer channels save time: share of the dense network's, 32 pictures", times[1], "<=", 1 / 1.6),
            claim("zeros and values save no more of it", times[3], ">", 0.9 * times[1]),
        ],
        history=history,
        rows=rows,
        model=networks[coded],
        draw=lambda: draw_pipeline(rows),
    )


if __name__ == "__main__":
    main(run)
