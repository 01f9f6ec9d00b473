"""What the tests of text classifiers share."""

import csv
from pathlib import Path

import pytest

from recipes.nlp.text_classification.encoding import EncodedTexts, TextOptions, open_words


@pytest.fixture(scope="session")
def reviews() -> tuple[EncodedTexts, EncodedTexts]:
    return open_words(TextOptions())


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A file of three classes in two languages, each known by one phrase."""
    path = tmp_path / "mine.csv"
    kinds = {
        "sport": ("the ball game", "足球比赛"),
        "food": ("a hot soup", "很好吃的面"),
        "rain": ("wet, cold", "下雨"),
    }
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for number in range(120):
            label = list(kinds)[number % 3]
            rows.writerow([f"{kinds[label][number % 2]} {number}", label])
    return path
