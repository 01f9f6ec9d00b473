"""A Transformer language model over characters.

A language model predicts the next character from those before it. Its loss is honest under three conditions: the
target is the input shifted by one; a causal mask keeps each position from looking ahead; and positions are told
apart, here by rotating queries and keys by an angle that grows with the position (RoPE), so that attention sees
how far apart two characters are. Given its target as input, without mask, shift or positions, a model only learns
to repeat what it sees: the claims train one like that, and measure what its tiny loss is worth.

What to beat are counts: n-grams with Kneser-Ney smoothing take a second, and on a text this short they are better
than a plain Transformer that was trained for many. So each position also gets what it would take attention long to
learn, embeddings of the last 2, 3, … characters as one, looked up by their hash; attention adds the longer reach.
Half of these are left out at random in training, so that shorter n-grams are learned too, as counts back off.

Notes: 43
Paper: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin (2017), "Attention Is All You Need",
    https://arxiv.org/abs/1706.03762; Su, Lu, Pan, Murtadha, Wen, Liu (2021), "RoFormer: Enhanced Transformer
    with Rotary Position Embedding", https://arxiv.org/abs/2104.09864; Pagnoni and others (2024), "Byte Latent
    Transformer: Patches Scale Better Than Tokens", https://arxiv.org/abs/2412.09871 (embeddings of hashed n-grams)
Data: the bundled reference of the Python language; yours as a text file or a folder of them.
"""

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Precision, Result, batches, main, option, recipe
from recipes.datasets.running_text import Windows, open_characters
from recipes.nlp.language_modeling import LanguageModeling, sample
from recipes.nlp.ngrams import best_order, ngram_losses


@dataclass(kw_only=True)
class LanguageModelOptions(Options):
    width: int = option(64, "size of a character's embedding, a multiple of twice the heads", least=2)
    layers: int = option(2, "Transformer blocks", least=1)
    heads: int = option(4, "attention heads in each block", least=1)
    context: int = option(128, "characters in a window", least=16)
    ngrams: int = option(5, "most characters that are also embedded as one; 1 for single characters alone", least=1)
    buckets: int = option(16384, "embeddings that all n-grams share", least=1)
    dropout: float = option(0.5, "share of the n-grams that are left out in training", least=0, below=1)
    causal: bool = option(True, "mask the characters that come later")
    positions: bool = option(True, "rotate queries and keys by their position")
    shift: int = option(1, "how many characters the target is ahead of the input", least=0)
    limit: int | None = option(None, "characters of the training text that are used; all if not given", least=1)
    epochs: int = 7
    batch_size: int = 8
    lr: float = 6e-3
    precision: Precision = "auto"


class Block(nn.Module):
    """Attention, then an MLP at each position; both read a normalized input and add to the residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out, down = nn.Linear(width, width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), down)
        for layer in (self.to_out, down):  # a block starts by adding nothing
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, rotation: Tensor | None, causal: bool, cache: list[Tensor] | None = None) -> Tensor:
        qkv = self.to_qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = qkv[:2] if rotation is None else rotate(qkv[:2], rotation)  # (batch, heads, time, width / heads) each
        v = qkv[2]
        if cache is not None:  # a list: empty, or what the characters before had as k and v
            k, v, causal = torch.cat([*cache[:1], k], 2), torch.cat([*cache[1:], v], 2), causal and not cache
            cache[:] = k, v
        mixed = attention(q, k, v, causal).transpose(1, 2).flatten(2)  # (batch, time, width)
        x = x + self.to_out(mixed)
        return x + self.mlp(self.norm2(x))


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """softmax(Q Kᵀ / √d) V; `causal` gives what comes later a weight of zero."""
    with torch.autocast("cpu", enabled=False):  # on CPUs, torch's fused attention is slower in bf16 than in float32
        mixed = F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=causal)
    return mixed.to(v.dtype)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotates pairs of numbers, (…, time, 2 · pairs), by angles whose cosines and sines are (2, time, pairs)."""
    (a, b), (cos, sin) = x.chunk(2, dim=-1), rotation
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)  # only differences of angles reach Q Kᵀ


class LanguageModel(nn.Module):
    """A decoder-only Transformer, characters (batch, time) to logits (batch, time, vocabulary).

    The input and the output layer share one table of embeddings.
    """

    def __init__(self, vocabulary_size: int, options: LanguageModelOptions) -> None:
        super().__init__()
        width, pairs = options.width, options.width // options.heads // 2
        self.context, self.ngrams, self.buckets = options.context, options.ngrams, options.buckets
        self.causal, self.positions = options.causal, options.positions
        self.embedding = nn.Embedding(vocabulary_size, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        if self.ngrams > 1:
            self.hashed = nn.Embedding(self.buckets, width)
            nn.init.zeros_(self.hashed.weight)  # an n-gram that training never met adds nothing
        self.dropout = nn.Dropout1d(options.dropout)  # of whole embeddings
        self.blocks = nn.ModuleList(Block(width, options.heads) for _ in range(options.layers))
        self.norm = nn.LayerNorm(width)
        self.speeds = nn.Buffer(10_000 ** -(torch.arange(pairs) / pairs), persistent=False)  # (pairs,)

    def embed(self, ids: Tensor) -> Tensor:
        """The sum of the embeddings of each character and of the n-grams that end with it, (batch, time, width)."""
        x, key, buckets = self.embedding(ids), ids, []
        for back in range(1, self.ngrams):
            before = F.pad(ids, (back, 0))[:, : ids.shape[1]]  # the character `back` positions earlier
            key = (key * 1_000_003 + before + 1) % (2**31 - 1)
            buckets.append(key % self.buckets)
        if buckets:
            found = self.dropout(self.hashed(torch.cat(buckets, dim=1)))  # (batch, (ngrams - 1) · time, width)
            x = x + found.unflatten(1, (len(buckets), -1)).sum(dim=1)
        return x

    def forward(self, ids: Tensor, cache: list[list[Tensor]] | None = None) -> Tensor:
        """With a cache, an empty list for each block at first, only what it does not know yet is computed."""
        known = cache[0][0].shape[2] if cache and cache[0] else 0
        angles = torch.arange(ids.shape[1], device=ids.device)[known:, None] * self.speeds  # (time, pairs)
        rotation = torch.stack([angles.cos(), angles.sin()]) if self.positions else None
        x = self.embed(ids)[:, known:]
        for number, block in enumerate(self.blocks):
            x = block(x, rotation, self.causal, None if cache is None else cache[number])
        return F.linear(self.norm(x), self.embedding.weight)


def build(options: LanguageModelOptions, data: Windows) -> LanguageModel:
    """The network for characters like these."""
    if options.width % (2 * options.heads):
        raise InputError(f"option width: expected a multiple of twice {options.heads} heads, got {options.width}")
    return LanguageModel(len(data.characters), options)


def train(model: LanguageModel, train_set: Windows, test_set: Windows, options: LanguageModelOptions) -> Loop:
    """Minimizes the cross-entropy at all positions at once with AdamW."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.1, fused=True),
        batches(train_set, options),
        options,
        evaluate=lambda: {"test_loss": evaluate(model, test_set, options.device)["loss"]},
    )
    for ids, targets in loop:
        loop.step(F.cross_entropy(loop.model(ids).flatten(0, 1), targets.flatten()))
    return loop


@torch.inference_mode()
def loss_by_position(model: Any, dataset: Windows, device: Any) -> Tensor:
    """Mean cross-entropy (nats) at each position of the windows, (context,): at n, n + 1 characters are known."""
    was_training = model.training
    model.eval()
    total = torch.zeros(dataset.context, dtype=torch.double)
    for indices in torch.arange(len(dataset)).split(128):
        ids, targets = (tensor.to(device) for tensor in dataset.__getitems__(indices.tolist()))
        losses = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), reduction="none")
        total += losses.view_as(targets).sum(dim=0).cpu()
    model.train(was_training)
    return total / len(dataset)


def evaluate(model: Any, dataset: Windows, device: Any) -> dict[str, float]:
    """Scores of the later halves of windows that overlap by half."""
    return scores(loss_by_position(model, dataset, device)[dataset.context // 2 :])


def scores(losses: Tensor) -> dict[str, float]:
    """Loss, and perplexity: the number of equally likely characters that the model would be choosing from."""
    loss = losses.mean().item()
    return {"loss": loss, "perplexity": math.exp(loss)}


@recipe(LanguageModelOptions)
def run(options: LanguageModelOptions) -> Result:
    """Trains a language model and measures it on held-out text."""
    train_set, test_set = open_characters(options.data, options.context, shift=options.shift, limit=options.limit)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    model.eval()
    order = best_order(train_set.ids, len(train_set.characters))
    counted = ngram_losses(train_set.ids, test_set.ids, len(train_set.characters), order)[-1]  # (characters,)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=scores(counted[options.context // 2 :]),
        baseline_name=f"counts of {order}-grams",
        bars={"loss": 1.225},
        history=loop.history,
        rows=[{"it writes": " ".join(sample(model, test_set, 100, options.seed).split())}],
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    counts, device = result.baseline["loss"], result.model.embedding.weight.device
    yield Claim("it beats counts of n-grams", result["loss"], "<", counts, margin=0.01)
    known = loss_by_position(result.model, result.test_set, device)
    late, early = known[len(known) // 2 :].mean().item(), known[6:12].mean().item()
    yield Claim("it reads farther back than 12 characters: later half of a window", late, "<", early, margin=0.05)
    plain = run(ngrams=1)
    yield Claim("without embeddings of n-grams it is worse", plain["loss"], ">", result["loss"], margin=0.02)
    # As in the notes: the target is the input itself, and nothing hides it. A little text is enough.
    leaky = run(shift=0, causal=False, positions=False, ngrams=1, layers=1, epochs=1, limit=100_000)
    yield Claim("given its target as input, a model loses nearly nothing", leaky["loss"], "<", 0.2, margin=0.1)
    leaky.model.causal = True
    honest = evaluate(leaky.model, result.test_set, device)["loss"]
    text = "asked for the next character, it loses more than it said, by more than counts of n-grams lose"
    yield Claim(text, honest - leaky["loss"], ">", counts, margin=0.5)


@run.figure
def figure(result: Result) -> Any:
    """The loss against what is known, beside counts of n-grams, and a text that the model continues."""
    figure, axes = new_figure(1, 2, width=5.0, height=3.8)
    known = loss_by_position(result.model, result.test_set, result.model.embedding.weight.device)
    counts = ngram_losses(result.train_set.ids, result.test_set.ids, len(result.test_set.characters)).mean(dim=1)
    axes[0, 0].plot(range(1, len(counts)), counts[1:], marker=".", label="counts of n-grams")
    axes[0, 0].plot(range(1, len(known) + 1), known, label="Transformer")
    axes[0, 0].set_xscale("log", base=2)
    axes[0, 0].set(xlabel="characters known", ylabel="held-out loss, nats per character", ylim=(0, None))
    axes[0, 0].legend(frameon=False)
    lines = sample(result.model, result.test_set, 800, result.seed).splitlines()
    lines = [piece for line in lines for piece in textwrap.wrap(line, 60, drop_whitespace=False) or [""]]
    axes[0, 1].text(0, 1, "\n".join(lines[:24]), family="monospace", fontsize=8, va="top", parse_math=False)
    axes[0, 1].set_title("written by the Transformer", fontsize=10)
    axes[0, 1].axis("off")
    return figure


run.predicts(LanguageModeling, build)


if __name__ == "__main__":
    main(run)
