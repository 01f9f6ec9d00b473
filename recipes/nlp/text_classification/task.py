"""Text classification by the mean of word vectors.

A text becomes words, words become numbers, and each number looks up a vector that is learned. The mean of a text's
vectors goes through one linear layer (fastText). It is the plainest neural classifier, quick and hard to beat on
long texts, but a mean knows nothing of order: "good, not bad" is "bad, not good" to it. Vectors for pairs of
neighboring words bring a little of the order back.

On the bundled reviews, where order decides, it reads single words a little better than a linear SVM does; with
pairs, the linear SVM stays ahead.

Notes: 85
Paper: Joulin, Grave, Bojanowski, Mikolov (2016), "Bag of Tricks for Efficient Text Classification",
    https://arxiv.org/abs/1607.01759
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import draw_curves, new_figure
from recipes.core.frame import Claim, Loop, Result, batches_by_length, main, option, predict, recipe
from recipes.datasets.word_vectors import start_from
from recipes.nlp.text_classification.drawing import draw_confusion, draw_evidence, phrase_evidence
from recipes.nlp.text_classification.encoding import PAD, EncodedTexts, TextOptions, open_words, word_vectors
from recipes.nlp.text_classification.scoring import accuracy_in_disorder, evaluate, linear_svm, majority
from recipes.nlp.text_classification.using import TextClassification


@dataclass(kw_only=True)
class MeanOfWordsOptions(TextOptions):
    embedding_size: int = option(64, "numbers in a word's vector, if no file of vectors is given", least=1)
    pairs: bool = option(False, "also a vector for each pair of neighboring words, as fastText has them")
    buckets: int = option(16384, "vectors that all pairs share: which one a pair gets, a hash decides", least=1)
    epochs: int = 8
    batch_size: int = 50
    lr: float = 4e-3


class MeanOfWords(nn.Module):
    """The mean of the vectors of a text's words, and of its pairs of words if there are `buckets`; a linear layer."""

    def __init__(self, vocabulary_size: int, num_classes: int, *, embedding_size: int = 64, buckets: int = 0) -> None:
        super().__init__()
        self.buckets = buckets
        self.embedding = word_vectors(vocabulary_size, embedding_size)
        self.pairs = word_vectors(1 + buckets, embedding_size) if buckets else None
        self.head = nn.Linear(embedding_size, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        total = self.embedding(ids).sum(dim=1)  # (batch, words, embedding_size) to (batch, embedding_size)
        count = (ids != PAD).sum(dim=1, keepdim=True)  # (batch, 1)
        if self.pairs is not None:
            following = F.pad(ids, (0, 1), value=PAD)[:, 1:]  # (batch, words)
            pairs = 1 + (1_000_003 * ids + following) % self.buckets
            pairs = torch.where(following == PAD, PAD, pairs)
            total = total + self.pairs(pairs).sum(dim=1)
            count = count + (pairs != PAD).sum(dim=1, keepdim=True)
        return self.head(total / count)  # (batch, num_classes)


def build(options: MeanOfWordsOptions, data: EncodedTexts) -> MeanOfWords:
    """The network for this vocabulary and these classes."""
    return MeanOfWords(
        len(data.vocabulary),
        len(data.classes),
        embedding_size=data.vector_size or options.embedding_size,
        buckets=options.buckets if options.pairs else 0,
    )


def train(model: nn.Module, train_set: EncodedTexts, test_set: EncodedTexts, options: TextOptions) -> Loop:
    """Minimizes the cross-entropy with AdamW."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=options.lr, fused=True),
        batches_by_length(train_set, options),
        options,
        evaluate=lambda: evaluate(model, test_set, options.device),
    )
    for ids, labels in loop:
        logits = loop.model(ids)  # (batch, words) to (batch, num_classes)
        loop.step(F.cross_entropy(logits, labels))
    return loop


@recipe(MeanOfWordsOptions)
def run(options: MeanOfWordsOptions) -> Result:
    """Trains a classifier by the mean of word vectors and measures it on held-out texts."""
    train_set, test_set = open_words(options)
    model = build(options, train_set)
    if train_set.vectors is not None:
        start_from(model.embedding, train_set.vocabulary.words, train_set.vectors)
    loop = train(model.to(options.device), train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=linear_svm(train_set, test_set, longest=2 if options.pairs else 1),
        baseline_name="linear SVM on words and pairs" if options.pairs else "linear SVM on words",
        bars={"accuracy": 0.66},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    words, pairs = run(), run(pairs=True)
    svm = "linear SVM on words", "linear SVM on words and pairs"
    words.rows = [{"model": "this recipe with single words", "accuracy": words["accuracy"]}]
    words.rows += [{"model": "this recipe with pairs too", "accuracy": pairs["accuracy"]}]
    words.rows += [
        {"model": name, "accuracy": one.baseline["accuracy"]} for name, one in zip(svm, (words, pairs), strict=True)
    ]
    moved = abs(accuracy_in_disorder(words) - words["accuracy"])
    text = "it reads no order: shuffling the words of each test text moves its accuracy by nothing"
    yield Claim(text, moved, "<=", 0.002, kind="fact")
    commonest = majority(words.train_set, words.test_set)["accuracy"]
    yield Claim(
        "words alone tell something: it beats the commonest class", words["accuracy"], ">", commonest, margin=0.1
    )
    text = "vectors of pairs of neighboring words bring some of the order back"
    yield Claim(text, pairs["accuracy"], ">", words["accuracy"], margin=0.05)


@run.figure
def figure(result: Result) -> Any:
    """The curve, the confusion matrix, and the words that speak loudest for and against the last class."""
    dataset, device = result.test_set, next(result.model.parameters()).device
    predicted = torch.stack(predict(result.model, dataset, device)).argmax(dim=1)
    figure, axes = new_figure(1, 3, width=3.8, height=3.4)
    draw_curves(axes[0, 0], result.history, ["loss", "accuracy"])
    draw_confusion(axes[0, 1], predicted, dataset.labels, dataset.classes)
    names, evidence = phrase_evidence(result.model, dataset, device, length=1)
    draw_evidence(axes[0, 2], names, evidence, f"words against and for “{dataset.classes[-1]}”")
    return figure


run.predicts(TextClassification, build)


if __name__ == "__main__":
    main(run)
