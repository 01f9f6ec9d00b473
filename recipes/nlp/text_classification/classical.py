"""Bags of words with naive Bayes, logistic regression and a linear SVM.

Before networks, and still the first thing to try: a text is the counts of its words, or of its runs of
two and three words (n-grams), and a linear classifier gives each a weight. TF-IDF multiplies a count by
how rare the n-gram is, so that "the" does not drown "superb". N-grams bring back a little of the order
that a bag of words throws away. TF-IDF and naive Bayes are written out; every pair of features and method
is measured, and the pair that does best on a held-out share of the train part is the recipe's answer.

Notes: 85
Paper: Sebastiani (2002), "Machine Learning in Automated Text Categorization",
    https://arxiv.org/abs/cs/0110053
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.loading import holdout
from recipes.core.old import claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.texts import Texts, open_texts
from recipes.nlp.text_classification.drawing import draw_confusion, draw_evidence
from recipes.nlp.text_classification.encoding import tokenize
from recipes.nlp.text_classification.scoring import majority, scores

METHODS = ("naive Bayes", "logistic regression", "linear SVM")
STRENGTHS = (0.1, 1.0, 10.0)  # how freely a method may follow the train texts; the best is chosen for each


def ngrams(text: str, longest: int) -> list[str]:
    """All runs of one to `longest` words: "not very good" gives "not", …, "not very", "very good"."""
    words = tokenize(text)
    return [
        " ".join(words[start : start + length])
        for length in range(1, longest + 1)
        for start in range(len(words) - length + 1)
    ]


class Bag:
    """Texts as sparse rows of counts (texts, n-grams), or of TF-IDF.

    Args:
        texts: whose n-grams are the columns.
        longest: words in the longest n-gram.
        tf_idf: weigh the counts by rarity, and bring each text to length 1.

    Raises:
        InputError: there is no word in the texts.
    """

    def __init__(self, texts: Sequence[str], longest: int, tf_idf: bool) -> None:
        self.longest, self.tf_idf = longest, tf_idf
        frequency = Counter(gram for text in texts for gram in set(ngrams(text, longest)))
        if not frequency:
            raise InputError("there is no word in the train texts, only signs")
        self.names = sorted(frequency)
        self.column = {gram: column for column, gram in enumerate(self.names)}
        # idf(t) = ln((1 + N) / (1 + df(t))) + 1, where df(t) of the N texts hold the n-gram t
        df = np.array([frequency[gram] for gram in self.names])
        self.idf = np.log((1 + len(texts)) / (1 + df)) + 1

    def transform(self, texts: Sequence[str]) -> Any:
        """The texts as a sparse matrix (texts, n-grams); n-grams that are not columns are left out."""
        from scipy.sparse import csr_matrix, diags

        rows, columns = [], []
        for row, text in enumerate(texts):
            known = [self.column[gram] for gram in ngrams(text, self.longest) if gram in self.column]
            rows += [row] * len(known)
            columns += known
        shape = (len(texts), len(self.names))
        counts = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)  # what comes twice is summed
        if not self.tf_idf:
            return counts
        weighted = counts @ diags(self.idf)  # tf(t, d) · idf(t)
        lengths = np.sqrt(weighted.power(2).sum(axis=1)).A1
        return diags(1 / np.maximum(lengths, 1e-12)) @ weighted


class NaiveBayes:
    """Multinomial naive Bayes: words are drawn one by one, each class from an urn of its own.

    Args:
        pseudo_count: times that each n-gram is taken to have been seen in each class beforehand.
    """

    def __init__(self, pseudo_count: float = 1.0) -> None:
        self.pseudo_count = pseudo_count

    def fit(self, features: Any, labels: np.ndarray) -> "NaiveBayes":
        self.classes_ = np.unique(labels)
        drawn = np.stack([features[labels == label].sum(axis=0).A1 for label in self.classes_]) + self.pseudo_count
        # P(t | c) = (count of t in c + pseudo-count) / (the same, summed over all t)
        self.coef_ = np.log(drawn / drawn.sum(axis=1, keepdims=True))  # (classes, n-grams)
        self.intercept_ = np.log([(labels == label).mean() for label in self.classes_])
        return self

    def predict(self, features: Any) -> np.ndarray:
        # log P(c | text) = log P(c) + sum over t of tf(t) · log P(t | c) + constant
        return self.classes_[(features @ self.coef_.T + self.intercept_).argmax(axis=1)]


def build_classifier(method: str, strength: float) -> Any:
    """The classifier of that name; the larger `strength`, the weaker its penalty or the smaller its pseudo-count.

    Its solver may stop early, as on the large counts of long texts: the held-out texts judge it all the same.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if method == "naive Bayes":
        return NaiveBayes(1 / strength)
    if method == "logistic regression":
        return LogisticRegression(C=strength, max_iter=1000)
    return LinearSVC(C=strength, dual="auto", max_iter=200, random_state=0)


class BagClassifier:
    """From texts to classes: the bag and the classifier that was fitted on it."""

    def __init__(self, bag: Bag, classifier: Any) -> None:
        self.bag, self.classifier = bag, classifier

    def predict(self, texts: Sequence[str]) -> torch.Tensor:
        """Indices of the texts' classes, (texts,)."""
        return torch.from_numpy(self.classifier.predict(self.bag.transform(texts)))

    def evidence(self) -> torch.Tensor:
        """The weight of each n-gram, (n-grams,), for the last class above the mean of all."""
        weights = torch.from_numpy(self.classifier.coef_)  # (classes, n-grams), or one row for two classes
        return weights[-1] - weights.mean(dim=0) if len(weights) > 1 else weights[0]


def train(train_set: Texts, longest: int, tf_idf: bool, seed: int = 0) -> dict[str, tuple[float, BagClassifier]]:
    """Fits every method on one kind of features.

    The strength is chosen on a held-out fifth of the texts; then all of them are fitted with it.

    Returns:
        For each method its accuracy on the held-out fifth, and what was fitted on all texts.
    """
    from sklearn.exceptions import ConvergenceWarning

    kept, held_out = (train_set.__getitems__(part.tolist()) for part in holdout(train_set.labels, 0.2, seed))
    smaller, whole = Bag(kept[0], longest, tf_idf), Bag(train_set.texts, longest, tf_idf)
    features, held_out_features = smaller.transform(kept[0]), smaller.transform(held_out[0])
    all_features = whole.transform(train_set.texts)
    fitted = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for method in METHODS:
            accuracy = {}
            for strength in STRENGTHS:
                classifier = build_classifier(method, strength).fit(features, kept[1].numpy())
                accuracy[strength] = float((classifier.predict(held_out_features) == held_out[1].numpy()).mean())
            best = max(STRENGTHS, key=lambda strength: accuracy[strength])
            classifier = build_classifier(method, best).fit(all_features, train_set.labels.numpy())
            fitted[method] = (accuracy[best], BagClassifier(whole, classifier))
    return fitted


def evaluate(model: BagClassifier, dataset: Texts) -> dict[str, float]:
    """Accuracy and F1 over the whole set."""
    return scores(model.predict(dataset.texts), dataset.labels, len(dataset.classes))


def draw(model: BagClassifier, dataset: Texts, rows: list[dict[str, Any]]) -> Any:
    """The table as bars, the confusion matrix, and the n-grams with the largest weights."""
    figure, axes = new_figure(1, 3, width=4.4, height=3.6)
    for place, method in enumerate(METHODS):
        heights = [row[method] for row in rows]
        axes[0, 0].barh([number + 0.27 * (place - 1) for number in range(len(rows))], heights, 0.25, label=method)
    axes[0, 0].set_yticks(range(len(rows)), [row["features"] for row in rows])
    axes[0, 0].set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="accuracy on held-out texts")
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False)
    draw_confusion(axes[0, 1], model.predict(dataset.texts), dataset.labels, dataset.classes)
    draw_evidence(axes[0, 2], model.bag.names, model.evidence(), f"n-grams against and for “{dataset.classes[-1]}”")
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    longest: int = 3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
) -> Result:
    """Measures counts and TF-IDF of n-grams with three methods on held-out texts.

    Args:
        data: folder or file of your texts, or hf:NAME; the bundled reviews if not given.
        text_column: name of the column of texts, if it is not a usual one.
        label_column: name of the column of labels, if it is not a usual one.
        longest: words in the longest n-gram.
        device: auto, cpu, cuda or mps; all of this runs on the CPU.
        seed: of the draw of the train texts that features, method and strength are chosen on.
        out: folder for result.json and figure.png.
    """
    if longest < 2:
        raise InputError(f"option longest: expected a whole number of at least 2, got {longest}")
    setup(device, seed)
    train_set, test_set = open_texts(data, text_column=text_column, label_column=label_column, seed=seed)
    rows: list[dict[str, Any]] = []
    candidates = []
    for length in range(1, longest + 1):
        for tf_idf in (False, True):
            kind = "single words" if length == 1 else f"1 to {length} words"
            row: dict[str, Any] = {"features": f"{'TF-IDF' if tf_idf else 'counts'}, {kind}"}
            for method, (held_out, model) in train(train_set, length, tf_idf, seed).items():
                metrics = evaluate(model, test_set)
                row[method] = metrics["accuracy"]
                candidates.append((held_out, len(rows), method, model, metrics))
            rows.append(row)
    _, number, method, model, metrics = max(candidates, key=lambda candidate: candidate[0])
    rows = [row | {"chosen": method if row is rows[number] else None} for row in rows]

    def mean(some: Sequence[dict[str, Any]]) -> float:
        return float(np.mean([[row[method] for method in METHODS] for row in some]))

    return Result(
        metrics=metrics,
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.78},
        claims=[
            claim(
                f"runs of up to {longest} words beat single words (mean over methods, counts and TF-IDF)",
                mean(rows[-2:]),
                ">",
                mean(rows[:2]),
            ),
            claim("TF-IDF beats counts (mean over methods and lengths)", mean(rows[1::2]), ">", mean(rows[::2])),
        ],
        rows=rows,
        model=model,
        draw=lambda: draw(model, test_set, rows),
    )


if __name__ == "__main__":
    main(run)
