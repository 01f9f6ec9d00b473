"""Opens questions with their answers in a paragraph, the bundled ones or yours."""

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recipes.core.errors import InputError
from recipes.datasets.bundled import bundled
from recipes.datasets.unicode import utf8_text

PARTS_OF_QUESTIONS = {"train": ("train",), "test": ("test", "dev", "valid", "val")}


@dataclass
class Questions:
    """Questions, each with the paragraph that holds its answer.

    Attributes:
        questions: N strings.
        contexts: N paragraphs; questions on the same one share it.
        answers: for each question one or more answers, each a text and where it begins in the paragraph.
        articles: for each question the number of the article that its paragraph is from.
    """

    questions: list[str]
    contexts: list[str]
    answers: list[list[tuple[str, int]]]
    articles: list[int]

    def __len__(self) -> int:
        return len(self.questions)

    def subset(self, indices: list[int]) -> "Questions":
        return Questions(
            [self.questions[index] for index in indices],
            [self.contexts[index] for index in indices],
            [self.answers[index] for index in indices],
            [self.articles[index] for index in indices],
        )


def open_questions(data: str | Path | None = None, *, seed: int = 0) -> tuple[Questions, Questions]:
    """Opens questions: the train and the test part.

    Args:
        data: a folder with a JSON file whose name holds `train` and one whose name holds `test` (or `dev`,
            `valid`); or one file, or a folder with one, a fifth of whose articles is drawn for the test part (of
            its paragraphs, where there are fewer than five articles). Default: the bundled questions.
        seed: of the draw that splits a single file.

    Raises:
        InputError: nothing there, or a record that is not SQuAD's; it names the file and the record.
    """
    path = bundled("questions") if data is None else Path(data).expanduser()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".json")
        if len(files) != 1:
            found = [find_questions_part(path, files, part) for part in PARTS_OF_QUESTIONS]
            return read_questions(found[0]), read_questions(found[1])
        path = files[0]
    return split_questions(path, read_questions(path), seed)


def find_questions_part(folder: Path, files: list[Path], part: str) -> Path:
    for name in PARTS_OF_QUESTIONS[part]:
        for file in files:
            if name in file.name.lower():
                return file
    found = ", ".join(file.name for file in files[:8]) or "no such file"
    raise InputError(f"{folder}: expected a file such as {part}.json, found {found}")


def read_questions(path: Path) -> Questions:
    """The questions of one file; those that SQuAD 2.0 marks as impossible are left out."""
    try:
        content = json.loads(utf8_text(path.read_bytes(), path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: expected JSON, but {error.msg}") from None
    found = Questions([], [], [], [])
    where = f"{path}"
    try:
        for number, article in enumerate(content["data"], 1):
            where = f"{path}, article {number}"
            for place, paragraph in enumerate(article["paragraphs"], 1):
                where = f"{path}, article {number}, paragraph {place}"
                context = paragraph["context"]
                for index, record in enumerate(paragraph["qas"], 1):
                    where = f"{path}, article {number}, paragraph {place}, question {index}"
                    if not record.get("is_impossible"):
                        found.questions.append(record["question"].strip())
                        found.contexts.append(context)
                        found.answers.append(answers_of(record, context, where))
                        found.articles.append(number)
    except (KeyError, TypeError, AttributeError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else "something else"
        raise InputError(f"{where}: expected a record of SQuAD 1.1, found {missing}") from None
    if not len(found):
        raise InputError(f"{path}: no question with an answer; expected the JSON of SQuAD 1.1")
    return found


def answers_of(record: dict[str, Any], context: str, where: str) -> list[tuple[str, int]]:
    """The answers to one question, each of which must stand in the paragraph where it says."""
    answers = [(answer["text"], answer["answer_start"]) for answer in record["answers"]]
    if not answers:
        raise InputError(f"{where}: expected at least one answer")
    for text, start in answers:
        if not text or context[start : start + len(text)] != text:
            raise InputError(f"{where}: expected the answer {text!r:.40} at letter {start} of the paragraph")
    return answers


def split_questions(path: Path, whole: Questions, seed: int) -> tuple[Questions, Questions]:
    """Splits 80 to 20, no article (or no paragraph, of few articles) on both sides."""
    by_article = len(set(whole.articles)) >= 5
    owners = [str(one) for one in whole.articles] if by_article else whole.contexts
    different = list(dict.fromkeys(owners))
    if len(different) < 2:
        raise InputError(f"{path}: a single paragraph was found; expected enough for a train and a test part")
    order = torch.randperm(len(different), generator=torch.Generator().manual_seed(seed)).tolist()
    test = {different[index] for index in order[: max(1, len(different) // 5)]}
    sides: tuple[list[int], list[int]] = ([], [])
    for index, owner in enumerate(owners):
        sides[owner in test].append(index)
    return whole.subset(sides[0]), whole.subset(sides[1])


def sentences_of(text: str) -> list[tuple[int, str]]:
    """The sentences, each with the place of its first letter."""
    starts = [0, *(match.end() for match in re.finditer(r"[.!?]\s+", text.rstrip()))]
    return [(start, text[start:end].rstrip()) for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def in_other_orders(part: Questions, orders: int, seed: int = 0) -> Questions:
    """Each question `orders` times, from the second time on with the paragraph's sentences in random order.

    Of several answers the first is kept; a paragraph whose answer goes across sentences stays as it is.
    """
    draw = random.Random(seed)
    more = Questions([], [], [], [])
    for turn in range(orders):
        for question, context, answers, article in zip(
            part.questions, part.contexts, part.answers, part.articles, strict=True
        ):
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
            more.articles.append(article)
    return more
