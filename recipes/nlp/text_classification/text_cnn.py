"""TextCNN: convolution over words.

Each filter slides over a text a few words at a time and keeps the strongest answer it got: it asks
whether a phrase such as "anything but dull" stands anywhere in the text. Filters of 2, 3, 4 and 5 words
together read negation and contrast, which no bag of words can. Padding never counts: the answers of
windows that lie in it are left out of the maximum.

Notes: 85
Paper: Kim (2014), "Convolutional Neural Networks for Sentence Classification",
    https://arxiv.org/abs/1408.5882
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

import math
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import draw_curves, new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.word_vectors import read_vectors, start_from
from recipes.nlp.text_classification.drawing import draw_evidence, draw_texts, phrase_evidence
from recipes.nlp.text_classification.encoding import (
    PAD,
    EncodedTexts,
    batches_by_length,
    open_encoded,
    shuffled,
)
from recipes.nlp.text_classification.task import evaluate, linear_svm, word_vectors


class TextCNN(nn.Module):
    """Convolutions of several widths over the words' vectors, the maximum over time, one linear layer.

    Args:
        vocabulary_size: words that are known, with padding.
        num_classes: of the last layer.
        width: numbers in a word's vector.
        windows: words that a filter sees at a time.
        filters: in all, an equal share for each window.
        dropout: share of the maxima that are dropped while training.
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_classes: int,
        *,
        width: int = 64,
        windows: tuple[int, ...] = (2, 3, 4, 5),
        filters: int = 256,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        share = filters // len(windows)
        self.embedding = word_vectors(vocabulary_size, width)
        # A window may hang over either end of the text, so that one word is enough for any of them.
        self.convolutions = nn.ModuleList(nn.Conv1d(width, share, window, padding=window - 1) for window in windows)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(share * len(windows), num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        vectors = self.embedding(ids).transpose(1, 2)  # (batch, width, words)
        lengths = (ids != PAD).sum(dim=1, keepdim=True)  # (batch, 1)
        strongest = []
        for convolution in self.convolutions:
            answers = F.relu(convolution(vectors))  # (batch, share, places), places = words + window - 1
            places = torch.arange(answers.shape[2], device=ids.device)
            inside = places < lengths + answers.shape[2] - ids.shape[1]  # windows with a word of the text in them
            strongest.append((answers * inside[:, None]).amax(dim=2))  # no answer is below 0
        return self.head(self.dropout(torch.cat(strongest, dim=1)))  # (batch, num_classes)


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
    name: str = "model",
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
        name=name,
        **engine,
    )
    for ids, labels in loop:
        loss = F.cross_entropy(loop.model(ids), labels)
        loop.step(loss)
    return loop


def parse_windows(option: str) -> tuple[int, ...]:
    """The numbers in "2,3,4,5".

    Raises:
        InputError: it is not a list of whole numbers of at least 1.
    """
    words = [word.strip() for word in option.split(",")]
    if not all(word.isdecimal() and int(word) >= 1 for word in words):
        raise InputError(f"option windows: expected whole numbers of at least 1 such as 2,3,4,5, got {option!r}")
    return tuple(int(word) for word in words)


def draw(
    model: nn.Module,
    dataset: EncodedTexts,
    device: torch.device,
    history: list[dict[str, float]],
    rows: list[dict[str, Any]],
) -> Any:
    """The curve, the models compared, the phrases that speak loudest, and texts in colours."""
    figure, axes = new_figure(2, 3, width=4.6, height=3.4)
    draw_curves(axes[0, 0], history, ["loss", "accuracy"])
    draw_compared(axes[0, 1], rows)
    names, evidence = phrase_evidence(model, dataset, device, length=4)
    draw_evidence(axes[0, 2], names, evidence, f"phrases against and for “{dataset.classes[-1]}”")
    grid = axes[1, 0].get_gridspec()
    for place in axes[1]:
        place.remove()
    draw_texts(figure.add_subplot(grid[1, :]), model, dataset, device, columns=180)
    return figure


def draw_compared(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Accuracy of each model on the texts as they are and, where it was measured, with their words shuffled."""
    places = torch.arange(len(rows))
    for shift, key, label in ((-0.2, "accuracy", "as written"), (0.2, "shuffled", "words shuffled")):
        shares = [math.nan if row[key] is None else row[key] for row in rows]
        axes.barh(places + shift, shares, height=0.38, label=label)
    axes.set_yticks(places, [row["model"].replace(", ", ",\n", 1) for row in rows], fontsize=8)
    axes.set(ylim=(len(rows) - 0.4, -1.6), xlim=(0, 1), xlabel="accuracy on held-out texts")
    axes.legend(frameon=False, loc="upper left", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


@old_recipe
def run(
    *,
    data: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    vectors: str | None = None,
    min_freq: int = 2,
    max_words: int = 256,
    width: int = 64,
    windows: str = "2,3,4,5",
    filters: int = 256,
    dropout: float = 0.5,
    epochs: int = 6,
    batch_size: int = 50,
    lr: float = 4e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a TextCNN, and two with filters of one and of two words, and measures them on held-out texts.

    Args:
        data: folder or file of your texts, or hf:NAME; the bundled reviews if not given.
        text_column: name of the column of texts, if it is not a usual one.
        label_column: name of the column of labels, if it is not a usual one.
        vectors: text file of word vectors (GloVe's format) for its words to start from, the others at random.
        min_freq: times a word must occur in the train texts to be known.
        max_words: words of a text that are read; the rest is left out.
        width: numbers in a word's vector; as many as in the file, if one is given.
        windows: words that a filter sees at a time, one number for each kind of filter.
        filters: in all, an equal share for each window.
        dropout: share of the filters' answers that are dropped while training.
        epochs: passes over the train texts.
        batch_size: texts in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the texts, and of the split of a single file.
        out: folder for result.json, figure.png and model.safetensors.
    """
    chosen = parse_windows(windows)
    if filters < len(chosen):
        raise InputError(f"option filters: expected at least one for each of the {len(chosen)} windows, got {filters}")
    if width < 1 or not 0 <= dropout < 1:
        raise InputError(f"options width and dropout: expected at least 1 and 0 to below 1, got {width} and {dropout}")
    place = setup(device, seed)
    train_set, test_set = open_encoded(
        data, text_column=text_column, label_column=label_column, min_freq=min_freq, max_words=max_words, seed=seed
    )
    known = train_set.vocabulary.words
    pretrained = read_vectors(vectors, known) if vectors is not None else None
    width = pretrained.table.shape[1] if pretrained is not None else width
    svms = [linear_svm(train_set, test_set, longest=longest) for longest in (1, 2, 3)]
    rows: list[dict[str, Any]] = [
        {"model": f"linear SVM, {words}", "accuracy": svm["accuracy"], "shuffled": None}
        for words, svm in zip(("words", "words and pairs", "up to triples"), svms, strict=True)
    ]
    disordered = shuffled(test_set, seed=seed)
    for compared in dict.fromkeys([(1,), (2,), chosen]):  # the chosen one last
        torch.manual_seed(seed)
        model = TextCNN(
            len(train_set.vocabulary),
            len(train_set.classes),
            width=width,
            windows=compared,
            filters=filters,
            dropout=dropout,
        ).to(place)
        if pretrained is not None:
            start_from(model.embedding, known, pretrained)
        name = "windows of " + ", ".join(str(window) for window in compared)
        loop = train(
            model,
            train_set,
            test_set,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            device=place,
            seed=seed,
            name=name,
            **engine,
        )
        metrics = evaluate(model, test_set, place)
        in_disorder = evaluate(model, disordered, place)["accuracy"]
        rows.append({"model": f"TextCNN, {name}", "accuracy": metrics["accuracy"], "shuffled": in_disorder})
    return Result(
        metrics=metrics,
        baseline=svms[1],
        baseline_name="linear SVM, words and pairs",
        bars={"accuracy": 0.93},
        claims=[
            claim(
                "filters over word vectors beat counted words, pairs and triples (the best of the linear SVMs)",
                metrics["accuracy"],
                ">",
                max(svm["accuracy"] for svm in svms),
            ),
            claim(
                "wider windows help: it beats as many filters of one word, which make a bag of words",
                metrics["accuracy"],
                ">",
                rows[3]["accuracy"],
            ),
            claim("and as many filters of two words", metrics["accuracy"], ">", rows[4]["accuracy"]),
            claim(
                "it reads the order: with the words of the test texts shuffled it is worse than the bag of words",
                in_disorder,
                "<",
                rows[3]["accuracy"],
            ),
        ],
        rows=rows,
        history=loop.history,
        model=model,
        draw=lambda: draw(model, test_set, place, loop.history, rows),
    )


if __name__ == "__main__":
    main(run)
