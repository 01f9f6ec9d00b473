"""TextCNN: against windows one by one, against padding, and against what learns nothing."""

import csv
import importlib
import json
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

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets import word_vectors
from recipes.datasets.plain import word_vectors as lean_word_vectors
from recipes.datasets.texts import open_texts
from recipes.nlp.text_classification.encoding import PAD, EncodedTexts, TextOptions, open_words
from recipes.nlp.text_classification.scoring import accuracy_in_disorder, evaluate
from recipes.nlp.text_classification.text_cnn import BUCKETS, TextCNN, TextCNNOptions, build, run, train

CPU = torch.device("cpu")


def small_cnn() -> TextCNN:
    torch.manual_seed(0)
    return TextCNN(30, 3, embedding_size=8, windows=(1, 2, 5), filters=12).eval()


def test_padding_changes_nothing() -> None:
    model = small_cnn()
    with torch.no_grad():
        for parameter in model.parameters():  # biases large enough to answer where there is no word
            parameter += 0.5 * (parameter.ndim == 1)
    texts = [torch.randint(1, 30, (length,)) for length in (1, 2, 4, 9, 20)]
    padded = model(nn.utils.rnn.pad_sequence([*texts, torch.ones(40).long()], batch_first=True))
    for text, logits in zip(texts, padded, strict=False):
        torch.testing.assert_close(model(text[None])[0], logits, rtol=0, atol=1e-5)


def test_cnn_equals_windows_one_by_one() -> None:
    model = small_cnn()
    ids = torch.randint(1, 30, (7,))
    strongest: list[Tensor] = []
    for convolution in model.convolutions:
        (window,) = convolution.kernel_size
        words = [model.embedding.weight[number] for number in ids]
        edge = [torch.zeros(8)] * (window - 1)
        words = [*edge, *words, *edge]
        answers = []
        for start in range(len(words) - window + 1):
            phrase = torch.stack(words[start : start + window], dim=1)  # (width, window)
            answers.append((convolution.weight * phrase).sum(dim=(1, 2)) + convolution.bias)
        strongest.append(torch.stack(answers).relu().amax(dim=0))
    torch.testing.assert_close(model(ids[None])[0], model.head(torch.cat(strongest)), rtol=0, atol=1e-5)


def test_runs_of_words_are_added_up_one_by_one() -> None:
    """The wide half, against a loop over the runs of a text; it takes nothing from padding, and learns."""
    torch.manual_seed(0)
    model = TextCNN(30, 3, filters=12, ngrams=3).eval()
    texts = [torch.randint(1, 30, (length,)) for length in (1, 2, 9)]
    padded = model(nn.utils.rnn.pad_sequence(texts, batch_first=True))
    for ids, logits in zip(texts, padded, strict=True):
        words, runs = ids.tolist(), []
        for end in range(1, len(words) + 1):
            key = 0
            for word in reversed(words[max(0, end - 3) : end]):
                key = (key * 1_000_003 + word + 1) % (2**31 - 1)
                runs.append(model.hashed.weight[key % (BUCKETS - 1) + 1])
        model.ngrams = 1
        deep = model(ids[None])[0]
        model.ngrams = 3
        wide = model.wide(torch.stack(runs).sum(dim=0) / len(runs) ** 0.5)
        torch.testing.assert_close(logits, deep + wide, rtol=0, atol=1e-5)
    padded.sum().backward()
    assert model.hashed.weight.grad is not None
    assert model.hashed.weight.grad[PAD].abs().sum() == 0
    assert (model.hashed.weight.grad.abs().sum(dim=1) > 0).sum() >= 3


def test_cnn_of_the_paper_has_its_parameters() -> None:
    """Windows of 3, 4 and 5 with 100 filters each over vectors of 300 numbers."""
    model = TextCNN(1000, 2, embedding_size=300, windows=(3, 4, 5), filters=300)
    assert sum(parameter.numel() for parameter in model.convolutions.parameters()) == 360_300
    assert sum(parameter.numel() for parameter in model.head.parameters()) == 602


def test_every_parameter_gets_a_gradient_and_inputs_matter() -> None:
    model = small_cnn()
    ids = torch.arange(1, 30).repeat(8, 1)
    for row in range(8):
        ids[row] = ids[row].roll(row * 3)
        ids[row, 10 + row :] = PAD
    logits = model(ids)
    F.cross_entropy(logits, torch.arange(8) % 3).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key
    assert logits.std(dim=0).min() > 0
    assert model.embedding.weight.grad[PAD].abs().sum() == 0


def test_shuffled_labels_fail_the_bar(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    train_set, test_set = reviews
    options = TextCNNOptions(windows="3", filters=32, epochs=3, lr=1e-2, device="cpu")
    accuracy = {}
    for kind in ("true", "shuffled"):
        torch.manual_seed(0)
        order = torch.randperm(len(train_set)) if kind == "shuffled" else torch.arange(len(train_set))
        model = build(options, train_set)
        train(model, replace(train_set, labels=train_set.labels[order]), test_set, options)
        accuracy[kind] = evaluate(model, test_set, CPU)["accuracy"]
    assert accuracy["shuffled"] < 0.6
    assert accuracy["true"] > accuracy["shuffled"] + 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": "2,x"}, "option windows: expected whole numbers of at least 1"),
        ({"windows": "0"}, "option windows"),
        ({"filters": 3}, "option filters: expected at least one for each of the 4 windows"),
        ({"dropout": 1.5}, "option dropout"),
        ({"embedding_size": 0}, "option embedding_size"),
        ({"max_words": 0}, "option max_words: expected a whole number of at least 1"),
        ({"min_freq": 10**6}, "option min_freq"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(device="cpu", **options)


def write_vectors(path: Path) -> Path:
    path.write_text("ball 3 0 0 0 0\nsoup 0 3 0 0 0\n")
    return path


SHORT: dict[str, Any] = {"device": "cpu", "batch_size": 20, "claims": False}


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
def test_own_texts_in_two_languages_and_three_classes(table: Path, tmp_path: Path) -> None:
    result = run(data=str(table), out=str(tmp_path / "out"), epochs=4, lr=2e-2, **SHORT)
    assert result.metrics["accuracy"] == 1
    assert (tmp_path / "out" / "figure.png").stat().st_size > 10_000


def test_the_words_start_from_vectors_of_a_file(table: Path, tmp_path: Path) -> None:
    file = write_vectors(tmp_path / "vectors.txt")
    result = run(data=str(table), vectors=str(file), epochs=1, lr=1e-9, windows="1", filters=8, **SHORT)
    weights, vocabulary = result.model.embedding.weight, result.train_set.vocabulary
    assert weights.shape[1] == 5
    torch.testing.assert_close(weights[vocabulary.number["ball"]], torch.tensor([3.0, 0, 0, 0, 0]), rtol=0, atol=1e-5)
    assert weights[vocabulary.number["wet"]].abs().max() < 1
    file.write_text("ball 3 0\nsoup 0\n")
    with pytest.raises(InputError, match=r"vectors.txt, row 2: 1 numbers"):
        run(data=str(table), vectors=str(file), **SHORT)


def test_the_lean_vectors_are_the_same(table: Path, tmp_path: Path) -> None:
    file = write_vectors(tmp_path / "vectors.txt")
    (words, _) = open_words(TextOptions(data=str(table)))
    tables = []
    for module in (word_vectors, lean_word_vectors):
        embedding = nn.Embedding.from_pretrained(torch.zeros(len(words.vocabulary), 5))
        found = module.read_vectors(str(file), words.vocabulary.words)  # type: ignore[attr-defined]
        module.start_from(embedding, words.vocabulary.words, found)  # type: ignore[attr-defined]
        tables.append(embedding.weight)
    assert tables[0].abs().sum() == 6
    assert torch.equal(*tables)


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("pretrained", [False, True])
def test_a_written_model_answers_without_its_data(table: Path, tmp_path: Path, pretrained: bool) -> None:
    """From the vocabulary in model.json; the file of vectors is no longer needed either."""
    given = {"vectors": str(write_vectors(tmp_path / "vectors.txt"))} if pretrained else {}
    out = tmp_path / "out"
    result = run(data=str(table), out=str(out), epochs=2, lr=2e-2, max_words=5, **given, **SHORT)
    for path in tmp_path.glob("*.*"):
        path.unlink()
    texts = ["the ball game 7", "很好吃的面", "", "unknown words alone, and many of them"]
    found = recipes.trained(out, device="cpu")(texts, batch_size=3)
    encode = result.train_set.vocabulary.encode
    with torch.no_grad():
        expected = [result.model.eval()(encode(text, 5)[None]).softmax(dim=1)[0] for text in texts]
    for text, answer, shares in zip(texts, found, expected, strict=True):
        assert answer["text"] == text
        assert list(answer["classes"]) == ["food", "rain", "sport"]
        assert list(answer["classes"].values()) == pytest.approx(shares.tolist(), abs=1e-5)
        assert answer["class"] == result.test_set.classes[int(shares.argmax())]
        assert answer["probability"] == pytest.approx(shares.max().item(), abs=1e-5)


def test_an_exported_file_takes_texts_of_any_number_and_length(tmp_path: Path) -> None:
    """Even where the held-out texts, on which it is checked, are of one word."""
    pair = [("fine", 1), ("poor", 0)] * 10, [("fine", 1), ("poor", 0)]
    run(data=pair, out=str(tmp_path / "out"), epochs=1, **SHORT)
    trained = recipes.trained(tmp_path / "out", device="cpu")
    trained.export(tmp_path / "model.pt2")
    exported = torch.export.load(tmp_path / "model.pt2").module()
    for shape in ((1, 1), (1, 5), (3, 40)):
        ids = torch.randint(1, 4, shape)
        torch.testing.assert_close(exported(ids), trained.model(ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
def test_the_lean_openers_read_the_same(tmp_path: Path, format: str) -> None:
    rows = [("a fine, fine film", "good"), ("a “poor” one", "bad"), ("x y", "good")]
    for part, count in (("train", 3), ("test", 2)):
        with (tmp_path / f"{part}.{format}").open("w", encoding="utf-8", newline="") as file:
            if format == "csv":
                csv.writer(file).writerows([("text", "label"), *rows[:count]])
            elif format == "tsv":
                file.writelines(f"{text}\t{label}\n" for text, label in rows[:count])
            else:
                file.writelines(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows[:count])
    lean = importlib.import_module(f"recipes.datasets.plain.texts_{format}").open_texts(str(tmp_path))
    for found, expected in zip(lean, open_texts(tmp_path), strict=True):
        assert found.texts == expected.texts
        assert found.labels.tolist() == expected.labels.tolist()
        assert found.classes == expected.classes


@pytest.mark.slow
def test_two_processes_with_sharded_weights(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "recipes.nlp.text_classification.text_cnn", "--device=cpu", "--shard", "--windows=2"]
    command += [f"--data={table}", f"--out={out}", "--epochs=4", "--lr=0.02", "--batch-size=20", "--no-claims"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("this recipe") == 1
    assert {path.name for path in out.iterdir()} >= {"result.json", "figure.png", "model.safetensors", "model.json"}


@pytest.mark.xdist_group("nlp.text_classification.text_cnn")
def test_the_cnn_reads_order(proved_run: Callable[[str], Result]) -> None:
    result = proved_run("nlp.text_classification.text_cnn")
    one = result.runs["windows=1"]
    assert accuracy_in_disorder(one) == pytest.approx(one["accuracy"], abs=0.002)
    assert result["accuracy"] > one["accuracy"] + 0.2
    assert accuracy_in_disorder(result) < result["accuracy"] - 0.2


def test_chinese_is_read_by_its_characters() -> None:
    """Without spaces and without another option: above the linear model on runs of characters."""
    result = run(data="bundled:reviews_zh", device="cpu", claims=False)
    assert result["accuracy"] > result.baseline["accuracy"] + 0.05
