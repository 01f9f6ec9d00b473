"""Words of many scripts, their vocabulary, and padding."""

import pytest
import torch

from recipes.core.errors import InputError
from recipes.nlp.text_classification import plain
from recipes.nlp.text_classification.encoding import (
    PAD,
    UNKNOWN,
    EncodedTexts,
    TextOptions,
    Vocabulary,
    shuffled,
    tokenize,
)
from recipes.nlp.text_classification.using import KnownWords


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
    assert tokenize(text) == words


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


def test_shuffling_keeps_the_words(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    mixed = shuffled(reviews[1], seed=1)
    pairs = list(zip(mixed.ids, reviews[1].ids, strict=True))
    assert all(torch.equal(mine.sort().values, theirs.sort().values) for mine, theirs in pairs)
    assert sum(torch.equal(mine, theirs) for mine, theirs in pairs) < 10


def test_a_vocabulary_of_given_words_encodes_as_the_one_they_came_from() -> None:
    vocabulary = Vocabulary(["b b a", "a b c"], min_freq=1)
    known = KnownWords(vocabulary.words)
    assert len(known) == len(vocabulary)
    assert known.encode("c, b x").tolist() == vocabulary.encode("c, b x").tolist()


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="option max_words: expected a whole number of at least 1"):
        TextOptions(max_words=0)


def test_the_lean_twins_read_the_same(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    for text in (*reviews[1].texts, "Don't go -- it’s 5 km!", "我喜欢iPhone手机，真的！", "とても良い"):
        assert plain.tokenize(text) == tokenize(text)
    vocabulary = plain.Vocabulary(reviews[0].texts)
    assert vocabulary.words == reviews[0].vocabulary.words
