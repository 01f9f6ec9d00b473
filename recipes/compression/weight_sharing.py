"""Weight sharing: many weights, few numbers.

The weights of a trained layer are sorted into a few clusters, and each is replaced by its cluster's mean: a weight is
then an index of two bits, or fewer, since Huffman's code gives common clusters short words. Then the values are trained
on, with what the gradients of all weights that share one add up to. That wins back most of what so few values cost, and
a dense network whose file is as large is far behind.

Layers can share, too: one block used four times makes a network as deep, and as slow, with the weights of one. Pictures
as small as these do not need the depth, and the block used once does as well. And the table that turns tokens into
vectors can be the last layer's weight, which compares a vector with that of every token.

Notes: 86
Paper: Han, Mao, Dally (2015), "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
    Quantization and Huffman Coding", https://arxiv.org/abs/1510.00149; Press, Wolf (2016), "Using the Output
    Embedding to Improve Language Models", https://arxiv.org/abs/1608.05859
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from recipes.compression.files import file_bytes, save_dense
from recipes.compression.huffman import load_shared, save_shared
from recipes.compression.layers import plain_copy, tell_reached
from recipes.compression.moved import DeepNet, Moved, as_large_a_file, evaluate_moved, for_longer
from recipes.compression.report import Version, compare, logarithmic
from recipes.compression.shipping import Shipped
from recipes.compression.weight_pruning import prunable
from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, main, option, recipe
from recipes.datasets.images import open_images
from recipes.vision.classification.scoring import evaluate


@dataclass(kw_only=True)
class SharingOptions(Options):
    count: int = option(4, "different weights that each layer may have", least=2, most=255)
    tuned: bool = option(True, "train the shared values, for half as many steps again")
    width: int = option(32, "channels of every block", least=1)
    depth: int = option(4, "blocks", least=1)
    one_block: bool = option(False, "use one block as often, in place of blocks with weights of their own")
    small_lr: float = option(
        0.01, "highest learning rate of the small dense network, chosen like lr on held-out train pictures", above=0
    )
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = 24
    batch_size: int = 64
    lr: float = 8e-3


def cluster(numbers: Tensor, count: int, rounds: int = 50) -> Tensor:
    """The means of `count` clusters of numbers (N,), in order: k-means along a line, in float64 on the CPU.

    Every number belongs to the nearest mean, and every mean is moved to the middle of its numbers, in turn.
    In sorted order a cluster is a stretch that ends halfway to the next mean, and sums of stretches are
    differences of running sums. A mean without numbers starts again at one that is far from its own mean.
    """
    ordered = numbers.cpu().double().sort().values
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])  # (N + 1,)
    means = torch.linspace(float(ordered[0]), float(ordered[-1]), count, dtype=torch.double)
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
    return means.to(numbers)


@torch.no_grad()
def share_weights(model: nn.Module, count: int = 16) -> nn.Module:
    """A copy of the model whose layers have `count` different weights each.

    Zeros, as pruning leaves them, stay zeros and do not count.

    Args:
        model: any network with layers that `prune` knows; biases, norms and embeddings stay as they are.
        count: values a layer, 2 to 255; else an InputError.
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


class SharedValues(nn.Module):
    """A network of few different weights, while these learn: a value's gradient is the sum of its weights' ones."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.values, self.names = model, nn.ParameterList(), dict[str, int]()
        for number, weight in enumerate(prunable(model).values()):
            values, index = weight.detach().unique(return_inverse=True)
            self.values.append(nn.Parameter(values, weight.requires_grad))
            self.register_buffer(f"index{number}", index)  # of each weight's value
            self.register_buffer(f"kept{number}", values != 0)  # what was pruned stays zero
            weight.requires_grad_(False)
            for path, layer in model.named_modules():  # a tied weight has several
                here = [name for name, value in layer._parameters.items() if value is weight]
                self.names |= {f"{path}.{name}".lstrip("."): number for name in here}

    def weights(self) -> dict[str, Tensor]:
        rows = [
            (value, self.get_buffer(f"kept{n}"), self.get_buffer(f"index{n}")) for n, value in enumerate(self.values)
        ]
        weights = [(values * kept)[index] for values, kept, index in rows]
        return {name: weights[number] for name, number in self.names.items()}

    def forward(self, images: Tensor) -> Tensor:
        return functional_call(self.model, self.weights(), (images,), tie_weights=False)

    @torch.no_grad()
    def settle(self) -> None:
        """The network gets the values that were learned as its weights."""
        for name, weight in self.weights().items():
            self.model.get_parameter(name).copy_(weight).requires_grad_(self.values[self.names[name]].requires_grad)


def train(model: nn.Module, train_set: Any, options: Options, *, evaluate: Any = dict, name: str = "dense") -> Loop:
    """Minimizes the cross-entropy."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=options.lr, weight_decay=0.05)
    loop = Loop(model, optimizer, batches(train_set, options), options, evaluate=evaluate, name=name)
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(images), labels))
    return loop


def tune(model: nn.Module, train_set: Any, options: Options) -> Loop:
    """Trains the values that a network's weights share, and all that is not shared, in place."""
    learner = SharedValues(model).to(options.device)
    loop = train(learner, train_set, options, name="values")
    learner.settle()
    return loop


def build(options: SharingOptions, data: Any, *, width: int | None = None) -> DeepNet:
    """The network for pictures and classes like these."""
    width = options.width if width is None else width
    return DeepNet(data.shape[0], len(data.classes), width=width, depth=options.depth, shared=options.one_block)


@recipe(SharingOptions)
def run(options: SharingOptions) -> Result:
    """Trains a network, lets its weights share few values, trains these, and a dense network whose file is as large."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    dense, moved = build(options, train_set).to(options.device), Moved(train_set)
    loop = train(dense, moved, options, evaluate=lambda: evaluate(dense, test_set, options.device))
    model = share_weights(dense, options.count)
    if options.tuned:
        tune(model, moved, for_longer(options, 0.5))
    size = file_bytes(model, save_shared)
    small = as_large_a_file(lambda width: build(options, train_set, width=width), size, options.width)
    train(small, moved, replace(for_longer(options, 1.5), lr=options.small_lr), name="small")
    return Result(
        metrics=evaluate_moved(model, test_set, options.device) | {"bytes": size},
        baseline=evaluate_moved(small, test_set, options.device) | {"bytes": file_bytes(small, save_dense)},
        baseline_name="a dense network of as many bytes",
        bars={"accuracy": 0.87},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    options = SharingOptions(**result.options | {"out": None, "checkpoint": None})
    seeds = [options.seed + number for number in range(3)]
    runs = [result, *(run(seed=seed) for seed in seeds[1:])]
    shared, small = mean(one["accuracy"] for one in runs), mean(one.baseline["accuracy"] for one in runs)
    blocks = [run(one_block=True), *(run(one_block=True, seed=seed) for seed in seeds[1:])]
    run(one_block=True, depth=1), run(count=2), run(count=16)  # for the table and the figure
    device, size = next(result.model.parameters()).device, int(result["bytes"])
    known, found = Moved(result.train_set), []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            dense, given = build(options, result.train_set).to(device), replace(options, device=device, seed=seed)
            train(dense, known, given, name="dense")
            two = share_weights(dense, 2)
            untuned = copy.deepcopy(two)
            tune(two, known, for_longer(given, 0.5))
            found.append([evaluate_moved(one, result.test_set, device)["accuracy"] for one in (dense, two, untuned)])
    unshared, tuned, as_clusters = (mean(scores) for scores in zip(*found, strict=True))
    once, small_once = mean(one["accuracy"] for one in blocks), mean(one.baseline["accuracy"] for one in blocks)
    narrow = as_large_a_file(lambda width: build(options, result.train_set, width=width), size, options.width)
    values = f"{options.count} values a layer"
    narrow.to(device)
    versions = [
        Version("dense", dense, unshared, file_bytes(dense, save_dense), dense),
        Version(values, result.model, shared, size, result.model),
        Version("small dense network", narrow, small, int(result.baseline["bytes"]), narrow),
        Version("one block", blocks[0].model, once, int(blocks[0]["bytes"]), blocks[0].model),
    ]
    rows = result.rows = compare(versions, result.test_set[0][0].to(device), rounds=5)
    text = f"with {values} it is ahead of a dense network of as many bytes: means of 3 trainings"
    yield Claim(text, shared, ">", small, margin=0.01)
    text = f"and so is one block used {options.depth} times, of a dense network of as many bytes: means of 3, too"
    yield Claim(text, once, ">", small_once, margin=0.02)
    text = f"{values} cost at most 3 points of what the network had with a value for each: means of 3 trainings"
    yield Claim(text, shared, ">", max(unshared, 0.5) - 0.05, margin=0.02)
    text = "of two values a layer, trained ones are ahead of their clusters' means: 3 networks"
    yield Claim(text, tuned, ">", as_clusters, margin=0.1)
    share = result["bytes"] / rows[0]["bytes"]
    yield Claim("the file with Huffman's words, as a share of fp32's", share, "<", 0.13, kind="fact")
    tied, again = Tied(), Tied()
    with tempfile.TemporaryDirectory() as folder:
        save_shared(tied, Path(folder) / "tied.safetensors")
        load_shared(again, Path(folder) / "tied.safetensors")
    different = float(not torch.equal(again.output.weight, tied.table.weight)) + len({*again.parameters()}) - 3
    yield Claim("tied tables that are untied by saving and loading", different, "<", 1, kind="fact")


class Tied(nn.Module):
    """The ends of a language model: a table of a vector for each token, which is the last layer's weight, too."""

    def __init__(self, tokens: int = 1000, width: int = 64) -> None:
        super().__init__()
        self.table, self.hidden = nn.Embedding(tokens, width), nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, tokens)
        self.output.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.hidden(self.table(tokens)).relu())


@run.figure
def figure(result: Result) -> Any:
    drawing, axes = new_figure(1, 1, width=5.5, height=3.6)
    for name, one in ({"as given": result} | result.runs).items():
        if "seed" not in name:
            axes[0, 0].plot(one.metrics["bytes"] / 1000, one.metrics["accuracy"], "o", label=name)
            axes[0, 0].plot(one.baseline["bytes"] / 1000, one.baseline["accuracy"], "*", color="gray")
    axes[0, 0].plot([], [], "*", color="gray", label="dense networks of as many bytes")
    logarithmic(axes[0, 0], "kilobytes on disk")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return drawing


@dataclass(kw_only=True)
class Shared(Shipped):
    """A classifier of few different weights: its packed file has Huffman's words for them."""

    save = staticmethod(save_shared)


run.predicts(Shared, build)


if __name__ == "__main__":
    main(run)
