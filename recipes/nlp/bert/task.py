"""BERT: a Transformer encoder that learns from plain text by guessing hidden words.

Some words of a text are hidden, and the network has to say what they were; it may look to both sides. Any text will
do for that, nobody has to label it. Of the words chosen, 80 % become [MASK], 10 % another word and 10 % stay as they
are: a word that can be seen may be wrong as well, so every word has to be understood.

The plain way is a table of which words stand between which neighbors. It gets far, since grammar is local, and a
network trained for half as long gets about as far. What decides the rest stands further away: attention finds it.

What the encoder knows then makes other tasks cheap. Here it learns from 20 texts which words had a capital, and finds
more of them than one that starts from random weights. What it knows is the language it has read: in sentences of
other frames and names, see the table, it finds fewer. The recipes beside this one give it other tasks.

Notes: 46
Paper: Devlin, Chang, Lee, Toutanova (2019), "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", https://arxiv.org/abs/1810.04805
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, Loop, Options, Result, batches_by_length, hold_out, main, option, recipe
from recipes.datasets.texts import open_texts
from recipes.nlp.bert.capitals import TRAINING, capitals_f1, find_capitals, teach_capitals
from recipes.nlp.bert.drawing import draw
from recipes.nlp.bert.encoder import begin, encoder_from, open_start
from recipes.nlp.bert.subwords import Subwords, SubwordTexts, encode_texts
from recipes.nlp.bert.using_masks import MaskedWords

LABELED = 20  # texts that tell where capitals stand


@dataclass(kw_only=True)
class BertOptions(Options):
    text_column: str | None = option(None, "name of the column of texts, if it is not a usual one")
    label_column: str | None = option(None, "name of the column of labels, if it is not a usual one")
    encoding: str = option("utf-8", "of the files of texts, such as latin-1")
    weights: str | None = option(None, "folder or hub name of a BERT, DistilBERT, RoBERTa or DeBERTa to go on with")
    pieces: int = option(2000, "of words, which a tokenizer learns at most", least=1)
    max_pieces: int = option(128, "of a text that are read; the rest is left out", least=3)
    width: int = option(64, "size of a piece's state, a multiple of the heads", least=1)
    layers: int = option(2, "of the encoder", least=1)
    heads: int = option(4, "of attention in each layer", least=1)
    share: float = option(0.3, "of the pieces that are to be guessed (0.15 in the paper)", above=0, below=1)
    epochs: int = 12
    batch_size: int = 8
    lr: float = option(
        5e-3, "highest learning rate of the schedule; pretrained weights need less, such as 1e-4", above=0
    )


class MaskedLM(nn.Module):
    """Pieces (batch, pieces), and which of them to guess, to logits (guessed, pieces known).

    The head is a layer, then products with the pieces' own vectors.
    """

    def __init__(self, network: Any, pad: int) -> None:
        super().__init__()
        self.network, self.pad = network, pad

    def forward(self, ids: Tensor, chosen: Tensor) -> Tensor:
        real = (ids != self.pad).long()
        head = getattr(self.network, "cls", getattr(self.network, "lm_head", None))
        if head is None:  # DistilBERT's has no name of its own
            return self.network(ids, attention_mask=real).logits[chosen]
        states = self.network.base_model(ids, attention_mask=real).last_hidden_state  # (batch, pieces, width)
        return head(states[chosen])  # where nothing is guessed, nothing is computed


def build(options: BertOptions, data: Any) -> MaskedLM:
    """The network for an encoder like this, with random weights."""
    return MaskedLM(encoder_from(data.config, guessing=True), data.config["pad_token_id"])


def mask_words(ids: Tensor, subwords: Subwords, share: float) -> tuple[Tensor, Tensor]:
    """Chooses pieces to be guessed, and hides most of them.

    Args:
        ids: (batch, pieces).
        subwords: what they are numbers of.
        share: of the pieces that are chosen; beginnings, ends and padding never are.

    Returns:
        The pieces to read, and which were chosen, both (batch, pieces).
    """
    ordinary = subwords.ordinary.to(ids.device)
    chosen = (torch.rand(ids.shape, device=ids.device) < share) & torch.isin(ids, ordinary)
    chance = torch.rand(ids.shape, device=ids.device)
    others = ordinary[torch.randint(len(ordinary), ids.shape, device=ids.device)]
    read = torch.where(chosen & (chance < 0.8), subwords.mask, ids)
    return torch.where(chosen & (chance >= 0.9), others, read), chosen


def train(model: MaskedLM, train_set: SubwordTexts, test_set: SubwordTexts, options: BertOptions) -> Loop:
    """Minimizes the cross-entropy of the hidden words with AdamW."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=options.lr, fused=True),
        batches_by_length(train_set, options),
        options,
        evaluate=lambda: guess_words(model, test_set, options.device),
    )
    for ids, _ in loop:
        read, chosen = mask_words(ids, train_set.vocabulary, options.share)  # others each time a text is read
        logits = loop.model(read, chosen)
        loss = F.cross_entropy(logits, ids[chosen], reduction="sum") / chosen.sum().clamp(min=1)
        loop.step(loss)
    return loop


def hidden_words(dataset: SubwordTexts, start: int, size: int = 100) -> tuple[Tensor, Tensor]:
    """Texts (size, pieces), and which of their pieces a test hides: 15 %, the same ones every time."""
    ids, _ = dataset.__getitems__(range(start, min(start + size, len(dataset))))
    chance = torch.rand(ids.shape, generator=torch.Generator().manual_seed(start))
    return ids, (chance < 0.15) & torch.isin(ids, dataset.vocabulary.ordinary)


@torch.inference_mode()
def guess_words(model: MaskedLM, dataset: SubwordTexts, device: Any) -> dict[str, float]:
    """Accuracy and mean cross-entropy (nats) of the guesses, each hidden word being a [MASK]."""
    model.eval()
    hits, loss, count = 0, 0.0, 0
    for start in range(0, len(dataset), 100):
        ids, hidden = hidden_words(dataset, start)
        targets = ids[hidden].to(device)
        logits = model(ids.masked_fill(hidden, dataset.vocabulary.mask).to(device), hidden.to(device))
        hits += int((logits.argmax(dim=1) == targets).sum())
        loss += F.cross_entropy(logits, targets, reduction="sum").item()
        count += len(targets)
    return {"accuracy": hits / max(count, 1), "loss": loss / max(count, 1)}


@recipe(BertOptions)
def run(options: BertOptions) -> Result:
    """Trains a tokenizer and a small BERT on four fifths of the train texts, and measures it on the last fifth."""
    columns = {"text_column": options.text_column, "label_column": options.label_column}
    train_part, _ = open_texts(options.data, **columns, encoding=options.encoding, seed=options.seed)
    train_part, held_out = hold_out(train_part, 0.2, options.seed)
    size = {"width": options.width, "layers": options.layers, "heads": options.heads, "longest": options.max_pieces}
    start = open_start(options.weights, train_part.texts, pieces=options.pieces, **size, guessing=True)
    read = start.subwords, options.max_pieces, start.config
    train_set, test_set = encode_texts(train_part, *read), encode_texts(held_out, *read)
    model = build(options, train_set)
    begin(model.network, start)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=guess_words(model, test_set, options.device),
        baseline=neighbor_table(train_set, test_set),
        baseline_name="table of neighbors",
        bars={"accuracy": 0.63},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, untrained = run(), run(lr=1e-9, epochs=1)
    accuracy, counted = full["accuracy"], full.baseline["accuracy"]
    text = "it guesses more hidden words than a table of which words stand between which neighbors"
    yield Claim(text, accuracy, ">", counted, margin=0.03)
    few = find_capitals(full.train_set.subset(range(LABELED)))
    if not any((capitals == 1).any() for capitals in few.capitals):  # not in every script
        return
    parts, full.rows = {"held-out texts": find_capitals(full.test_set)}, []
    if full.options["data"] is None:
        other = encode_texts(open_texts(None)[1], full.test_set.vocabulary, full.options["max_pieces"])
        parts["other sentences"] = find_capitals(other)
    device = next(full.model.parameters()).device
    options = BertOptions(**full.options | TRAINING | {"device": device})
    for start, result in {"pretrained": full, "random": untrained}.items():
        tagger = teach_capitals(result.model.network.base_model, few, options)
        found = {name: capitals_f1(tagger, part, device) for name, part in parts.items()}
        full.rows.append({"start": start, "texts": len(few)} | found)
    pretrained, random = full.rows
    text = f"taught by {len(few)} texts where capitals stand, it finds more of them than from random weights (F1)"
    yield Claim(text, pretrained["held-out texts"], ">", random["held-out texts"], margin=0.05)


@run.figure
def figure(result: Result) -> Any:
    """The curve, the two starts compared, and what the model puts in gaps."""
    return draw(result)


def neighbor_table(train_set: SubwordTexts, test_set: SubwordTexts) -> dict[str, float]:
    """How often the commonest word between the same two neighbors is right; one that is hidden is a word like others.

    Where the two never stood around a word, p(word | left) p(word | right) / p(word) decides, or the one that is known.
    """
    between: Any = defaultdict(Counter)
    for ids in train_set.ids:
        for left, word, right in zip(ids[:-2].tolist(), ids[1:-1].tolist(), ids[2:].tolist(), strict=True):
            for key in ((left, right), (left, None), (None, right), (None, None)):
                between[key][word] += 1

    def guess(left: int, right: int) -> int:
        before, after, all_words = between.get((left, None)), between.get((None, right)), between[None, None]
        found = between.get((left, right))
        if found is None and before and after:
            found = Counter({one: before[one] * after[one] / all_words[one] for one in before.keys() & after.keys()})
        return (found or before or after or all_words).most_common(1)[0][0]

    right = count = 0
    for start in range(0, len(test_set), 100):
        ids, hidden = hidden_words(test_set, start)
        read = ids.masked_fill(hidden, test_set.vocabulary.mask)
        for row, at in hidden.nonzero().tolist():
            right += guess(int(read[row, at - 1]), int(read[row, at + 1])) == int(ids[row, at])
            count += 1
    return {"accuracy": right / max(count, 1)}


run.predicts(MaskedWords, build)


if __name__ == "__main__":
    main(run)
