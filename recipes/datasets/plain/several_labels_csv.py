"""Texts with several labels each from train.csv and test.csv: a column of texts, one of labels with ; between them."""

import csv
from pathlib import Path

import torch

from recipes.datasets.bundled import bundled
from recipes.datasets.plain.texts_csv import Texts


def open_several_labels(
    data: str | None = None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str = "utf-8-sig",
    seed: int = 0,
) -> list[Texts]:
    """The train and the test part of a folder with train.csv and test.csv; labels are (N, classes) of 0 and 1."""
    folder, parts = Path(data) if data else bundled("messages"), []
    for part in ("train", "test"):
        with (folder / f"{part}.csv").open(encoding=encoding) as file:
            parts.append(list(csv.DictReader(file)))
    labels = [[set(filter(None, row[label_column or "labels"].split(";"))) for row in part] for part in parts]
    classes = sorted(set().union(*labels[0]))
    ones = [torch.tensor([[float(name in row) for name in classes] for row in part]) for part in labels]
    texts = [[row[text_column or "text"].strip() for row in part] for part in parts]
    return [Texts(*part, classes) for part in zip(texts, ones, strict=True)]
