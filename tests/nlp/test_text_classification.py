"""Words, batches and classifiers of texts: against references, and against what learns nothing."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.texts import open_texts
from recipes.nlp import text_classification
from recipes.nlp.text_classification import classical, encoding, task, text_cnn
from recipes.nlp.text_classification.drawing import phrase_evidence, word_evidence
from recipes.nlp.text_classification.encoding import (
    PAD,
    UNKNOWN,
    ByLength,
    EncodedTexts,
    Vocabulary,
    batches_by_length,
    open_encoded,
    phrases,
    shuffled,
    tokenise,
)

CPU = torch.device("cpu")
VOCABULARY = 30
MODELS: dict[str, Callable[[], nn.Module]] = {
    "mean": lambda: task.MeanOfWords(VOCABULARY, 3, width=8),
    "cnn": lambda: text_cnn.TextCNN(VOCABULARY, 3, width=8, windows=(1, 2, 5), filters=12),
}
every_model = pytest.mark.parametrize("name", MODELS)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().eval()


@pytest.fixture(scope="module")
def reviews() -> tuple[EncodedTexts, EncodedTexts]:
    return open_encoded()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't go -- it’s 5 km!", ["don't", "go", "it's", "5", "km"]),
        ("Naïve CAFE\u0301, “étage”…", ["naïve", "café", "étage"]),
        ("我喜欢iPhone手机，真的！", ["我", "喜", "欢", "iphone", "手", "机", "真", "的"]),
        ("とても良い", ["と", "て", "も", "良", "い"]),
        ("이 영화는 좋았다.", ["이", "영화는", "좋았다"]),
        ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया"]),
        ("مُحَمَّد جيد", ["مُحَمَّد", "جيد"]),
        ("Ｇｏｏｄ 😀😀", ["good", "😀", "😀"]),
        ("?!", []),
    ],
)
def test_words_of_many_scripts(text: str, words: list[str]) -> None:
    assert tokenise(text) == words


def test_vocabulary_counts_train_alone() -> None:
    vocabulary = Vocabulary(["b b a", "a b c"], min_freq=2)
    assert vocabulary.words == ["<pad>", "<unk>", "b", "a"]
    assert vocabulary.encode("A c, b").tolist() == [3, UNKNOWN, 2]
    assert vocabulary.encode("a a a", max_words=2).tolist() == [3, 3]
    assert vocabulary.encode("!").tolist() == [UNKNOWN]
    with pytest.raises(InputError, match="min_freq"):
        Vocabulary(["a b c"], min_freq=2)


def test_encoded_texts_are_padded_to_the_longest(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    train_set, test_set = reviews
    ids, labels = test_set.__getitems__([3, 0])
    assert ids.shape == (2, max(len(test_set.ids[3]), len(test_set.ids[0])))
    assert torch.equal(ids[0][ids[0] != PAD], test_set.ids[3])
    assert labels.tolist() == [test_set.labels[3], test_set.labels[0]]
    assert test_set.vocabulary is train_set.vocabulary


def test_batches_hold_texts_of_similar_length(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    loader = batches_by_length(reviews[0], 50)
    assert len(loader) == 80

    def orders() -> list[list[int]]:
        epochs = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            epochs.append(list(loader.sampler))
        return epochs

    first, second = orders()
    assert first != second
    assert [first, second] == orders()
    assert sorted(first) == list(range(4000))
    padding = torch.cat([(ids == PAD).flatten() for ids, _ in loader]).double().mean()
    assert padding < 0.05
    lengths = torch.tensor([len(ids) for ids, _ in loader], dtype=torch.double)
    widths = torch.tensor([ids.shape[1] for ids, _ in loader], dtype=torch.double)
    assert len(lengths) == 80
    assert widths[:40].mean() == pytest.approx(widths[40:].mean().item(), rel=0.15), "short and long ones are mixed"


def test_processes_share_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = torch.randint(1, 40, (103,))
    whole = torch.tensor(list(ByLength(lengths, 10, seed=3))).view(-1, 10)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(encoding, "rank_and_world", lambda rank=rank: (rank, 2))
        sampler = ByLength(lengths, 10, seed=3)
        assert (sampler.share, len(sampler)) == (5, 50)
        shares.append(torch.tensor(list(sampler)).view(-1, 5))
    assert torch.equal(torch.cat(shares, dim=1).sort(dim=1).values, whole.sort(dim=1).values)


@every_model
def test_padding_changes_nothing(name: str) -> None:
    model = build(name)
    with torch.no_grad():
        for parameter in model.parameters():  # biases large enough to answer where there is no word
            parameter += 0.5 * (parameter.ndim == 1)
    texts = [torch.randint(1, VOCABULARY, (length,)) for length in (1, 2, 4, 9, 20)]
    padded = model(nn.utils.rnn.pad_sequence([*texts, torch.ones(40).long()], batch_first=True))
    for text, logits in zip(texts, padded, strict=False):
        torch.testing.assert_close(model(text[None])[0], logits, rtol=0, atol=1e-5)


def test_mean_of_words_is_an_embedding_bag() -> None:
    model = build("mean")
    assert isinstance(model, task.MeanOfWords)
    ids = torch.tensor([[4, 5, 5, PAD], [7, 8, 9, 1]])
    mean = F.embedding_bag(ids, model.embedding.weight, mode="mean", padding_idx=PAD)
    torch.testing.assert_close(model(ids), model.head(mean), rtol=0, atol=1e-6)


def test_cnn_equals_windows_one_by_one() -> None:
    model = build("cnn")
    assert isinstance(model, text_cnn.TextCNN)
    ids = torch.randint(1, VOCABULARY, (7,))
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


def test_cnn_of_the_paper_has_its_parameters() -> None:
    """Windows of 3, 4 and 5 with 100 filters each over vectors of 300 numbers."""
    model = text_cnn.TextCNN(1000, 2, width=300, windows=(3, 4, 5), filters=300)
    assert sum(parameter.numel() for parameter in model.convolutions.parameters()) == 360_300
    assert sum(parameter.numel() for parameter in model.head.parameters()) == 602


@every_model
def test_every_parameter_gets_a_gradient_and_inputs_matter(name: str) -> None:
    model = build(name)
    ids = torch.arange(1, VOCABULARY).repeat(8, 1)
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


@pytest.mark.parametrize("module", [task, text_cnn])
def test_shuffled_labels_fail_the_bar(reviews: tuple[EncodedTexts, EncodedTexts], module: object) -> None:
    train_set, test_set = reviews
    accuracy = {}
    for kind in ("true", "shuffled"):
        torch.manual_seed(0)
        order = torch.randperm(len(train_set)) if kind == "shuffled" else torch.arange(len(train_set))
        model = (
            task.MeanOfWords(len(train_set.vocabulary), 2)
            if module is task
            else text_cnn.TextCNN(len(train_set.vocabulary), 2, windows=(3,), filters=32)
        )
        taught = replace(train_set, labels=train_set.labels[order])
        module.train(model, taught, test_set, epochs=3, batch_size=50, lr=1e-2, device=CPU)  # type: ignore[attr-defined]
        accuracy[kind] = task.evaluate(model, test_set, CPU)["accuracy"]
    assert accuracy["shuffled"] < 0.6
    assert accuracy["true"] > accuracy["shuffled"] + 0.05


@pytest.mark.parametrize("count", [2, 4])
def test_scores_equal_scikit_learn(count: int) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    generator = torch.Generator().manual_seed(count)
    for _ in range(5):
        labels = torch.randint(0, count, (40,), generator=generator) * torch.randint(0, 2, (40,), generator=generator)
        predicted = torch.where(torch.rand(40, generator=generator) < 0.7, labels, 0)
        mine = task.scores(predicted, labels, count)
        rarer = int(torch.bincount(labels, minlength=2).argmin())
        how = {"average": "macro"} if count > 2 else {"pos_label": rarer}
        assert mine["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
        assert mine["f1"] == pytest.approx(f1_score(labels, predicted, **how))


def test_majority_knows_the_classes_alone(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    measured = task.majority(*reviews)
    assert measured["accuracy"] == pytest.approx(0.5, abs=0.01)
    assert measured["loss"] == pytest.approx(np.log(2), abs=1e-4)


def test_shuffling_keeps_the_words(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    mixed = shuffled(reviews[1], seed=1)
    pairs = list(zip(mixed.ids, reviews[1].ids, strict=True))
    assert all(torch.equal(mine.sort().values, theirs.sort().values) for mine, theirs in pairs)
    assert sum(torch.equal(mine, theirs) for mine, theirs in pairs) < 10


def tiny(texts: list[str]) -> EncodedTexts:
    vocabulary = Vocabulary(texts, min_freq=1)
    ids = [vocabulary.encode(text) for text in texts]
    return EncodedTexts(texts, ids, torch.arange(len(texts)) % 2, ["bad", "good"], vocabulary)


def test_evidence_names_the_words_that_matter() -> None:
    dataset = tiny(["a fine film", "a poor film"])
    model = task.MeanOfWords(len(dataset.vocabulary), 2, width=1).eval()
    with torch.no_grad():
        model.embedding.weight.zero_()
        for word, value in (("fine", 3.0), ("poor", -3.0)):
            model.embedding.weight[dataset.vocabulary.number[word]] = value
        model.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model.head.bias.zero_()
    assert word_evidence(model, dataset, 1, CPU).tolist() == [0, -1, 0]
    names, evidence = phrase_evidence(model, dataset, CPU, length=1)
    assert dict(zip(names, evidence.tolist(), strict=True)) == {"a": 0, "film": 0, "fine": 3, "poor": -3}
    assert sorted(phrases(dataset, 2).texts) == ["a fine", "a poor", "fine film", "poor film"]
    assert phrase_evidence(model, dataset, CPU, length=4)[0] == []


@pytest.mark.parametrize("tf_idf", [False, True])
def test_bag_equals_scikit_learn(tf_idf: bool) -> None:
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    train_set, test_set = open_texts()
    kind = TfidfVectorizer if tf_idf else CountVectorizer
    theirs = kind(tokenizer=tokenise, token_pattern=None, lowercase=False, ngram_range=(1, 2))
    mine = classical.Bag(train_set.texts[:500], 2, tf_idf)
    expected = theirs.fit_transform(train_set.texts[:500])
    assert mine.names == theirs.get_feature_names_out().tolist()
    assert abs(mine.transform(train_set.texts[:500]) - expected).max() < 1e-12
    assert abs(mine.transform(test_set.texts) - theirs.transform(test_set.texts)).max() < 1e-12
    assert mine.transform(["?!"]).nnz == 0


@pytest.mark.parametrize("pseudo_count", [1.0, 0.1])
def test_naive_bayes_equals_scikit_learn(pseudo_count: float) -> None:
    from sklearn.naive_bayes import MultinomialNB

    train_set, test_set = open_texts()
    bag = classical.Bag(train_set.texts, 1, tf_idf=True)
    features, labels = bag.transform(train_set.texts), train_set.labels.numpy()
    mine = classical.NaiveBayes(pseudo_count).fit(features, labels)
    theirs = MultinomialNB(alpha=pseudo_count).fit(features, labels)
    np.testing.assert_allclose(mine.coef_, theirs.feature_log_prob_, rtol=0, atol=1e-10)
    unseen = bag.transform(test_set.texts)
    assert (mine.predict(unseen) == theirs.predict(unseen)).all()
    taught_nothing = classical.NaiveBayes().fit(features, np.random.default_rng(0).permutation(labels))
    assert (taught_nothing.predict(unseen) == test_set.labels.numpy()).mean() < 0.58


def test_ngrams() -> None:
    assert classical.ngrams("Not very good", 2) == ["not", "very", "good", "not very", "very good"]
    assert classical.ngrams("好", 3) == ["好"]


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (text_cnn, {"windows": "2,x"}, "option windows: expected whole numbers of at least 1"),
        (text_cnn, {"windows": "0"}, "option windows"),
        (text_cnn, {"filters": 3}, "option filters: expected at least one for each of the 4 windows"),
        (text_cnn, {"dropout": 1.5}, "options width and dropout"),
        (task, {"max_words": 0}, "option max_words: expected a whole number of at least 1"),
        (task, {"min_freq": 10**6}, "option min_freq"),
        (task, {"width": 0}, "option width"),
        (classical, {"longest": 1}, "option longest: expected a whole number of at least 2"),
    ],
)
def test_options_that_cannot_be(module: object, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        module.run(device="cpu", **options)  # type: ignore[attr-defined]


def write_table(path: Path) -> Path:
    """Three classes in two languages, each known by one phrase."""
    kinds = {
        "sport": ("the ball game", "足球比赛"),
        "food": ("a hot soup", "很好吃的面"),
        "rain": ("wet, cold", "下雨"),
    }
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for number in range(120):
            label = list(kinds)[number % 3]
            table.writerow([f"{kinds[label][number % 2]} {number}", label])
    return path


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
@pytest.mark.parametrize("module", [task, text_cnn, classical])
def test_own_texts_in_two_languages_and_three_classes(tmp_path: Path, module: object) -> None:
    options = {} if module is classical else {"epochs": 4, "lr": 2e-2, "batch_size": 20}
    data, out = write_table(tmp_path / "mine.csv"), tmp_path / "out"
    result = module.run(data=str(data), device="cpu", out=str(out), **options)  # type: ignore[attr-defined]
    assert result.metrics["accuracy"] == 1
    assert (out / "figure.png").stat().st_size > 10_000


def test_the_words_start_from_vectors_of_a_file(tmp_path: Path) -> None:
    data, file = write_table(tmp_path / "mine.csv"), tmp_path / "vectors.txt"
    file.write_text("ball 3 0 0 0 0\nsoup 0 3 0 0 0\n")
    result = text_cnn.run(
        data=str(data), vectors=str(file), device="cpu", epochs=1, batch_size=20, lr=1e-9, windows="1", filters=8
    )
    table = result.model.embedding.weight
    assert table.shape[1] == 5
    vocabulary = open_encoded(str(data))[0].vocabulary
    torch.testing.assert_close(table[vocabulary.number["ball"]], torch.tensor([3.0, 0, 0, 0, 0]), rtol=0, atol=1e-5)
    assert table[vocabulary.number["wet"]].abs().max() < 1
    file.write_text("ball 3 0\nsoup 0\n")
    with pytest.raises(InputError, match=r"vectors.txt, row 2: 1 numbers"):
        text_cnn.run(data=str(data), vectors=str(file), device="cpu")


def test_two_processes_with_sharded_weights(tmp_path: Path) -> None:
    data, out = write_table(tmp_path / "mine.csv"), tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "recipes.nlp.text_classification.text_cnn", "--device=cpu", "--shard", "--windows=2"]
    command += [f"--data={data}", f"--out={out}", "--epochs=4", "--lr=0.02", "--batch-size=20"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("this recipe") == 1
    assert {path.name for path in out.iterdir()} == {"result.json", "figure.png", "model.safetensors"}


@pytest.mark.xdist_group("nlp.text_classification")
def test_the_mean_reads_no_order(default_run: Callable[[str], Result]) -> None:
    result = default_run("nlp.text_classification")
    assert all(claim.holds for claim in result.claims)
    assert result.metrics["accuracy"] < 0.75, "words alone tell little of these reviews"


@pytest.mark.xdist_group("nlp.text_classification.text_cnn")
def test_the_cnn_reads_order(default_run: Callable[[str], Result]) -> None:
    result = default_run("nlp.text_classification.text_cnn")
    assert all(claim.holds for claim in result.claims)
    one, _, chosen = (row for row in result.rows if row["model"].startswith("TextCNN"))
    assert one["shuffled"] == pytest.approx(one["accuracy"], abs=0.002)
    assert chosen["accuracy"] > one["accuracy"] + 0.2
    assert chosen["shuffled"] < chosen["accuracy"] - 0.2


@pytest.mark.xdist_group("nlp.text_classification.classical")
def test_ngrams_beat_single_words(default_run: Callable[[str], Result]) -> None:
    result = default_run("nlp.text_classification.classical")
    assert all(claim.holds for claim in result.claims)
    assert result.claims[0].measured > result.claims[0].reference + 0.1
    assert result.model.predict(["It was a bargain.", "It was a letdown."]).tolist() == [1, 0]


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
    assert task.evaluate(model, test_set, CPU)["accuracy"] > least


def test_chinese_is_read_by_its_characters() -> None:
    """Without spaces and without another option: above the linear model on characters and pairs."""
    result = text_cnn.run(data="bundled:reviews_zh", device="cpu")
    assert result.metrics["accuracy"] > result.baseline["accuracy"] + 0.05
    assert all(claim.holds for claim in result.claims[:3])
