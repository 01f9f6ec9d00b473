"""Bags of words with naive Bayes, logistic regression and a linear SVM.

Before networks, and still the first thing to try: a text is the counts of its words, or of its runs of two and three
words (n-grams), and a linear classifier gives each a weight. TF-IDF multiplies a count by how rare the n-gram is, so
that "the" does not drown "superb". N-grams bring back a little of the order that a bag of words throws away. TF-IDF
and naive Bayes are written out. How freely a classifier follows the texts is chosen on a held-out share of the train
part; the table compares the methods, and what each makes of fewer texts.

Notes: 85
Paper: Sebastiani (2002), "Machine Learning in Automated Text Categorization",
    https://arxiv.org/abs/cs/0110053
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Options, Result, hold_out, main, option, recipe
from recipes.core.task import Task
from recipes.datasets.texts import open_texts
from recipes.nlp.text_classification.drawing import draw_confusion, draw_evidence
from recipes.nlp.text_classification.encoding import tokenize
from recipes.nlp.text_classification.scoring import linear_svm, scores
from recipes.nlp.text_classification.using import TextClassification

STRENGTHS = (0.1, 1.0, 10.0)  # how freely a method may follow the train texts


@dataclass(kw_only=True)
class BagOptions(Options):
    text_column: str | None = option(None, "name of the column of texts, if it is not a usual one")
    label_column: str | None = option(None, "name of the column of labels, if it is not a usual one")
    encoding: str = option("utf-8", "of the files of texts, such as latin-1")
    longest: int = option(3, "words in the longest n-gram", least=1)
    tf_idf: bool = option(True, "weigh the counts by rarity, and bring each text to length 1")
    method: Literal["svm", "logistic", "bayes"] = option("svm", "linear SVM, logistic regression or naive Bayes")
    share: float = option(1.0, "share of the train texts to learn from", above=0, most=1)


def ngrams(text: str, longest: int) -> list[str]:
    """All runs of one to `longest` words: "not very good" gives "not", …, "not very", "very good"."""
    words = tokenize(text)
    return [
        " ".join(words[start : start + length])
        for length in range(1, longest + 1)
        for start in range(len(words) - length + 1)
    ]


class BagOfWords(nn.Module):
    """From counts of n-grams (batch, ngrams) to a number for each class: TF-IDF, and one linear layer."""

    idf: Tensor

    def __init__(self, num_ngrams: int, num_classes: int, *, tf_idf: bool = True) -> None:
        super().__init__()
        self.tf_idf = tf_idf
        self.register_buffer("idf", torch.ones(num_ngrams))
        self.head = nn.Linear(num_ngrams, num_classes)

    def forward(self, counts: Tensor) -> Tensor:
        if self.tf_idf:
            counts = counts * self.idf
            counts = counts / counts.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return self.head(counts)


@dataclass
class CountedTexts:
    """N texts, and their features: a sparse matrix (N, ngrams) of counts or TF-IDF."""

    texts: list[str]
    labels: Tensor
    classes: list[str]
    ngrams: list[str]
    idf: np.ndarray
    features: Any

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, indices: Tensor) -> "CountedTexts":
        texts = [self.texts[index] for index in indices.tolist()]
        return replace(self, texts=texts, labels=self.labels[indices], features=self.features[indices.numpy()])


def open_counted(options: BagOptions) -> tuple[CountedTexts, ...]:
    """The train and the test part as features, with the n-grams of train."""
    columns = {"text_column": options.text_column, "label_column": options.label_column}
    train_part, test_part = open_texts(options.data, **columns, encoding=options.encoding, seed=options.seed)
    if options.share < 1:
        count = math.ceil(options.share * len(train_part))
        train_part = train_part.subset(torch.randperm(len(train_part))[:count])
    frequency = Counter(gram for text in train_part.texts for gram in set(ngrams(text, options.longest)))
    if not frequency:
        raise InputError("there is no word in the train texts, only signs")
    names = sorted(frequency)
    # idf(t) = ln((1 + N) / (1 + df(t))) + 1, where df(t) of the N texts hold the n-gram t
    idf = np.log((1 + len(train_part)) / (1 + np.array([frequency[name] for name in names]))) + 1
    weights = idf if options.tf_idf else None
    return tuple(
        CountedTexts(part.texts, part.labels, part.classes, names, idf, features(part.texts, names, options, weights))
        for part in (train_part, test_part)
    )


def features(texts: Sequence[str], names: list[str], options: BagOptions, idf: np.ndarray | None) -> Any:
    """A sparse matrix (texts, ngrams): counts, or TF-IDF where `idf` is given; other n-grams are left out."""
    from scipy.sparse import csr_matrix, diags

    column = {name: number for number, name in enumerate(names)}
    found = [(row, column[g]) for row, text in enumerate(texts) for g in ngrams(text, options.longest) if g in column]
    rows, columns = np.array(found, dtype=int).reshape(-1, 2).T
    counts = csr_matrix((np.ones(len(found)), (rows, columns)), shape=(len(texts), len(names)))  # repeats are summed
    if idf is None:
        return counts
    weighted = counts @ diags(idf)  # tf(t, d) · idf(t)
    return diags(1 / np.maximum(np.sqrt(weighted.power(2).sum(axis=1)).A1, 1e-12)) @ weighted


class NaiveBayes:
    """Multinomial naive Bayes: words are drawn one by one, each class from an urn of its own."""

    def __init__(self, pseudo_count: float = 1.0) -> None:
        self.pseudo_count = pseudo_count  # times that each n-gram is taken to have been seen in each class beforehand

    def fit(self, features: Any, labels: np.ndarray) -> "NaiveBayes":
        self.classes_ = np.unique(labels)
        drawn = np.stack([features[labels == label].sum(axis=0).A1 for label in self.classes_]) + self.pseudo_count
        # P(t | c) = (count of t in c + pseudo-count) / (the same, summed over all t)
        self.coef_ = np.log(drawn / drawn.sum(axis=1, keepdims=True))  # (classes, ngrams)
        self.intercept_ = np.log([(labels == label).mean() for label in self.classes_])
        return self

    def predict(self, features: Any) -> np.ndarray:
        # log P(c | text) = log P(c) + sum over t of tf(t) · log P(t | c) + constant
        return self.classes_[(features @ self.coef_.T + self.intercept_).argmax(axis=1)]


def classifier(method: str, strength: float) -> Any:
    """The larger `strength`, the weaker the classifier's penalty, or the smaller its pseudo-count."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if method == "bayes":
        return NaiveBayes(1 / strength)
    if method == "logistic":
        return LogisticRegression(C=strength, max_iter=1000)
    return LinearSVC(C=strength, dual="auto", max_iter=200, random_state=0)


def fitted(train_set: CountedTexts, options: BagOptions) -> Any:
    """The classifier, its strength chosen on a held-out fifth of the texts and then fitted on all of them."""
    fit, held_out = hold_out(train_set, 0.2, options.seed)

    def accuracy(strength: float) -> float:
        found = classifier(options.method, strength).fit(fit.features, fit.labels.numpy()).predict(held_out.features)
        return float((found == held_out.labels.numpy()).mean())

    with warnings.catch_warnings(action="ignore"):  # a solver may stop early: the held-out texts judge it all the same
        best = max(STRENGTHS, key=accuracy)
        return classifier(options.method, best).fit(train_set.features, train_set.labels.numpy())


def build(options: BagOptions, data: Any) -> BagOfWords:
    """The network for these n-grams and classes."""
    return BagOfWords(len(data.ngrams), len(data.classes), tf_idf=options.tf_idf)


@recipe(BagOptions)
def run(options: BagOptions) -> Result:
    """Fits a linear classifier on bags of n-grams and measures it on held-out texts."""
    train_set, test_set = open_counted(options)
    found, model = fitted(train_set, options), build(options, train_set)
    weight, bias = torch.from_numpy(found.coef_), torch.from_numpy(np.asarray(found.intercept_))
    if len(weight) == 1:  # two classes share one row: for the second, and against the first
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    model.load_state_dict({"idf": torch.from_numpy(train_set.idf), "head.weight": weight, "head.bias": bias})
    predicted = torch.from_numpy(found.predict(test_set.features))
    return Result(
        metrics=scores(predicted, test_set.labels, len(test_set.classes)),
        baseline=linear_svm(train_set, test_set, longest=1),
        baseline_name="linear SVM on single words",
        bars={"accuracy": 0.8},
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, words, counts = run(), run(longest=1), run(tf_idf=False)
    run(method="logistic"), run(method="bayes")  # for the table alone
    shares = [full.options["share"] / part for part in (16, 4)]
    fewer, _ = [[run(method=method, share=share) for share in shares] for method in (full.options["method"], "bayes")]
    text = f"n-grams of up to {full.options['longest']} words beat single words"
    yield Claim(text, full["accuracy"], ">", words["accuracy"], margin=0.1)
    yield Claim("TF-IDF beats counts", full["accuracy"], ">", counts["accuracy"], margin=0.005)
    text = "a quarter of the texts teaches less than all of them"
    yield Claim(text, fewer[1]["accuracy"], "<", full["accuracy"], margin=0.04)


@run.figure
def figure(result: Result) -> Any:
    """The methods as bars, accuracy by the number of texts, the confusion matrix, the n-grams with large weights."""
    dataset, model = result.test_set, result.model
    figure, axes = new_figure(1, 4, width=4.2, height=3.6)
    runs = {"as given": result} | result.runs
    whole = {name: one for name, one in runs.items() if one.options["share"] == result.options["share"]}
    axes[0, 0].barh(list(whole), [one["accuracy"] for one in whole.values()], height=0.5)
    axes[0, 0].invert_yaxis()
    axes[0, 0].axvline(result.baseline["accuracy"], color="black", linestyle=":")
    axes[0, 0].set(xlim=(0, 1), xlabel="accuracy; dotted: linear SVM on single words")
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    for method in (result.options["method"], "bayes"):
        alike = {"method": method} | {name: result.options[name] for name in ("longest", "tf_idf")}
        curve = [one for one in runs.values() if alike.items() <= one.options.items()]
        points = sorted((len(one.train_set), one["accuracy"]) for one in curve)
        axes[0, 1].plot(*zip(*points, strict=True), marker="o", label=method)
    axes[0, 1].set(xscale="log", xlabel="texts to learn from", ylabel="accuracy")
    axes[0, 1].legend(frameon=False)
    weight, bias = model.head.weight.detach(), model.head.bias.detach()
    predicted = torch.from_numpy(dataset.features @ weight.numpy().T + bias.numpy()).argmax(dim=1)
    draw_confusion(axes[0, 2], predicted, dataset.labels, dataset.classes)
    draw_evidence(
        axes[0, 3], dataset.ngrams, weight[-1] - weight.mean(dim=0), f"n-grams against and for “{dataset.classes[-1]}”"
    )
    return figure


@dataclass(kw_only=True)
class CountedNgrams(Task):
    """Texts to classes, by the n-grams that they hold."""

    takes = "texts"

    classes: list[str]
    ngrams: list[str]
    longest: int

    answers = TextClassification.answers

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        train_set = result.train_set
        task = cls(classes=list(train_set.classes), ngrams=train_set.ngrams, longest=options.longest)
        task.example = task.batch(result.test_set.texts[:2])
        return task

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        return (torch.from_numpy(features(items, self.ngrams, self, None).toarray()).float(),)  # type: ignore[arg-type]


run.predicts(CountedNgrams, build)


if __name__ == "__main__":
    main(run)
