"""Sentiment: one linear layer on BERT, trained together with it.

Of the states of a text's pieces the largest of each number is kept, and a linear layer says from these which class
the text is of. All layers learn, those of a pretrained encoder with a small rate.

A bag of words adds up what each word says, and errs where a word turns the sense: "hardly terrible" is praise, and
in "the plot was superb, but I found it dull" one half outweighs the other. Attention gives every word its
neighbours to read, so the run measures it on the texts with a negation, and with their words shuffled.

So few texts as these teach attention only from a good start. Positions begin strong, since what turns a word stands
close to it; words begin weak, so that a rare one is no noise; layers begin silent and add to a state what they learn.
Pieces that training hardly showed are read as [MASK], which it knows from hiding some pieces at each step.

Notes: 46
Paper: Devlin, Chang, Lee, Toutanova (2019), "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", https://arxiv.org/abs/1810.04805
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

import re
import textwrap
from dataclasses import replace
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
from recipes.datasets.texts import open_texts
from recipes.nlp.bert.encoder import (
    in_disorder,
    mean_pool,
    open_encoder,
    start_with_positions,
    states_of,
    with_a_fast_head,
    with_some_hidden,
)
from recipes.nlp.bert.subwords import Subwords, SubwordTexts, encode_texts
from recipes.nlp.text_classification.drawing import draw_confusion, fonts
from recipes.nlp.text_classification.encoding import batches_by_length
from recipes.nlp.text_classification.scoring import scores, svm_answers

NEGATION = re.compile(
    r"\b(not|never|no|nothing|neither|hardly|lack(ed)?|failed|without|anything but|far from|nowhere near)\b",
    re.IGNORECASE,
)


class TextClassifier(nn.Module):
    """A linear layer on the maximum of an encoder's states, or on their mean.

    Args:
        encoder: a model of `transformers`.
        subwords: the pieces that it reads.
        num_classes: of the last layer.
        hidden: share of the pieces that are hidden while training.
        dropout: share of the numbers that are dropped while training.
        mean: take the mean of the states, for an encoder that was pretrained to be read so.
    """

    def __init__(
        self,
        encoder: Any,
        subwords: Subwords,
        num_classes: int,
        *,
        hidden: float = 0.1,
        dropout: float = 0.1,
        mean: bool = False,
    ) -> None:
        super().__init__()
        self.mean = mean
        self.encoder, self.hidden, self.pad, self.mask = encoder, hidden, subwords.pad, subwords.mask
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        there = ids != self.pad
        if self.training and self.hidden:
            ids = with_some_hidden(ids, there, self.hidden, self.mask)
        states = states_of(self.encoder, ids, there)  # (batch, pieces, width)
        strongest = states.masked_fill(~there[:, :, None], -1e4).amax(dim=1)  # (batch, width)
        text = mean_pool(states, there) if self.mean else strongest
        return self.head(self.dropout(text))  # (batch, num_classes)


def hide_rare(dataset: SubwordTexts, known: Tensor) -> SubwordTexts:
    """The texts with one [MASK] for each run of pieces that are not `known` (pieces,)."""
    mask = dataset.vocabulary.mask

    def hidden(ids: Tensor) -> Tensor:
        ids = torch.where(known[ids], ids, mask)
        again = (ids == mask) & (ids.roll(1) == mask)
        return ids[~again]

    return replace(dataset, ids=[hidden(ids) for ids in dataset.ids])


def well_known(train_set: SubwordTexts, min_freq: int) -> Tensor:
    """Which pieces (pieces,) occur `min_freq` times in the train texts, or are none of a text."""
    counts = torch.cat(list(train_set.ids)).bincount(minlength=len(train_set.vocabulary.words))
    ordinary = torch.isin(torch.arange(len(counts)), train_set.vocabulary.ordinary)
    return (counts >= min_freq) | ~ordinary


def train(
    model: TextClassifier,
    train_set: SubwordTexts,
    test_set: SubwordTexts,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    random_words: bool = True,
    seed: int = 0,
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises the cross-entropy of encoder and head together; the loop's history follows the test part.

    The head learns four times as fast as the rest, and so do words that start from random vectors.
    """
    fast = [*model.head.parameters()]
    fast += model.encoder.get_input_embeddings().parameters() if random_words else []
    loop = OldLoop(
        model,
        with_a_fast_head(model, fast, lr),
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


def evaluate(model: TextClassifier, dataset: SubwordTexts, device: torch.device) -> dict[str, float]:
    """Accuracy, F1 and mean cross-entropy (nats) over the whole set."""
    return evaluate_logits(torch.stack(predict(model, dataset, device, 128)), dataset)


def evaluate_logits(logits: Tensor, dataset: SubwordTexts) -> dict[str, float]:
    """The same, given the logits (N, num_classes)."""
    loss = F.cross_entropy(logits, dataset.labels).item()
    return scores(logits.argmax(dim=1), dataset.labels, len(dataset.classes)) | {"loss": loss}


def draw(
    logits: Tensor, dataset: SubwordTexts, turned: Tensor, history: list[dict[str, float]], rows: list[dict[str, Any]]
) -> Any:
    """The curve, the confusion matrix, all that was compared, and held-out texts with what the encoder says."""
    figure, axes = new_figure(2, 3, width=4.2, height=3.0)
    draw_curves(axes[0, 0], history, ["loss", "accuracy"])
    axes[0, 0].set(ylim=(0, None), title="training")
    predicted = logits.argmax(dim=1)
    draw_confusion(axes[0, 1], predicted, dataset.labels, dataset.classes)
    places = torch.arange(len(rows))
    for shift, key, label in ((-0.2, "accuracy", "all"), (0.2, "negated", "with a negation")):
        if all(key in row for row in rows):
            bars = axes[0, 2].barh(places + shift, [row[key] for row in rows], height=0.38, label=label)
            axes[0, 2].bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes[0, 2].set_yticks(places, [row["model"].replace(", ", ",\n", 1) for row in rows], fontsize=8)
    axes[0, 2].set(xlim=(0, 1.15), ylim=(len(rows) - 0.4, -1.2), title="accuracy on held-out texts")
    axes[0, 2].legend(frameon=False, ncols=2, loc="upper right", fontsize=8)
    axes[0, 2].spines[["top", "right"]].set_visible(False)
    grid = axes[1, 0].get_gridspec()
    for place in axes[1]:
        place.remove()
    words = figure.add_subplot(grid[1, :])
    shares, line = logits.softmax(dim=1), 0
    for index in (turned if len(turned) else torch.arange(len(dataset)))[:8].tolist():
        colour = "tab:green" if predicted[index] == dataset.labels[index] else "tab:red"
        said = f"{dataset.classes[predicted[index]]} {shares[index].max():.2f}"
        words.text(0, line, said, fontsize=9, va="top", color=colour, family=fonts("DejaVu Sans"))
        told = textwrap.wrap(dataset.texts[index], 135)[:2]
        words.text(0.12, line, "\n".join(told), fontsize=9, va="top", family=fonts("DejaVu Sans"))
        line += len(told)
    words.set(xlim=(0, 1), ylim=(max(line, 9), -0.5))
    words.axis("off")
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str = "utf-8",
    weights: str | None = None,
    pieces: int = 2000,
    min_freq: int = 10,
    max_pieces: int = 128,
    width: int = 32,
    layers: int = 2,
    heads: int = 4,
    epochs: int = 5,
    batch_size: int = 16,
    lr: float = 2e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a classifier and measures it on held-out texts, beside linear SVMs on counted words.

    Args:
        data: folder or file of your texts, or hf:NAME; the bundled reviews if not given.
        text_column: name of the column of texts, if it is not a usual one.
        label_column: name of the column of labels, if it is not a usual one.
        encoding: of the files of texts, such as latin-1.
        weights: pretrained (MiniLM), a folder or a hub name that transformers reads; random if not given.
        pieces: of words, which the tokenizer learns at most; pretrained weights have their own.
        min_freq: times a piece must occur in the train texts to be read; pretrained weights read all.
        max_pieces: of a text that are read, its beginning and end among them; the rest is left out.
        width: numbers in a piece's vector.
        layers: of the encoder.
        heads: of attention in each layer.
        epochs: passes over the train texts.
        batch_size: texts in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule; pretrained weights need less, such as 5e-5.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the texts, and of the split of a single file.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if min_freq < 1:
        raise InputError(f"option min_freq: expected a whole number of at least 1, got {min_freq}")
    place = setup(device, seed)
    columns = {"text_column": text_column, "label_column": label_column}
    parts = open_texts(data, **columns, encoding=encoding, seed=seed)
    size = {"width": width, "layers": layers, "heads": heads, "longest": max_pieces}
    encoder, subwords = open_encoder(weights, parts[0].texts, pieces=pieces, **size)
    train_set, test_set = (encode_texts(part, subwords, max_pieces) for part in parts)
    if weights is None:
        start_with_positions(encoder)
        known = well_known(train_set, min_freq)
        train_set, test_set = hide_rare(train_set, known), hide_rare(test_set, known)

    way: dict[str, Any] = {"hidden": 0.1} if weights is None else {"hidden": 0.0, "mean": True}
    model = TextClassifier(encoder, subwords, len(train_set.classes), **way).to(place)
    options: dict[str, Any] = {"device": place, "random_words": weights is None, "seed": seed, **engine}
    loop = train(model, train_set, test_set, epochs=epochs, batch_size=batch_size, lr=lr, **options)
    logits, labels = torch.stack(predict(model, test_set, place, 128)), test_set.labels
    metrics = evaluate_logits(logits, test_set)
    answers = {
        "linear SVM, words": svm_answers(train_set, test_set, longest=1),
        "linear SVM, words and pairs": svm_answers(train_set, test_set),
        "encoder": logits.argmax(dim=1),
    }
    rows: list[dict[str, Any]] = [
        {"model": name} | scores(said, labels, len(test_set.classes)) for name, said in answers.items()
    ]
    generator = torch.Generator().manual_seed(seed)
    disordered = replace(test_set, ids=[in_disorder(ids, generator) for ids in test_set.ids])
    claims = [
        claim(
            "it reads the order: with the words of the held-out texts shuffled it gets fewer right",
            evaluate(model, disordered, place)["accuracy"],
            "<",
            metrics["accuracy"] - 0.05,
        )
    ]
    turned = torch.tensor([bool(NEGATION.search(text)) for text in test_set.texts]).nonzero().flatten()
    if len(turned) >= 20:
        for row, said in zip(rows, answers.values(), strict=True):
            row["negated"] = (said == labels)[turned].double().mean().item()
        claims.append(
            claim(
                f"it reads what turns the sense: of the {len(turned)} texts with a negation it gets more right than a "
                "bag of words, by 0.1 or more",
                rows[-1]["negated"],
                ">=",
                rows[0]["negated"] + 0.1,
            )
        )
    return Result(
        metrics=metrics,
        baseline={key: rows[1][key] for key in ("accuracy", "f1")},
        baseline_name="linear SVM, words and pairs",
        bars={"accuracy": 0.82},
        claims=claims,
        rows=rows,
        history=loop.history,
        model=model,
        draw=lambda: draw(logits, test_set, turned, loop.history, rows),
    )


if __name__ == "__main__":
    main(run)
