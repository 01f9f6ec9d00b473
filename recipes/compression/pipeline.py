"""Prune, share, code: a wide network in a fiftieth of its bytes.

Each way of making a network smaller leaves work for the next. While it trains, all but a few of its weights become
zero; those left are sorted into eight values a layer, which are trained on; what is then to be stored are the zeros
between weights and the ranks of their values, symbols so uneven that Huffman's code takes a few bits for both.

A file of that size would also hold a narrow network, trained for as long. In floating point it is far behind. With
weights of eight bits, the better rival, it ends about a point behind, as much as one training differs from the next.
What the chain does not save is time: zeros and shared values are multiplied like all others, and the narrow network is
the fast one.

Notes: 86
Paper: Han, Mao, Dally (2015), "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
    Quantization and Huffman Coding", https://arxiv.org/abs/1510.00149
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression.coded import load_coded, save_coded
from recipes.compression.files import file_bytes, save_dense, save_sparse
from recipes.compression.moved import DeepNet, Moved, as_large_a_file, evaluate_moved, for_longer
from recipes.compression.quantization import quantize
from recipes.compression.report import Version, compare, logarithmic
from recipes.compression.shipping import Shipped
from recipes.compression.weight_pruning import apply_masks, gradual, largest, prunable
from recipes.compression.weight_sharing import share_weights
from recipes.core.figures import new_figure
from recipes.core.frame import Claim, Loop, Options, Result, batches, main, option, recipe
from recipes.datasets.images import open_images


@dataclass(kw_only=True)
class PipelineOptions(Options):
    width: int = option(64, "channels of every block", least=1)
    depth: int = option(4, "blocks", least=1)
    sparsity: float = option(0.96, "share of the weights that become zero", least=0, below=1)
    count: int = option(8, "values that the other weights of a layer may have", least=2, most=255)
    narrow_lr: float = option(
        0.016, "highest learning rate of narrow networks, chosen like lr on held-out train pictures", above=0
    )
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = option(
        36, "passes over the train part while weights are pruned; values take half as many more", least=1
    )
    batch_size: int = 64
    lr: float = 8e-3


def build(options: PipelineOptions, data: Any, *, width: int | None = None) -> DeepNet:
    """The network for pictures and classes like these."""
    width = options.width if width is None else width
    return DeepNet(data.shape[0], len(data.classes), width=width, depth=options.depth)


def train(
    model: nn.Module, pictures: Any, options: PipelineOptions, sparsity: float = 0.0, *, name: str = "pruned"
) -> Loop:
    """Minimizes the cross-entropy while, bit by bit, weights of smallest magnitude become zero and stay so."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05)
    loop = Loop(model, optimizer, batches(pictures, options), options, name=name)
    weights, masks, every = prunable(model), dict[str, Tensor](), max(1, loop.total // 40)
    for images, labels in loop:
        if sparsity and loop.steps % every == 0:  # in between the network adapts
            masks = largest(weights, 1 - gradual(loop.steps / loop.total, sparsity))
            apply_masks(model, masks)
        loop.step(F.cross_entropy(loop.model(images), labels))
        apply_masks(model, masks)  # the optimizer's momentum moves zeros, too
    return loop


def share_gradients(weight: nn.Parameter) -> None:
    """From now on weights of the same value get the sum of their gradients, and so stay the same; zeros stay zero."""
    values, index = weight.detach().unique(return_inverse=True)

    def summed(gradient: Tensor) -> Tensor:
        sums = torch.zeros_like(values).index_add(0, index.flatten(), gradient.flatten())
        return (sums * (values != 0))[index]

    weight.register_hook(summed)


@recipe(PipelineOptions)
def run(options: PipelineOptions) -> Result:
    """Prunes a network in training, lets its weights share few values, trains these, and codes what is left."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    pruned, pictures = build(options, train_set).to(options.device), Moved(train_set)
    loop = train(pruned, pictures, options, options.sparsity)
    model = share_weights(pruned, options.count)
    for weight in prunable(model).values():
        share_gradients(weight)
    train(model, pictures, for_longer(options, 0.5), name="values")
    size = file_bytes(model, save_coded)
    narrow = as_large_a_file(lambda width: build(options, train_set, width=width), size, options.width)
    train(narrow, pictures, replace(for_longer(options, 1.5), lr=options.narrow_lr), name="narrow")
    return Result(
        metrics=evaluate_moved(model, test_set, options.device) | {"bytes": size},
        baseline=evaluate_moved(narrow, test_set, options.device) | {"bytes": file_bytes(narrow, save_dense)},
        baseline_name="a narrow network of 32 bits",
        bars={"accuracy": 0.9},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    device, size = next(result.model.parameters()).device, int(result["bytes"])
    options = PipelineOptions(**result.options | {"out": None, "checkpoint": None, "device": device})
    runs = [result, *(run(seed=options.seed + number) for number in (1, 2))]
    chain, floats = mean(one["accuracy"] for one in runs), mean(one.baseline["accuracy"] for one in runs)
    pictures, longer = Moved(result.train_set), for_longer(options, 1.5)
    torch.manual_seed(options.seed)
    dense, alone, rivals = build(options, result.train_set), build(options, result.train_set), []
    # A weight in full takes five bytes in its file, about four times those of the chain
    train(alone.to(device), pictures, longer, 1 - (1 - options.sparsity) / 4, name="alone")
    train(dense.to(device), pictures, longer, name="dense")
    for seed in range(options.seed, options.seed + 3):
        torch.manual_seed(seed)
        rival = as_large_a_file(
            lambda width: build(options, result.train_set, width=width), size, options.width, quantize
        )
        rival = rival.to(device)
        train(rival, pictures, replace(longer, lr=options.narrow_lr, seed=seed), name="8 bits")
        rivals.append(quantize(rival).to(device))
    accuracies = [evaluate_moved(one, result.test_set, device)["accuracy"] for one in (alone, *rivals, dense)]
    sizes = file_bytes(dense, save_dense), file_bytes(alone, save_sparse), file_bytes(rivals[0], save_dense)
    versions = [
        Version("dense", dense, accuracies[-1], sizes[0], dense),
        Version("pruned, shared, coded", result.model, chain, size, result.model),
        Version("pruned alone", alone, accuracies[0], sizes[1], alone),
        Version("narrow, 8 bits", rivals[0], mean(accuracies[1:-1]), sizes[2], None),
    ]
    result.rows = compare(versions, result.test_set[0][0].to(device), rounds=5)
    text = "it is ahead of a narrow network of 32 bits, as large a file: means of 3 trainings"
    yield Claim(text, chain, ">", floats, margin=0.015)
    yield Claim("and of pruning alone, to a file as large", chain, ">", accuracies[0], margin=0.005)
    yield Claim("times that its file is smaller than the dense network's", sizes[0] / size, ">", 40, kind="fact")
    again = build(options, result.train_set)
    with tempfile.TemporaryDirectory() as folder:
        save_coded(result.model, Path(folder) / "coded.safetensors")
        load_coded(again, Path(folder) / "coded.safetensors")
    pairs = zip(result.model.state_dict().values(), again.state_dict().values(), strict=True)
    changed = sum(not torch.equal(one.cpu(), other) for one, other in pairs)
    yield Claim("tensors that change when it is written and read", changed, "<", 1, kind="fact")


@run.figure
def figure(result: Result) -> Any:
    """Accuracy against bytes of each version."""
    drawing, axes = new_figure(1, 1, width=5.5, height=3.6)
    narrow = {"version": result.baseline_name} | result.baseline
    for row in [*(result.rows[1:] or [{"version": "pruned, shared, coded"} | result.metrics]), narrow]:
        axes[0, 0].plot(row["bytes"] / 1000, row["accuracy"], "o", label=row["version"])
    logarithmic(axes[0, 0], "kilobytes on disk")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return drawing


@dataclass(kw_only=True)
class Coded(Shipped):
    """Pictures to classes; `out` also holds the coded file."""

    save = staticmethod(save_coded)


run.predicts(Coded, build)


if __name__ == "__main__":
    main(run)
