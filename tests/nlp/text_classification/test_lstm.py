"""The LSTM's gates, and its memory against a plain network's; test_rnn.py holds the cell against torch's."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from recipes.core.result import Result
from recipes.nlp.text_classification.encoding import EncodedTexts
from recipes.nlp.text_classification.lstm import LSTM, LSTMOptions, build, train
from recipes.nlp.text_classification.rnn import RNN
from recipes.nlp.text_classification.scoring import evaluate


def test_each_number_of_the_memory_starts_to_last_for_another_number_of_words() -> None:
    bias = LSTM(5, 4, reach=13.0).from_word.bias
    torch.testing.assert_close(bias[4:8].sigmoid(), torch.tensor([1 / 2, 5 / 6, 9 / 10, 13 / 14]))
    torch.testing.assert_close(bias[:4], -bias[4:8])
    assert LSTM(5, 4, reach=1.0).from_word.bias[:8].abs().max() == 0
    assert bias[8:].abs().max() < 1


def test_plain_cells_in_the_same_network(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    models = {cell: build(LSTMOptions(cell=cell), reviews[0]) for cell in ("lstm", "rnn")}  # type: ignore[arg-type]
    assert isinstance(models["lstm"].forwards, LSTM)
    assert type(models["rnn"].forwards) is RNN
    gates, plain = (sum(one.numel() for one in model.forwards.parameters()) for model in models.values())
    assert gates == 4 * plain


def test_shuffled_labels_fail_the_bar(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    train_set, test_set = reviews
    options = LSTMOptions(hidden=16, bidirectional=False, epochs=3, device="cpu")
    accuracy = {}
    for name, order in {"shuffled": torch.randperm(len(train_set)), "true": torch.arange(len(train_set))}.items():
        torch.manual_seed(0)
        model = build(options, train_set)
        train(model, replace(train_set, labels=train_set.labels[order]), test_set, options)
        accuracy[name] = evaluate(model, test_set, torch.device("cpu"))["accuracy"]
    assert accuracy["shuffled"] < 0.65
    assert accuracy["true"] > accuracy["shuffled"] + 0.1


@pytest.mark.xdist_group("nlp.text_classification.lstm")
def test_the_lstm_remembers(proved_run: Callable[[str], Result]) -> None:
    result = proved_run("nlp.text_classification.lstm")
    lstm, _, plain, _ = list(result.rows[-1].values())[1:]
    assert lstm > plain + 0.3
