"""How trained models that guess hidden words are used."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.core.task import Task, first_inputs
from recipes.nlp.bert.subwords import Subwords, subwords_from, tokenizer_json

GAP = re.compile(r"_{3,}|\[MASK\]")
FILLINGS = 5  # fillings of each gap that an answer tells


@dataclass(kw_only=True)
class MaskedWords(Task):
    """Texts with gaps, ___ or [MASK], to the words that may stand there.

    Attributes:
        max_pieces: of a text that are read.
        config: of the network, see `encoder_from`.
        pad: number of the piece that fills short texts up.
        tokenizer: see `tokenizer_json`.
    """

    takes: ClassVar[str] = "texts"

    max_pieces: int
    config: dict[str, Any]
    pad: int
    tokenizer: dict[str, Any]

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        train_set = result.train_set
        return cls(
            max_pieces=options.max_pieces,
            config=train_set.config,
            pad=train_set.vocabulary.pad,
            tokenizer=tokenizer_json(train_set.vocabulary),
            example=first_inputs(result.test_set),
        )

    @cached_property
    def subwords(self) -> Subwords:
        return subwords_from(self.tokenizer)

    def load(self, item: str) -> str:
        if not GAP.search(item):
            raise InputError(f"{item[:80]!r}: expected a gap to fill, ___ or [MASK]")
        return GAP.sub(f" {self.subwords.words[self.subwords.mask]} ", item)

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        ids = [self.subwords.encode(text, self.max_pieces) for text in items]
        return (pad_sequence(ids, batch_first=True, padding_value=self.pad),)  # (N, pieces)

    def predict(self, model: nn.Module, items: Sequence[str], device: torch.device) -> list[dict[str, Any]]:
        (ids,) = self.batch(items)
        gaps = ids == self.subwords.mask
        logits = model(ids.to(device), gaps.to(device)).float().cpu()  # (gaps, pieces known)
        found = []
        for item, shares in zip(items, logits.softmax(dim=1).split(gaps.sum(dim=1).tolist()), strict=True):
            best = [zip(*one.topk(FILLINGS), strict=True) for one in shares]
            words = [[{"word": self.subwords.words[int(n)], "probability": float(p)} for p, n in gap] for gap in best]
            found.append({"text": item, "gaps": words})
        return found

    def to_export(self, model: nn.Module) -> nn.Module:
        return EveryWord(model)

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        return ({0: "batch", 1: torch.export.Dim("pieces", max=self.max_pieces)},)


class EveryWord(nn.Module):
    """Pieces (N, pieces) to logits of every place (N, pieces, pieces known)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.network, self.pad = model.network, model.pad

    def forward(self, ids: Tensor) -> Tensor:
        return self.network(ids, attention_mask=(ids != self.pad).long()).logits
