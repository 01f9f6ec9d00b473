"""Pairs of sentences from train.tsv and test.tsv, whose first row names the columns sentence1, sentence2 and score."""

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recipes.datasets.bundled import bundled


@dataclass
class ScoredPairs:
    """Pairs of sentences, each with a score (N,) that is higher the more they have in common."""

    firsts: list[str]
    seconds: list[str]
    scores: Tensor


def open_scored_pairs(data: str | None = None, *, seed: int = 0) -> list[ScoredPairs]:
    """The train and the test part of a folder with train.tsv and test.tsv."""
    folder, parts = Path(data) if data else bundled("similarities"), []
    for part in ("train", "test"):
        with (folder / f"{part}.tsv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        scores = torch.tensor([float(row["score"]) for row in rows])
        parts.append(ScoredPairs([row["sentence1"] for row in rows], [row["sentence2"] for row in rows], scores))
    return parts
