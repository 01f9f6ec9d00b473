"""A Transformer language model over characters.

A language model guesses the next character from those before it. The loss is honest under three conditions: the
target is the input shifted by one; a causal mask keeps each place from looking ahead; and positions tell places
apart, here by turning queries and keys by an angle that grows with the place, so that attention sees how far
apart two characters stand. Fed its target as the input, with no mask, no shift and no positions, a model only
learns to repeat what it sees: the run trains one that way too, and measures what its tiny loss is worth.

Notes: 43
Paper: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin (2017), "Attention Is All You Need",
    https://arxiv.org/abs/1706.03762; Su, Lu, Pan, Murtadha, Wen, Liu (2021), "RoFormer: Enhanced Transformer
    with Rotary Position Embedding", https://arxiv.org/abs/2104.09864
Data: the language reference that every Python carries (pydoc_data.topics); yours as a text file or a folder
    of them.
"""

import math
import textwrap
from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.running_text import Windows, open_running_text

UNKNOWN = 0  # stands for every character that the train text does not hold
NextLogits = Callable[[Tensor], Tensor]  # from characters (batch, time) to logits of the next (batch, time, vocabulary)


class Block(nn.Module):
    """Attention, then a layer for each character alone; both read a normalised input and add to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, stream: Tensor, angles: Tensor | None, causal: bool) -> Tensor:
        qkv = self.to_qkv(self.norm1(stream)).unflatten(
            2, (3, self.heads, -1)
        )  # (batch, time, 3, heads, width / heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)  # (batch, heads, time, width / heads) each
        if angles is not None:
            queries, keys = rotate(queries, angles), rotate(keys, angles)
        # softmax(Q Kᵀ / √d) V; causal sets the weight of all that comes later to zero
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=causal)
        stream = stream + self.to_out(mixed.transpose(1, 2).flatten(2))  # (batch, time, width)
        return stream + self.mlp(self.norm2(stream))


def rotate(vectors: Tensor, angles: Tensor) -> Tensor:
    """Turns pairs of numbers: (…, time, 2 · pairs) by (time, pairs). Only differences of angles reach Q Kᵀ."""
    x, y = vectors.chunk(2, dim=-1)
    cos, sin = angles.cos().to(vectors.dtype), angles.sin().to(vectors.dtype)
    return torch.cat([x * cos - y * sin, y * cos + x * sin], dim=-1)


class LanguageModel(nn.Module):
    """A decoder-only Transformer; one table of vectors serves as its input and its output layer.

    Args:
        vocabulary_size: different characters.
        width: numbers in a character's vector, a multiple of twice the heads.
        layers: blocks.
        heads: of attention in a block.
        causal: mask what comes later.
        positions: turn queries and keys by their place.
    """

    def __init__(
        self, vocabulary_size: int, *, width: int, layers: int, heads: int, causal: bool = True, positions: bool = True
    ) -> None:
        super().__init__()
        self.causal, self.positions = causal, positions
        self.embedding = nn.Embedding(vocabulary_size, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        pairs = width // heads // 2
        self.speeds = nn.Buffer(10_000 ** -(torch.arange(pairs) / pairs), persistent=False)  # (pairs,)

    def forward(self, ids: Tensor) -> Tensor:
        angles = torch.arange(ids.shape[1], device=ids.device)[:, None] * self.speeds  # (time, pairs)
        stream = self.embedding(ids)  # (batch, time, width)
        for block in self.blocks:
            stream = block(stream, angles if self.positions else None, self.causal)
        return F.linear(self.norm(stream), self.embedding.weight)  # (batch, time, vocabulary)


def train(
    model: LanguageModel,
    train_set: Windows,
    test_set: Windows,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    name: str = "model",
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises the cross-entropy of all places at once with AdamW; the history follows the test part."""
    loop = OldLoop(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1, fused=True),
        old_batches(train_set, batch_size, seed=seed),
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        evaluate=lambda: {"test_loss": evaluate(model, test_set, device)["loss"]},
        name=name,
        **engine,
    )
    for ids, targets in loop:
        loss = F.cross_entropy(loop.model(ids).flatten(0, 1), targets.flatten())
        loop.step(loss)
    return loop


@torch.inference_mode()
def loss_by_place(model: NextLogits, dataset: Windows, device: torch.device) -> Tensor:
    """Mean cross-entropy (nats) at each place of the windows, (context,): at place n, n + 1 characters are known."""
    total = torch.zeros(dataset.context, dtype=torch.double)
    for indices in torch.arange(len(dataset)).split(128):
        ids, targets = (tensor.to(device) for tensor in dataset.__getitems__(indices.tolist()))
        losses = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), reduction="none")
        total += losses.view_as(targets).sum(dim=0).cpu()
    return total / len(dataset)


def evaluate(model: NextLogits, dataset: Windows, device: torch.device) -> dict[str, float]:
    """Loss (nats a character) and perplexity: among how many equally likely ones it is as if it had to guess."""
    loss = loss_by_place(model, dataset, device).mean().item()
    return {"loss": loss, "perplexity": math.exp(loss)}


def count_models(ids: Tensor, vocabulary_size: int) -> tuple[NextLogits, NextLogits]:
    """The baselines: how often each character comes, and how often it follows the one before."""
    single = torch.bincount(ids, minlength=vocabulary_size) + 1.0  # as if each had been seen once more
    unigram = (single / single.sum()).log()  # (vocabulary,)
    pairs = torch.bincount(ids[:-1] * vocabulary_size + ids[1:], minlength=vocabulary_size**2)
    follows = pairs.view(vocabulary_size, vocabulary_size) + unigram.exp()  # a pair never seen: as the unigram has it
    bigram = (follows / follows.sum(dim=1, keepdim=True)).log()  # (before, after)
    return lambda asked: unigram.to(asked.device).expand(*asked.shape, -1), lambda asked: bigram.to(asked.device)[asked]


@torch.inference_mode()
def write(
    model: NextLogits, prompt: Tensor, length: int, context: int, *, temperature: float = 0.7, seed: int = 0
) -> Tensor:
    """Draws `length` characters one after the other, each from what the model expects after those before it.

    Args:
        model: gives logits (1, time, vocabulary).
        prompt: what stands before, (time,), at least one character.
        length: characters to draw.
        context: characters that the model looks back on.
        temperature: below 1, likely characters become likelier still.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = prompt
    for _ in range(length):
        logits = model(ids[None, -context:])[0, -1].float().cpu()  # (vocabulary,)
        logits[UNKNOWN] = -torch.inf
        drawn = (logits / temperature).softmax(dim=0).multinomial(1, generator=generator)
        ids = torch.cat([ids, drawn.to(ids.device)])
    return ids[len(prompt) :]


def draw(by_place: dict[str, Tensor], leak: dict[str, float], written: str) -> Any:
    """The loss against what is known, the leak, and a text that the model wrote."""
    figure, axes = new_figure(1, 3, width=4.2, height=3.8)
    for label, losses in by_place.items():
        axes[0, 0].plot(range(1, len(losses) + 1), losses, label=label)
    axes[0, 0].set(xlabel="characters known", ylabel="held-out loss, nats a character", ylim=(0, None))
    axes[0, 0].legend(frameon=False, loc="lower left")
    axes[0, 0].set_xscale("log", base=2)
    axes[0, 0].xaxis.set_major_formatter("{x:.0f}")
    bars = axes[0, 1].bar(list(leak), list(leak.values()), color=["tab:gray", "tab:red", "tab:green"])
    axes[0, 1].bar_label(bars, fmt="%.2f")
    axes[0, 1].set_ylabel("held-out loss, nats a character")
    for place in axes[0, :2]:
        place.spines[["top", "right"]].set_visible(False)
    lines = [piece for line in written.splitlines() for piece in textwrap.wrap(line, 48, drop_whitespace=False) or [""]]
    axes[0, 2].text(0, 1, "\n".join(lines[:24]), family="monospace", fontsize=8, va="top", parse_math=False)
    axes[0, 2].set_title("written by the Transformer", fontsize=10)
    axes[0, 2].axis("off")
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    context: int = 64,
    epochs: int = 2,
    batch_size: int = 8,
    lr: float = 6e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a language model, and one in which the target leaks, and measures both on held-out text.

    Args:
        data: a text file or a folder of files *.txt; Python's language reference if not given.
        width: numbers in a character's vector, a multiple of twice the heads.
        layers: blocks of the Transformer.
        heads: of attention in each block.
        context: characters in a window.
        epochs: passes over the train text.
        batch_size: windows in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the windows, and of what is written.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if min(width, layers, heads) < 1 or width % (2 * heads):
        raise InputError(
            "options width, layers and heads: expected at least 1, and width a multiple of twice the heads, "
            f"got {width}, {layers} and {heads}"
        )
    place = setup(device, seed)
    text, held_out = open_running_text(data)
    characters = ["�", *sorted(set(text))]
    number = {character: index for index, character in enumerate(characters)}
    train_ids, test_ids = (torch.tensor([number.get(one, UNKNOWN) for one in part]) for part in (text, held_out))
    if not 16 <= context < min(len(train_ids), len(test_ids)):
        raise InputError(f"option context: expected at least 16 and less than the held-out text has, got {context}")
    test_set = Windows(test_ids, context)
    shape: dict[str, Any] = {"width": width, "layers": layers, "heads": heads}
    shared: dict[str, Any] = {"batch_size": batch_size, "lr": lr, "device": place, "seed": seed, **engine}

    # As in the notes: the target is the input itself, with nothing that hides it. A little text is enough.
    leaky = LanguageModel(len(characters), **shape | {"layers": 1}, causal=False, positions=False).to(place)
    shown, repeated = (Windows(ids, context, shift=0) for ids in (train_ids[: 200 * batch_size * context], test_ids))
    train(leaky, shown, repeated, epochs=1, name="leaky", **shared)
    pretended = evaluate(leaky, repeated, place)["loss"]
    leaky.causal = True  # what it knows of a character that it is not shown
    honest = evaluate(leaky, test_set, place)["loss"]

    torch.manual_seed(seed)
    model = LanguageModel(len(characters), **shape).to(place)
    loop = train(model, Windows(train_ids, context, jitter=True), test_set, epochs=epochs, **shared)

    unigram, bigram = count_models(train_ids, len(characters))
    by_place: dict[str, Tensor] = {}
    rows: list[dict[str, Any]] = []
    models: dict[str, NextLogits] = {"unigram counts": unigram, "bigram counts": bigram, "Transformer": model}
    for name, asked in models.items():
        by_place[name] = loss_by_place(asked, test_set, place)
        drawn = write(asked, test_ids[: context // 2].to(place), 700, context, seed=seed)
        written = "".join(characters[index] for index in drawn.tolist())
        rows.append({"model": name} | evaluate(asked, test_set, place) | {"writes": " ".join(written.split())[:60]})
    known = by_place["Transformer"]
    baseline, metrics = ({key: row[key] for key in ("loss", "perplexity")} for row in rows[1:])
    leak = {"leaky, asked for\nwhat it sees": pretended, "leaky, asked for\nwhat comes": honest}
    return Result(
        metrics=metrics,
        baseline=baseline,
        baseline_name="bigram counts",
        bars={"loss": 1.75},
        claims=[
            claim("it guesses the next character better than counted pairs do", metrics["loss"], "<", baseline["loss"]),
            claim(
                "it reads far back: loss in the later half of the windows against that after 4 to 8 characters",
                known[context // 2 :].mean().item(),
                "<",
                known[3:8].mean().item(),
            ),
            claim("fed its own target, a model's loss falls near zero on held-out text too", pretended, "<", 0.1),
            claim("asked for what comes next, that model is worse than unigram counts", honest, ">", rows[0]["loss"]),
        ],
        rows=rows,
        history=loop.history,
        model=model,
        draw=lambda: draw(by_place, leak | {"mended": metrics["loss"]}, written),
    )


if __name__ == "__main__":
    main(run)
