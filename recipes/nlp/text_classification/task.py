"""Text classification by the mean of word vectors.

A text becomes words, words become numbers, and each number looks up a vector that is learned. The mean
of a text's vectors goes through one linear layer (fastText). It is the plainest neural classifier, quick
and hard to beat on long texts, but a mean knows nothing of order: "good, not bad" is "bad, not good" to
it. The run measures what that costs.

Notes: 85
Paper: Joulin, Grave, Bojanowski, Mikolov (2016), "Bag of Tricks for Efficient Text Classification",
    https://arxiv.org/abs/1607.01759
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_recipe
from recipes.core.result import Result
from recipes.nlp.text_classification.drawing import draw_confusion, draw_evidence, phrase_evidence
from recipes.nlp.text_classification.encoding import (
    PAD,
    EncodedTexts,
    batches_by_length,
    open_encoded,
    shuffled,
    word_vectors,
)
from recipes.nlp.text_classification.scoring import evaluate, linear_svm, majority


class MeanOfWords(nn.Module):
    """The mean of the words' vectors, then a linear layer."""

    def __init__(self, vocabulary_size: int, num_classes: int, *, width: int = 64) -> None:
        super().__init__()
        self.embedding = word_vectors(vocabulary_size, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        vectors = self.embedding(ids)  # (batch, words, width)
        lengths = (ids != PAD).sum(dim=1, keepdim=True)  # (batch, 1)
        return self.head(vectors.sum(dim=1) / lengths)  # (batch, num_classes)


def train(
    model: nn.Module,
    train_set: EncodedTexts,
    test_set: EncodedTexts,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises the cross-entropy with AdamW; gives the loop, whose history follows the test part."""
    loop = OldLoop(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr),
        batches_by_length(train_set, batch_size, seed=seed),
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        evaluate=lambda: evaluate(model, test_set, device),
        **engine,
    )
    for ids, labels in loop:
        loss = F.cross_entropy(loop.model(ids), labels)
        loop.step(loss)
    return loop


def draw(model: nn.Module, dataset: EncodedTexts, device: torch.device, history: list[dict[str, float]]) -> Any:
    """The curve, the confusion matrix, and the words that speak loudest for and against the last class."""
    predicted = torch.stack(predict(model, dataset, device)).argmax(dim=1)
    figure, axes = new_figure(1, 3, width=3.8, height=3.4)
    draw_curves(axes[0, 0], history, ["loss", "accuracy"])
    draw_confusion(axes[0, 1], predicted, dataset.labels, dataset.classes)
    names, evidence = phrase_evidence(model, dataset, device, length=1)
    draw_evidence(axes[0, 2], names, evidence, f"words against and for “{dataset.classes[-1]}”")
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    min_freq: int = 2,
    max_words: int = 256,
    width: int = 64,
    epochs: int = 8,
    batch_size: int = 50,
    lr: float = 4e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a classifier and measures it on held-out texts.

    Args:
        data: folder or file of your texts, or hf:NAME; the bundled reviews if not given.
        text_column: name of the column of texts, if it is not a usual one.
        label_column: name of the column of labels, if it is not a usual one.
        min_freq: times a word must occur in the train texts to be known.
        max_words: words of a text that are read; the rest is left out.
        width: numbers in a word's vector.
        epochs: passes over the train texts.
        batch_size: texts in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the texts, and of the split of a single file.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if width < 1:
        raise InputError(f"option width: expected a whole number of at least 1, got {width}")
    place = setup(device, seed)
    train_set, test_set = open_encoded(
        data, text_column=text_column, label_column=label_column, min_freq=min_freq, max_words=max_words, seed=seed
    )
    model = MeanOfWords(len(train_set.vocabulary), len(train_set.classes), width=width).to(place)
    loop = train(
        model, train_set, test_set, epochs=epochs, batch_size=batch_size, lr=lr, device=place, seed=seed, **engine
    )
    metrics = evaluate(model, test_set, place)
    accuracy = metrics["accuracy"]
    in_disorder = evaluate(model, shuffled(test_set, seed=seed), place)["accuracy"]
    words, pairs = (linear_svm(train_set, test_set, longest=longest) for longest in (1, 2))
    return Result(
        metrics=metrics,
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.64},
        claims=[
            claim(
                "it reads no order: shuffling the words of the test texts moves its accuracy by nothing",
                abs(in_disorder - accuracy),
                "<=",
                0.002,
            ),
            claim(
                "that is what words alone tell: a linear SVM on single words is no better by more than 0.03",
                words["accuracy"],
                "<=",
                accuracy + 0.03,
            ),
            claim(
                "order tells more: a linear SVM on words and pairs beats it",
                pairs["accuracy"],
                ">",
                accuracy,
            ),
        ],
        rows=[
            {"model": "mean of word vectors", "accuracy": accuracy, "f1": metrics["f1"]},
            {"model": "linear SVM on words (TF-IDF)"} | words,
            {"model": "linear SVM on words and pairs (TF-IDF)"} | pairs,
        ],
        history=loop.history,
        model=model,
        draw=lambda: draw(model, test_set, place, loop.history),
    )


if __name__ == "__main__":
    main(run)
