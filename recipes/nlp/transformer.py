"""Transformer: a sample that proves nothing, mended one error at a time.

A sample that goes round trains `torch.nn.Transformer` on pairs of sentences in one line, `model(source, target)`, and
compares the output with `target`. Its loss falls to nothing within an epoch, and it can translate nothing. Four
things are wrong, and each is mended here by one more step of `--mended`:

1. `shift`: the target was given and asked for at the same position. To write, a word is asked for after those before
   it: the decoder is given the words up to one and asked for the next.
2. `mask`: each position still sees all others, the next word among them. A causal mask hides what comes later.
3. `positions`: attention takes its words as a set; a layer called `pos_encoder` that only mixes numbers tells no
   order. A vector that depends on the position is added to each word's.
4. `padding`: short sentences were filled up, and attention read the filling.

What a network says of itself and what is true are two losses, and the table shows both. The loss it told compares its
outputs as it was trained. The honest loss gives it nothing but the words before each one, so that nothing can leak.

The sample's `Field` and `BucketIterator` left torchtext in 2022: `open_encoded_pairs` and `batches_by_length` do their
work, here and in `nlp.translation`, which goes on from here with beam search and attention that is looked at.

Notes: 43
Paper: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin (2017), "Attention Is All You Need",
    https://arxiv.org/abs/1706.03762
Data: English sentences with their German translations, written for this library; yours as TSV or as two files.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, main, option, recipe
from recipes.nlp.ngrams import ngram_losses
from recipes.nlp.sentence_pairs import END, START, EncodedPairs, open_encoded_pairs
from recipes.nlp.text_classification.encoding import PAD
from recipes.nlp.translating import Translation
from recipes.nlp.translation import waves

STEPS = ("nothing", "shift", "mask", "positions", "padding")


@dataclass(kw_only=True)
class TransformerOptions(Options):
    mended: Literal["nothing", "shift", "mask", "positions", "padding"] = option(
        "padding", "the last error that is mended, and all before it"
    )
    width: int = option(64, "size of a word's vector, an even multiple of the heads", least=2)
    layers: int = option(1, "of the encoder, and as many of the decoder", least=1)
    heads: int = option(4, "of attention in each layer", least=1)
    max_words: int = option(60, "words of a sentence that are read; the rest is left out", least=1)
    epochs: int = 4
    lr: float = 4e-3

    def mends(self, step: str) -> bool:
        """Whether this error is mended."""
        return STEPS.index(step) <= STEPS.index(self.mended)


class Transformer(nn.Module):
    """Source words (batch, source words) and written ones (batch, words) to logits (batch, words, target words)."""

    def __init__(self, source_size: int, target_size: int, options: TransformerOptions) -> None:
        super().__init__()
        self.mask, self.positions, self.padding = map(options.mends, ("mask", "positions", "padding"))
        width = options.width
        self.source_words, self.target_words = nn.Embedding(source_size, width), nn.Embedding(target_size, width)
        for table in (self.source_words, self.target_words):
            nn.init.normal_(table.weight, std=width**-0.5)
        shape: dict[str, Any] = {"dim_feedforward": 2 * width, "dropout": 0.0, "batch_first": True, "norm_first": True}
        layer = nn.TransformerEncoderLayer(width, options.heads, **shape)
        encoder = nn.TransformerEncoder(layer, options.layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.transformer = nn.Transformer(
            width, options.heads, num_decoder_layers=options.layers, custom_encoder=encoder, **shape
        )
        self.head = nn.Linear(width, target_size)

    def embed(self, table: nn.Embedding, ids: Tensor) -> Tensor:
        vectors = table(ids) * math.sqrt(table.embedding_dim)  # (batch, words, width)
        return vectors + waves(ids.shape[1], table.embedding_dim).to(vectors) if self.positions else vectors

    def forward(self, sources: Tensor, written: Tensor) -> Tensor:
        later = torch.ones(written.shape[1], written.shape[1], dtype=torch.bool, device=written.device).triu(1)
        filling = {"source": sources == PAD, "target": written == PAD} if self.padding else {}
        states = self.transformer(
            self.embed(self.source_words, sources),
            self.embed(self.target_words, written),
            tgt_mask=later if self.mask else None,
            tgt_is_causal=False,  # the mask says it; to find that out by its values would stop an export
            src_key_padding_mask=filling.get("source"),
            tgt_key_padding_mask=filling.get("target"),
            memory_key_padding_mask=filling.get("source"),
        )
        return self.head(states)


def build(options: TransformerOptions, data: EncodedPairs) -> Transformer:
    """The network for the words of these two languages."""
    if options.width % (2 * options.heads):
        raise InputError(f"option width: expected an even multiple of {options.heads} heads, got {options.width}")
    source, target = data.languages
    return Transformer(len(source), len(target), options)


def loss_as_told(model: Any, sources: Tensor, targets: Tensor, options: TransformerOptions) -> Tensor:
    """Nats a word, as the network is trained: with all the words that it is given at once."""
    given, expected = (targets[:, :-1], targets[:, 1:]) if options.mends("shift") else (targets, targets)
    return F.cross_entropy(model(sources, given).flatten(0, 1), expected.flatten(), ignore_index=PAD)


def train(model: Transformer, train_set: EncodedPairs, options: TransformerOptions) -> Loop:
    """Minimizes the loss that it tells, with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.98))
    loop = Loop(model, optimizer, batches(train_set, options), options)
    for sources, targets in loop:
        loop.step(loss_as_told(loop.model, sources, targets, options))
    return loop


@torch.inference_mode()
def write(model: Transformer, sources: Tensor) -> Tensor:
    """Translations (batch, words) of sources (batch, source words): the likeliest word after the other, up to END."""
    model.eval()
    written = torch.full((len(sources), 1), START, device=sources.device)
    for _ in range(sources.shape[1] + 10):
        word = model(sources, written)[:, -1].argmax(dim=1)
        written = torch.cat([written, word.masked_fill((written == END).any(dim=1), PAD)[:, None]], dim=1)
    return written


@torch.inference_mode()
def losses(model: Transformer, dataset: EncodedPairs, options: TransformerOptions) -> dict[str, float]:
    """Nats a word of `dataset`: honest, from the words before each one alone, and as the network tells it."""
    model.eval()
    honest, told, words = 0.0, 0.0, 0
    for indices in torch.arange(len(dataset)).split(100):
        pair = dataset.__getitems__(indices.tolist())
        sources, targets = (side.to(options.device) for side in pair)
        told += loss_as_told(model, sources, targets, options).item() * len(indices) / len(dataset)
        for count in range(1, targets.shape[1]):
            logits = model(sources, targets[:, :count])[:, -1].float()  # nothing after word `count` was given
            honest += F.cross_entropy(logits, targets[:, count], ignore_index=PAD, reduction="sum").item()
        words += int((targets[:, 1:] != PAD).sum())
    return {"loss": honest / words, "loss_as_told": told}


def counted(train_set: EncodedPairs, test_set: EncodedPairs) -> dict[str, float]:
    """The baseline: each word from the two before it, as often as they were seen together."""
    train_ids, test_ids = (torch.cat(part.targets) for part in (train_set, test_set))
    found = ngram_losses(train_ids, test_ids, len(train_set.languages[1]), 3)[-1]
    return {"loss": found[test_ids != START].mean().item()}


@recipe(TransformerOptions)
def run(options: TransformerOptions) -> Result:
    """Trains the sample as far as it is mended, and measures it on held-out sentences."""
    train_set, test_set = open_encoded_pairs(options.data, max_words=options.max_words, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, options)
    return Result(
        metrics=losses(model, test_set, options),
        baseline=counted(train_set, test_set),
        baseline_name="counts of three words",
        bars={"loss": 0.75},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full = run()
    written, shifted, masked, placed = (run(mended=step) for step in STEPS[:-1])
    full.rows = [translations(one, full.test_set) for one in (written, shifted, masked, placed, full)]
    gap = written["loss"] - written["loss_as_told"]
    yield Claim("as written, the sample's loss is far from the truth: nats a word", gap, ">", 0, margin=2)
    gap = shifted["loss"] - shifted["loss_as_told"]
    yield Claim("so it is with the shift alone, for it sees the word that it is asked for", gap, ">", 0, margin=1)
    yield Claim("the mask wins nats a word", masked["loss"], "<", shifted["loss"], margin=1)
    yield Claim("so do the positions", placed["loss"], "<", masked["loss"], margin=0.3)
    yield Claim("and the words before it alone tell less", full["loss"], "<", full.baseline["loss"], margin=0.5)


def translations(result: Result, dataset: EncodedPairs, index: int = 0) -> dict[str, str]:
    """How a network translates one held-out sentence, for the table."""
    sources = dataset.__getitems__([index])[0].to(next(result.model.parameters()).device)
    step, words = result.options["mended"], write(result.model, sources)[0]
    return {"mended": step, "translation": dataset.languages[1].decode(words), "truth": dataset.truths[index]}


@run.figure
def figure(result: Result) -> Any:
    """Both losses of each network that was trained."""
    compared = [*result.runs.values(), result]
    figure, axes = new_figure(width=7.2, height=3.8)
    for offset, name, label in ((-0.2, "loss_as_told", "as it tells"), (0.2, "loss", "honest")):
        places = [number + offset for number in range(len(compared))]
        bars = axes[0, 0].bar(places, [one.metrics[name] for one in compared], width=0.4, label=label)
        axes[0, 0].bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes[0, 0].axhline(result.baseline["loss"], color="gray", linestyle="--", zorder=0, label=result.baseline_name)
    names = ["as it was written", *(f"and {one.options['mended']}" for one in compared[1:])]
    axes[0, 0].set_xticks(range(len(compared)), names if len(compared) > 1 else ["mended"])
    axes[0, 0].set(ylabel="loss (nats a word)")
    axes[0, 0].legend(frameon=False)
    return figure


class GreedyTranslation(Translation):
    """Sentences translated by the likeliest word after the other."""

    def search(self, model: Any, sources: Tensor) -> Tensor:
        return write(model, sources)


run.predicts(GreedyTranslation, build)


if __name__ == "__main__":
    main(run)
