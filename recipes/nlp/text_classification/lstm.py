"""LSTM: a recurrent network with gates that decide what to keep.

Beside the state that it shows, an LSTM carries a memory along, which a word changes only as far as gates allow: one
forgets, one lets new things in, one shows. With the forget gate open, the memory passes a word untouched, and so
does its gradient. In texts of one deciding word and n fillers, it remembers where a plain recurrent network has long
forgotten, but only if its gates start that way: half open, as most libraries have them, it forgets as well. Here
they start so that each number of the memory lasts for another number of words, the last one for `reach` words.

Memory is not what the bundled reviews need: on them the plain recurrent network is ahead (the table says by how much).

Notes: 85
Paper: Hochreiter, Schmidhuber (1997), "Long Short-Term Memory", https://doi.org/10.1162/neco.1997.9.8.1735;
    Gers, Schmidhuber, Cummins (2000), "Learning to Forget" (its gate), https://doi.org/10.1162/089976600300015015;
    Tallec, Ollivier (2018), "Can Recurrent Neural Networks Warp Time?", https://arxiv.org/abs/1804.11188
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, Loop, Result, batches_by_length, main, option, recipe
from recipes.datasets.word_vectors import start_from
from recipes.nlp.text_classification.encoding import PAD, UNKNOWN, EncodedTexts, open_words
from recipes.nlp.text_classification.memory import DISTANCES, accuracy_by_distance, draw_recurrent, rows_of
from recipes.nlp.text_classification.rnn import RNN, RNNOptions, TextRNN
from recipes.nlp.text_classification.scoring import accuracy_in_disorder, evaluate, linear_svm
from recipes.nlp.text_classification.using import WordByWord


@dataclass(kw_only=True)
class LSTMOptions(RNNOptions):
    cell: Literal["lstm", "rnn"] = option("lstm", "lstm, or rnn: the same network with plain cells")
    reach: float = option(100, "words that the memory lasts for at the start; 1 is half-open gates", least=1)
    dropout: float = option(0.5, "share of the summary's numbers that are dropped in training", least=0, below=1)
    word_dropout: float = option(0.2, "share of the words that are hidden in training", least=0, below=1)


class LSTM(RNN):
    """Reads vectors (batch, words, size) in order; returns the state after each word, (batch, words, hidden)."""

    def __init__(self, size: int, hidden: int, *, reach: float = 100.0) -> None:
        nn.Module.__init__(self)
        self.from_word = nn.Linear(size, 4 * hidden)
        self.from_state = nn.Linear(hidden, 4 * hidden, bias=False)
        # A forget gate of σ(ln(n)) = n / (n + 1) keeps a memory for some n words: n from 1 to `reach`.
        keep = torch.linspace(1, reach, hidden).log()
        with torch.no_grad():
            self.from_word.bias[: 2 * hidden] = torch.cat([-keep, keep])

    def start(self, vectors: Tensor) -> tuple[Tensor, ...]:
        zeros = vectors.new_zeros(vectors.shape[0], self.from_state.in_features)
        return zeros, zeros.clone()

    def step(self, word: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        # i, f, o = σ(W x_t + b + U h_{t-1}), and g = tanh(W x_t + b + U h_{t-1}), each with its own W, U and b
        let_in, forget, show, new = (word + self.from_state(state)).chunk(4, dim=1)
        # c_t = f c_{t-1} + i g, and h_t = o tanh(c_t)
        memory = forget.sigmoid() * memory + let_in.sigmoid() * new.tanh()
        return show.sigmoid() * memory.tanh(), memory


def build(options: LSTMOptions, data: EncodedTexts) -> TextRNN:
    """The network for this vocabulary and these classes."""
    lstm, rnn = functools.partial(LSTM, reach=options.reach), functools.partial(RNN, orthogonal=options.orthogonal)
    options = replace(options, embedding_size=data.vector_size or options.embedding_size)
    return TextRNN(len(data.vocabulary), len(data.classes), lstm if options.cell == "lstm" else rnn, options)


def train(model: nn.Module, train_set: EncodedTexts, test_set: EncodedTexts, options: LSTMOptions) -> Loop:
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


@recipe(LSTMOptions)
def run(options: LSTMOptions) -> Result:
    """Trains an LSTM and measures it on held-out texts."""
    train_set, test_set = open_words(options)
    model = build(options, train_set)
    if train_set.vectors is not None:
        start_from(model.embedding, train_set.vocabulary.words, train_set.vectors)
    loop = train(model.to(options.device), train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=linear_svm(train_set, test_set, longest=3),
        baseline_name="linear SVM on runs of 1 to 3 words",
        bars={"accuracy": 0.88},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, _ = run(), run(cell="rnn")  # the second for the table alone
    accuracy, counted = full["accuracy"], full.baseline["accuracy"]
    yield Claim("it beats counted words, pairs and triples", accuracy, ">", counted, margin=0.03)
    disorder = accuracy_in_disorder(full)
    yield Claim("it reads the order: shuffling each test text's words hurts it", disorder, "<", accuracy, margin=0.2)
    measure = functools.partial(accuracy_by_distance, LSTMOptions, build, train, full, word_dropout=0.0)
    far = DISTANCES[-1]
    curves = {
        f"LSTM of reach {far}": measure(reach=float(far)),
        "LSTM started half open": measure(reach=1.0),
        "plain RNN": measure(cell="rnn"),
        "plain RNN started orthogonal": measure(cell="rnn", orthogonal=True),
    }
    full.rows = rows_of(curves)
    lstm, half_open, plain, _ = (one[far] for one in curves.values())
    text = f"it remembers a word over {far} others, which a plain RNN of the same size has forgotten"
    yield Claim(text, lstm, ">", plain, margin=0.3)
    text = "and so has the same LSTM whose gates start half open"
    yield Claim(text, half_open, "<", lstm, margin=0.3)


@run.figure
def figure(result: Result) -> Any:
    return draw_recurrent(result)


run.predicts(WordByWord, build)


if __name__ == "__main__":
    main(run)
