"""GPTQ: weights of four bits or fewer, each rounded to make up for the errors of those before it.

Rounding to nearest treats every weight by itself. GPTQ rounds a layer's weights column by column, and after each it
changes the columns that are left so that the layer's outputs stay as they were, as well as can be. How well depends on
the inputs: those that rise and fall together can stand in for each other. Their second moments, the Hessian of the
squared error of the outputs, are taken from a little text of the train part; no gradient is needed. With the identity
in place of the Hessian nothing can be made up for: that is rounding to nearest, here with the same groups and bytes.

A group of weights shares a scale and a lowest value, which are set when its first column is reached. Integers are
stored packed; to compute, they become floating point again, so that files are small and layers are no faster.
Embeddings, norms and the output layer stay as they are, as in the paper.

Notes: 86
Paper: Frantar, Ashkboos, Hoefler, Alistarh (2022), "GPTQ: Accurate Post-Training Quantization for Generative
    Pre-trained Transformers", https://arxiv.org/abs/2210.17323
Data: the bundled reference of the Python language; yours as a text file or a folder of them.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression.causal_models import CausalModeling, built, held_out_loss, open_causal_model
from recipes.compression.packed_linear import PackedLinear, linear_layers, replace_layer, weight_of
from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Result, batches, main, option, recipe
from recipes.datasets.running_text import Windows, open_characters
from recipes.nlp.language_model import LanguageModelOptions, build


@dataclass(kw_only=True)
class GPTQOptions(LanguageModelOptions):
    method: Literal["gptq", "nearest", "none"] = option(
        "gptq", "how weights become integers: by GPTQ, by rounding to nearest, or not at all"
    )
    bits: int = option(3, "of a weight", least=2, most=8)
    group: int = option(64, "weights of an output channel that share a scale, a multiple of 8", least=8)
    calibration: int = option(64, "windows of the train part that the Hessians are taken from", least=1)
    damping: float = option(0.01, "share of the Hessian's mean diagonal that is added to its diagonal", above=0)
    weights: str | None = option(None, "folder with a causal model of transformers, to quantize in place of training")
    width: int = option(128, "size of a character's embedding, a multiple of twice the heads", least=2)
    ngrams: int = option(1, "most characters that are also embedded as one; 1 for single characters alone", least=1)
    epochs: int = 2


def gptq(weight: Tensor, hessian: Tensor, bits: int, group: int, damping: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rounds a weight (out, in) to integers, column by column.

    Args:
        weight: of a linear layer.
        hessian: Σ x xᵀ over the layer's inputs x, (in, in), or any multiple of it; the identity rounds to nearest.
        bits: of an integer, which is one of 0 to 2^bits - 1.
        group: columns that share a scale; the last group may be narrower.
        damping: see the options.

    Returns:
        Integers q (out, in), scales s and lowest values l, both (out, groups): the weight is now l + s q.
    """
    weight, hessian, top = weight.clone(), hessian.clone(), 2**bits - 1
    unseen = hessian.diagonal() == 0  # inputs that were always 0
    hessian[unseen, unseen] = 1
    hessian.diagonal().add_(damping * hessian.diagonal().mean())
    # H⁻¹ = Uᵀ U. Once the columns before j are fixed, the inverse of what is left of H has the first row U_jj U_j:
    # one decomposition takes the place of an inverse for each column.
    U = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    integers, scales, lowest = torch.empty_like(weight), [], []
    for start in range(0, weight.shape[1], group):
        end = min(start + group, weight.shape[1])
        columns = weight[:, start:end]  # a view, and by now changed for all errors before
        low, high = columns.amin(dim=1).bfloat16().float(), columns.amax(dim=1)  # as a file holds them
        scale = ((high - low) / top).bfloat16().float().clamp(min=torch.finfo(torch.bfloat16).tiny)
        errors = torch.empty_like(columns)
        for j in range(end - start):
            q = integers[:, start + j] = ((columns[:, j] - low) / scale).round().clamp(0, top)
            # The change of the columns left that costs least: δ = -(w_j - l - s q) / U_jj · U_j
            errors[:, j] = (columns[:, j] - low - scale * q) / U[start + j, start + j]
            columns[:, j + 1 :] -= errors[:, j, None] * U[start + j, start + j + 1 : end]
        weight[:, end:] -= errors @ U[start:end, end:]  # once a group, which is faster
        scales.append(scale)
        lowest.append(low)
    return integers, torch.stack(scales, dim=1), torch.stack(lowest, dim=1)


def hessians_of(model: nn.Module, layers: dict[str, Any], ids: Tensor) -> dict[str, Tensor]:
    """Σ x xᵀ over all inputs x of each layer while the model reads the ids (windows, time): (in, in) by name."""
    hessians: dict[str, Tensor] = {}

    def add(name: str, args: Any, kwargs: Any) -> None:
        x = next(iter((*args, *kwargs.values()))).flatten(0, -2).float()  # (tokens, in)
        hessians[name] = hessians.get(name, 0) + x.T @ x

    hooks = [
        layer.register_forward_pre_hook(lambda _, *given, name=name: add(name, *given), with_kwargs=True)
        for name, layer in layers.items()
    ]
    for windows in ids.split(8):
        model(windows)
    for hook in hooks:
        hook.remove()
    return hessians


@torch.no_grad()
def quantize(model: nn.Module, ids: Tensor | None, options: GPTQOptions) -> nn.Module:
    """A copy of the model with packed weights in its blocks.

    Args:
        model: any causal model whose linear layers stand in numbered blocks; those that do more stay as they are.
        ids: text (windows, time) that the Hessians are taken from; if None, weights are rounded to nearest.
        options: bits, group and damping.

    Raises:
        InputError: there are no such layers, or one holds or is given what is not finite; names it.
    """
    model = copy.deepcopy(model).eval()
    blocks = linear_layers(model, told=True)
    if not blocks:
        raise InputError(f"model: expected linear layers in numbered blocks, found none in {type(model).__name__}")
    for layers in blocks.values():  # the inputs of a block come from blocks that are quantized already
        hessians = {} if ids is None else hessians_of(model, layers, ids)
        for name, layer in layers.items():
            weight = weight_of(layer).float()
            hessian = hessians.get(name, torch.eye(weight.shape[1], device=weight.device))
            if not (weight.isfinite().all() and hessian.isfinite().all()):
                raise InputError(f"layer {name}: expected finite weights and inputs, found NaN or infinity")
            found = gptq(weight, hessian, options.bits, options.group, options.damping)
            replace_layer(model, layer, PackedLinear(layer, options.bits, options.group).store(*found))
    return model


def calibration_text(train_set: Windows, options: GPTQOptions) -> Tensor:
    """Windows of the train part, drawn at random: (windows, context)."""
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(options.seed))
    ids, _ = replace(train_set, jitter=False).__getitems__(order[: options.calibration].tolist())
    return ids.to(options.device)


def train(model: nn.Module, train_set: Windows, options: GPTQOptions) -> Loop:
    """Minimizes the cross-entropy at all positions at once."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.1)
    loop = Loop(model, optimizer, batches(train_set, options), options)
    for ids, targets in loop:
        loop.step(F.cross_entropy(loop.model(ids).flatten(0, 1), targets.flatten()))
    return loop


@recipe(GPTQOptions)
def run(options: GPTQOptions) -> Result:
    """Trains a language model, or opens yours, and quantizes it; the baseline is rounding to nearest."""
    history: list[dict[str, float]] = []
    if options.weights is None:
        train_set, test_set = open_characters(options.data, options.context, limit=options.limit)
        model: Any = build(options, train_set).to(options.device)
        history = train(model, train_set, options).history
    else:
        model, train_set, test_set = open_causal_model(options.weights, options.data, options.context, options.limit)
    networks = {"none": model.to(options.device).eval(), "nearest": quantize(model, None, options)}
    if options.method == "gptq":
        networks["gptq"] = quantize(model, calibration_text(train_set, options), options)
    rows = [measured(name, network, test_set, options) for name, network in networks.items()]
    scores = {row["method"]: {"loss": row["loss"], "bytes": row["bytes"]} for row in rows}
    return Result(
        metrics=scores[options.method],
        baseline=scores["nearest"],
        baseline_name="rounding to nearest",
        bars={"loss": 1.55} if options.weights is None else {},
        history=history,
        rows=rows,
        model=networks[options.method],
        train_set=train_set,
        test_set=test_set,
    )


def measured(method: str, model: nn.Module, test_set: Windows, options: GPTQOptions) -> dict[str, Any]:
    """A row of the table: held-out loss in nats a character (or a token), and the bytes of all that the model holds."""
    size = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])  # what is tied counts once
    loss = held_out_loss(model, test_set, options.device)
    return {"method": method, "bits": None if method == "none" else options.bits, "loss": loss, "bytes": size}


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result, plain = run(), run(method="none")
    device = next(plain.model.parameters()).device
    options = GPTQOptions(**result.options | {"out": None, "checkpoint": None, "device": device})
    text = calibration_text(result.train_set, options)

    def lost(method: str, bits: int, ids: Tensor | None) -> float:
        changed = replace(options, bits=bits)
        result.rows.append(measured(method, quantize(plain.model, ids, changed), result.test_set, changed))
        return result.rows[-1]["loss"] - plain["loss"]

    half = "bits GPTQ adds less than half of what rounding to nearest adds to the loss"
    ours, nearest = (one - plain["loss"] for one in (result["loss"], result.baseline["loss"]))
    yield Claim(f"at {options.bits} {half}", ours, "<", nearest / 2, margin=1e-3)
    for method, ids in (("nearest", None), ("gptq", text)):
        lost(method, 4, ids)  # for the table: with so many bits neither of them loses much here
    nearest, ours = lost("nearest", 2, None), lost("gptq", 2, text)
    yield Claim(f"at 2 {half}", ours, "<", nearest / 2, margin=0.015)
    one = lost("gptq, one window", 2, text[:1])
    yield Claim("with one window of text it makes up for less, at 2 bits", one, ">", ours, margin=0.01)
    if options.weights is None:
        small = result["bytes"] / result.rows[0]["bytes"]
        yield Claim("share of the bytes that are left, embeddings in full", small, "<", 0.2, kind="fact")


@run.figure
def figure(result: Result) -> Any:
    """The held-out loss against the bits of a weight and against all bytes, by both methods."""
    drawing, axes = new_figure(1, 2, width=4.6, height=3.4)
    dense = result.rows[0]
    for method, label in (("nearest", "rounding to nearest"), ("gptq", "GPTQ")):
        rows = sorted((row for row in result.rows if row["method"] == method), key=lambda row: row["bits"])
        for panel, key, scale in ((axes[0, 0], "bits", 1), (axes[0, 1], "bytes", 1000)):
            panel.plot([row[key] / scale for row in rows], [row["loss"] for row in rows], marker="o", label=label)
    axes[0, 0].axhline(dense["loss"], color="black", linewidth=0.8, linestyle="--", label="before")
    axes[0, 1].plot(dense["bytes"] / 1000, dense["loss"], "k*", label="before")
    axes[0, 0].set(xlabel="bits of a weight", ylabel="held-out loss, nats", xticks=[2, 3, 4])
    axes[0, 1].set(xlabel="kilobytes, embeddings in full among them", xscale="log")
    for panel in axes.flatten():
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8)
    return drawing


def rebuild(options: GPTQOptions, data: Any) -> nn.Module:
    """The quantized network for characters, or of the config, that `data` tells; its weights are yet to come."""
    model = built(data, lambda: build(options, data)).eval()
    if options.method != "none":
        for layers in linear_layers(model).values():
            for layer in layers.values():
                replace_layer(model, layer, PackedLinear(layer, options.bits, options.group))
    return model


run.predicts(CausalModeling, rebuild)


if __name__ == "__main__":
    main(run)
