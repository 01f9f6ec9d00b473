"""How trained summarizers are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from recipes.core.result import Result
from recipes.core.task import Task, tell_if_longer
from recipes.datasets.parallel import Pairs
from recipes.nlp.articles import EncodedArticles, encode_articles
from recipes.nlp.sentence_pairs import KnownLanguage, split_words


@dataclass(kw_only=True)
class Summarization(Task):
    """Articles to summaries.

    Attributes:
        words: of the vocabulary, in the order of their numbers.
        max_words: of an article that are read.
        max_summary: words that are written at most.
    """

    takes: ClassVar[str] = "texts"

    words: list[str]
    max_words: int
    max_summary: int

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        sources, targets = result.test_set.__getitems__([0, 1])
        words, example = list(result.train_set.language.words), (sources, targets[:, :-1])
        return cls(words=words, max_words=options.max_words, max_summary=options.max_summary, example=example)

    @cached_property
    def language(self) -> KnownLanguage:
        return KnownLanguage(self.words)

    def encoded(self, items: Sequence[str]) -> EncodedArticles:
        tell_if_longer((len(split_words(text)) for text in items), self.max_words, "words")
        articles = Pairs(list(items), [""] * len(items), ("article", "summary"))
        return encode_articles(articles, self.language, max_words=self.max_words, max_summary=1)

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        return (self.encoded(items).__getitems__(range(len(items)))[0],)  # (batch, article words)

    def search(self, model: Any, sources: Tensor) -> Tensor:
        """Summaries (batch, words) of articles (batch, article words), as the recipe writes them."""
        raise NotImplementedError

    def predict(self, model: nn.Module, items: Sequence[str], device: torch.device) -> list[dict[str, Any]]:
        articles, written = self.encoded(items), self.search(model, self.batch(items)[0].to(device))
        summaries = [" ".join(articles.words(index, ids)) for index, ids in enumerate(written)]
        return [{"text": text, "summary": summary} for text, summary in zip(items, summaries, strict=True)]

    def to_export(self, model: nn.Module) -> nn.Module:
        return Parts(model)

    def dynamic(self) -> tuple[dict[int, str], ...]:
        return {0: "batch", 1: "article_words"}, {0: "batch", 1: "written_words"}


class Parts(nn.Module):
    """What is generated and what is copied, apart: their sum has as many words as an article brings new ones."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, sources: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.parts(sources, written, self.model.encode(sources))
