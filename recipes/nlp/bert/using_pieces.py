"""What all tasks of BERT need to be used: its configuration, its tokenizer, and how many pieces it reads."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from recipes.core.result import Result
from recipes.core.task import Task, tell_if_longer
from recipes.nlp.bert.subwords import Subwords, subwords_from, tokenizer_json


@dataclass(kw_only=True)
class ReadsPieces(Task):
    """Texts, by their pieces.

    Attributes:
        config: of the encoder, see `encoder_from`.
        tokenizer: see `tokenizer_json`.
        max_pieces: that are read; the rest is left out.
    """

    takes: ClassVar[str] = "texts"

    config: dict[str, Any]
    tokenizer: dict[str, Any]
    max_pieces: int

    @staticmethod
    def remembered(result: Result, options: Any) -> dict[str, Any]:
        """The fields that all of them share."""
        train_set = result.train_set
        shared = {"config": train_set.config, "tokenizer": tokenizer_json(train_set.vocabulary)}
        return shared | {"max_pieces": options.max_pieces}

    @cached_property
    def vocabulary(self) -> Subwords:
        return subwords_from(self.tokenizer)

    def pieces(self, text: str) -> Tensor:
        """The numbers of the pieces that are read of a text, (pieces,); it is told if that is not all of it."""
        ids = self.vocabulary.encode(text, self.max_pieces + 1)
        if len(ids) <= self.max_pieces:
            return ids
        tell_if_longer([len(ids)], self.max_pieces, "pieces")
        return self.vocabulary.encode(text, self.max_pieces)  # with the piece that ends it

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        return ({0: "batch", 1: torch.export.Dim("pieces", max=self.max_pieces)},)
