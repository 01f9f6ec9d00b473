"""Several labels for one text: a sigmoid for each class in place of one softmax.

"Mum's operation costs more than the insurance pays" is about family, health and money at once. A softmax shares one
probability among the classes: what a second right answer gets, the first one loses. A sigmoid for each class asks
each on its own, yes or no, so that a text may have three labels, or none; the loss is the mean of these binary
cross-entropies. The network below may be any that gives a number a class; here it is the convolution over words.

Accuracy says little where most answers are no. F1, the harmonic mean of precision (of the labels given, the share
that is right) and recall (of the right ones, the share that is given), counts over all labels alike (micro) or is the
mean over the classes (macro), so that a rare one weighs as much as a common one. Where "yes" begins is yours to
choose: a spam filter that must not lose a letter asks for more than one half.

Over all labels the network is ahead of a linear SVM for each class; for spam alone the two are close.

Notes: 85
Paper: Tsoumakas, Katakis (2007), "Multi-Label Classification: An Overview", https://doi.org/10.4018/jdwm.2007070101;
    Kim (2014), "Convolutional Neural Networks for Sentence Classification", https://arxiv.org/abs/1408.5882
Data: short messages with their topics and spam, written for this library; yours as CSV, TSV or JSON lines.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import draw_curves, legend_name, new_figure
from recipes.core.frame import Claim, Loop, Result, batches_by_length, main, option, predict, recipe
from recipes.datasets.several_labels import open_several_labels
from recipes.datasets.word_vectors import start_from
from recipes.nlp.text_classification.drawing import fonts
from recipes.nlp.text_classification.encoding import EncodedTexts, as_numbers, tokenize
from recipes.nlp.text_classification.text_cnn import TextCNNOptions, build
from recipes.nlp.text_classification.using import TextClassification


@dataclass(kw_only=True)
class MultiLabelOptions(TextCNNOptions):
    threshold: float = option(0.5, "probability from which on a text has a label", above=0, below=1)
    loss: Literal["sigmoid", "softmax"] = option("sigmoid", "sigmoid, or softmax: one answer, as for a single label")
    epochs: int = 8


def train(model: nn.Module, train_set: EncodedTexts, test_set: EncodedTexts, options: MultiLabelOptions) -> Loop:
    """Minimizes, with AdamW, a binary cross-entropy for each class, or one cross-entropy shared by the right ones."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=options.lr),
        batches_by_length(train_set, options),
        options,
        evaluate=lambda: evaluate(model, test_set, options),
    )
    for ids, labels in loop:
        logits = loop.model(ids)  # (batch, words) to (batch, classes)
        if options.loss == "softmax":
            loop.step(F.cross_entropy(logits, labels / labels.sum(dim=1, keepdim=True).clamp(min=1)))
        else:
            loop.step(F.binary_cross_entropy_with_logits(logits, labels))
    return loop


def given_labels(logits: Tensor, options: Any) -> Tensor:
    """The labels that texts get, (N, classes) bool: those above the threshold, or with a softmax the likeliest."""
    if options.loss == "softmax":
        return F.one_hot(logits.argmax(dim=1), logits.shape[1]).bool()
    return logits.sigmoid() >= options.threshold


def label_scores(given: Tensor, labels: Tensor) -> dict[str, float]:
    """Micro and macro F1, and the share of texts all of whose labels are right, from (N, classes) of 0 and 1 each."""
    hits = (given * labels).sum(dim=0)  # (classes,)
    sizes = given.sum(dim=0) + labels.sum(dim=0)
    # F1 = 2 · precision · recall / (precision + recall) = 2 · hits / (labels given + labels there are)
    by_class = 2 * hits / sizes.clamp(min=1)
    exact = (given == labels).all(dim=1).double().mean()
    f1 = 2 * hits.sum() / sizes.sum().clamp(min=1)
    return {"f1": f1.item(), "macro_f1": by_class[sizes > 0].mean().item(), "exact": exact.item()}


def evaluate(model: nn.Module, dataset: EncodedTexts, options: MultiLabelOptions) -> dict[str, float]:
    """F1, the share of texts with all labels right, and the mean binary cross-entropy (nats) over the whole set."""
    logits = torch.stack(predict(model, dataset, options.device))  # (N, classes)
    loss = F.binary_cross_entropy_with_logits(logits, dataset.labels).item()
    return label_scores(given_labels(logits, options).float(), dataset.labels) | {"loss": loss}


@recipe(MultiLabelOptions)
def run(options: MultiLabelOptions) -> Result:
    """Trains a TextCNN with a sigmoid for each class and measures it on held-out texts."""
    columns = {"text_column": options.text_column, "label_column": options.label_column}
    parts = open_several_labels(options.data, **columns, encoding=options.encoding, seed=options.seed)
    train_set, test_set = as_numbers(parts, options)
    model = build(options, train_set)
    if train_set.vectors is not None:
        start_from(model.embedding, train_set.vocabulary.words, train_set.vectors)
    loop = train(model.to(options.device), train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options),
        baseline=label_scores(svm_labels(train_set, test_set), test_set.labels),
        baseline_name="a linear SVM for each class, on words and pairs",
        bars={"f1": 0.8},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


def svm_labels(train_set: EncodedTexts, test_set: EncodedTexts) -> Tensor:
    """The baseline: TF-IDF of words and pairs, and a linear SVM that says yes or no for each class; (N, classes)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import LinearSVC

    vectorizer = TfidfVectorizer(tokenizer=tokenize, token_pattern=None, lowercase=False, ngram_range=(1, 2))
    machines = OneVsRestClassifier(LinearSVC(random_state=0))
    machines.fit(vectorizer.fit_transform(train_set.texts), train_set.labels.numpy())
    return torch.from_numpy(machines.predict(vectorizer.transform(test_set.texts))).float()


def f1_by_class(given: Tensor, labels: Tensor) -> list[float]:
    """F1 of each class alone, from labels given and labels there are, (N, classes) of 0 and 1."""
    return [label_scores(*pair)["f1"] for pair in zip(given.split(1, dim=1), labels.split(1, dim=1), strict=True)]


def answers_of(result: Result) -> Tensor:
    """The model's numbers for the test texts, (N, classes)."""
    return torch.stack(predict(result.model, result.test_set, next(result.model.parameters()).device))


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    several, one = run(), run(loss="softmax")
    counted = svm_labels(several.train_set, several.test_set)
    labels, classes = several.test_set.labels, several.test_set.classes
    given = [(answers_of(several).sigmoid() >= several.options["threshold"]).float(), counted]
    for name, answers in zip(("this recipe", several.baseline_name), given, strict=True):
        found = dict(zip(classes, f1_by_class(answers, labels), strict=True))
        several.rows.append({"F1 of each class": name} | found)
    text = "a sigmoid for each class finds more of the labels than a softmax with one answer"
    yield Claim(text, several["f1"], ">", max(one["f1"], 0.5), margin=0.1)  # untrained ones have less
    yield Claim("and more texts get all their labels right", several["exact"], ">", one["exact"], margin=0.1)


@run.figure
def figure(result: Result) -> Any:
    """The curve, precision against recall at every threshold for each class, and F1 of each beside the baseline's."""
    labels, classes, logits = result.test_set.labels, result.test_set.classes, answers_of(result)
    drawing, axes = new_figure(1, 3, width=4.2, height=3.6)
    draw_curves(axes[0, 0], result.history, ["loss", "f1", "macro_f1"])
    for name, scores, truth in zip(classes, logits.T, labels.T, strict=True):
        hits = truth[scores.argsort(descending=True)].cumsum(0)
        precision, recall = hits / torch.arange(1, len(hits) + 1), hits / hits[-1].clamp(min=1)
        axes[0, 1].plot(recall, precision, label=legend_name(name))
    axes[0, 1].set(xlabel="recall, as the threshold falls", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    if len(classes) <= 10:
        axes[0, 1].legend(frameon=False, loc="lower left", prop={"family": fonts("DejaVu Sans")})
    given, rows = given_labels(logits, MultiLabelOptions(**result.options)), torch.arange(len(classes))
    compared = {"this recipe": given.float(), "linear SVM": svm_labels(result.train_set, result.test_set)}
    for place, (name, answers) in zip((-0.2, 0.2), compared.items(), strict=True):
        axes[0, 2].barh(rows + place, f1_by_class(answers, labels), height=0.38, label=name)
    axes[0, 2].set_yticks(rows, classes, family=fonts("DejaVu Sans"))
    axes[0, 2].set(xlim=(0, 1), ylim=(len(rows) - 0.4, -1.2), xlabel="F1 of each class")
    axes[0, 2].legend(frameon=False, ncols=2, loc="upper left")
    for one in axes[0]:
        one.spines[["top", "right"]].set_visible(False)
    return drawing


@dataclass(kw_only=True)
class SeveralClasses(TextClassification):
    """Texts to any number of classes each, by their words."""

    loss: str = "sigmoid"
    threshold: float = 0.5

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        task = super().of(result, options)
        task.loss, task.threshold = options.loss, options.threshold
        return task

    def answers(self, outputs: Tensor, items: Sequence[str]) -> list[dict[str, Any]]:
        shares = outputs.softmax(dim=1) if self.loss == "softmax" else outputs.sigmoid()
        return [
            {"text": text, "labels": [self.classes[place] for place in given.nonzero().flatten()]}
            | {"classes": dict(zip(self.classes, row.tolist(), strict=True))}
            for text, given, row in zip(items, given_labels(outputs, self), shares, strict=True)
        ]


run.predicts(SeveralClasses, build)


if __name__ == "__main__":
    main(run)
