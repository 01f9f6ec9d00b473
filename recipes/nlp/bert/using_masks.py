"""How trained models that guess hidden words are used."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.core.task import first_inputs
from recipes.nlp.bert.using_pieces import ReadsPieces

GAP = re.compile(r"_{3,}|\[MASK\]")
FILLINGS = 5  # fillings of each gap that an answer tells


@dataclass(kw_only=True)
class MaskedWords(ReadsPieces):
    """Texts with gaps, ___ or [MASK], to the words that may stand there.

    Attributes:
        pad: number of the piece that fills short texts up.
    """

    pad: int

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        pad, example = result.train_set.vocabulary.pad, first_inputs(result.test_set)
        return cls(pad=pad, example=example, **cls.remembered(result, options))

    def load(self, item: str) -> str:
        if not GAP.search(item):
            raise InputError(f"{item[:80]!r}: expected a gap to fill, ___ or [MASK]")
        return GAP.sub(f" {self.vocabulary.words[self.vocabulary.mask]} ", item)

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        ids = [self.pieces(text) for text in items]
        return (pad_sequence(ids, batch_first=True, padding_value=self.pad),)  # (N, pieces)

    def predict(self, model: nn.Module, items: Sequence[str], device: torch.device) -> list[dict[str, Any]]:
        (ids,) = self.batch(items)
        gaps = ids == self.vocabulary.mask
        logits = model(ids.to(device), gaps.to(device)).float().cpu()  # (gaps, pieces known)
        found = []
        for item, shares in zip(items, logits.softmax(dim=1).split(gaps.sum(dim=1).tolist()), strict=True):
            best = [zip(*one.topk(FILLINGS), strict=True) for one in shares]
            words = [[{"word": self.vocabulary.words[int(n)], "probability": float(p)} for p, n in gap] for gap in best]
            found.append({"text": item, "gaps": words})
        return found

    def to_export(self, model: nn.Module) -> nn.Module:
        return EveryWord(model)


class EveryWord(nn.Module):
    """Pieces (N, pieces) to logits of every place (N, pieces, pieces known)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.network, self.pad = model.network, model.pad

    def forward(self, ids: Tensor) -> Tensor:
        return self.network(ids, attention_mask=(ids != self.pad).long()).logits
