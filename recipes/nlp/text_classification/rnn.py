"""A plain recurrent network: a text read word by word.

At each word a small network makes a new state out of the word and of the state before; a second one reads backwards.
As every word changes the state, what stood far back fades, and so does its gradient: in texts of one deciding word
and n fillers, the run measures how far back the network learns to remember. So the last state is a poor summary of a
text, and the largest value that each number of the state takes on the way is a better one. How far back it learns to
look is a matter of its start as well: orthogonal recurrent weights, which neither shrink nor stretch a state, often
reach much farther (the table has both).

Notes: 85
Paper: Elman (1990), "Finding Structure in Time", https://doi.org/10.1207/s15516709cog1402_1; Bengio, Simard,
    Frasconi (1994), "Learning Long-Term Dependencies with Gradient Descent is Difficult",
    https://doi.org/10.1109/72.279181
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, Loop, Result, batches_by_length, main, option, recipe
from recipes.datasets.word_vectors import start_from
from recipes.nlp.text_classification.encoding import PAD, EncodedTexts, TextOptions, open_words, word_vectors
from recipes.nlp.text_classification.memory import DISTANCES, accuracy_by_distance, draw_recurrent, rows_of
from recipes.nlp.text_classification.scoring import accuracy_in_disorder, evaluate, linear_svm
from recipes.nlp.text_classification.using import WordByWord


@dataclass(kw_only=True)
class RNNOptions(TextOptions):
    embedding_size: int = option(32, "numbers in a word's vector, if no file of vectors is given", least=1)
    hidden: int = option(32, "numbers in a state", least=1)
    bidirectional: bool = option(True, "read backwards too")
    pool: Literal["max", "last"] = option("max", "summary of a text: maxima over its states, or its last state")
    orthogonal: bool = option(False, "start from orthogonal recurrent weights")
    dropout: float = option(0.3, "share of the summary's numbers that are dropped in training", least=0, below=1)
    epochs: int = 8
    batch_size: int = 50
    lr: float = 1e-2
    clip: float | None = 1.0  # a gradient through many words may fade, but also explode


class RNN(nn.Module):
    """Reads vectors (batch, words, size) in order; returns the state after each word, (batch, words, hidden)."""

    def __init__(self, size: int, hidden: int, *, orthogonal: bool = False) -> None:
        super().__init__()
        self.from_word = nn.Linear(size, hidden)
        self.from_state = nn.Linear(hidden, hidden, bias=False)
        if orthogonal:
            nn.init.orthogonal_(self.from_state.weight)

    def start(self, vectors: Tensor) -> tuple[Tensor, ...]:
        return (vectors.new_zeros(vectors.shape[0], self.from_state.in_features),)

    def step(self, word: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        # h_t = tanh(W x_t + b + U h_{t-1})
        return (torch.tanh(word + self.from_state(state)),)

    def forward(self, vectors: Tensor) -> Tensor:
        carried, states = self.start(vectors), []
        for word in self.from_word(vectors).unbind(dim=1):  # W x + b of all words at once
            carried = self.step(word, *carried)
            states.append(carried[0])
        return torch.stack(states, dim=1)


class TextRNN(nn.Module):
    """A cell that reads forwards and one that reads backwards, a summary of their states, a linear layer."""

    def __init__(
        self, vocabulary_size: int, num_classes: int, cell: Callable[[int, int], nn.Module], options: RNNOptions
    ) -> None:
        super().__init__()
        size, hidden, both = options.embedding_size, options.hidden, options.bidirectional
        self.pool = options.pool
        self.embedding = word_vectors(vocabulary_size, size)
        self.forwards = cell(size, hidden)
        self.backwards = cell(size, hidden) if both else None
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(hidden * (1 + both), num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        lengths = (ids != PAD).sum(dim=1, keepdim=True)  # (batch, 1)
        text = self.summary(self.forwards, ids, lengths)
        if self.backwards is not None:
            positions = torch.arange(ids.shape[1], device=ids.device)
            turned = torch.where(positions < lengths, lengths - 1 - positions, positions)  # padding stays at the end
            text = torch.cat([text, self.summary(self.backwards, ids.gather(1, turned), lengths)], dim=1)
        return self.head(self.dropout(text))  # (batch, num_classes)

    def summary(self, cell: nn.Module, ids: Tensor, lengths: Tensor) -> Tensor:
        """One vector for each text, (batch, hidden); what was read after its end does not count."""
        states = cell(self.embedding(ids))  # (batch, words, hidden)
        if self.pool == "last":
            return states.take_along_dim(lengths[:, :, None] - 1, dim=1).squeeze(1)
        outside = torch.arange(ids.shape[1], device=ids.device) >= lengths  # (batch, words)
        return states.masked_fill(outside[:, :, None], -torch.inf).amax(dim=1)


def build(options: RNNOptions, data: EncodedTexts) -> TextRNN:
    """The network for this vocabulary and these classes."""
    cell = functools.partial(RNN, orthogonal=options.orthogonal)
    options = replace(options, embedding_size=data.vector_size or options.embedding_size)
    return TextRNN(len(data.vocabulary), len(data.classes), cell, options)


def train(model: nn.Module, train_set: EncodedTexts, test_set: EncodedTexts, options: RNNOptions) -> Loop:
    """Minimizes the cross-entropy with AdamW."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=options.lr),
        batches_by_length(train_set, options),
        options,
        evaluate=lambda: evaluate(model, test_set, options.device),
    )
    for ids, labels in loop:
        logits = loop.model(ids)  # (batch, words) to (batch, num_classes)
        loop.step(F.cross_entropy(logits, labels))
    return loop


@recipe(RNNOptions)
def run(options: RNNOptions) -> Result:
    """Trains a recurrent network and measures it on held-out texts."""
    train_set, test_set = open_words(options)
    model = build(options, train_set)
    if train_set.vectors is not None:
        start_from(model.embedding, train_set.vocabulary.words, train_set.vectors)
    loop = train(model.to(options.device), train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=linear_svm(train_set, test_set, longest=3),
        baseline_name="linear SVM on runs of 1 to 3 words",
        bars={"accuracy": 0.92},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, last = run(), run(pool="last")
    accuracy, counted = full["accuracy"], full.baseline["accuracy"]
    yield Claim("it beats counted words, pairs and triples", accuracy, ">", counted, margin=0.05)
    disorder = accuracy_in_disorder(full)
    yield Claim("it reads the order: shuffling each test text's words hurts it", disorder, "<", accuracy, margin=0.2)
    text = "the last state alone tells less than the maxima over all states"
    yield Claim(text, last["accuracy"], "<", accuracy, margin=0.02)
    curves = {
        "plain RNN": accuracy_by_distance(RNNOptions, build, train, full),
        "started orthogonal": accuracy_by_distance(RNNOptions, build, train, full, orthogonal=True),
    }
    full.rows = rows_of(curves)
    near, far = DISTANCES[0], DISTANCES[-1]
    text = f"its last state holds a word over {near} others, and has lost it over {far}"
    yield Claim(text, curves["plain RNN"][far], "<", curves["plain RNN"][near], margin=0.3)


@run.figure
def figure(result: Result) -> Any:
    return draw_recurrent(result)


run.predicts(WordByWord, build)


if __name__ == "__main__":
    main(run)
