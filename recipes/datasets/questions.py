"""Opens questions with their answers in a paragraph, the bundled ones or yours."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recipes.core.errors import InputError
from recipes.core.files import own_path
from recipes.datasets.bundled import bundled
from recipes.datasets.own import described, pair_of_datasets, samples_of
from recipes.datasets.reading import file_json, file_or_folder, files_in, is_folder, json_value
from recipes.datasets.text_files import LONELY, PARTS, lines_of, part_files

SAMPLE = "(question, context, answers)"
Record = tuple[str, int, Any, Any]  # where it stands, its article, its paragraph, and what it asks


@dataclass
class Questions:
    """Questions, each with the paragraph that holds its answer, or none.

    Attributes:
        questions: N strings.
        contexts: N paragraphs; questions on the same one share it.
        answers: for each question those that fit, each a text and where it begins in the paragraph; an empty list if
            the paragraph does not answer it.
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


def open_questions(data: Any = None, *, seed: int = 0) -> tuple[Questions, Questions]:
    """Opens questions: the train and the test part.

    Args:
        data: a folder with a JSON file whose name holds `train` and one whose name holds `test` (or `dev`,
            `valid`), nested as SQuAD's or flat, a record a question, as the Hugging Face hub has it; or one file,
            or a folder with one, a fifth of whose articles is drawn for the test part (of its paragraphs, where
            there are fewer than five articles); or `bundled:questions_zh`, questions in Chinese; or a pair of your
            own Datasets (train, test), whose samples are (question, context, answers), tuples or dicts: answers as
            SQuAD has them, or one text, which is looked for in the paragraph. Questions without an answer, as in
            SQuAD 2.0, have an empty list (or text). Default: the bundled questions in English.
        seed: of the draw that splits a single file.

    Raises:
        InputError: nothing there, or a record that is not SQuAD's; it names the file and the record.
    """
    pair = pair_of_datasets(data)
    if pair is not None:
        return questions_of(pair[0], "train"), questions_of(pair[1], "test")
    named = data is not None and str(data).startswith("bundled:")
    path = bundled(str(data)[8:] if named else "questions") if named or data is None else file_or_folder(own_path(data))
    if is_folder(path):
        files = files_in(path, (".json", ".jsonl"))
        if len(files) != 1:
            found = [part_files(path, files, part, f"a file such as {part}.json")[0] for part in PARTS]
            return read_questions(found[0]), read_questions(found[1])
        path = files[0]
    return split_questions(path, read_questions(path), seed)


def questions_of(dataset: Any, part: str) -> Questions:
    """The questions of the user's own Dataset, read once."""
    found, paragraphs = Questions([], [], [], []), dict[str, int]()
    for number, (question, context, answers) in enumerate(samples_of(dataset, part, SAMPLE)):
        where = f"data: {part} sample {number}"
        for text in (question, context):
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{where}: expected {SAMPLE}, got {described(text)}")
        if isinstance(answers, str):
            text = answers.strip()
            answers = [{"text": text, "answer_start": context.find(text)}] if text else []
        try:
            checked = answers_of(answers, context, where)
        except (KeyError, TypeError, AttributeError):
            raise InputError(
                f"{where}: expected answers as a text, or with text and answer_start, got {described(answers)}"
            ) from None
        found.questions.append(question.strip())
        found.contexts.append(context)
        found.answers.append(checked)
        found.articles.append(paragraphs.setdefault(context, len(paragraphs) + 1))
    if not any(found.answers):
        raise InputError(f"data: no question with an answer in the {part} part; expected {SAMPLE}")
    return found


def read_questions(path: Path) -> Questions:
    """The questions of one file; those that SQuAD 2.0 marks as impossible have no answer."""
    found, where = Questions([], [], [], []), f"{path}"
    try:
        for where, article, paragraph, record in records_of(path):
            question, context = whole_text(record["question"]).strip(), whole_text(paragraph["context"])
            answers = answers_of(record["answers"], context, where)
            if not answers and not record.get("is_impossible", True):
                raise InputError(f"{where}: expected at least one answer, or is_impossible to be true")
            found.questions.append(question)
            found.contexts.append(context)
            found.answers.append([] if record.get("is_impossible") else answers)
            found.articles.append(article)
    except (KeyError, TypeError, AttributeError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else "something else"
        raise InputError(f"{where}: expected a record of SQuAD 1.1, found {missing}") from None
    if not any(found.answers):
        raise InputError(f"{path}: no question with an answer; expected the JSON of SQuAD 1.1 or 2.0")
    return found


def records_of(path: Path) -> Iterator[Record]:
    """The records of a file: nested in articles and paragraphs, or flat, where articles are told by their titles."""
    if path.suffix.lower() == ".jsonl":
        lines = ((number, line) for number, line in enumerate(lines_of(path), 1) if line.strip())
        content: Any = [json_value(line, f"{path}, line {number}") for number, line in lines]
    else:
        content = file_json(path)
    entries = content["data"] if isinstance(content, dict) else content
    titles: dict[Any, int] = {}
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or "paragraphs" not in entry:
            title = str(entry.get("title") or entry.get("context")) if isinstance(entry, dict) else ""
            yield f"{path}, record {number}", titles.setdefault(title, len(titles) + 1), entry, entry
            continue
        for place, paragraph in enumerate(entry["paragraphs"], 1):
            for index, record in enumerate(paragraph["qas"], 1):
                where = f"{path}, article {number}, paragraph {place}, question {index}"
                yield where, number, paragraph, record


def whole_text(value: Any) -> str:
    """The text, half characters in it replaced.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, str):
        raise TypeError
    return LONELY.sub("�", value)


def answers_of(given: Any, context: str, where: str) -> list[tuple[str, int]]:
    """The answers to one question, each of which must stand in the paragraph where it says."""
    if isinstance(given, dict):  # of lists, in flat files
        given = [
            {"text": text, "answer_start": start}
            for text, start in zip(given["text"], given["answer_start"], strict=False)
        ]
    answers = [(whole_text(answer["text"]), answer["answer_start"]) for answer in given]
    for text, start in answers:
        if not text or type(start) is not int or start < 0 or context[start : start + len(text)] != text:
            raise InputError(f"{where}: expected the answer {text!r:.40} at letter {start!r:.20} of the paragraph")
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
    starts = [0, *(match.end() for match in re.finditer(r"[.!?]\s+|[。！？]+\s*(?=\S)", text.rstrip()))]
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
            text, start = answers[0] if answers else ("", 0)
            sentences = sentences_of(context)
            owner = max(index for index, (begin, _) in enumerate(sentences) if begin <= start)
            if turn and start + len(text) <= sentences[owner][0] + len(sentences[owner][1]):
                order = draw.sample(range(len(sentences)), len(sentences))
                before = [sentences[index][1] for index in order[: order.index(owner)]]
                start += sum(len(sentence) + 1 for sentence in before) - sentences[owner][0]
                context = " ".join(sentences[index][1] for index in order)
            more.questions.append(question)
            more.contexts.append(context)
            more.answers.append([(text, start)] if answers else [])
            more.articles.append(article)
    return more
