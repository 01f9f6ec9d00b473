"""The LSTM's gates, and its memory against a plain network's; test_rnn.py holds the cell against torch's."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch

from recipes.core.result import Result
from recipes.nlp.text_classification import lstm, transformer
from recipes.nlp.text_classification.encoding import PAD, UNKNOWN, EncodedTexts
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


@pytest.mark.parametrize("family", [lstm, transformer])
def test_a_share_of_the_words_is_hidden_in_training_alone(
    family: Any, reviews: tuple[EncodedTexts, EncodedTexts]
) -> None:
    train_set, test_set = reviews[0].subset(range(400)), reviews[1].subset(range(100))
    options = family.run.recipe.options(word_dropout=0.25, epochs=2, device="cpu")
    model = family.build(options, train_set)
    seen: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    model.embedding.register_forward_pre_hook(lambda _, given: seen[model.training].append(given[0][given[0] != PAD]))
    family.train(model, train_set, test_set, options)

    def unknown(ids: Iterable[torch.Tensor]) -> float:
        return torch.cat(list(ids)).eq(UNKNOWN).float().mean().item()

    assert unknown(seen[False]) == pytest.approx(unknown(test_set.ids), abs=1e-6)
    known = 1 - unknown(train_set.ids)
    assert unknown(seen[True]) == pytest.approx(1 - 0.75 * known, abs=0.02)


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
