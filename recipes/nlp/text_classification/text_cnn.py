"""TextCNN: convolution over words.

Each filter slides over a text a few words at a time and keeps its strongest response: it asks whether a phrase such
as "anything but dull" occurs anywhere in the text. Filters of 2, 3, 4 and 5 words together read negation and
contrast, which no bag of words can. Padding never counts: windows that lie in it are left out of the maximum.

Of long texts a linear classifier that counts words and runs of words is hard to beat. `--ngrams 3` gives the network
what that has, an embedding of each run, looked up by its hash and added up over the text: it is then wide and deep.

Notes: 85
Paper: Kim (2014), "Convolutional Neural Networks for Sentence Classification",
    https://arxiv.org/abs/1408.5882; Cheng and others (2016), "Wide & Deep Learning for Recommender Systems",
    https://arxiv.org/abs/1606.07792
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import draw_curves, new_figure
from recipes.core.frame import Claim, InputError, Loop, Result, batches_by_length, main, option, recipe
from recipes.datasets.word_vectors import start_from
from recipes.nlp.text_classification.drawing import draw_compared, draw_evidence, draw_texts, phrase_evidence
from recipes.nlp.text_classification.encoding import (
    PAD,
    EncodedTexts,
    TextOptions,
    open_words,
    word_vectors,
)
from recipes.nlp.text_classification.scoring import accuracy_in_disorder, evaluate, linear_svm
from recipes.nlp.text_classification.using import TextClassification


@dataclass(kw_only=True)
class TextCNNOptions(TextOptions):
    embedding_size: int = option(64, "numbers in a word's vector, if no file of vectors is given", least=1)
    windows: str = option("2,3,4,5", "words that a filter sees at a time, one number for each kind of filter")
    filters: int = option(256, "in all, an equal share for each window", least=1)
    dropout: float = option(0.5, "share of the filters' responses that are dropped in training", least=0, below=1)
    ngrams: int = option(1, "words in the longest runs that also count as one, as in a linear classifier", least=1)
    epochs: int = 6
    batch_size: int = 50
    lr: float = 4e-3


BUCKETS = 2**18  # embeddings that all runs of words share


class TextCNN(nn.Module):
    """Convolutions of several widths over the words' vectors, the maximum over time, one linear layer."""

    def __init__(
        self,
        vocabulary_size: int,
        num_classes: int,
        *,
        embedding_size: int = 64,
        windows: tuple[int, ...] = (2, 3, 4, 5),
        filters: int = 256,
        dropout: float = 0.5,
        ngrams: int = 1,
    ) -> None:
        super().__init__()
        share = filters // len(windows)
        self.embedding = word_vectors(vocabulary_size, embedding_size)
        # A window may hang over either end of the text, so that one word is enough for any of them.
        self.convolutions = nn.ModuleList(
            nn.Conv1d(embedding_size, share, window, padding=window - 1) for window in windows
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(share * len(windows), num_classes)
        self.ngrams = ngrams
        if ngrams > 1:
            self.hashed = word_vectors(BUCKETS, 16)
            self.drop_runs = nn.Dropout1d(0.5)
            self.wide = nn.Linear(16, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        vectors = self.embedding(ids).transpose(1, 2)  # (batch, embedding_size, words)
        lengths = (ids != PAD).sum(dim=1, keepdim=True)  # (batch, 1)
        strongest = []
        for convolution in self.convolutions:
            responses = F.relu(convolution(vectors))  # (batch, share, positions), positions = words + window - 1
            positions = torch.arange(responses.shape[2], device=ids.device)
            inside = positions < lengths + responses.shape[2] - ids.shape[1]  # windows with a word of the text in them
            strongest.append((responses * inside[:, None]).amax(dim=2))  # no response is below 0
        logits = self.head(self.dropout(torch.cat(strongest, dim=1)))  # (batch, num_classes)
        return logits + self.wide(self.counted(ids)) if self.ngrams > 1 else logits

    def counted(self, ids: Tensor) -> Tensor:
        """The embeddings of all runs of up to `ngrams` words, added up, over the square root of their number."""
        key, inside, keys = torch.zeros_like(ids), ids != PAD, []
        for back in range(self.ngrams):
            before = F.pad(ids, (back, 0))[:, : ids.shape[1]]  # the word `back` positions earlier
            key = (key * 1_000_003 + before + 1) % (2**31 - 1)
            inside = inside & (before != PAD)
            keys.append(torch.where(inside, key % (BUCKETS - 1) + 1, PAD))
        runs = torch.cat(keys, dim=1)  # (batch, ngrams · words)
        found = self.drop_runs(self.hashed(runs))  # (batch, ngrams · words, 16); none for padding
        return found.sum(dim=1) / (runs != PAD).sum(dim=1, keepdim=True).sqrt()  # (batch, 16)


def parse_windows(option: str) -> tuple[int, ...]:
    """The numbers in "2,3,4,5"."""
    words = [word.strip() for word in option.split(",")]
    if not all(word.isdecimal() and int(word) >= 1 for word in words):
        raise InputError(f"option windows: expected whole numbers of at least 1 such as 2,3,4,5, got {option!r}")
    return tuple(int(word) for word in words)


def build(options: TextCNNOptions, data: EncodedTexts) -> TextCNN:
    """The network for this vocabulary and these classes."""
    windows, filters = parse_windows(options.windows), options.filters
    if filters < len(windows):
        raise InputError(f"option filters: expected at least one for each of the {len(windows)} windows, got {filters}")
    return TextCNN(
        len(data.vocabulary),
        len(data.classes),
        embedding_size=data.vector_size or options.embedding_size,
        windows=windows,
        filters=filters,
        dropout=options.dropout,
        ngrams=options.ngrams,
    )


def train(model: nn.Module, train_set: EncodedTexts, test_set: EncodedTexts, options: TextCNNOptions) -> Loop:
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


@recipe(TextCNNOptions)
def run(options: TextCNNOptions) -> Result:
    """Trains a TextCNN and measures it on held-out texts."""
    train_set, test_set = open_words(options)
    model = build(options, train_set)
    if train_set.vectors is not None:
        start_from(model.embedding, train_set.vocabulary.words, train_set.vectors)
    loop = train(model.to(options.device), train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=linear_svm(train_set, test_set, longest=3),
        baseline_name="linear SVM on runs of 1 to 3 words",
        bars={"accuracy": 0.93},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, words, pairs = run(), run(windows="1"), run(windows="2")
    accuracy, counted = full["accuracy"], full.baseline["accuracy"]
    yield Claim("filters over word vectors beat counted words, pairs and triples", accuracy, ">", counted, margin=0.05)
    one = words["accuracy"]
    yield Claim("it beats as many filters of one word, which make a bag of words", accuracy, ">", one, margin=0.2)
    yield Claim("and as many filters of two words", accuracy, ">", pairs["accuracy"], margin=0.02)
    disorder = accuracy_in_disorder(full)
    yield Claim("it reads the order: shuffling each test text's words hurts it", disorder, "<", accuracy, margin=0.2)


@run.figure
def figure(result: Result) -> Any:
    """The curve, the variants compared, the phrases that speak loudest, and texts in colors."""
    dataset, device = result.test_set, next(result.model.parameters()).device
    figure, axes = new_figure(2, 3, width=4.6, height=3.4)
    draw_curves(axes[0, 0], result.history, ["loss", "accuracy"])
    draw_compared(axes[0, 1], result)
    names, evidence = phrase_evidence(result.model, dataset, device, length=4)
    draw_evidence(axes[0, 2], names, evidence, f"phrases against and for “{dataset.classes[-1]}”")
    grid = axes[1, 0].get_gridspec()
    for unused in axes[1]:
        unused.remove()
    draw_texts(figure.add_subplot(grid[1, :]), result.model, dataset, device, columns=180)
    return figure


run.predicts(TextClassification, build)


if __name__ == "__main__":
    main(run)
