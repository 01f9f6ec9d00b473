"""A test of what an encoder knows: from a few texts it learns which words are written with a capital.

The tokenizer reads in lower case, so the capitals are gone and the text itself tells what they were. They stand
where a sentence begins and in names: to find them, an encoder has to look at the words around.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from recipes.core.evaluation import predict
from recipes.core.loading import batches_by_length
from recipes.core.loop import Loop
from recipes.nlp.bert.subwords import SubwordTexts

UNLABELED = -100  # beginnings, ends and padding, which cross_entropy leaves out
TRAINING = {"steps": 120, "batch_size": 16, "lr": 2e-3, "out": None, "checkpoint": None, "claims": False}


@dataclass
class CasedTexts(SubwordTexts):
    """Texts in lower case, with a label for each piece: 1 where it was written with a capital, 0 elsewhere."""

    capitals: list[Tensor]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        ids, _ = super().__getitems__(indices)
        capitals = [self.capitals[index] for index in indices]
        return ids, pad_sequence(capitals, batch_first=True, padding_value=UNLABELED)  # both (batch, pieces)


def find_capitals(dataset: SubwordTexts) -> CasedTexts:
    """The texts with the capitals that they were written with."""
    capitals = []
    for text, ids in zip(dataset.texts, dataset.ids, strict=True):
        read = dataset.vocabulary.tokenizer(text, truncation=True, max_length=len(ids), return_offsets_mapping=True)
        spans = read["offset_mapping"]  # (first letter, last letter + 1) of each piece
        capitals.append(torch.tensor([int(text[a].isupper()) if a < b else UNLABELED for a, b in spans]))
    parts = dataset.texts, dataset.ids, dataset.labels, dataset.classes, dataset.vocabulary
    return CasedTexts(*parts, capitals, config=dataset.config)


class Tagger(nn.Module):
    """A linear layer on the state that an encoder of `transformers` has for each piece."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self.pad = encoder, encoder.config.pad_token_id
        self.head = nn.Linear(encoder.config.hidden_size, 2)

    def forward(self, ids: Tensor) -> Tensor:
        states = self.encoder(ids, attention_mask=(ids != self.pad).long()).last_hidden_state
        return self.head(states)  # (batch, pieces, 2)


def teach_capitals(encoder: Any, train_set: CasedTexts, options: Any) -> Tagger:
    """Trains a copy of the encoder and a new head; the same head and the same order of texts for the same seed."""
    torch.manual_seed(options.seed)
    model = Tagger(copy.deepcopy(encoder))
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    loop = Loop(model, optimizer, batches_by_length(train_set, options), options, name="capitals")
    for ids, capitals in loop:
        logits = loop.model(ids)
        loop.step(F.cross_entropy(logits.flatten(0, 1), capitals.flatten(), ignore_index=UNLABELED))
    return model


def capitals_f1(model: Tagger, dataset: CasedTexts, device: Any) -> float:
    """F1 of the capitals: the harmonic mean of how many of those found are right and how many are found."""
    hits = said = true = 0
    for logits, capitals in zip(predict(model, dataset, device), dataset.capitals, strict=True):
        found = (logits[: len(capitals)].argmax(dim=1) == 1) & (capitals != UNLABELED)
        hits += int((found & (capitals == 1)).sum())
        said, true = said + int(found.sum()), true + int((capitals == 1).sum())
    return 2 * hits / max(said + true, 1)
