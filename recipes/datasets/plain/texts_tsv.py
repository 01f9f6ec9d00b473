"""Texts with a class from train.tsv and test.tsv: a text, a tab and its label a line, without a header."""

from pathlib import Path

from recipes.datasets.bundled import bundled
from recipes.datasets.plain.texts_csv import Texts, with_classes


def open_texts(
    data: str | None = None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str = "utf-8-sig",
    seed: int = 0,
) -> list[Texts]:
    """The train and the test part of a folder with train.tsv and test.tsv."""
    folder, parts = Path(data) if data else bundled("reviews"), []
    for part in ("train", "test"):
        lines = (folder / f"{part}.tsv").read_text(encoding).splitlines()
        pairs = [line.split("\t") for line in lines if line.strip()]
        parts.append([(text.strip(), label.strip()) for text, label in pairs])
    return with_classes(parts)
