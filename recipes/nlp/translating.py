"""How trained translators are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from recipes.core.result import Result
from recipes.core.task import Task, tell_if_longer
from recipes.nlp.sentence_pairs import KnownLanguage, split_words


@dataclass(kw_only=True)
class Translation(Task):
    """Sentences of one language to those of another, by their words.

    Attributes:
        source_words, target_words: that are known, in the order of their numbers.
        max_words: of a sentence that are read.
        beam: beginnings that beam search follows; 1 is greedy.
    """

    takes: ClassVar[str] = "texts"

    source_words: list[str]
    target_words: list[str]
    max_words: int
    beam: int = 1

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        sources, targets = result.test_set.__getitems__([0, 1])
        source, target = (list(language.words) for language in result.train_set.languages)
        example = (sources, targets[:, :-1])
        words: Any = {"source_words": source, "target_words": target, "max_words": options.max_words}
        return cls(**words, beam=getattr(options, "beam", 1), example=example)

    @cached_property
    def languages(self) -> tuple[KnownLanguage, KnownLanguage]:
        return KnownLanguage(self.source_words), KnownLanguage(self.target_words)

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        tell_if_longer((len(split_words(text)) for text in items), self.max_words, "words")
        ids = [self.languages[0].encode(sentence, self.max_words) for sentence in items]
        return (pad_sequence(ids, batch_first=True),)  # (batch, words)

    def search(self, model: Any, sources: Tensor) -> Tensor:
        """Translations (batch, words) of sources (batch, source words), as the recipe writes them."""
        raise NotImplementedError

    def predict(self, model: nn.Module, items: Sequence[str], device: torch.device) -> list[dict[str, Any]]:
        written = self.search(model, self.batch(items)[0].to(device))
        answers = [self.languages[1].decode(ids) for ids in written]
        return [{"text": text, "translation": answer} for text, answer in zip(items, answers, strict=True)]

    def dynamic(self) -> tuple[dict[int, str], ...]:
        return {0: "batch", 1: "source_words"}, {0: "batch", 1: "written_words"}
