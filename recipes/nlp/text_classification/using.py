"""How trained classifiers of texts by their words are used."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from recipes.core.result import Result
from recipes.core.task import Task, class_answers, first_inputs, tell_if_longer
from recipes.nlp.text_classification.encoding import PAD, Vocabulary, tokenize

SHORTEST = 8  # words of an exported example: torch.export takes a dimension of size 1 for a fixed one


class KnownWords(Vocabulary):
    """A vocabulary whose words are given, padding and the unknown word first."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.number = {word: number for number, word in enumerate(words)}


@dataclass(kw_only=True)
class TextClassification(Task):
    """Texts to classes, by their words.

    Attributes:
        classes: their names.
        vocabulary: the words that the network knows, padding and the unknown word first.
        max_words: of a text that are read; the rest is left out.
        vector_size: numbers in a word's vector if training started from pretrained ones, else None.
    """

    takes: ClassVar[str] = "texts"

    classes: list[str]
    vocabulary: list[str]
    max_words: int
    vector_size: int | None

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        train_set = result.train_set
        (ids,) = first_inputs(result.test_set)
        return cls(
            classes=list(train_set.classes),
            vocabulary=list(train_set.vocabulary.words),
            max_words=options.max_words,
            vector_size=train_set.vector_size,
            example=(F.pad(ids, (0, max(0, SHORTEST - ids.shape[1])), value=PAD),),
        )

    @cached_property
    def known_words(self) -> KnownWords:
        return KnownWords(self.vocabulary)

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        ids = [self.known_words.encode(text, self.max_words) for text in items]
        long = [text for text in items if len(text) > self.max_words]
        tell_if_longer((len(tokenize(text)) for text in long), self.max_words, "words")
        return (pad_sequence(ids, batch_first=True, padding_value=PAD),)  # (N, words)

    def answers(self, outputs: Tensor, items: Sequence[str]) -> list[dict[str, Any]]:
        return class_answers(outputs, self.classes, [{"text": text} for text in items])

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        return ({0: "batch", 1: "words"},)


class Scanned(nn.Module):
    """A recurrent cell whose loop over the words stays a loop in an exported file, for texts of any length."""

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, vectors: Tensor) -> Tensor:
        from torch._higher_order_ops.scan import scan  # what torch.export and the ONNX exporter know loops by

        def step(carried: tuple[Tensor, ...], word: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            after = self.cell.step(word, *carried)
            return after, after[0].clone()

        words = self.cell.from_word(vectors).transpose(0, 1)  # (words, batch, …)
        return scan(step, self.cell.start(vectors), words)[1].transpose(0, 1)


class WordByWord(TextClassification):
    """The same by recurrent networks: their cells `forwards` and `backwards` have a `step`."""

    def to_export(self, model: nn.Module) -> nn.Module:
        exported: Any = copy.deepcopy(model)
        exported.forwards = Scanned(exported.forwards)
        if exported.backwards is not None:
            exported.backwards = Scanned(exported.backwards)
        return exported
