"""How trained taggers are used."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.core.errors import tell
from recipes.core.figures import new_figure
from recipes.core.result import Result
from recipes.core.task import class_answers, first_inputs
from recipes.datasets.tagged_words import spans_of
from recipes.nlp.bert.entity_drawing import draw_sentences, wrapped
from recipes.nlp.bert.subwords import known_alone
from recipes.nlp.bert.tagging import encode_words, word_tags
from recipes.nlp.bert.using_pieces import ReadsPieces
from recipes.nlp.text_classification.encoding import LETTER, SINGLE

# An address, a single character of a script without spaces, a word with its inner marks, or any other mark.
WORD = re.compile(rf"https?://\S+|[{SINGLE}]|[@#]?(?:{LETTER})+(?:['’.\-](?:{LETTER})+)*|[^\w\s]|_")


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
class Entities(ReadsPieces):
    """Texts to the entities in them.

    Attributes:
        names: of the tags: O, then B- and I- of each kind.
        transitions: score of each tag (column) after each other one (row, the last for the first word); None if each
            word is tagged by itself.
        characters: whether the words of the train part were single characters.
        pad: number of the piece that fills short texts up.
    """

    names: list[str]
    transitions: list[list[float]] | None
    characters: bool
    pad: int

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        train_set, crf = result.train_set, result.model.crf
        return cls(
            names=train_set.names,
            transitions=None if crf is None else crf().detach().cpu().tolist(),
            characters=all(len(word) == 1 for words in train_set.part.words for word in words),
            pad=train_set.pad,
            example=first_inputs(result.test_set),
            **cls.remembered(result, options),
        )

    def load(self, item: str) -> Sentence:
        pattern = re.compile(r"\S") if self.characters else WORD
        spans = [match.span() for match in pattern.finditer(item)]
        words = [item[start:end] for start, end in spans]
        ids, owners = encode_words(words, self.vocabulary, self.max_pieces)
        cut = len(words) - int(owners.max()) - 1
        if cut > 0:
            tell(f"{item[:40]!r}…: {cut} of {len(words)} words beyond {self.max_pieces} pieces are not read")
        return Sentence(item, spans, ids, owners)

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


@dataclass(kw_only=True)
class Sentiment(ReadsPieces):
    """Texts to classes, by their pieces.

    Attributes:
        classes: their names.
        known: numbers of the pieces that are read as they are; None for all.
    """

    classes: list[str]
    known: list[int] | None

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        train_set = result.train_set
        known = train_set.known
        return cls(
            known=None if known is None else known.nonzero().flatten().tolist(),
            classes=list(train_set.classes),
            example=first_inputs(result.test_set),
            **cls.remembered(result, options),
        )

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        words = self.vocabulary
        ids = [self.pieces(text) for text in items]
        if self.known is not None:
            known = torch.isin(torch.arange(len(words.words)), torch.tensor(self.known))
            ids = [known_alone(one, known, words.mask) for one in ids]
        return (pad_sequence(ids, batch_first=True, padding_value=self.vocabulary.pad),)  # (N, pieces)

    def answers(self, outputs: Tensor, items: Sequence[str]) -> list[dict[str, Any]]:
        return class_answers(outputs, self.classes, [{"text": text} for text in items])
