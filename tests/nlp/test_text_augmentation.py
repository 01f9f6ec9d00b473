"""Changes of texts: what each does and leaves, and the letters that a word is read by."""

import random
from collections import Counter
from collections.abc import Callable

import pytest
import torch

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.nlp import text_augmentation
from recipes.nlp.related_words import alike_words
from recipes.nlp.spelling import pieces
from recipes.nlp.text_augmentation import (
    ChangingTexts,
    MeanOfPieces,
    accuracy_on,
    neighbours_on_the_keyboard,
    train,
    with_deletions,
    with_insertions,
    with_slips,
    with_swaps,
    with_synonyms,
)

CPU = torch.device("cpu")
TEXT = ["the", "plot", "was", "very", "good", "but", "the", "acting", "was", "terrible", "and", "i", "left"]
SYNONYMS = {"plot": ["story"], "good": ["fine", "nice"], "terrible": ["awful"], "left": ["went"]}


def often(change: Callable[[list[str], random.Random], list[str]], times: int = 300) -> list[list[str]]:
    draw = random.Random(0)
    return [change(TEXT, draw) for _ in range(times)]


def test_synonyms_stand_where_the_words_stood() -> None:
    for changed in often(lambda text, draw: with_synonyms(text, draw, synonyms=SYNONYMS)):
        assert len(changed) == len(TEXT)
        for word, before in zip(changed, TEXT, strict=True):
            assert word == before or word in SYNONYMS[before]
        assert 1 <= sum(word != before for word, before in zip(changed, TEXT, strict=True)) <= 4
    assert with_synonyms(["the", "word"], random.Random(0), synonyms=SYNONYMS) == ["the", "word"]


def test_insertions_leave_all_words_in_their_order() -> None:
    known = {other for word in TEXT for other in SYNONYMS.get(word, [])}
    for changed in often(lambda text, draw: with_insertions(text, draw, synonyms=SYNONYMS)):
        assert len(changed) == len(TEXT) + 4  # 0.3 of 13 words
        rest = iter(changed)
        assert all(word in rest for word in TEXT)
        assert (Counter(changed) - Counter(TEXT)).keys() <= known
    assert with_insertions(["the"], random.Random(0), synonyms=SYNONYMS) == ["the"]


def test_swaps_keep_the_words() -> None:
    changes = often(with_swaps)
    assert all(sorted(changed) == sorted(TEXT) for changed in changes)
    assert all(sum(one != other for one, other in zip(changed, TEXT, strict=True)) <= 2 for changed in changes)
    assert sum(changed != TEXT for changed in changes) > 200
    assert with_swaps(["one"], random.Random(0)) == ["one"]


def test_deletions_leave_a_share_out() -> None:
    changes = often(with_deletions, times=2000)
    assert sum(map(len, changes)) / 2000 == pytest.approx(0.9 * len(TEXT), rel=0.02)
    assert with_deletions(["one", "two"], random.Random(0), share=1.0) in (["one"], ["two"])


def test_keys_beside_each_other() -> None:
    near = neighbours_on_the_keyboard()
    assert set(near["g"]) == set("ftyhbv")
    assert set(near["q"]) == set("wa")
    assert set(near["m"]) == set("njk")
    assert all(letter in near[other] for letter in near for other in near[letter])


def test_slips_change_a_share_of_the_letters() -> None:
    draw = random.Random(0)
    letters = ["g"] * 4000
    slipped = sum(word != "g" for word in with_slips(letters, draw)) + 4000 - len(with_slips(letters, draw))
    assert slipped == pytest.approx(0.2 * 4000 * 3 / 4, rel=0.15)  # a letter alone has no neighbour to change with
    assert with_slips(TEXT, draw, share=0.0) == TEXT
    assert all(often(lambda text, draw: with_slips(["a"], draw, share=0.9)))
    assert with_slips(["好", "123"], draw, share=1.0) == ["好", "123"]


def test_a_changed_text_keeps_its_label_and_its_place() -> None:
    torch.manual_seed(0)
    dataset = ChangingTexts([["good"], ["bad", "film"]], torch.tensor([1, 0]), (with_deletions,))
    ids, labels = dataset.__getitems__([1, 0])
    assert labels.tolist() == [0, 1]
    assert ids[1, ids[1] != 0].tolist() == pieces("good").tolist()
    still = ChangingTexts(dataset.words, dataset.labels)
    assert torch.equal(still.__getitems__([0, 1])[0], still.__getitems__([0, 1])[0])


def test_a_slip_leaves_most_pieces() -> None:
    right, slipped, other = (set(pieces(word).tolist()) for word in ("terrible", "terrihle", "wonderful"))
    assert len(right) == 9
    assert len(right & slipped) >= 5
    assert not right & other
    assert 0 not in right


def test_the_network_reads_alike_alone_and_padded() -> None:
    torch.manual_seed(0)
    model = MeanOfPieces(2).eval()
    texts = ChangingTexts([["good"], ["not", "a", "good", "film", "at", "all"]], torch.tensor([1, 0]))
    together = model(texts.__getitems__([0, 1])[0])
    torch.testing.assert_close(together[:1], model(texts.__getitems__([0])[0]), rtol=0, atol=1e-6)
    together.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_shuffled_labels_teach_nothing() -> None:
    words = [["good" if n % 2 else "bad", "film", str(n)] for n in range(80)]
    labels = torch.arange(80) % 2
    accuracy = {}
    for name, taught in (
        ("true", labels),
        ("shuffled", labels[torch.randperm(80, generator=torch.Generator().manual_seed(0))]),
    ):
        torch.manual_seed(0)
        model = MeanOfPieces(2)
        train(model, ChangingTexts(words[:40], taught[:40]), epochs=10, batch_size=10, lr=1e-2, device=CPU)
        accuracy[name] = accuracy_on(model, ChangingTexts(words[40:], labels[40:]), CPU)
    assert accuracy["true"] == 1
    assert accuracy["shuffled"] < 0.8


def test_words_among_the_same_words_are_alike() -> None:
    frames = ["the {} runs down the long road", "we saw a {} eat its food", "my {} sleeps in the old house"]
    passages = [frame.format(word) for frame in frames for word in ("cat", "dog", "horse") for _ in range(3)]
    alike = alike_words(passages, count=2)
    assert set(alike["cat"]) == {"dog", "horse"}
    assert all(word not in others for word, others in alike.items())


@pytest.mark.xdist_group("nlp.text_augmentation")
def test_augmented_training_does_better(default_run: Callable[[str], Result]) -> None:
    result = default_run("nlp.text_augmentation")
    assert result.claims[0].holds
    assert result.claims[1].holds


def test_options_that_cannot_be() -> None:
    with pytest.raises(InputError, match="options samples, trainings and noise"):
        text_augmentation.run(device="cpu", noise=0.0)
