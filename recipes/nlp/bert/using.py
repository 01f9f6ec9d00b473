"""How trained taggers are used."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.core.figures import new_figure
from recipes.core.result import Result
from recipes.core.task import Task, first_inputs
from recipes.datasets.tagged_words import spans_of
from recipes.nlp.bert.entity_drawing import draw_sentences, wrapped
from recipes.nlp.bert.subwords import Subwords, known_alone, subwords_from, tokenizer_json
from recipes.nlp.bert.tagging import encode_words, word_tags
from recipes.nlp.text_classification.encoding import SINGLE
from recipes.nlp.text_classification.using import class_answers

# An address, a single character of a script without spaces, a word with its inner marks, or any other mark.
WORD = re.compile(rf"https?://\S+|[{SINGLE}]|[@#]?(?:(?![{SINGLE}])\w)+(?:['’.\-](?:(?![{SINGLE}])\w)+)*|[^\w\s]|_")


@dataclass
class Sentence:
    """A text as a tagger reads it.

    Attributes:
        text: as it was given.
        spans: first character and last character + 1 of each word.
        ids: (pieces,).
        owners: (pieces,), the word that a piece is the first of; -1 elsewhere.
    """

    text: str
    spans: list[tuple[int, int]]
    ids: Tensor
    owners: Tensor


@dataclass(kw_only=True)
class Entities(Task):
    """Texts to the entities in them.

    Attributes:
        names: of the tags: O, then B- and I- of each kind.
        transitions: score of each tag (column) after each other one (row, the last for the first word); None if each
            word is tagged by itself.
        characters: whether the words of the train part were single characters.
        max_pieces: of a text that are read; the rest is tagged O.
        config: of the encoder, see `encoder_from`.
        pad: number of the piece that fills short texts up.
        tokenizer: see `tokenizer_json`.
    """

    takes: ClassVar[str] = "texts"

    names: list[str]
    transitions: list[list[float]] | None
    characters: bool
    max_pieces: int
    config: dict[str, Any]
    pad: int
    tokenizer: dict[str, Any]

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        train_set, crf = result.train_set, result.model.crf
        return cls(
            names=train_set.names,
            transitions=None if crf is None else crf().detach().cpu().tolist(),
            characters=all(len(word) == 1 for words in train_set.part.words for word in words),
            max_pieces=options.max_pieces,
            config=train_set.config,
            pad=train_set.pad,
            tokenizer=tokenizer_json(train_set.vocabulary),
            example=first_inputs(result.test_set),
        )

    @cached_property
    def subwords(self) -> Subwords:
        return subwords_from(self.tokenizer)

    def load(self, item: str) -> Sentence:
        pattern = re.compile(r"\S") if self.characters else WORD
        spans = [match.span() for match in pattern.finditer(item)]
        words = [item[start:end] for start, end in spans]
        return Sentence(item, spans, *encode_words(words, self.subwords, self.max_pieces))

    def batch(self, items: Sequence[Sentence]) -> tuple[Tensor, ...]:
        return (pad_sequence([one.ids for one in items], batch_first=True, padding_value=self.pad),)  # (N, pieces)

    def answers(self, outputs: Tensor, items: Sequence[Sentence]) -> list[dict[str, Any]]:
        steps = None if self.transitions is None else torch.tensor(self.transitions)
        found = []
        for item, logits in zip(items, outputs, strict=True):
            tags = word_tags(logits, item.owners, len(item.spans), self.names, steps)
            entities = []
            for first, end, kind in spans_of(tags):
                start, stop = item.spans[first][0], item.spans[end - 1][1]
                entities.append({"text": item.text[start:stop], "kind": kind, "start": start, "end": stop})
            found.append({"text": item.text, "entities": entities})
        return found

    def draw(self, item: Sentence, answer: dict[str, Any]) -> Any:
        at = {start: index for index, (start, _) in enumerate(item.spans)}
        until = {stop: index + 1 for index, (_, stop) in enumerate(item.spans)}
        spans = [(at[one["start"]], until[one["end"]], one["kind"]) for one in answer["entities"]]
        lines, found = wrapped([item.text[start:stop] for start, stop in item.spans], spans)
        figure, axes = new_figure(1, 1, width=11.0, height=0.8 + 0.3 * len(lines))
        draw_sentences(axes[0, 0], lines, found, found, len(lines))
        return figure

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        return ({0: "batch", 1: torch.export.Dim("pieces", max=self.max_pieces)},)


@dataclass(kw_only=True)
class Sentiment(Task):
    """Texts to classes, by their pieces.

    Attributes:
        classes: their names.
        max_pieces: of a text that are read; the rest is left out.
        config: of the encoder, see `encoder_from`.
        tokenizer: see `tokenizer_json`.
        known: numbers of the pieces that are read as they are; None for all.
    """

    takes: ClassVar[str] = "texts"

    classes: list[str]
    max_pieces: int
    config: dict[str, Any]
    tokenizer: dict[str, Any]
    known: list[int] | None

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        train_set = result.train_set
        known = train_set.known
        return cls(
            known=None if known is None else known.nonzero().flatten().tolist(),
            classes=list(train_set.classes),
            max_pieces=options.max_pieces,
            config=train_set.config,
            tokenizer=tokenizer_json(train_set.vocabulary),
            example=first_inputs(result.test_set),
        )

    @cached_property
    def vocabulary(self) -> Subwords:
        return subwords_from(self.tokenizer)

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        words = self.vocabulary
        ids = [words.encode(text, self.max_pieces) for text in items]
        if self.known is not None:
            known = torch.isin(torch.arange(len(words.words)), torch.tensor(self.known))
            ids = [known_alone(one, known, words.mask) for one in ids]
        return (pad_sequence(ids, batch_first=True, padding_value=self.vocabulary.pad),)  # (N, pieces)

    def answers(self, outputs: Tensor, items: Sequence[str]) -> list[dict[str, Any]]:
        return class_answers(outputs, items, self.classes)

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        return ({0: "batch", 1: torch.export.Dim("pieces", max=self.max_pieces)},)
