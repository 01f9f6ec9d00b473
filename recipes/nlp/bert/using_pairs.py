"""How trained models for two texts are used: similar sentences, and answers in a paragraph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.questions import Questions
from recipes.nlp.bert.spans import EncodedQuestions, encode_questions
from recipes.nlp.bert.using_pieces import ReadsPieces


@dataclass(kw_only=True)
class TextPairs(ReadsPieces):
    """Pairs of texts; a pair is given as such, or as one line with a tab between the two.

    Attributes:
        pad: number of the piece that fills short texts up.
    """

    pair: ClassVar[str] = "two texts"

    pad: int

    @staticmethod
    def remembered(result: Result, options: Any) -> dict[str, Any]:
        return ReadsPieces.remembered(result, options) | {"pad": result.train_set.vocabulary.pad}

    def load(self, item: Any) -> tuple[str, str]:
        pair = item.split("\t") if isinstance(item, str) else item
        if len(pair) != 2 or not all(isinstance(text, str) and text.strip() for text in pair):
            raise InputError(f"{str(item)[:80]!r}: expected {self.pair}, with a tab between them")
        return pair[0].strip(), pair[1].strip()


@dataclass(kw_only=True)
class SentenceSimilarity(TextPairs):
    """Pairs of sentences to the cosine between them."""

    pair: ClassVar[str] = "two sentences"

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        example = (result.test_set.__getitems__([0, 1])[0],)
        return cls(**cls.remembered(result, options), example=example)

    def batch(self, items: Sequence[tuple[str, str]]) -> tuple[Tensor, ...]:
        rows = [self.pieces(text) for pair in items for text in pair]
        return (pad_sequence(rows, batch_first=True, padding_value=self.pad).unflatten(0, (-1, 2)),)  # (N, 2, pieces)

    def answers(self, outputs: Tensor, items: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        pairs = zip(items, outputs.tolist(), strict=True)
        return [{"first": one, "second": other, "similarity": cosine} for (one, other), cosine in pairs]

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        return ({0: "batch", 2: torch.export.Dim("pieces", max=self.max_pieces)},)


@dataclass(kw_only=True)
class QuestionAnswering(TextPairs):
    """Questions with a paragraph to the words of it that answer them.

    Attributes:
        known: words that are read as they are; None for all.
        unanswered: whether the empty answer is one, where the paragraph does not answer the question.
    """

    pair: ClassVar[str] = "a question and a paragraph"

    known: list[str] | None
    unanswered: bool = False

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        known = result.train_set.known
        example = result.test_set.__getitems__([0, 1])[0]
        more = {"unanswered": result.train_set.unanswered, "example": example}
        return cls(**cls.remembered(result, options), known=None if known is None else sorted(known), **more)

    def encoded(self, items: Sequence[tuple[str, str]]) -> EncodedQuestions:
        asked, contexts = [question for question, _ in items], [context for _, context in items]
        part = Questions(asked, contexts, [[("", 0)] for _ in items], list(range(len(items))))
        known = None if self.known is None else set(self.known)
        return encode_questions(part, self.vocabulary, self.max_pieces, known, unanswered=self.unanswered)

    def batch(self, items: Sequence[tuple[str, str]]) -> tuple[Tensor, ...]:
        return self.encoded(items).all()[0]  # ids and places, both (windows, pieces)

    def predict(self, model: nn.Module, items: Sequence[tuple[str, str]], device: torch.device) -> list[dict[str, Any]]:
        read = self.encoded(items)
        logits = model(tuple(one.to(device) for one in read.all()[0])).cpu()  # (windows, pieces, 2)
        answers = []
        for (question, _), ranked in zip(items, read.ranked(list(logits), 20), strict=True):
            shares = torch.tensor([value for _, value in ranked]).softmax(dim=0).tolist()
            scored = [{"answer": text, "score": share} for (text, _), share in zip(ranked, shares, strict=True)]
            answers.append({"question": question} | scored[0] | {"others": scored[1:5]})
        return answers

    def to_export(self, model: nn.Module) -> nn.Module:
        return TwoInputs(model)

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        pieces = torch.export.Dim("pieces", max=self.max_pieces)
        return {0: "batch", 1: pieces}, {0: "batch", 1: pieces}


class TwoInputs(nn.Module):
    """A span finder that takes its two inputs one by one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, places: Tensor) -> Tensor:
        return self.model((ids, places))
