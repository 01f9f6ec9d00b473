"""Texts with a class from train.jsonl and test.jsonl, a JSON object such as {"text": …, "label": …} a line."""

import json
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
    """The train and the test part of a folder with train.jsonl and test.jsonl."""
    folder, parts = Path(data) if data else bundled("reviews"), []
    for part in ("train", "test"):
        lines = (folder / f"{part}.jsonl").read_text(encoding).split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
        pairs = [(row[text_column or "text"].strip(), str(row[label_column or "label"]).strip()) for row in rows]
        parts.append(pairs)
    return with_classes(parts)
