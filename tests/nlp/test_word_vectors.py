"""Word vectors: both losses against what they are by hand, pairs against a plain count, and what teaches nothing."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.nlp import word_vectors
from recipes.nlp.few_labels import held_out_passages
from recipes.nlp.near_words import (
    CountedPairs,
    NeighbourPairs,
    common_words,
    counted,
    known_words,
    near_pairs,
    noise,
    thinned,
)
from recipes.nlp.related_words import analogy_rank, likeness, mutual_information, nearest, neighbour_rank, pairs_in_s
from recipes.nlp.text_classification.encoding import PAD, UNKNOWN, Vocabulary
from recipes.nlp.word_vectors import GloVe, SkipGram, negative_sampling, weighted_least_squares

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
    words, neighbours = torch.tensor([1, 4, 1]), torch.tensor([[2, 5, 3], [0, 1, 2], [3, 3, 5]])

    def loss() -> torch.Tensor:
        return negative_sampling(model(words, neighbours))

    loss().backward()
    for table in (model.middle, model.near):
        assert table.weight.grad is not None
        torch.testing.assert_close(table.weight.grad, differences(loss, table.weight), rtol=0, atol=1e-8)


def test_skip_grams_gradient_is_that_of_the_paper() -> None:
    """The word's vector is moved by the sum over its neighbours of (σ(u · v) - true) u."""
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


def test_pairs_are_those_of_a_plain_count() -> None:
    texts = [torch.tensor([2, 3, 4, 2]), torch.tensor([5]), torch.tensor([3, 5, 3])]
    pairs, distances = near_pairs(texts, window=2)
    expected: Counter[tuple[int, int, int]] = Counter()
    for text in texts:
        for one, word in enumerate(text.tolist()):
            for other, neighbour in enumerate(text.tolist()):
                if 0 < abs(one - other) <= 2:
                    expected[word, neighbour, abs(one - other)] += 1
    assert Counter(zip(*pairs.T.tolist(), distances.tolist(), strict=True)) == expected
    table = counted(pairs, distances, 6)
    for word, neighbour in torch.cartesian_prod(torch.arange(6), torch.arange(6)).tolist():
        by_hand = sum(count / distance for (a, b, distance), count in expected.items() if (a, b) == (word, neighbour))
        assert table[word, neighbour].item() == pytest.approx(by_hand)


def test_near_and_rare_words_are_kept_more_often() -> None:
    torch.manual_seed(0)
    pairs = torch.tensor([[2, 3], [2, 3], [3, 3]]).repeat(20_000, 1)
    distances = torch.tensor([1, 4, 1]).repeat(20_000)
    kept = thinned(pairs, distances, torch.tensor([0, 0, 100, 99_900]), window=4)
    common = math.sqrt(1e-3 / 0.999)
    assert (kept[:, 0] == 3).sum().item() / 20_000 == pytest.approx(common**2, abs=0.002)
    assert (kept[:, 0] == 2).sum().item() / 20_000 == pytest.approx(common * (1 + 1 / 4), rel=0.1)


def test_words_are_drawn_by_the_power_of_their_counts() -> None:
    torch.manual_seed(0)
    chances = noise(torch.tensor([5, 5, 1, 16]))
    assert chances.tolist() == [0, 0, 1, 8]
    words, neighbours = NeighbourPairs(torch.tensor([[2, 3], [3, 2]]), chances, 3000).__getitems__([1, 0])
    assert words.tolist() == [3, 2]
    assert neighbours[:, 0].tolist() == [2, 3]
    assert (neighbours[:, 1:] == 3).float().mean().item() == pytest.approx(8 / 9, abs=0.02)


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
    assert pairs_in_s(words, least=2).tolist() == [[0, 4], [3, 5]]
    assert pairs_in_s(words, least=2, most=1).tolist() == [[0, 4]]
    with pytest.raises(InputError, match="2 words that also come with an s; expected at least 10"):
        pairs_in_s(words)


def test_ranks_by_hand() -> None:
    words = ["value", "values", "tree", "trees", "sand"]
    table = torch.tensor([[1.0, 0.0, 0.1], [1.0, 1.0, 0.1], [1.0, 0.0, -0.1], [1.0, 1.0, -0.1], [1.0, 0.4, 0.0]])
    pairs = pairs_in_s(words, least=2)
    alike = likeness(table)
    # The other stem is the most alike, sand comes second, the own form third.
    assert neighbour_rank(alike, pairs) == pytest.approx(1 / 3)
    # For an analogy the words of the question are out: "sand" is before "trees", unless the difference is added.
    assert analogy_rank(alike, pairs, offset=False) == pytest.approx(1 / 2)
    assert analogy_rank(alike, pairs) == 1
    assert nearest(alike, words, "value", 2) == "tree, sand"


def test_the_sum_of_cosines_is_the_cosine_with_the_sum() -> None:
    torch.manual_seed(0)
    table, pairs = torch.randn(30, 8), torch.tensor([[0, 1], [2, 3], [4, 5]])
    unit = torch.nn.functional.normalize(table, dim=1)
    total = []
    for a, form in pairs.tolist():
        for b, right in pairs.tolist():
            if a != b:
                scores = unit @ (unit[b] + unit[form] - unit[a])
                scores[[a, form, b]] = -torch.inf
                total.append(1 / (1 + (scores > scores[right]).sum().item()))
    assert analogy_rank(likeness(table), pairs) == pytest.approx(sum(total) / len(total))


def test_mutual_information_by_hand() -> None:
    counts = torch.tensor([[0.0, 3.0], [3.0, 2.0]])
    expected = [[0.0, math.log(3 * 8 / (3 * 5))], [math.log(3 * 8 / (3 * 5)), 0.0]]
    torch.testing.assert_close(mutual_information(counts), torch.tensor(expected))


def test_shuffled_text_teaches_nothing() -> None:
    """Two groups of words, each among its own: the vectors know them, unless the text is in disorder."""
    torch.manual_seed(0)
    groups = torch.randint(2, (400, 1)) * 10 + 2
    text = groups + torch.randint(10, (400, 20))
    apart = {}
    for name, texts in (("in order", text), ("in disorder", text.flatten()[torch.randperm(8000)].view(400, 20))):
        pairs, distances = near_pairs(list(texts), 3)
        often = torch.bincount(texts.flatten(), minlength=22)
        table = counted(pairs, distances, 22)
        skip_gram, glove = SkipGram(22, 8), GloVe(22, 8)
        options = {"epochs": 2, "batch_size": 256, "device": CPU}
        word_vectors.train_skip_gram(skip_gram, NeighbourPairs(pairs, noise(often), 5), lr=1e-2, **options)
        word_vectors.train_glove(
            glove, CountedPairs(table.nonzero(), table[table > 0]), lr=0.1, **options | {"epochs": 30}
        )
        for model in (skip_gram, glove):
            alike = likeness(model.vectors()[2:])
            own = torch.block_diag(torch.ones(10, 10), torch.ones(10, 10)).bool()
            apart[type(model).__name__, name] = (alike[own].mean() - alike[~own].mean()).item()
    for method in ("SkipGram", "GloVe"):
        assert apart[method, "in order"] > 0.5
        assert abs(apart[method, "in disorder"]) < 0.25


@pytest.mark.xdist_group("nlp.word_vectors")
def test_what_is_told_holds_but_for_analogies(default_run: Callable[[str], Result]) -> None:
    result = default_run("nlp.word_vectors")
    failed = [claim.text for claim in result.claims if not claim.holds]
    assert all(text.startswith("analogies") for text in failed)
    assert result.metrics["neighbours"] > 10 * result.rows[0]["neighbours"]


def test_passages_of_test_are_held_out() -> None:
    topics = {
        "a": [f"one two three {n}" for n in range(9)],
        "b": [f"four five six {n}" for n in range(6)],
        "c": ["short"],
    }
    labelled, asked, names = held_out_passages(topics, words=3)
    assert names == ["a", "b"]
    assert [label for _, label in asked] == [0, 0, 0, 1, 1]
    assert not set(labelled) & set(asked)
    with pytest.raises(InputError, match=r"expected two topics or more .* found 0"):
        held_out_passages(topics, words=5)


def test_own_text_and_own_vectors(tmp_path: Path) -> None:
    stems = ["value", "tree", "word", "name", "list", "thing", "place", "line", "point", "table", "house"]
    for number, topic in enumerate(("first", "second")):
        lines = [f"one {stem} and many {stem}s here are all that there is to say of {topic} {stem}" for stem in stems]
        (tmp_path / f"{topic}.txt").write_text(
            "\n\n".join(f"{line} {turn}" for line in lines for turn in range(6 + number))
        )
    options: dict[str, Any] = {"data": str(tmp_path), "device": "cpu", "epochs": 1, "trainings": 1, "labels": 10}
    word_vectors.run(out=str(tmp_path / "out"), width=8, **options)
    saved = tmp_path / "out" / "vectors.txt"
    assert len(saved.read_text().splitlines()[0].split(" ")) == 9
    again = word_vectors.run(vectors=str(saved), **options)
    assert again.metrics["accuracy"] > 0
    with pytest.raises(InputError, match="option window: expected a whole number of at least 1, got 0"):
        word_vectors.run(device="cpu", window=0)
