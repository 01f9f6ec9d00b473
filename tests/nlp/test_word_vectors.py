"""Word vectors: both losses against what they are by hand, pairs against a plain count, and what teaches nothing."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import recipes
from recipes.core.errors import InputError
from recipes.datasets.passages import open_labeled_passages
from recipes.datasets.texts import Texts
from recipes.datasets.word_vectors import read_vectors
from recipes.nlp import word_vectors
from recipes.nlp.few_labels import accuracy_from_few, few_texts
from recipes.nlp.near_words import (
    DrawnPairs,
    NearWords,
    common_words,
    count_near,
    drawn,
    known_words,
    likeness,
    mutual_information,
    near_counts,
)
from recipes.nlp.nearest_words import signed_words
from recipes.nlp.text_classification import text_cnn
from recipes.nlp.text_classification.encoding import PAD, UNKNOWN, Vocabulary
from recipes.nlp.word_vectors import (
    GloVe,
    SkipGram,
    WordVectorsOptions,
    negative_sampling,
    pairs_in_s,
    ranks,
    reciprocal_rank,
    train,
    weighted_least_squares,
)

CPU = torch.device("cpu")


def differences(loss: Callable[[], torch.Tensor], parameter: torch.nn.Parameter, step: float = 1e-6) -> torch.Tensor:
    """The gradient by moving each number a little up and down."""
    gradient = torch.zeros_like(parameter)
    flat, numbers = gradient.view(-1), parameter.data.view(-1)
    for index in range(len(numbers)):
        numbers[index] += step
        above = loss().item()
        numbers[index] -= 2 * step
        below = loss().item()
        numbers[index] += step
        flat[index] = (above - below) / (2 * step)
    return gradient


def test_skip_grams_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    model = SkipGram(6, 3).double()
    torch.nn.init.normal_(model.near.weight)
    words, neighbors = torch.tensor([1, 4, 1]), torch.tensor([[2, 5, 3], [0, 1, 2], [3, 3, 5]])

    def loss() -> torch.Tensor:
        return negative_sampling(model(words, neighbors))

    loss().backward()
    for table in (model.middle, model.near):
        assert table.weight.grad is not None
        torch.testing.assert_close(table.weight.grad, differences(loss, table.weight), rtol=0, atol=1e-8)


def test_skip_grams_gradient_is_that_of_the_paper() -> None:
    """The word's vector is moved by the sum over its neighbors of (σ(u · v) - true) u."""
    torch.manual_seed(0)
    model = SkipGram(5, 4)
    torch.nn.init.normal_(model.near.weight)
    negative_sampling(model(torch.tensor([2]), torch.tensor([[0, 1, 4]]))).backward()
    word, near = model.middle.weight.detach()[2], model.near.weight.detach()
    expected = sum((torch.sigmoid(near[one] @ word) - float(one == 0)) * near[one] for one in (0, 1, 4))
    torch.testing.assert_close(model.middle.weight.grad[2], expected)


def test_gloves_loss_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    model, pairs, counts = GloVe(4, 3), torch.tensor([[0, 1], [2, 3]]), torch.tensor([2.0, 40.0])
    expected = 0.0
    for (word, neighbour), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        product = model.middle.weight[word] @ model.near.weight[neighbour]
        value = (product + model.middle_bias.weight[word] + model.near_bias.weight[neighbour]).item()
        expected += min(1, (count / 10) ** 0.75) * (value - math.log(count)) ** 2 / 2
    assert weighted_least_squares(model(pairs), counts).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("build", [SkipGram, GloVe])
def test_every_parameter_gets_a_gradient(build: type[SkipGram] | type[GloVe]) -> None:
    torch.manual_seed(0)
    model = build(6, 3)
    if isinstance(model, SkipGram):
        torch.nn.init.normal_(model.near.weight)  # while they are 0, the words' vectors stay
        negative_sampling(model(torch.tensor([1, 2]), torch.tensor([[3, 4], [4, 5]]))).backward()
    else:
        weighted_least_squares(model(torch.tensor([[1, 2], [3, 4]])), torch.tensor([2.0, 3.0])).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_counts_are_those_of_a_plain_count() -> None:
    texts = [torch.tensor([2, 3, 4, 2]), torch.tensor([5]), torch.tensor([3, 5, 3])]
    expected: Counter[tuple[int, int]] = Counter()
    for text in texts:
        for one, word in enumerate(text.tolist()):
            for other, neighbor in enumerate(text.tolist()):
                if 0 < abs(one - other) <= 2:
                    expected[word, neighbor] += 1 / abs(one - other)  # type: ignore[assignment]
    table = near_counts(texts, 6, window=2)
    for word, neighbor in torch.cartesian_prod(torch.arange(6), torch.arange(6)).tolist():
        assert table[word, neighbor].item() == pytest.approx(expected[word, neighbor])


def test_all_pairs_of_a_text_are_counted() -> None:
    near = count_near(["one two one", "two one"], 1, window=5)
    assert near.vocabulary.words[2:] == ["one", "two"]
    assert near.occurs.tolist() == [0, 0, 3, 2]
    assert {tuple(pair): count for pair, count in zip(near.pairs.tolist(), near.counts.tolist(), strict=True)} == {
        (2, 2): 1.0,  # at a distance of 2, from either side
        (2, 3): 3.0,
        (3, 2): 3.0,
    }


def near_words(pairs: list[list[int]], counts: list[float], occurs: list[int]) -> NearWords:
    words = Vocabulary([" ".join(f"w{n}" for n in range(len(occurs) - 2))], min_freq=1)
    return NearWords(torch.tensor(pairs), torch.tensor(counts), torch.tensor(occurs), words)


def test_common_words_are_drawn_less_often() -> None:
    torch.manual_seed(0)
    near = near_words([[2, 3], [3, 3]], [100.0, 100.0], [0, 0, 100, 99_900])
    words, _ = DrawnPairs(near, 1, common=1e-3).__getitems__(range(40_000))
    kept = math.sqrt(1e-3 / 0.999)  # of the common word, once in the first pair and twice in the second
    assert (words == 2).double().mean().item() == pytest.approx(1 / (1 + kept), abs=0.005)


def test_words_are_drawn_by_the_power_of_their_counts() -> None:
    torch.manual_seed(0)
    near = near_words([[2, 3], [3, 2]], [1.0, 1.0], [0, 0, 1, 16])
    words, neighbors = DrawnPairs(near, 3000, common=1.0).__getitems__([0, 1])
    assert (words + neighbors[:, 0]).tolist() == [5, 5]
    assert (neighbors[:, 1:] == 3).double().mean().item() == pytest.approx(8 / 9, abs=0.02)
    assert neighbors.min() == 2  # never the padding or the unknown word
    assert set(drawn(torch.tensor([0.0, 0.0, 1.0, 1.0, 2.0]).double(), 50).tolist()) == {2, 4}


def test_rare_words_are_left_out() -> None:
    vocabulary = Vocabulary(["one two one", "two three"], min_freq=2)
    assert [ids.tolist() for ids in known_words(["one three two", ""], vocabulary)] == [[2, 3], []]
    assert {PAD, UNKNOWN} == {0, 1}


def test_the_commonest_words_are_known() -> None:
    texts = ["one two three", "one two", "one"]
    assert common_words(texts, 1, most=2).words == ["<pad>", "<unk>", "one", "two"]
    assert common_words(texts, 2).number == {"<pad>": 0, "<unk>": 1, "one": 2, "two": 3}
    assert [ids.tolist() for ids in known_words(texts, common_words(texts, 1, most=2))] == [[2, 3], [2, 3], [2]]


def test_forms_in_s() -> None:
    words = ["value", "it", "its", "tree", "values", "trees", "__doc__", "this"]
    assert pairs_in_s(words).tolist() == [[0, 4], [3, 5]]
    assert pairs_in_s(words, most=1).tolist() == [[0, 4]]
    assert pairs_in_s(["好"]).shape == (0, 2)


def test_ranks_by_hand() -> None:
    assert reciprocal_rank(torch.tensor([[0.1, 0.9, 0.5], [3.0, 2.0, 1.0]]), torch.tensor([2, 0])) == (1 / 2 + 1) / 2
    words = ["value", "values", "tree", "trees", "sand"]
    table = torch.tensor([[1.0, 0.0, 0.1], [1.0, 1.0, 0.1], [1.0, 0.0, -0.1], [1.0, 1.0, -0.1], [1.0, 0.4, 0.0]])
    # The other stem is the most alike, sand comes second, the own form third; an analogy finds it first.
    assert ranks(table, words) == {"form in -s": pytest.approx(1 / 3), "by analogy": 1}
    assert ranks(table, ["好", "的", "是", "在", "了"]) == {}


def test_the_sum_of_cosines_is_the_cosine_with_the_sum() -> None:
    torch.manual_seed(0)
    words = [f"{stem}{end}" for stem in ("value", "tree", "word") for end in ("", "s")]
    words += [f"w{number}" for number in range(24)]
    table = torch.randn(30, 8)
    unit = torch.nn.functional.normalize(table, dim=1)
    total = []
    for a, form in ((0, 1), (2, 3), (4, 5)):
        for b, right in ((0, 1), (2, 3), (4, 5)):
            if a != b:
                scores = unit @ (unit[b] + unit[form] - unit[a])
                scores[[a, form, b]] = -torch.inf
                total.append(1 / (1 + (scores > scores[right]).sum().item()))
    assert ranks(table, words)["by analogy"] == pytest.approx(sum(total) / len(total))


def test_mutual_information_by_hand() -> None:
    counts = torch.tensor([[0.0, 3.0], [3.0, 2.0]])
    expected = [[0.0, math.log(3 * 8 / (3 * 5))], [math.log(3 * 8 / (3 * 5)), 0.0]]
    torch.testing.assert_close(mutual_information(counts), torch.tensor(expected))


def test_shuffled_text_teaches_nothing() -> None:
    """Two groups of words, each among its own: the vectors know them, unless the text is in disorder."""
    torch.manual_seed(0)
    groups = torch.randint(2, (400, 1)) * 10
    text = groups + torch.randint(10, (400, 20))
    apart = {}
    for name, ids in (("in order", text), ("in disorder", text.flatten()[torch.randperm(8000)].view(400, 20))):
        near = count_near([" ".join(f"w{number:02}" for number in row) for row in ids.tolist()], 1, window=3)
        group = torch.tensor([int(word[1:]) >= 10 for word in near.vocabulary.words[2:]])
        for method, network, epochs in (("skip_gram", SkipGram, 150), ("glove", GloVe, 150)):
            options = WordVectorsOptions(method=method, epochs=epochs, batch_size=64, device=CPU)
            model = network(22, 8)
            train(model, near, options)
            alike, own = likeness(model.vectors()[2:]), group[:, None] == group
            apart[method, name] = (alike[own].mean() - alike[~own].mean()).item()
    for method in ("skip_gram", "glove"):
        assert apart[method, "in order"] > 0.4
        assert abs(apart[method, "in disorder"]) < 0.25


def test_a_few_labels_tell_what_vectors_hold() -> None:
    """Vectors that tell the classes apart, and the same ones with every text's label drawn at random."""
    names = ["w0", "w1", "w2", "w3"]
    texts, labels = [f"{name} filler" for name in names for _ in range(20)], torch.arange(80) // 20
    vocabulary = Vocabulary(texts, min_freq=1)
    table = torch.zeros(len(vocabulary), 4)
    for number, name in enumerate(names):
        table[vocabulary.number[name], number] = 1
    true = Texts(texts, labels, names)
    assert accuracy_from_few(table, vocabulary, true, true, 3, 0) == 1
    shuffled = Texts(texts, labels[torch.randperm(80, generator=torch.Generator().manual_seed(0))], names)
    assert accuracy_from_few(table, vocabulary, shuffled, true, 3, 0) < 0.5
    assert few_texts(true, 3, 0).labels.bincount().tolist() == [3, 3, 3, 3]


def test_words_and_signs() -> None:
    assert signed_words("value") == [("value", 1.0)]
    assert signed_words("Values - value + tree") == [("values", 1.0), ("value", -1.0), ("tree", 1.0)]
    assert signed_words("built-in") == [("built", 1.0), ("in", 1.0)]
    assert signed_words("- value") == [("value", -1.0)]


@pytest.fixture(scope="module")
def own_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("topics")
    stems = ["value", "tree", "word", "name", "list", "thing", "place", "line", "point", "table", "house"]
    for number, topic in enumerate(("first", "second")):
        lines = [f"one {stem} and many {stem}s here are all that there is to say of {topic} {stem}" for stem in stems]
        text = "\n\n".join(f"{line} {turn}" for line in lines for turn in range(6 + number))
        (folder / f"{topic}.txt").write_text(text)
    return folder


def test_trained_vectors_are_used(own_text: Path, tmp_path: Path) -> None:
    """Nearest words in memory and from the folder, and the file of vectors that classifiers start from."""
    options: dict[str, Any] = {"data": str(own_text), "device": "cpu", "epochs": 1, "claims": False}
    result = word_vectors.run(out=str(tmp_path / "out"), size=8, **options)
    trained = recipes.trained(tmp_path / "out", device="cpu")
    (nearest, analogy, unknown) = trained(["value", "values - value + tree", "xylophone"])
    alike = likeness(result.model.vectors()[2:])
    words = result.train_set.vocabulary.words[2:]
    row = alike[words.index("value")].clone()
    row[words.index("value")] = -torch.inf
    assert nearest["nearest"][0]["word"] == words[int(row.argmax())]
    assert nearest["nearest"][0]["cosine"] == pytest.approx(row.max().item(), abs=1e-5)
    assert not {"value", "values", "tree"} & {one["word"] for one in analogy["nearest"]}
    assert unknown == {"text": "xylophone", "nearest": [], "unknown": ["xylophone"]}
    assert trained.export(tmp_path / "out" / "vectors.onnx") < 1e-4

    saved = tmp_path / "out" / "vectors.txt"
    read = read_vectors(saved)
    assert read.words == words
    torch.testing.assert_close(read.table, result.model.vectors()[2:], rtol=1e-3, atol=1e-4)
    again = word_vectors.run(vectors=str(saved), lr=1e-9, **options)
    assert again.model.vectors().shape == (len(words) + 2, 8)
    torch.testing.assert_close(again.model.vectors()[2:], read.table, rtol=0, atol=1e-6)
    reviews = text_cnn.run(vectors=str(saved), device="cpu", epochs=1, claims=False, steps=1)
    assert reviews.model.embedding.weight.shape[1] == 8


def test_own_datasets_and_bad_options(own_text: Path) -> None:
    train_set, test_set, _ = open_labeled_passages(own_text)
    pair = [list(zip(part.texts, part.labels.tolist(), strict=True)) for part in (train_set, test_set)]
    result = word_vectors.run(data=pair, device="cpu", epochs=1, claims=False)
    assert result.test_set.texts == test_set.texts
    with pytest.raises(InputError, match="option window: expected a whole number of at least 1, got 0"):
        word_vectors.run(device="cpu", window=0)
