"""Sentiment: one linear layer on BERT, trained together with it.

The layer reads the state of [CLS], the piece that every text begins with: through attention it gathers what the text
says. All layers learn, those of a pretrained encoder with a small rate (weights="pretrained"). Guessing hidden words of
these same texts first gains nothing that can be measured: praise and blame stand in them among the same words.

A bag of words adds up what each word says, and errs where a word turns the sense: "hardly terrible" is praise, and
in "the plot was superb, but I found it dull" one half outweighs the other. Attention lets every word read the others.
A convolution over words looks at neighbors by construction, and on these short texts it is ahead: see the table.

So few texts teach attention only from a good start. Positions begin strong, since what turns a word stands close to
it; words begin weak, so that a rare one is no noise; layers begin silent and add to a state what they learn. Rare
pieces are read as [MASK], one for several in a row, which the network knows from hiding some pieces at each step.

Notes: 46
Paper: Devlin, Chang, Lee, Toutanova (2019), "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", https://arxiv.org/abs/1810.04805
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, Loop, Options, Result, batches_by_length, main, option, predict, recipe
from recipes.datasets.texts import open_texts
from recipes.nlp.bert.encoder import (
    begin,
    encoder_from,
    in_disorder,
    open_start,
    start_with_positions,
    states_of,
    with_a_fast_head,
    with_some_hidden,
)
from recipes.nlp.bert.sentiment_drawing import draw
from recipes.nlp.bert.subwords import SubwordTexts, encode_texts, hide_rare, well_known
from recipes.nlp.bert.using import Sentiment
from recipes.nlp.text_classification.scoring import evaluate, scores, svm_answers
from recipes.nlp.text_classification.text_cnn import TextCNN

NEGATION = re.compile(
    r"\b(not|never|no|nothing|neither|hardly|lack(ed)?|failed|without|anything but|far from|nowhere near)\b",
    re.IGNORECASE,
)


@dataclass(kw_only=True)
class SentimentOptions(Options):
    text_column: str | None = option(None, "name of the column of texts, if it is not a usual one")
    label_column: str | None = option(None, "name of the column of labels, if it is not a usual one")
    encoding: str = option("utf-8", "of the files of texts, such as latin-1")
    weights: str | None = option(None, "pretrained (MiniLM), or a folder or hub name that transformers reads")
    pieces: int = option(2000, "of words, which a tokenizer learns at most", least=1)
    min_freq: int = option(10, "times a piece must occur in the train texts to be read, if weights are random", least=1)
    max_pieces: int = option(128, "of a text that are read; the rest is left out", least=3)
    width: int = option(32, "size of a piece's state, a multiple of the heads", least=1)
    layers: int = option(2, "of the encoder", least=1)
    heads: int = option(4, "of attention in each layer", least=1)
    epochs: int = 16
    batch_size: int = 16
    lr: float = option(
        2e-3, "highest learning rate of the schedule; pretrained weights need less, such as 5e-5", above=0
    )


class TextClassifier(nn.Module):
    """Pieces (batch, pieces) to logits (batch, num_classes).

    Args:
        encoder: a model of `transformers`.
        num_classes: of the last layer.
        pad, mask: numbers of the pieces that fill up, and that hide others.
        hidden: share of the pieces that are hidden while training.
    """

    def __init__(self, encoder: Any, num_classes: int, pad: int, mask: int, hidden: float) -> None:
        super().__init__()
        self.encoder, self.pad, self.mask, self.hidden = encoder, pad, mask, hidden
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(encoder.config.hidden_size, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        real = ids != self.pad
        if self.training and self.hidden:
            words = real.clone()
            words[:, 0] = False  # [CLS] is always read
            ids = with_some_hidden(ids, words, self.hidden, self.mask)
        states = states_of(self.encoder, ids, real)  # (batch, pieces, width)
        return self.head(self.dropout(states[:, 0]))


def build(options: SentimentOptions, data: Any) -> TextClassifier:
    """The network for these classes and an encoder like this, with random weights."""
    words, hidden = data.vocabulary, 0.1 if options.weights is None else 0.0
    return TextClassifier(encoder_from(data.config), len(data.classes), words.pad, words.mask, hidden)


def train(model: TextClassifier, train_set: SubwordTexts, test_set: SubwordTexts, options: SentimentOptions) -> Loop:
    """Minimizes the cross-entropy of encoder and head together.

    The head learns four times as fast as the rest, and so do words that start from random vectors.
    """
    fast = [*model.head.parameters()]
    fast += model.encoder.get_input_embeddings().parameters() if options.weights is None else []
    loop = Loop(
        model,
        with_a_fast_head(model, fast, options.lr),
        batches_by_length(train_set, options),
        options,
        evaluate=lambda: evaluate(model, test_set, options.device),
    )
    for ids, labels in loop:
        loop.step(F.cross_entropy(loop.model(ids), labels))
    return loop


@recipe(SentimentOptions)
def run(options: SentimentOptions) -> Result:
    """Trains a classifier of texts and measures it on held-out ones."""
    columns = {"text_column": options.text_column, "label_column": options.label_column}
    parts = open_texts(options.data, **columns, encoding=options.encoding, seed=options.seed)
    size: dict[str, Any] = {"width": options.width, "layers": options.layers, "heads": options.heads}
    size |= {"pieces": options.pieces, "longest": options.max_pieces}
    start = open_start(options.weights, parts[0].texts, **size)
    train_set, test_set = (encode_texts(part, start.subwords, options.max_pieces, start.config) for part in parts)
    if start.weights is None:
        known = well_known(train_set, options.min_freq)
        train_set, test_set = hide_rare(train_set, known), hide_rare(test_set, known)
    model = build(options, train_set)
    begin(model.encoder, start)
    if start.weights is None:
        start_with_positions(model.encoder)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=scores(svm_answers(train_set, test_set), test_set.labels, len(test_set.classes)),
        baseline_name="linear SVM on words and pairs",
        bars={"accuracy": 0.8},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full = run()
    train_set, test_set, accuracy = full.train_set, full.test_set, full["accuracy"]
    device = next(full.model.parameters()).device
    options = SentimentOptions(**full.options | {"device": device, "out": None, "checkpoint": None})
    generator = torch.Generator().manual_seed(options.seed)
    disordered = replace(test_set, ids=[in_disorder(ids, generator) for ids in test_set.ids])
    shuffled = evaluate(full.model, disordered, device)["accuracy"]
    yield Claim("it reads the order: shuffling each text's words hurts it", shuffled, "<", accuracy, margin=0.05)
    answers = {
        "linear SVM, words": svm_answers(train_set, test_set, longest=1),
        "linear SVM, words and pairs": svm_answers(train_set, test_set),
        "TextCNN": text_cnn_answers(train_set, test_set, options),
        "this recipe": answers_of(full.model, test_set, device),
    }
    turned = [index for index, text in enumerate(test_set.texts) if NEGATION.search(text)]
    full.rows = []
    for name, found in answers.items():
        full.rows.append({"model": name} | scores(found, test_set.labels, len(test_set.classes)))
        if len(turned) >= 20:
            full.rows[-1]["negated"] = (found == test_set.labels)[turned].double().mean().item()
    bag, *_, last = full.rows
    if len(turned) >= 20:
        text = f"it reads what turns the sense: of the {len(turned)} texts with a negation more are right than by words"
        yield Claim(text, last["negated"], ">", bag["negated"], margin=0.1)


def answers_of(model: nn.Module, dataset: SubwordTexts, device: Any) -> Tensor:
    return torch.stack(predict(model, dataset, device)).argmax(dim=1)


def text_cnn_answers(train_set: SubwordTexts, test_set: SubwordTexts, options: SentimentOptions) -> Tensor:
    """Classes (N,) by a convolutional network that learns as long from the same pieces."""
    torch.manual_seed(options.seed)
    model = TextCNN(len(train_set.vocabulary.words), len(train_set.classes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    loop = Loop(model, optimizer, batches_by_length(train_set, options), options, name="TextCNN")
    for ids, labels in loop:
        loop.step(F.cross_entropy(loop.model(ids), labels))
    return answers_of(model, test_set, options.device)


@run.figure
def figure(result: Result) -> Any:
    """The curve, the confusion matrix, all that was compared, and held-out texts with what the network says."""
    turned = [index for index, text in enumerate(result.test_set.texts) if NEGATION.search(text)]
    return draw(result, turned or list(range(len(result.test_set))))


run.predicts(Sentiment, build)


if __name__ == "__main__":
    main(run)
