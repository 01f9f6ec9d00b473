"""Recurrent networks: against torch's own on packed sequences, against padding, and against what learns nothing."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.nlp.text_classification import rnn
from recipes.nlp.text_classification.encoding import PAD, EncodedTexts
from recipes.nlp.text_classification.lstm import LSTM
from recipes.nlp.text_classification.memory import DISTANCES, VERDICTS, accuracy_by_distance, verdict_texts
from recipes.nlp.text_classification.rnn import RNN, RNNOptions, TextRNN, build, run, train
from recipes.nlp.text_classification.scoring import evaluate

CPU = torch.device("cpu")
VOCABULARY = 30
SHORT: dict[str, Any] = {"device": "cpu", "claims": False}
every_cell = pytest.mark.parametrize("cell", [RNN, LSTM])


def small(cell: Any = RNN, **options: Any) -> TextRNN:
    torch.manual_seed(0)
    return TextRNN(VOCABULARY, 3, cell, RNNOptions(embedding_size=8, hidden=6, **options)).eval()


def packed(reader: nn.Module, vectors: Tensor, lengths: Tensor) -> Tensor:
    states, _ = reader(pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(states, batch_first=True)[0]


@pytest.mark.parametrize("lengths", [[7, 7, 7], [3, 7, 1]])
def test_cells_equal_torchs_on_packed_sequences(lengths: list[int]) -> None:
    torch.manual_seed(0)
    vectors, ends = torch.randn(3, 7, 5), torch.tensor(lengths)
    inside = torch.arange(7) < ends[:, None]
    order = torch.cat([torch.arange(4) + 4 * part for part in (0, 1, 3, 2)])  # torch has the new memory before o
    pairs: list[tuple[Any, Any, Tensor]] = [
        (RNN(5, 4), nn.RNN(5, 4, batch_first=True), torch.arange(4)),
        (LSTM(5, 4), nn.LSTM(5, 4, batch_first=True), order),
    ]
    with torch.no_grad():
        for mine, other, rows in pairs:
            other.weight_ih_l0[:] = mine.from_word.weight[rows]
            other.weight_hh_l0[:] = mine.from_state.weight[rows]
            other.bias_ih_l0[:] = mine.from_word.bias[rows]
            other.bias_hh_l0.zero_()
            states = mine(vectors)
            torch.testing.assert_close(states * inside[..., None], packed(other, vectors, ends), rtol=0, atol=1e-6)


@every_cell
@pytest.mark.parametrize("pool", ["max", "last"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_padding_changes_nothing(cell: Any, pool: str, bidirectional: bool) -> None:
    model = small(cell, pool=pool, bidirectional=bidirectional)
    texts = [torch.randint(1, VOCABULARY, (length,)) for length in (1, 2, 4, 9, 20)]
    padded = model(pad_sequence([*texts, torch.ones(40).long()], batch_first=True))
    for text, logits in zip(texts, padded, strict=False):
        torch.testing.assert_close(model(text[None])[0], logits, rtol=0, atol=1e-5)


@every_cell
@pytest.mark.parametrize("pool", ["max", "last"])
def test_every_parameter_gets_a_gradient_and_order_matters(cell: Any, pool: str) -> None:
    model = small(cell, pool=pool)
    ids = torch.stack([torch.arange(1, VOCABULARY).roll(3 * row) for row in range(8)])
    for row in range(8):
        ids[row, 10 + row :] = PAD
    F.cross_entropy(model(ids), torch.arange(8) % 3).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    text = torch.tensor([[4, 5, 6, 7]])
    assert not torch.allclose(model(text), model(text[:, [1, 0, 3, 2]]), atol=1e-6)


def test_reading_backwards_is_reading_a_turned_text() -> None:
    model = small(pool="last")
    assert model.backwards is not None
    text = torch.randint(1, VOCABULARY, (1, 6))
    forwards = model.forwards(model.embedding(text))[:, -1]
    backwards = model.backwards(model.embedding(text.flip(1)))[:, -1]
    torch.testing.assert_close(model(text), model.head(torch.cat([forwards, backwards], dim=1)))


def test_orthogonal_weights_keep_a_states_length() -> None:
    weight = RNN(5, 4, orthogonal=True).from_state.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(4), rtol=0, atol=1e-5)


def test_the_first_word_alone_decides() -> None:
    texts = verdict_texts(6, 200, seed=0)
    assert 0.3 < texts.labels.double().mean() < 0.7
    for text, ids, label in zip(texts.texts, texts.ids, texts.labels.tolist(), strict=True):
        words = text.split()
        assert words[0] == VERDICTS[label]
        assert len(words) == len(ids) == 7
        assert not set(words[1:]) & set(VERDICTS)
    assert texts.texts != verdict_texts(6, 200, seed=1).texts


def test_shuffled_verdicts_cannot_be_learned(table: Path) -> None:
    def train_on_noise(model: nn.Module, train_set: EncodedTexts, test_set: EncodedTexts, options: Any) -> None:
        mixed = replace(train_set, labels=train_set.labels[torch.randperm(len(train_set))])
        train(model, mixed, test_set, options)

    result = run(data=str(table), epochs=1, hidden=8, **SHORT)
    assert accuracy_by_distance(RNNOptions, build, train, result, distances=(2,))[2] > 0.95
    assert accuracy_by_distance(RNNOptions, build, train_on_noise, result, distances=(2,))[2] < 0.75


def test_shuffled_labels_fail_the_bar(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    train_set, test_set = reviews
    options = RNNOptions(hidden=16, bidirectional=False, epochs=2, device="cpu")
    accuracy = {}
    for name, order in {"shuffled": torch.randperm(len(train_set)), "true": torch.arange(len(train_set))}.items():
        torch.manual_seed(0)
        model = build(options, train_set)
        train(model, replace(train_set, labels=train_set.labels[order]), test_set, options)
        accuracy[name] = evaluate(model, test_set, CPU)["accuracy"]
    assert accuracy["shuffled"] < 0.65
    assert accuracy["true"] > accuracy["shuffled"] + 0.1


@pytest.mark.parametrize("options", [{"embedding_size": 0}, {"hidden": 0}, {"dropout": 1.0}, {"pool": "mean"}])
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"option {next(iter(options))}"):
        run(**SHORT, **options)


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
@pytest.mark.parametrize("name", ["rnn", "lstm"])
def test_a_written_model_answers_and_exports(table: Path, tmp_path: Path, name: str) -> None:
    """Without its data; the exported file reads texts of any length, word by word."""
    out = tmp_path / "out"
    given = {"hidden": 8, "epochs": 3, "lr": 2e-2, "batch_size": 20}
    result = recipes.run(f"nlp.text_classification.{name}", data=str(table), out=str(out), **SHORT, **given)
    table.unlink()
    trained = recipes.trained(out, device="cpu")
    texts = ["the ball game 7", "很好吃的面", ""]
    encode = result.train_set.vocabulary.encode
    with torch.no_grad():
        expected = [result.model.eval()(encode(text)[None]).softmax(dim=1)[0] for text in texts]
    for answer, shares in zip(trained(texts), expected, strict=True):
        assert list(answer["classes"].values()) == pytest.approx(shares.tolist(), abs=1e-5)
    trained.export(tmp_path / "model.pt2")
    exported = torch.export.load(tmp_path / "model.pt2").module()
    for shape in ((1, 1), (1, 5), (3, 40)):
        ids = torch.randint(1, 4, shape)
        torch.testing.assert_close(exported(ids), trained.model(ids), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_two_processes_with_own_texts(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", rnn.__name__, "--device=cpu", "--shard", "--hidden=8", "--no-bidirectional", "--no-claims"]
    command += [f"--data={table}", f"--out={out}", "--epochs=4", "--lr=0.02", "--batch-size=20"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("this recipe") == 1
    assert {path.name for path in out.iterdir()} >= {"result.json", "figure.png", "model.safetensors", "model.json"}


@pytest.mark.xdist_group("nlp.text_classification.rnn")
def test_the_rnn_forgets(proved_run: Callable[[str], Result]) -> None:
    result = proved_run("nlp.text_classification.rnn")
    assert [row["words after the one that decides"] for row in result.rows] == list(DISTANCES)
