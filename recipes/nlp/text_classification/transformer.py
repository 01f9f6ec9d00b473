"""Transformer: every word of a text reads every other at once.

`torch.nn.TransformerEncoder` stands where a recurrent network stood. Attention mixes into each word's vector what it
finds in the others: a word two hundred words back is one step away. By itself it knows no order. Without the waves
that tell positions, which are added to the words' vectors, the network is a bag of words. It has more freedom than
there are texts here: a share of the words is hidden while it learns, so that it cannot lean on any one of them.

The table sets it beside a recurrent and a convolutional network that learn from the same texts, and both are ahead:
they look at neighboring words by construction, and short phrases decide these reviews, where attention has to find
out that neighbors matter. All words are computed together, which a GPU can make use of. On one core it is the slower
the longer the texts are, for every word is compared with every other.

Notes: 43
Paper: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin (2017), "Attention Is All You Need",
    https://arxiv.org/abs/1706.03762
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import draw_curves, new_figure
from recipes.core.frame import Claim, InputError, Loop, Result, batches_by_length, main, option, recipe
from recipes.core.measure import interleaved, parameter_count, ratio
from recipes.datasets.word_vectors import start_from
from recipes.nlp.text_classification.drawing import draw_compared, draw_texts
from recipes.nlp.text_classification.encoding import (
    PAD,
    UNKNOWN,
    EncodedTexts,
    TextOptions,
    open_words,
    word_vectors,
)
from recipes.nlp.text_classification.lstm import LSTM, LSTMOptions
from recipes.nlp.text_classification.rnn import RNN, RNNOptions, TextRNN
from recipes.nlp.text_classification.scoring import accuracy_in_disorder, evaluate, linear_svm
from recipes.nlp.text_classification.text_cnn import TextCNN
from recipes.nlp.text_classification.using import TextClassification
from recipes.nlp.translation import waves


@dataclass(kw_only=True)
class TransformerOptions(TextOptions):
    embedding_size: int = option(32, "numbers in a word's vector, if no file of vectors is given", least=1)
    heads: int = option(4, "of attention, which share the vector's numbers; as many as divide those of a file", least=1)
    layers: int = option(2, "of attention and a feed-forward network", least=1)
    positions: bool = option(True, "add waves that tell its position to each word's vector")
    dropout: float = option(0.1, "share of numbers that are dropped in training", least=0, below=1)
    word_dropout: float = option(0.15, "share of the words that are hidden in training", least=0, below=1)
    epochs: int = 30
    batch_size: int = 50
    lr: float = 4e-3


class TextTransformer(nn.Module):
    """Numbers of words (batch, words) to logits (batch, num_classes)."""

    def __init__(
        self,
        vocabulary_size: int,
        num_classes: int,
        *,
        embedding_size: int = 32,
        heads: int = 4,
        layers: int = 2,
        positions: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.embedding, self.positions = word_vectors(vocabulary_size, embedding_size), positions
        layer = nn.TransformerEncoderLayer(
            embedding_size, heads, 2 * embedding_size, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(embedding_size), enable_nested_tensor=False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(embedding_size, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        padding = ids == PAD  # (batch, words)
        vectors = self.embedding(ids)  # (batch, words, embedding_size)
        if self.positions:
            vectors = vectors + waves(vectors.shape[1], vectors.shape[2]).to(vectors)
        read = self.encoder(vectors, src_key_padding_mask=padding)  # (batch, words, embedding_size)
        text = read.masked_fill(padding[:, :, None], -torch.inf).amax(dim=1)  # (batch, embedding_size)
        return self.head(self.dropout(text))  # (batch, num_classes)


def build(options: TransformerOptions, data: EncodedTexts) -> TextTransformer:
    """The network for this vocabulary and these classes."""
    size = data.vector_size or options.embedding_size
    heads = options.heads if data.vector_size is None else math.gcd(size, options.heads)  # GloVe has 50 or 100 numbers
    if size % 2 or size % heads:
        raise InputError(f"option heads: expected an even vector and a divisor of {size}, its size, got {heads}")
    return TextTransformer(
        len(data.vocabulary),
        len(data.classes),
        embedding_size=size,
        heads=heads,
        layers=options.layers,
        positions=options.positions,
        dropout=options.dropout,
    )


def train(model: nn.Module, train_set: EncodedTexts, test_set: EncodedTexts, options: TransformerOptions) -> Loop:
    """Minimizes the cross-entropy with AdamW, a share of the words unknown."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=options.lr),
        batches_by_length(train_set, options),
        options,
        evaluate=lambda: evaluate(model, test_set, options.device),
    )
    for ids, labels in loop:
        hidden = (torch.rand(ids.shape, device=ids.device) < options.word_dropout) & (ids != PAD)
        logits = loop.model(ids.masked_fill(hidden, UNKNOWN))  # (batch, words) to (batch, num_classes)
        loop.step(F.cross_entropy(logits, labels))
    return loop


@recipe(TransformerOptions)
def run(options: TransformerOptions) -> Result:
    """Trains a Transformer encoder and measures it on held-out texts."""
    train_set, test_set = open_words(options)
    model = build(options, train_set)
    if train_set.vectors is not None:
        start_from(model.embedding, train_set.vocabulary.words, train_set.vectors)
    loop = train(model.to(options.device), train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=linear_svm(train_set, test_set, longest=3),
        baseline_name="linear SVM on runs of 1 to 3 words",
        bars={"accuracy": 0.83},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, blind = run(), run(positions=False)
    accuracy, counted = full["accuracy"], full.baseline["accuracy"]
    yield Claim("it beats counted words, pairs and triples", accuracy, ">", counted, margin=0.02)
    yield Claim("without positions, a bag of words, it does worse", blind["accuracy"], "<", accuracy, margin=0.05)
    disorder = accuracy_in_disorder(full)
    yield Claim("it reads the order: shuffling each test text's words hurts it", disorder, "<", accuracy, margin=0.1)
    full.rows = compared(full)


def compared(full: Result) -> list[dict[str, Any]]:
    """Accuracies, parameters, and the time of a pass over long and short texts as a share of the plain RNN's."""
    device, sizes = next(full.model.parameters()).device, (len(full.train_set.vocabulary), len(full.train_set.classes))
    changed = {"out": None, "checkpoint": None, "device": device, "word_dropout": 0.0}
    options = TransformerOptions(**full.options | changed)
    recurrent, gated = RNNOptions(), LSTMOptions()
    others = {
        "plain RNN": (TextRNN(*sizes, RNN, recurrent), replace(options, lr=recurrent.lr, clip=1.0, epochs=8)),
        "LSTM": (TextRNN(*sizes, LSTM, gated), replace(options, lr=gated.lr, clip=1.0, epochs=8, word_dropout=0.2)),
        "TextCNN": (TextCNN(*sizes), replace(options, epochs=6)),
    }
    networks: dict[str, nn.Module] = {"Transformer": full.model}
    accuracies = {"Transformer": full["accuracy"]}
    for name, (network, chosen) in others.items():
        train(network.to(device), full.train_set, full.test_set, chosen)
        networks[name], accuracies[name] = network.eval(), evaluate(network, full.test_set, options.device)["accuracy"]
    rows: list[dict[str, Any]] = []
    for name, network in networks.items():
        rows.append({"model": name, "accuracy": accuracies[name], "parameters": parameter_count(network)})
    for length in (32, 128, 512):
        ids = torch.randint(2, sizes[0], (8, length), device=device)
        passes: dict[str, Any] = {name: functools.partial(network, ids) for name, network in networks.items()}
        with torch.inference_mode():
            seconds = interleaved(passes, device=device.type)
        for row in rows:
            row[f"{length} words, time over the RNN's"] = ratio(seconds[row["model"]], seconds["plain RNN"])[1]
    return rows


@run.figure
def figure(result: Result) -> Any:
    """The curve, the variants compared, and texts in colors."""
    figure, axes = new_figure(2, 2, width=6.0, height=3.4)
    draw_curves(axes[0, 0], result.history, ["loss", "accuracy"])
    draw_compared(axes[0, 1], result)
    grid = axes[1, 0].get_gridspec()
    for unused in axes[1]:
        unused.remove()
    device = next(result.model.parameters()).device
    draw_texts(figure.add_subplot(grid[1, :]), result.model, result.test_set, device, columns=150)
    return figure


run.predicts(TextClassification, build)


if __name__ == "__main__":
    main(run)
