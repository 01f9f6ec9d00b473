"""Texts with a class from train.csv and test.csv, the names of whose columns stand in the first row."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recipes.datasets.bundled import bundled


@dataclass
class Texts:
    """Texts, each with a class (N,)."""

    texts: list[str]
    labels: Tensor
    classes: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, indices: Tensor) -> "Texts":
        return Texts([self.texts[index] for index in indices.tolist()], self.labels[indices], self.classes)


def with_classes(parts: Sequence[Sequence[tuple[str, str]]]) -> list[Texts]:
    """The train and the test part from (text, label); classes are the train part's labels, sorted."""
    classes = sorted({label for _, label in parts[0]})
    numbers = [torch.tensor([classes.index(label) for _, label in part]) for part in parts]
    return [Texts([text for text, _ in part], labels, classes) for part, labels in zip(parts, numbers, strict=True)]


def open_texts(
    data: str | None = None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str = "utf-8-sig",
    seed: int = 0,
) -> list[Texts]:
    """The train and the test part of a folder with train.csv and test.csv."""
    folder, parts = Path(data) if data else bundled("reviews"), []
    for part in ("train", "test"):
        with (folder / f"{part}.csv").open(encoding=encoding) as file:
            rows = list(csv.DictReader(file))
        parts.append([(row[text_column or "text"].strip(), row[label_column or "label"].strip()) for row in rows])
    return with_classes(parts)
