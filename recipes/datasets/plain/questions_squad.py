"""Questions with their answers in a paragraph from train.json and test.json, nested as SQuAD's."""

import json
from pathlib import Path

from recipes.datasets.bundled import bundled
from recipes.datasets.questions import Questions


def open_questions(data: str | None = None, *, seed: int = 0) -> list[Questions]:
    """The train and the test part of a folder with train.json and test.json."""
    folder, parts = Path(data) if data else bundled("questions"), []
    for part in ("train", "test"):
        articles = json.loads((folder / f"{part}.json").read_text("utf-8"))["data"]
        found = Questions([], [], [], [])
        for number, paragraph in ((n, one) for n, article in enumerate(articles) for one in article["paragraphs"]):
            for record in paragraph["qas"]:
                found.questions.append(record["question"].strip())
                found.contexts.append(paragraph["context"])
                found.answers.append([(one["text"], one["answer_start"]) for one in record["answers"]])
                found.articles.append(number)
        parts.append(found)
    return parts
