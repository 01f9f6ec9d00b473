"""Changes of texts: what each does and leaves, and the letters that a word is read by."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import recipes
from recipes.core.errors import InputError
from recipes.nlp import text_augmentation
from recipes.nlp.few_labels import svm_by_letters
from recipes.nlp.near_words import synonyms_from
from recipes.nlp.spelling import ChangingTexts, keys_near, pieces, spelled, with_slips
from recipes.nlp.text_augmentation import (
    MeanOfPieces,
    TextAugmentationOptions,
    as_texts,
    changes_from,
    mistyped,
    train,
    with_deletions,
    with_insertions,
    with_swaps,
    with_synonyms,
)
from recipes.nlp.text_classification.scoring import accuracy_on

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
    near = keys_near()
    assert set(near["g"]) == set("ftyhbv")
    assert set(near["q"]) == set("wa")
    assert set(near["m"]) == set("njk")
    assert all(letter in near[other] for letter in near for other in near[letter])


def test_slips_change_a_share_of_the_letters() -> None:
    draw = random.Random(0)
    letters = ["g"] * 4000
    slipped = sum(word != "g" for word in with_slips(letters, draw)) + 4000 - len(with_slips(letters, draw))
    assert slipped == pytest.approx(0.2 * 4000 * 3 / 4, rel=0.15)  # a letter alone has no next one to swap with
    assert with_slips(TEXT, draw, share=0.0) == TEXT
    assert all(often(lambda text, draw: with_slips(["a"], draw, share=0.9)))
    assert with_slips(["好", "123"], draw, share=1.0) == ["好", "123"]


def test_a_changed_text_keeps_its_label_and_its_row() -> None:
    torch.manual_seed(0)
    dataset = ChangingTexts([["good"], ["bad", "film"]], torch.tensor([1, 0]), ["x", "y"], (with_deletions,), 1.0)
    ids, labels = dataset.__getitems__([1, 0])
    assert labels.tolist() == [0, 1]
    assert ids[1, ids[1] != 0].tolist() == pieces("good").tolist()
    still = ChangingTexts(dataset.words, dataset.labels, dataset.classes)
    assert torch.equal(still.__getitems__([0, 1])[0], still.__getitems__([0, 1])[0])
    with_empty = ChangingTexts([[], ["a"]], dataset.labels, dataset.classes, (with_swaps, with_deletions), 1.0)
    assert with_empty.__getitems__([0, 1])[0].shape[0] == 2


def test_each_change_is_made_as_often_as_said() -> None:
    torch.manual_seed(0)
    made: list[int] = []

    def note(words: list[str], draw: random.Random) -> list[str]:
        made.append(1)
        return words

    ChangingTexts([["a"]] * 2000, torch.zeros(2000).long(), ["x"], (note,), 0.3).__getitems__(range(2000))
    assert len(made) / 2000 == pytest.approx(0.3, abs=0.03)


def test_a_slip_leaves_most_pieces() -> None:
    right, slipped, other = (set(pieces(word).tolist()) for word in ("terrible", "terrihle", "wonderful"))
    assert len(right) == 16  # itself, 8 runs of three and 7 of four
    assert len(right & slipped) >= 7
    assert not right & other
    assert 0 not in right


def test_the_network_reads_alike_alone_and_padded() -> None:
    torch.manual_seed(0)
    model = MeanOfPieces(2).eval()
    texts = [["good"], ["not", "a", "good", "film", "at", "all"]]
    together = model(spelled(texts))
    torch.testing.assert_close(together[:1], model(spelled(texts[:1])), rtol=0, atol=1e-6)
    together.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    assert torch.isfinite(model(spelled([[]]))).all()


def test_shuffled_labels_teach_nothing() -> None:
    words = [["good" if n % 2 else "bad", "film", str(n)] for n in range(80)]
    labels = torch.arange(80) % 2
    found = {}
    shuffled = labels[torch.randperm(80, generator=torch.Generator().manual_seed(0))]
    for name, taught in (("true", labels), ("shuffled", shuffled)):
        torch.manual_seed(0)
        model = MeanOfPieces(2)
        options = TextAugmentationOptions(epochs=10, batch_size=10, lr=1e-2, device=CPU)
        test_set = ChangingTexts(words[40:], labels[40:], ["x", "y"])
        train(model, ChangingTexts(words[:40], taught[:40], ["x", "y"]), options)
        found[name] = accuracy_on(model, test_set, CPU)
    assert found["true"] == 1
    assert found["shuffled"] < 0.8


def test_words_among_the_same_words_are_synonyms() -> None:
    frames = ["the {} runs down the long road", "we saw a {} eat its food", "my {} sleeps in the old house"]
    passages = [frame.format(word) for frame in frames for word in ("cat", "dog", "horse") for _ in range(3)]
    found = synonyms_from(passages, count=2)
    assert set(found["cat"]) == {"dog", "horse"}
    assert all(word not in others for word, others in found.items())


def test_the_mistyped_texts_are_the_same_with_the_same_seed() -> None:
    texts = ChangingTexts([TEXT] * 3, torch.tensor([0, 1, 0]), ["x", "y"])
    options = TextAugmentationOptions(seed=3)
    assert mistyped(texts, options).words == mistyped(texts, options).words != texts.words
    assert as_texts(texts).texts[0] == " ".join(TEXT)
    assert svm_by_letters(as_texts(texts), as_texts(mistyped(texts, options))) >= 1 / 3


def test_trained_networks_are_used(tmp_path: Path) -> None:
    result = text_augmentation.run(device="cpu", epochs=2, claims=False, out=str(tmp_path / "out"))
    trained = recipes.trained(tmp_path / "out", device="cpu")
    texts = ["a class definition defines a class object", "", "the import statement"]
    answers = trained(texts)
    assert trained(texts[2:])[0]["probability"] == pytest.approx(answers[2]["probability"], abs=1e-5)
    (ids,) = trained.task.batch(texts)
    expected = result.model.eval()(ids).softmax(dim=1)
    assert [one["probability"] for one in answers] == pytest.approx(expected.max(dim=1).values.tolist(), abs=1e-5)
    assert set(answers[0]["classes"]) == set(result.test_set.classes)


def test_options_that_cannot_be() -> None:
    with pytest.raises(InputError, match="option noise"):
        text_augmentation.run(device="cpu", noise=0.0)
    with pytest.raises(InputError, match="option changes: expected all, none, or some of synonyms"):
        text_augmentation.run(device="cpu", changes="rhymes")
    assert list(changes_from("swaps, slips", ["one two three four"] * 5)) == ["swaps", "slips"]
