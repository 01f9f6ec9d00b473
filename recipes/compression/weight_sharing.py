"""Weight sharing: many weights, few numbers.

Three ways to store a number once that is used in many places. The weights of a trained layer are sorted into
16 clusters and each is replaced by its cluster's mean: a weight is then an index of four bits, or fewer, since
Huffman's code gives common clusters short words. Layers can share one block, trained as such: the network is
as deep, and as slow, with the weights of one layer. And the table that turns tokens into vectors can be the
last layer's weight, too, which compares a vector with that of every token.

Notes: 86
Paper: Han, Mao, Dally (2015), "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
    Quantization and Huffman Coding", https://arxiv.org/abs/1510.00149; Press, Wolf (2016), "Using the Output
    Embedding to Improve Language Models", https://arxiv.org/abs/1608.05859
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import functools
import tempfile
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression.files import file_bytes, save_dense
from recipes.compression.huffman import load_shared, save_shared
from recipes.compression.layers import plain_copy, tell_reached
from recipes.compression.report import Version, check_counts, compare, in_subfolder, logarithmic
from recipes.compression.weight_pruning import prunable
from recipes.core.command_line import main
from recipes.core.device import rank_and_world, setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.old import Engine, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.vision.classification.old import FAST, train
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN


def cluster(numbers: Tensor, count: int, rounds: int = 50) -> Tensor:
    """The means of `count` clusters of numbers (N,), in order: k-means along a line.

    Every number belongs to the nearest mean, and every mean is moved to the middle of its numbers, in turn.
    In sorted order a cluster is a stretch that ends halfway to the next mean, and sums of stretches are
    differences of running sums. A mean without numbers starts again at one that is far from its own mean.
    """
    ordered = numbers.double().sort().values
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])  # (N + 1,)
    means = torch.linspace(float(ordered[0]), float(ordered[-1]), count, dtype=torch.double, device=ordered.device)
    for _ in range(rounds):
        inner = torch.searchsorted(ordered, (means[1:] + means[:-1]) / 2)  # (count - 1,)
        ends = torch.cat([inner.new_zeros(1), inner, inner.new_full((1,), len(ordered))])
        sizes = ends.diff()
        means = torch.where(sizes > 0, sums[ends].diff() / sizes.clamp(min=1), means)
        empty = (sizes == 0).nonzero().flatten()
        if len(empty):
            far = (ordered - means.repeat_interleave(sizes)).abs().topk(min(len(empty), len(ordered))).indices
            means[empty[: len(far)]] = ordered[far]
            means = means.sort().values
    return means.to(numbers.dtype)


@torch.no_grad()
def share_weights(model: nn.Module, count: int = 16) -> nn.Module:
    """A copy of the model whose layers have `count` different weights each.

    Zeros, as pruning leaves them, stay zeros and do not count.

    Args:
        model: any network with layers that `prune` knows; biases, norms and embeddings stay as they are.
        count: values a layer, 2 to 255.

    Raises:
        InputError: the count is out of range, or the model has no such layer, or none with a plain weight.
    """
    if count not in range(2, 256):
        raise InputError(f"option count: expected a whole number from 2 to 255, got {count!r}")
    model = plain_copy(model)
    weights = prunable(model)
    tell_reached("share_weights", model, weights.values())
    for weight in weights.values():
        others = weight[weight != 0]
        if len(others):
            means = cluster(others, count)
            weight[weight != 0] = means[torch.searchsorted((means[1:] + means[:-1]) / 2, others)]
    return model


class DeepNet(nn.Module):
    """Convolutional blocks x + f(x) one after the other, all with weights of their own or all the same one."""

    def __init__(self, channels: int, num_classes: int, *, width: int, depth: int, shared: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        first = self.block(width)
        self.blocks = nn.Sequential(*[first if shared else self.block(width) for _ in range(depth)])
        self.head = nn.Linear(width, num_classes)

    @staticmethod
    def block(width: int) -> nn.Module:
        return nn.Sequential(nn.GroupNorm(4, width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)  # (batch, width, height / 2, width / 2)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.amax(dim=(2, 3)))  # (batch, num_classes)


class NextPixel(nn.Module):
    """Guesses a pixel's brightness from those before it, as a language model guesses a word."""

    def __init__(self, levels: int, *, context: int = 8, width: int = 32, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(levels, width)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(context * width, width), nn.ReLU(), nn.Linear(width, width))
        self.output = nn.Linear(width, levels)
        if tied:
            self.output.weight = self.embedding.weight

    def forward(self, before: Tensor) -> Tensor:  # (batch, context), whole numbers
        return self.output(self.hidden(self.embedding(before)))  # (batch, levels)


def train_next_pixel(model: nn.Module, before: Tensor, pixels: Tensor, steps: int, seed: int) -> None:
    """Minimises the cross-entropy over batches of 1024 places drawn at random."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(pixels), (1024,), generator=generator).to(pixels.device)
        loss = F.cross_entropy(model(before[chosen]), pixels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def pixel_contexts(pixels: Tensor, levels: int, context: int = 8) -> tuple[Tensor, Tensor]:
    """From pictures (N, C, H, W), uint8: the `context` pixels before each in reading order, and each pixel itself."""
    brightness = (pixels[:, :1].flatten(1).long() * levels) // 256  # (N, H * W)
    windows = brightness.unfold(1, context + 1, 1).flatten(0, 1)  # (N * (H * W - context), context + 1)
    return windows[:, :-1], windows[:, -1]


def draw_sharing(by_count: dict[int, tuple[float, int]], dense: tuple[float, int]) -> Any:
    """Accuracy against the bytes of the coded file, a point for each number of values."""
    figure, axes = new_figure(1, 1, width=5.5, height=3.6)
    kilobytes, accuracy = zip(*[(size / 1000, value) for value, size in by_count.values()], strict=True)
    axes[0, 0].plot(kilobytes, accuracy, marker="o", label="weights of so many values, coded")
    for count, x, y in zip(by_count, kilobytes, accuracy, strict=True):
        axes[0, 0].annotate(str(count), (x, y), xytext=(0, -14), textcoords="offset points", fontsize=8, ha="center")
    axes[0, 0].plot(dense[1] / 1000, dense[0], "*", markersize=11, label="dense, 32 bits")
    logarithmic(axes[0, 0], "kilobytes on disk")
    axes[0, 0].set_ylim(0, 1.03)
    axes[0, 0].legend(frameon=False, loc="lower right", fontsize=8)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    width: int = 64,
    count: int = 16,
    depth: int = 4,
    epochs: int = 4,
    batch_size: int = 64,
    lr: float = 1e-2,
    seeds: int = 3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Stores a classifier in three ways that share numbers, and measures bytes and accuracy.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        width: channels of the first convolution; the others have two and four times as many.
        count: different weights that each layer may have.
        depth: blocks of the network whose blocks share their weights.
        epochs: passes over the training pictures.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        seeds: trainings that every accuracy is the mean of.
        device: auto, cpu, cuda or mps.
        seed: of the first training's weights and order of pictures; the others count up from it.
        out: folder for result.json, figure.png, model.safetensors and shared.safetensors, the coded file.
    """
    check_counts(width=width, depth=depth, seeds=seeds)
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    options: Engine = {**FAST, **engine}
    fit = functools.partial(train, train_set=train_set, test_set=test_set, epochs=epochs, batch_size=batch_size, lr=lr)
    shape = train_set.shape[0], len(train_set.classes)
    accuracies: dict[str, list[float]] = {}
    networks: dict[str, nn.Module] = {}  # of the first seed
    histories: list[list[dict[str, float]]] = []
    clustered, one_block, own_blocks = f"{count} values a layer", "one block, again and again", "blocks of their own"

    def note(name: str, model: nn.Module) -> nn.Module:
        model.to(memory_format=torch.contiguous_format)
        accuracies.setdefault(name, []).append(evaluate(model, test_set, place)["accuracy"])
        return networks.setdefault(name, model)

    for number in range(seed, seed + seeds):
        for name in ("dense", own_blocks, one_block):
            torch.manual_seed(number)
            model: nn.Module = SmallCNN(*shape, width=width)
            if name != "dense":
                model = DeepNet(*shape, width=width, depth=depth, shared=name == one_block)
            loop = fit(model, device=place, seed=number, **in_subfolder(options, f"{name}-{number}"))
            histories.append(loop.history)
            note(name, model)
            if name == "dense":
                note(clustered, share_weights(model, count))
    mean = {name: sum(values) / len(values) for name, values in accuracies.items()}
    by_count = {}
    for values in sorted({2, 4, 8, 16, 32, 64, count}):
        model = share_weights(networks["dense"], values)
        by_count[values] = evaluate(model, test_set, place)["accuracy"], file_bytes(model, save_shared)

    levels = 16
    some = [torch.arange(min(2000, len(part))) for part in (train_set, test_set)]
    before, pixels = (one.to(place) for one in pixel_contexts(train_set.pixels(some[0]), levels))
    unseen = [one.to(place) for one in pixel_contexts(test_set.pixels(some[1]), levels)]
    guessers: dict[bool, nn.Module] = {}
    losses: dict[bool, float] = {}
    for tied in (False, True):
        torch.manual_seed(seed)
        guessers[tied] = NextPixel(levels, tied=tied).to(place)
        train_next_pixel(guessers[tied], before, pixels, 50 * epochs, seed)
        with torch.no_grad():
            losses[tied] = float(F.cross_entropy(guessers[tied](unseen[0]), unseen[1]))
    shares = (pixels.bincount(minlength=levels) + 1) / (len(pixels) + levels)
    guess = float(F.cross_entropy(shares.log().expand(len(unseen[1]), -1), unseen[1]))  # by the levels' shares alone

    tied_again, loaded = NextPixel(levels, tied=True), SmallCNN(*shape, width=width).to(place)
    with tempfile.TemporaryDirectory() as folder:
        save_shared(guessers[True], Path(folder) / "tied.safetensors")
        load_shared(tied_again, Path(folder) / "tied.safetensors")
        save_shared(networks[clustered], Path(folder) / "shared.safetensors")
        load_shared(loaded, Path(folder) / "shared.safetensors")
    if out is not None and rank_and_world()[0] == 0:
        save_shared(networks[clustered], Path(out) / "shared.safetensors")

    def storages(model: Any) -> int:
        return len({model.embedding.weight.data_ptr(), model.output.weight.data_ptr()})

    images = test_set.__getitems__(range(min(256, len(test_set))))[0].to(place)
    with torch.no_grad():
        changed = int((networks[clustered].eval()(images) != loaded.eval()(images)).sum())
        versions = [
            Version(name, model, mean[name], file_bytes(model, save_shared if name == clustered else save_dense), model)
            for name, model in networks.items()
        ]
    rows = compare(versions, images[0], rounds=5)
    by_name = {row["version"]: row for row in rows}
    blocks = by_name[one_block]["bytes"] / by_name[own_blocks]["bytes"]
    size = by_name[clustered]["bytes"]
    fewer = file_bytes(guessers[True], save_dense) / file_bytes(guessers[False], save_dense)
    return Result(
        metrics={"accuracy": mean[clustered], "bytes": size},
        baseline={"accuracy": by_count[2][0], "bytes": rows[0]["bytes"]},
        baseline_name="2 values a layer, and dense",
        bars={"accuracy": 0.96},
        claims=[
            claim(f"points that {count} values a layer cost", 100 * (mean["dense"] - mean[clustered]), "<=", 1),
            claim("their file with Huffman's words, as a share of fp32's", size / rows[0]["bytes"], "<=", 0.13),
            claim("answers that change when that file is read back", changed, "<=", 0),
            claim(
                "it is no faster: share of the dense time, 32 pictures",
                by_name[clustered]["latency_ratio_32"],
                ">",
                0.9,
            ),
            claim(f"file with one block used {depth} times, as a share of that with {depth}", blocks, "<", 0.5),
            claim("points that sharing the block costs", 100 * (mean[own_blocks] - mean[one_block]), "<=", 2),
            claim("storages of embedding and last layer, tied", storages(guessers[True]), "<=", 1),
            claim("and in another network that reads their file", storages(tied_again), "<=", 1),
            claim("the tied network's file, as a share of the untied one's", fewer, "<", 1),
            claim("its loss on unseen pixels, against guessing by their shares", losses[True], "<", guess),
            claim("and against the untied network", losses[True], "<", 1.05 * losses[False]),
        ],
        history=histories[0],
        rows=rows,
        model=networks[clustered],
        draw=lambda: draw_sharing(by_count, (rows[0]["accuracy"], rows[0]["bytes"])),
    )


if __name__ == "__main__":
    main(run)
