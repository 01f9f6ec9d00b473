"""Named entities with BERT: a tag for every word, and a conditional random field over the tags.

A linear layer on the encoder's state of each word scores whether an entity begins there (B-), continues (I-) or
neither (O), and of which kind. A word that the tokenizer splits into pieces is tagged at its first piece; the other
pieces are left out of the loss. Entities are then read off the tags, and count only if first word, last word and
kind are all right.

The same made-up name may be a person, a town or a firm, and the word that decides is often far away: "Harwick ,
after a long night of talks , fell ill , while Dorley , to nobody's surprise , raised its prices ." A classifier that
looks through a window of two words on either side cannot know. Attention reaches every word of the sentence, and has
to find the one that belongs to the name.

Tags are not independent: an I- continues something. A conditional random field (CRF) learns a score for every pair of
neighboring tags and is trained on whole sequences: p(tags) = exp(score) / Σ exp(score of every sequence).
Here that helps with names of several words, but by how much depends on the seed: the table shows it, no claim does.

Notes: 46
Paper: Devlin, Chang, Lee, Toutanova (2019), "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", https://arxiv.org/abs/1810.04805; Lafferty, McCallum, Pereira (2001), "Conditional Random Fields",
    https://repository.upenn.edu/cis_papers/159
Data: sentences in the style of news, written for this library; yours in CoNLL columns, BIO or BMES.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, Loop, Options, Result, batches_by_length, main, option, predict, recipe
from recipes.datasets.tagged_words import open_tagged_words
from recipes.nlp.bert.encoder import encoder_from, open_start, start_as_waves, with_a_fast_head
from recipes.nlp.bert.entity_drawing import draw
from recipes.nlp.bert.tagging import (
    NO_TAG,
    TaggedPieces,
    encode_tags,
    entity_scores,
    long_entities,
    new_entities,
    window_classifier,
)
from recipes.nlp.bert.using import Entities

FORBIDDEN = -1e4  # score of a step that cannot be; finite, so that no gradient is lost


@dataclass(kw_only=True)
class NamedEntitiesOptions(Options):
    weights: str | None = option(None, "pretrained (MiniLM), or a folder or hub name that transformers reads")
    crf: bool = option(True, "learn and decode whole sequences of tags; otherwise each word's tag by itself")
    pieces: int = option(300, "of words, which a tokenizer learns at most; few of them split rare names", least=1)
    max_pieces: int = option(256, "of a sentence that are read, the rest is tagged O", least=3)
    width: int = option(64, "size of a piece's state, a multiple of the heads", least=1)
    layers: int = option(2, "of the encoder", least=1)
    heads: int = option(4, "of attention in each layer", least=1)
    epochs: int = 6
    batch_size: int = 16
    lr: float = option(
        3e-3, "highest learning rate of the schedule; pretrained weights need less, such as 1e-4", above=0
    )


class WordTagger(nn.Module):
    """Pieces (batch, pieces) to the logits of their tags (batch, pieces, tags).

    Pretrained weights know how words combine. A random start learns it sooner where a convolution shows each piece
    its neighbors before the encoder reads it.
    """

    def __init__(self, encoder: Any, names: Sequence[str], pad: int, *, neighbors: bool, crf: bool) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder, self.pad = encoder, pad
        self.neighbors = nn.Conv1d(width, width, 5, padding=2) if neighbors else None
        self.head = nn.Linear(width, len(names))
        self.crf = CRF(names) if crf else None

    def forward(self, ids: Tensor) -> Tensor:
        real = ids != self.pad
        vectors = self.encoder.get_input_embeddings()(ids)  # (batch, pieces, width)
        if self.neighbors is not None:
            vectors = vectors + self.neighbors(vectors.masked_fill(~real[:, :, None], 0).mT).mT
        states = self.encoder(inputs_embeds=vectors, attention_mask=real.long()).last_hidden_state
        return self.head(states)


class CRF(nn.Module):
    """A learned score for each tag (column) after each other tag (row); the last row is for the first word."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        legal = [[tag[0] != "I" or tag[2:] == last[2:] for tag in names] for last in [*names, "O"]]
        self.transitions = nn.Parameter(torch.zeros(len(names) + 1, len(names)))
        self.barriers = nn.Buffer(torch.where(torch.tensor(legal), 0.0, FORBIDDEN), persistent=False)

    def forward(self) -> Tensor:
        return self.transitions + self.barriers


def sequence_loss(logits: Tensor, tags: Tensor, steps: Tensor) -> Tensor:
    """The negative log-likelihood of the true sequences of tags, per word.

    A sequence's score is the sum of its tags' logits and of the steps between them. The sum over all sequences is
    built up word by word: those that end in a tag, from those that ended one word earlier in any tag.

    Args:
        logits: (batch, pieces, tags).
        tags: (batch, pieces), NO_TAG where a piece has none.
        steps: (tags + 1, tags), what `CRF` gives.
    """
    real = tags != NO_TAG
    order = (~real).byte().argsort(dim=1, stable=True)[:, : int(real.sum(dim=1).max())]  # first pieces come first
    logits = logits.float().gather(1, order[:, :, None].expand(-1, -1, logits.shape[2]))  # (batch, words, tags)
    tags, real = tags.gather(1, order).clamp(min=0), real.gather(1, order)  # (batch, words)
    before = F.pad(tags[:, :-1], (1, 0), value=len(steps) - 1)
    true = logits.gather(2, tags[:, :, None])[:, :, 0] + steps[before, tags]  # (batch, words)
    total = logits[:, 0] + steps[-1]  # (batch, tags): log Σ exp(score) of the sequences that end in each tag
    for word in range(1, logits.shape[1]):
        longer = logits[:, word] + (total[:, :, None] + steps[:-1]).logsumexp(dim=1)
        total = torch.where(real[:, word, None], longer, total)
    return ((total.logsumexp(dim=1) * real[:, 0]).sum() - true[real].sum()) / real.sum().clamp(min=1)


def build(options: NamedEntitiesOptions, data: Any) -> WordTagger:
    """The network for tags and an encoder like these, with random weights."""
    encoder, random = encoder_from(data.config), options.weights is None
    if random:
        start_as_waves(encoder.embeddings.position_embeddings.weight)
    return WordTagger(encoder, data.names, data.pad, neighbors=random, crf=options.crf)


def train(model: WordTagger, train_set: TaggedPieces, test_set: TaggedPieces, options: NamedEntitiesOptions) -> Loop:
    """Minimizes the cross-entropy of the tags, of whole sequences or of each word, with AdamW.

    Beside pretrained weights, head and CRF start from nothing and learn four times as fast.
    """
    new = [name for name, _ in model.named_parameters() if not name.startswith("encoder.")]
    loop = Loop(
        model,
        with_a_fast_head(model, map(model.get_parameter, new if options.weights else []), options.lr),
        batches_by_length(train_set, options),
        options,
        evaluate=lambda: entity_scores(find(model, test_set, options.device), test_set.part.tags),
    )
    for ids, tags in loop:
        logits = loop.model(ids)
        if model.crf is not None:
            loop.step(sequence_loss(logits, tags, model.crf()))
        else:
            loop.step(F.cross_entropy(logits.flatten(0, 1), tags.flatten(), ignore_index=NO_TAG))
    return loop


def find(model: WordTagger, dataset: TaggedPieces, device: Any) -> list[list[str]]:
    """The tags of each sentence's words: with a CRF the likeliest sequence, otherwise each word's likeliest tag."""
    steps = None if model.crf is None else model.crf().detach().cpu()
    return dataset.tagged(predict(model, dataset, device, 64), steps)


@recipe(NamedEntitiesOptions)
def run(options: NamedEntitiesOptions) -> Result:
    """Trains a tagger and measures the entities that it finds in held-out sentences."""
    parts = open_tagged_words(options.data, seed=options.seed)
    size: dict[str, Any] = {"width": options.width, "layers": options.layers, "heads": options.heads}
    texts = [" ".join(words) for words in parts[0].words]
    start = open_start(options.weights, texts, pieces=options.pieces, longest=options.max_pieces, **size)
    train_set, test_set = (encode_tags(part, start, options.max_pieces) for part in parts)
    model = build(options, train_set)
    if start.weights is not None:
        model.encoder.load_state_dict(start.weights)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=entity_scores(find(model, test_set, options.device), test_set.part.tags),
        baseline=entity_scores(window_classifier(*parts), test_set.part.tags),
        baseline_name="logistic regression, ±2 words",
        bars={"f1": 0.9},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, free = run(), run(crf=False)
    train_part, test_part = full.train_set.part, full.test_set.part
    tags = {"this recipe": found_by(full), "without the CRF": found_by(free)}
    tags["±2 words"] = window_classifier(train_part, test_part)
    if full.options["data"] is None:
        tags["±2 words, all words unordered"] = window_classifier(train_part, test_part, whole=True)
    kept = {"recall_new": new_entities(train_part, test_part), "recall_long": long_entities(test_part)}
    full.rows = []
    for name, found in tags.items():
        recalls = {key: entity_scores(found, true)["recall"] for key, true in kept.items()}
        full.rows.append({"model": name} | entity_scores(found, test_part.tags) | recalls)
    crf, _, window, *unordered = full.rows
    text = "of entities with words that training never showed, it finds more than the window does"
    yield Claim(text, crf["recall_new"], ">", window["recall_new"], margin=0.1)
    for row in unordered:
        text = "order matters: a window that also sees all other words, before and after it but unordered, finds fewer"
        yield Claim(text, row["f1"], "<", crf["f1"], margin=0.05)


def found_by(result: Result) -> list[list[str]]:
    return find(result.model, result.test_set, next(result.model.parameters()).device)


@run.figure
def figure(result: Result) -> Any:
    return draw(result, find(result.model, result.test_set, next(result.model.parameters()).device))


run.predicts(Entities, build)


if __name__ == "__main__":
    main(run)
