"""Recurrent networks: against torch's own on packed sequences, against padding, and against what learns nothing."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.nlp.text_classification import lstm, rnn
from recipes.nlp.text_classification.encoding import PAD, EncodedTexts, open_encoded
from recipes.nlp.text_classification.lstm import LSTM, TextLSTM
from recipes.nlp.text_classification.memory import DISTANCES, VERDICTS, accuracy_by_distance, verdict_texts
from recipes.nlp.text_classification.rnn import RNN, TextRNN
from recipes.nlp.text_classification.scoring import evaluate

CPU = torch.device("cpu")
VOCABULARY = 30
KINDS: dict[str, type[TextRNN] | type[TextLSTM]] = {"rnn": TextRNN, "lstm": TextLSTM}
every_kind = pytest.mark.parametrize("kind", KINDS)


def build(kind: str, **options: object) -> Any:
    torch.manual_seed(0)
    return KINDS[kind](VOCABULARY, 3, width=8, hidden=6, **options).eval()  # type: ignore[arg-type]


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
            states = mine(vectors, inside)
            torch.testing.assert_close(states * inside[..., None], packed(other, vectors, ends), rtol=0, atol=1e-6)
            last = states[torch.arange(3), ends - 1]
            assert torch.equal(states[:, -1], last), "padding leaves the last state as it is"


@every_kind
@pytest.mark.parametrize("pool", ["max", "last"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_padding_changes_nothing(kind: str, pool: str, bidirectional: bool) -> None:
    model = build(kind, pool=pool, bidirectional=bidirectional)
    texts = [torch.randint(1, VOCABULARY, (length,)) for length in (1, 2, 4, 9, 20)]
    padded = model(pad_sequence([*texts, torch.ones(40).long()], batch_first=True))
    for text, logits in zip(texts, padded, strict=False):
        torch.testing.assert_close(model(text[None])[0], logits, rtol=0, atol=1e-5)


@every_kind
@pytest.mark.parametrize("pool", ["max", "last"])
def test_every_parameter_gets_a_gradient_and_order_matters(kind: str, pool: str) -> None:
    model = build(kind, pool=pool)
    ids = torch.stack([torch.arange(1, VOCABULARY).roll(3 * row) for row in range(8)])
    for row in range(8):
        ids[row, 10 + row :] = PAD
    logits = model(ids)
    F.cross_entropy(logits, torch.arange(8) % 3).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    text = torch.tensor([[4, 5, 6, 7]])
    assert not torch.allclose(model(text), model(text[:, [1, 0, 3, 2]]), atol=1e-6)


def test_reading_backwards_is_reading_a_turned_text() -> None:
    model = build("rnn", pool="last")
    text = torch.randint(1, VOCABULARY, (1, 6))
    inside = torch.ones(1, 6, dtype=torch.bool)
    forwards = model.forwards(model.embedding(text), inside)[:, -1]
    backwards = model.backwards(model.embedding(text.flip(1)), inside)[:, -1]
    torch.testing.assert_close(model(text), model.head(torch.cat([forwards, backwards], dim=1)))


def test_forget_gates_start_open() -> None:
    reader = LSTM(5, 4, open_gates=3.0)
    assert reader.from_word.bias[4:8].tolist() == [3.0] * 4
    assert reader.from_word.bias[:4].abs().max() < 1


def test_the_first_word_alone_decides() -> None:
    texts = verdict_texts(6, 200, seed=0)
    assert 0.3 < texts.labels.double().mean() < 0.7
    for text, ids, label in zip(texts.texts, texts.ids, texts.labels.tolist(), strict=True):
        words = text.split()
        assert words[0] == VERDICTS[label]
        assert len(words) == len(ids) == 7
        assert not set(words[1:]) & set(VERDICTS)
    assert texts.texts != verdict_texts(6, 200, seed=1).texts


def test_shuffled_verdicts_cannot_be_learned() -> None:
    def train_on_noise(model: nn.Module, train_set: EncodedTexts, *rest: object, **options: object) -> object:
        mixed = replace(train_set, labels=train_set.labels[torch.randperm(len(train_set))])
        return rnn.train(model, mixed, *rest, **options)  # type: ignore[arg-type]

    def reader(words: int) -> TextRNN:
        return TextRNN(words, 2, width=8, hidden=8, bidirectional=False, pool="last", dropout=0)

    assert accuracy_by_distance(reader, rnn.train, CPU, distances=(2,))[2] > 0.95
    assert accuracy_by_distance(reader, train_on_noise, CPU, distances=(2,))[2] < 0.75  # type: ignore[arg-type]


@pytest.mark.parametrize("module", [rnn, lstm])
def test_shuffled_labels_fail_the_bar(module: ModuleType) -> None:
    train_set, test_set = open_encoded()
    kind = TextRNN if module is rnn else TextLSTM
    accuracy = {}
    for name, order in {"shuffled": torch.randperm(len(train_set)), "true": torch.arange(len(train_set))}.items():
        torch.manual_seed(0)
        model = kind(len(train_set.vocabulary), 2, hidden=16, bidirectional=False)
        taught = replace(train_set, labels=train_set.labels[order])
        module.train(model, taught, test_set, epochs=2, batch_size=50, lr=1e-2, device=CPU)
        accuracy[name] = evaluate(model, test_set, CPU)["accuracy"]
    assert accuracy["shuffled"] < 0.65
    assert accuracy["true"] > accuracy["shuffled"] + 0.1


@pytest.mark.parametrize("module", [rnn, lstm])
@pytest.mark.parametrize("options", [{"width": 0}, {"hidden": 0}, {"dropout": 1.0}])
def test_options_that_cannot_be(module: ModuleType, options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="options width, hidden and dropout"):
        module.run(device="cpu", **options)


def test_two_processes_with_own_texts(tmp_path: Path) -> None:
    data, out = tmp_path / "mine.csv", tmp_path / "out"
    kinds = {"sport": "the ball game was long", "food": "a hot soup 很好吃", "rain": "wet, cold and grey"}
    rows = [f'"{kinds[label]} {number}",{label}' for number in range(40) for label in kinds]
    data.write_text("\n".join(["text,label", *rows]), "utf-8")
    script = "from recipes.nlp.text_classification import memory, rnn; "
    script += "from recipes.core.command_line import main; "
    script += "memory.accuracy_by_distance.__kwdefaults__['distances'] = (1,); main(rnn.run)"
    (tmp_path / "run.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(tmp_path / "run.py"), "--device=cpu", "--shard", "--hidden=8", "--no-bidirectional"]
    command += [f"--data={data}", f"--out={out}", "--epochs=4", "--lr=0.02", "--batch-size=20"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("this recipe") == 1
    assert {path.name for path in out.iterdir()} == {"result.json", "figure.png", "model.safetensors"}


@pytest.mark.xdist_group("nlp.text_classification.rnn")
def test_the_rnn_forgets(default_run: Callable[[str], Result]) -> None:
    result = default_run("nlp.text_classification.rnn")
    assert all(claim.holds for claim in result.claims)
    assert [row["words after the one that decides"] for row in result.rows] == list(DISTANCES)


@pytest.mark.xdist_group("nlp.text_classification.lstm")
def test_the_lstm_remembers(default_run: Callable[[str], Result]) -> None:
    result = default_run("nlp.text_classification.lstm")
    assert all(claim.holds for claim in result.claims)
    assert result.rows[-1]["LSTM"] > result.rows[-1]["plain RNN"] + 0.3
