"""The bundled questions, the opener of SQuAD's JSON, and each way for a file to be wrong."""

import importlib.util
import json
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from recipes.core.errors import InputError
from recipes.datasets.bundled import bundled
from recipes.datasets.questions import Questions, in_other_orders, open_questions, sentences_of

MAKER = Path(__file__).parents[2] / "data" / "make_questions.py"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_questions", MAKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_questions"] = module
    spec.loader.exec_module(module)
    return module


def article(context: str, *answers: tuple[str, int], **more: Any) -> dict[str, Any]:
    given = [{"text": text, "answer_start": start} for text, start in answers]
    return {"title": "", "paragraphs": [{"context": context, "qas": [{"question": "Who?", "answers": given, **more}]}]}


def save(path: Path, articles: list[Any]) -> Path:
    path.write_text(json.dumps({"data": articles}), "utf-8")
    return path


def test_bundled_bytes_are_made_again(maker: ModuleType, tmp_path: Path) -> None:
    maker.write(tmp_path)
    for part in ("train", "test"):
        assert (tmp_path / f"{part}.json").read_bytes() == (bundled("questions") / f"{part}.json").read_bytes()


def test_bundled_parts_share_no_answer() -> None:
    train_part, test_part = open_questions()
    assert (len(train_part), len(test_part)) == (296, 96)
    words = {word for part in train_part.contexts for word in re.findall(r"\w+", part)}
    for context, answers in zip(test_part.contexts, test_part.answers, strict=True):
        ((text, start),) = answers
        assert context[start : start + len(text)] == text
        assert not words & set(text.split())


def test_bundled_chinese_questions(tmp_path: Path) -> None:
    """Made again byte for byte; each answer stands once, where its start says; the test part has words of its own."""
    runpy.run_path(str(MAKER.with_name("make_questions_zh.py")))["main"](tmp_path)
    for part in ("train", "test"):
        name = f"questions_zh/{part}.json"
        assert (tmp_path / name).read_bytes() == (bundled("questions_zh") / f"{part}.json").read_bytes()
    train_part, test_part = open_questions("bundled:questions_zh")
    assert (len(train_part), len(test_part)) == (700, 200)
    for part in (train_part, test_part):
        for question, context, ((text, start),) in zip(part.questions, part.contexts, part.answers, strict=True):
            assert context[start : start + len(text)] == text
            assert context.count(text) == 1
            assert text not in question
            assert 3 <= len(sentences_of(context)) <= 6
    train = "".join(train_part.questions + list(dict.fromkeys(train_part.contexts)))
    assert not set(train_part.questions) & set(test_part.questions)
    numbers = set(re.findall(r"\d+", train))
    for ((text, _),) in test_part.answers:
        assert text not in numbers if text.isdigit() else text not in train
    for words in ("哪位", "哪年", "何处", "何故", "哪种", "请说出"):
        assert any(words in question for question in test_part.questions)
        assert words not in train


def test_a_bundled_set_there_is_not() -> None:
    with pytest.raises(InputError, match="the bundled data set 'questions_fr' is missing"):
        open_questions("bundled:questions_fr")


def test_ways_to_name_the_data(tmp_path: Path) -> None:
    articles = [article(f"Ann {number} sang.", ("Ann", 0)) for number in range(10)]
    single = save(tmp_path / "mine.json", articles)
    train_part, test_part = open_questions(single)
    assert (len(train_part), len(test_part)) == (8, 2)
    assert not set(train_part.articles) & set(test_part.articles)
    assert open_questions(tmp_path)[1].contexts == test_part.contexts
    folder = tmp_path / "two"
    folder.mkdir()
    save(folder / "train-v1.1.json", articles[:3])
    save(folder / "dev-v1.1.json", articles[3:5])
    assert [len(part) for part in open_questions(folder)] == [3, 2]


def test_impossible_questions_have_no_answer(tmp_path: Path) -> None:
    articles = [article(f"Ann {number} sang.", ("Ann", 0), is_impossible=False) for number in range(5)]
    without = [article("Nobody sang.", is_impossible=True), article("No one sang.")]
    parts = open_questions(save(tmp_path / "mine.json", [*articles, *without]))
    answers = {text: found for part in parts for text, found in zip(part.contexts, part.answers, strict=True)}
    assert len(answers) == 7
    assert answers["Nobody sang."] == answers["No one sang."] == []
    assert answers["Ann 3 sang."] == [("Ann", 0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected JSON .*line 1"),
        (b"\xff", "expected UTF-8"),
        ('{"data": []}', "no question with an answer"),
        ('{"rows": []}', "expected a record of SQuAD 1.1, found no 'data'"),
        ('{"data": [{"paragraphs": [{"qas": [{"question": "a"}]}]}]}', "article 1, paragraph 1, .* no 'context'"),
        (json.dumps({"data": [article("Ann sang.", ("Bob", 0))]}), "question 1: expected the answer 'Bob' at letter 0"),
        (json.dumps({"data": [article("Ann sang.")]}), "no question with an answer"),
        (
            json.dumps({"data": [article("Ann sang.", is_impossible=False)]}),
            "question 1: expected at least one answer, or is_impossible to be true",
        ),
        (json.dumps({"data": [article("Ann sang.", ("Ann", 0))]}), "a single paragraph"),
    ],
)
def test_input_that_cannot_be(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        open_questions(path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_questions(tmp_path / "none")
    save(tmp_path / "a.json", [])
    save(tmp_path / "b.json", [])
    with pytest.raises(InputError, match=r"expected a file such as train\.json, found a\.json, b\.json"):
        open_questions(tmp_path)


def test_sentences_in_other_orders() -> None:
    context = "Ann sang. Did Bob hear? In 1900 he slept."
    assert sentences_of(context) == [(0, "Ann sang."), (10, "Did Bob hear?"), (24, "In 1900 he slept.")]
    part = Questions(["Who heard?", "What?"], [context] * 2, [[("Bob", 14)], [("sang. Did", 4)]], [1, 1])
    more = in_other_orders(part, 8)
    assert len(more) == 16
    assert more.contexts[:2] == [context] * 2
    assert len(set(more.contexts[::2])) > 3
    assert set(more.contexts[1::2]) == {context}, "an answer across sentences keeps them together"
    for told, answers in zip(more.contexts, more.answers, strict=True):
        text, start = answers[0]
        assert told[start : start + len(text)] == text
        assert sorted(sentence for _, sentence in sentences_of(told)) == sorted(s for _, s in sentences_of(context))


def test_sentences_in_other_orders_where_nothing_answers() -> None:
    part = Questions(["Who left?", "Who sang?"], ["Ann sang. Bob slept."] * 2, [[], [("Ann", 0)]], [1, 1])
    more = in_other_orders(part, 6)
    assert set(more.contexts[::2]) == {"Ann sang. Bob slept.", "Bob slept. Ann sang."}
    assert more.answers[::2] == [[]] * 6
    assert all(answers for answers in more.answers[1::2])


@pytest.mark.real
def test_real_set(real_data: Path) -> None:
    train_part, test_part = open_questions(real_data / "squadshifts_new_wiki")
    assert len(test_part) > 1000
    assert len(train_part) > 3 * len(test_part)


def flat(number: int, **changed: object) -> dict[str, object]:
    answers = {"text": ["Rome"], "answer_start": [3]}
    return {
        "title": f"T{number % 6}",
        "context": "In Rome.",
        "question": f"Where {number}?",
        "answers": answers,
    } | changed


@pytest.mark.parametrize("kind", ["array", "data", "lines"])
def test_flat_records(tmp_path: Path, kind: str) -> None:
    """As the Hugging Face hub has them, one of them without an answer; no title is on both sides."""
    records = [flat(n) for n in range(12)] + [flat(12, answers={"text": [], "answer_start": []})]
    file = tmp_path / ("a.jsonl" if kind == "lines" else "a.json")
    file.write_text("\n".join(map(json.dumps, records)) if kind == "lines" else json.dumps(records))
    if kind == "data":
        file.write_text(json.dumps({"data": records}))
    train, test = open_questions(file)
    assert sorted(map(bool, train.answers + test.answers)) == [False] + [True] * 12
    assert not set(train.articles) & set(test.articles)
    assert train.answers[0] == [("Rome", 3)]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (flat(1, answers={"text": ["Rome"], "answer_start": [4]}), "record 1: expected the answer 'Rome' at letter 4"),
        (flat(1, answers={"text": ["Rome"], "answer_start": ["3"]}), "record 1: expected the answer 'Rome'"),
        (flat(1, answers={"text": ["Rome"]}), "record 1: .* found no 'answer_start'"),
        (flat(1, context=None), "record 1: .* found something else"),
        ([], "record 1: .* found something else"),
    ],
)
def test_flat_records_that_cannot_be(tmp_path: Path, record: object, message: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps([record]))
    with pytest.raises(InputError, match=message):
        open_questions(tmp_path / "a.json")


def test_a_pair_of_datasets() -> None:
    """Tuples or dicts; answers as SQuAD has them, nested or of lists, or one text to look for in the paragraph."""
    rows = [
        ("Where?", "In Rome.", "Rome"),
        ("Where else?", "In Rome.", [{"text": "In Rome", "answer_start": 0}]),
        ("Nowhere?", "In Rome.", {"text": [], "answer_start": []}),
        ("Never?", "In Rome.", ""),
        ("When?", "In 1900.", {"text": ["1900", "In 1900"], "answer_start": [3, 0]}),
    ]
    train, test = open_questions((rows, [flat(1)]))
    assert train.questions == ["Where?", "Where else?", "Nowhere?", "Never?", "When?"]
    assert train.answers == [[("Rome", 3)], [("In Rome", 0)], [], [], [("1900", 3), ("In 1900", 0)]]
    assert train.articles == [1, 1, 1, 1, 2]
    assert (test.questions, test.contexts, test.answers) == (["Where 1?"], ["In Rome."], [[("Rome", 3)]])


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (("Where?", "In Rome."), r"data: train sample 0: expected \(question, context, answers\), got a tuple of 2"),
        (("Where?", None, "Rome"), "data: train sample 0: expected .*, got a NoneType"),
        (("Where?", "In Rome.", "Paris"), "data: train sample 0: expected the answer 'Paris'"),
        (
            ("Where?", "In Rome.", [3]),
            "data: train sample 0: expected answers as a text, or with text and answer_start",
        ),
        (("Where?", "In Rome.", []), "data: no question with an answer in the train part"),
    ],
)
def test_a_pair_that_cannot_be(sample: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_questions(([sample], [flat(1)]))
