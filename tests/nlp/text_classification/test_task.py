"""The mean of word vectors: against torch's own, against padding, and against what learns nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.nlp import text_classification
from recipes.nlp.text_classification import task, text_cnn
from recipes.nlp.text_classification.encoding import PAD, EncodedTexts
from recipes.nlp.text_classification.scoring import accuracy_in_disorder, evaluate
from recipes.nlp.text_classification.task import MeanOfWords, MeanOfWordsOptions

CPU = torch.device("cpu")
SHORT: dict[str, Any] = {"device": "cpu", "claims": False}


def small(buckets: int = 0) -> MeanOfWords:
    torch.manual_seed(0)
    return MeanOfWords(30, 3, embedding_size=8, buckets=buckets).eval()


def test_mean_of_words_is_an_embedding_bag() -> None:
    model = small()
    ids = torch.tensor([[4, 5, 5, PAD], [7, 8, 9, 1]])
    mean = F.embedding_bag(ids, model.embedding.weight, mode="mean", padding_idx=PAD)
    torch.testing.assert_close(model(ids), model.head(mean), rtol=0, atol=1e-6)


def test_pairs_are_words_that_stand_side_by_side() -> None:
    model = small(buckets=1000)
    assert model.pairs is not None
    vectors = [model.embedding.weight[word] for word in (4, 5, 6)]
    vectors += [model.pairs.weight[1 + (1_000_003 * one + other) % 1000] for one, other in ((4, 5), (5, 6))]
    expected = model.head(torch.stack(vectors).mean(dim=0))
    torch.testing.assert_close(model(torch.tensor([[4, 5, 6, PAD]]))[0], expected, rtol=0, atol=1e-6)
    assert not torch.allclose(model(torch.tensor([[4, 5, 6]])), model(torch.tensor([[6, 5, 4]])), atol=1e-6)


@pytest.mark.xdist_group("nlp.text_classification")
def test_the_mean_reads_no_order(proved_run: Callable[[str], Result]) -> None:
    result = proved_run("nlp.text_classification")
    assert result["accuracy"] < 0.75, "words alone tell little of these reviews"
    pairs = result.runs["pairs=True"]
    assert accuracy_in_disorder(pairs) < pairs["accuracy"] - 0.05


def test_package_leads_to_its_parts() -> None:
    assert text_classification.run is task.run
    assert text_classification.text_cnn is text_cnn


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "least"), [("sst2", 0.75), ("sms_spam/SMSSpamCollection", 0.95), ("chnsenticorp", 0.8)]
)
def test_real_texts(real_data: Path, name: str, least: float) -> None:
    assert task.run(data=str(real_data / name), epochs=2, **SHORT)["accuracy"] > least


TOPICS = ("the match and the goal", "shares and the market", "a planet and a telescope", "the vote in parliament")
KINDS = (("NUM:count", "How many {} are there ?"), ("HUM:ind", "Who found {} ?"), ("LOC:other", "Where is {} ?"))


@pytest.mark.parametrize("kind", ["news.csv", "questions.label"])
def test_news_and_kinds_of_questions_are_learned(tmp_path: Path, kind: str) -> None:
    """A class, a title and a description without a header; `LABEL:detail` before each question."""
    if kind == "news.csv":
        lines = [f'"{n % 4 + 1}","On {TOPICS[n % 4]}, {n}","Reports, of day {n}, of it."' for n in range(160)]
    else:
        lines = [f"{KINDS[n % 3][0]} {KINDS[n % 3][1].format(f'thing {n}')}" for n in range(160)]
    (tmp_path / kind).write_text("\n".join(lines) + "\n", "utf-8")
    result = task.run(data=str(tmp_path / kind), epochs=30, batch_size=16, lr=1e-2, **SHORT)
    assert result.train_set.classes == (["1", "2", "3", "4"] if kind == "news.csv" else ["HUM", "LOC", "NUM"])
    assert result["accuracy"] > 0.9


@pytest.mark.parametrize("buckets", [0, 1000])
def test_padding_changes_nothing(buckets: int) -> None:
    model = small(buckets)
    texts = [torch.randint(1, 30, (length,)) for length in (1, 2, 4, 9, 20)]
    padded = model(nn.utils.rnn.pad_sequence([*texts, torch.ones(40).long()], batch_first=True))
    for text, logits in zip(texts, padded, strict=False):
        torch.testing.assert_close(model(text[None])[0], logits, rtol=0, atol=1e-5)


def test_shuffled_labels_fail_the_bar(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    train_set, test_set = reviews
    options = MeanOfWordsOptions(epochs=3, lr=1e-2, device="cpu")
    accuracy = {}
    for kind in ("true", "shuffled"):
        torch.manual_seed(0)
        order = torch.randperm(len(train_set)) if kind == "shuffled" else torch.arange(len(train_set))
        model = MeanOfWords(len(train_set.vocabulary), 2)
        task.train(model, replace(train_set, labels=train_set.labels[order]), test_set, options)
        accuracy[kind] = evaluate(model, test_set, CPU)["accuracy"]
    assert accuracy["shuffled"] < 0.6
    assert accuracy["true"] > accuracy["shuffled"] + 0.05


def test_every_parameter_gets_a_gradient() -> None:
    model = small(buckets=5)
    ids = torch.randint(1, 30, (32, 20))
    ids[:, 15:] = PAD
    F.cross_entropy(model(ids), torch.arange(32) % 3).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key
    assert model.embedding.weight.grad is not None
    assert model.embedding.weight.grad[PAD].abs().sum() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_words": 0}, "option max_words: expected a whole number of at least 1"),
        ({"min_freq": 10**6}, "option min_freq"),
        ({"embedding_size": 0}, "option embedding_size"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        task.run(**SHORT, **options)


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
@pytest.mark.parametrize("pairs", [False, True])
def test_own_texts_in_two_languages_and_three_classes(table: Path, tmp_path: Path, pairs: bool) -> None:
    given = {"epochs": 4, "lr": 2e-2, "batch_size": 20, "pairs": pairs}
    result = task.run(data=str(table), out=str(tmp_path / "out"), **SHORT, **given)
    assert result["accuracy"] == 1
    assert (tmp_path / "out" / "figure.png").stat().st_size > 10_000
    table.unlink()
    trained = recipes.trained(tmp_path / "out", device="cpu")
    answers = trained(["the ball game 7", "很好吃的面"])
    assert [answer["class"] for answer in answers] == ["sport", "food"]
    with torch.no_grad():
        ids = result.train_set.vocabulary.encode("the ball game 7")[None]
        expected = result.model.eval()(ids).softmax(dim=1)[0]
    assert list(answers[0]["classes"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
    trained.export(tmp_path / "model.pt2")
    exported = torch.export.load(tmp_path / "model.pt2").module()
    for shape in ((1, 1), (1, 5), (3, 40)):
        ids = torch.randint(1, 4, shape)
        torch.testing.assert_close(exported(ids), trained.model(ids), rtol=0, atol=1e-5)
