"""Questions with their answers in a paragraph from train.json and test.json, nested as SQuAD's."""

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from recipes.datasets.bundled import bundled


@dataclass
class Questions:
    """Questions, each with the paragraph that holds its answer, and answers: texts, and where each begins."""

    questions: list[str]
    contexts: list[str]
    answers: list[list[tuple[str, int]]]

    def __len__(self) -> int:
        return len(self.questions)


def open_questions(data: str | None = None, *, seed: int = 0) -> list[Questions]:
    """The train and the test part of a folder with train.json and test.json."""
    folder, parts = Path(data) if data else bundled("questions"), []
    for part in ("train", "test"):
        articles = json.loads((folder / f"{part}.json").read_text("utf-8"))["data"]
        found = Questions([], [], [])
        for paragraph in (one for article in articles for one in article["paragraphs"]):
            for record in paragraph["qas"]:
                found.questions.append(record["question"].strip())
                found.contexts.append(paragraph["context"])
                found.answers.append([(one["text"], one["answer_start"]) for one in record["answers"]])
        parts.append(found)
    return parts


def sentences_of(text: str) -> list[tuple[int, str]]:
    """The sentences, each with the place of its first letter."""
    starts = [0, *(match.end() for match in re.finditer(r"[.!?]\s+|[。！？]+\s*(?=\S)", text.rstrip()))]
    return [(start, text[start:end].rstrip()) for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def in_other_orders(part: Questions, orders: int, seed: int = 0) -> Questions:
    """Each question `orders` times, from the second time on with the paragraph's sentences in random order."""
    draw, more = random.Random(seed), Questions([], [], [])
    for turn in range(orders):
        for question, context, answers in zip(part.questions, part.contexts, part.answers, strict=True):
            text, start = answers[0]
            sentences = sentences_of(context)
            owner = max(index for index, (begin, _) in enumerate(sentences) if begin <= start)
            if turn and start + len(text) <= sentences[owner][0] + len(sentences[owner][1]):
                order = draw.sample(range(len(sentences)), len(sentences))
                before = [sentences[index][1] for index in order[: order.index(owner)]]
                start += sum(len(sentence) + 1 for sentence in before) - sentences[owner][0]
                context = " ".join(sentences[index][1] for index in order)
            more.questions.append(question)
            more.contexts.append(context)
            more.answers.append([(text, start)])
    return more
