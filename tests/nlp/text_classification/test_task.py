"""The mean of word vectors: against torch's own, against padding, and against what learns nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.nlp import text_classification
from recipes.nlp.text_classification import task, text_cnn
from recipes.nlp.text_classification.encoding import PAD, EncodedTexts, open_encoded
from recipes.nlp.text_classification.scoring import evaluate

CPU = torch.device("cpu")


def build() -> task.MeanOfWords:
    torch.manual_seed(0)
    return task.MeanOfWords(30, 3, width=8).eval()


def test_mean_of_words_is_an_embedding_bag() -> None:
    model = build()
    ids = torch.tensor([[4, 5, 5, PAD], [7, 8, 9, 1]])
    mean = F.embedding_bag(ids, model.embedding.weight, mode="mean", padding_idx=PAD)
    torch.testing.assert_close(model(ids), model.head(mean), rtol=0, atol=1e-6)


@pytest.mark.xdist_group("nlp.text_classification")
def test_the_mean_reads_no_order(default_run: Callable[[str], Result]) -> None:
    result = default_run("nlp.text_classification")
    assert all(claim.holds for claim in result.claims)
    assert result.metrics["accuracy"] < 0.75, "words alone tell little of these reviews"


def test_package_leads_to_its_parts() -> None:
    assert text_classification.run is task.run
    assert text_classification.text_cnn is text_cnn


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "least"), [("sst2", 0.75), ("sms_spam/SMSSpamCollection", 0.95), ("chnsenticorp", 0.8)]
)
def test_real_texts(real_data: Path, name: str, least: float) -> None:
    train_set, test_set = open_encoded(str(real_data / name))
    torch.manual_seed(0)
    model = task.MeanOfWords(len(train_set.vocabulary), len(train_set.classes))
    task.train(model, train_set, test_set, epochs=2, batch_size=50, lr=4e-3, device=CPU)
    assert evaluate(model, test_set, CPU)["accuracy"] > least


def test_padding_changes_nothing() -> None:
    model = build()
    texts = [torch.randint(1, 30, (length,)) for length in (1, 2, 4, 9, 20)]
    padded = model(nn.utils.rnn.pad_sequence([*texts, torch.ones(40).long()], batch_first=True))
    for text, logits in zip(texts, padded, strict=False):
        torch.testing.assert_close(model(text[None])[0], logits, rtol=0, atol=1e-5)


def test_shuffled_labels_fail_the_bar(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    train_set, test_set = reviews
    accuracy = {}
    for kind in ("true", "shuffled"):
        torch.manual_seed(0)
        order = torch.randperm(len(train_set)) if kind == "shuffled" else torch.arange(len(train_set))
        model = task.MeanOfWords(len(train_set.vocabulary), 2)
        with_labels = replace(train_set, labels=train_set.labels[order])
        task.train(model, with_labels, test_set, epochs=3, batch_size=50, lr=1e-2, device=CPU)
        accuracy[kind] = evaluate(model, test_set, CPU)["accuracy"]
    assert accuracy["shuffled"] < 0.6
    assert accuracy["true"] > accuracy["shuffled"] + 0.05


def test_every_parameter_gets_a_gradient() -> None:
    model = build()
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
        ({"width": 0}, "option width"),
    ],
)
def test_options_that_cannot_be(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        task.run(device="cpu", **options)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
def test_own_texts_in_two_languages_and_three_classes(table: Path, tmp_path: Path) -> None:
    result = task.run(data=str(table), device="cpu", out=str(tmp_path / "out"), epochs=4, lr=2e-2, batch_size=20)
    assert result.metrics["accuracy"] == 1
    assert (tmp_path / "out" / "figure.png").stat().st_size > 10_000
