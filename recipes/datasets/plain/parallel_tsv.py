"""Pairs of texts from train.tsv and test.tsv, two columns each, under a header."""

import gzip
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Pairs:
    """N source texts and N target texts, and the names of their columns."""

    sources: list[str]
    targets: list[str]
    languages: tuple[str, str]


def open_pairs(
    data: str | Path, *, source: str | None = None, target: str | None = None, limit: int | None = None, seed: int = 0
) -> tuple[Pairs, Pairs]:
    """The train and the test part; `source` and `target` name columns."""
    parts = []
    for part in ("train", "test"):
        path = next(Path(data).glob(f"{part}.tsv*"))
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        header, *rows = [line.split("\t") for line in content.decode("utf-8").splitlines() if line.strip()]
        one = header.index(source or next(name for name in header if name != target))
        other = header.index(target or next(name for name in header if name != header[one]))
        texts = [(row[one].strip(), row[other].strip()) for row in rows][: limit if part == "train" else None]
        parts.append(Pairs([text for text, _ in texts], [text for _, text in texts], (header[one], header[other])))
    return parts[0], parts[1]
