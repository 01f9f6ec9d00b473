"""Words as numbers in one tensor give what a tensor for each text gives."""

import random
from collections import Counter

import pytest
import torch

from recipes.datasets.texts import open_texts
from recipes.nlp.text_classification.encoding import TOKEN, UNKNOWN, TextOptions, Vocabulary, open_words, tokenize
from recipes.nlp.words import Rows, counted, nearest, numbered, renumber_


@pytest.mark.parametrize("options", [{}, {"max_words": 7, "min_freq": 5}, {"data": "bundled:reviews_zh"}])
def test_texts_are_encoded_as_one_by_one(options: dict[str, object]) -> None:
    chosen = TextOptions(**options)  # type: ignore[arg-type]
    vocabulary = Vocabulary(open_texts(chosen.data)[0].texts, min_freq=chosen.min_freq)
    for part in open_words(chosen):
        assert part.vocabulary.words == vocabulary.words
        for text, ids in zip(part.texts, part.ids, strict=True):
            assert torch.equal(ids, vocabulary.encode(text, chosen.max_words))
        assert [len(ids) for ids in part.ids] == part.ids.lengths.tolist()  # type: ignore[attr-defined]


def test_the_fast_way_finds_the_same_words() -> None:
    draw = random.Random(0)
    for _ in range(5000):
        text = "".join(draw.choice("abC'Z_9 -.,!\n\t\x00\x1c\x7f") for _ in range(12))
        assert tokenize(text) == TOKEN.findall(text.lower()), text


def test_numbers_in_one_tensor() -> None:
    words, numbers, lengths = numbered(["b a b", "", "c b"], str.split)
    assert words == ["b", "a", "c"]
    assert numbers.tolist() == [0, 1, 0, 2, 0]
    assert counted(numbers, 3).tolist() == [Counter("babcb")[word] for word in words]
    renumber_(numbers, torch.tensor([7, 8, 9], dtype=torch.int32))
    rows = Rows(numbers, lengths, longest=2, empty=UNKNOWN)
    assert [row.tolist() for row in rows] == [[7, 8], [UNKNOWN], [9, 7]]
    assert rows.lengths.tolist() == [2, 1, 2]
    assert numbered([], str.split)[1].tolist() == []


def test_the_nearest_text_shares_rare_words_and_their_order() -> None:
    train = [torch.tensor(ids) for ids in ([1, 2, 3], [1, 5, 6], [1, 6, 5])]
    test = [torch.tensor(ids) for ids in ([1, 3], [5, 6, 9], [6, 5])]
    assert nearest(train, test) == [0, 1, 2]
    assert nearest(train, test * 100) == [0, 1, 2] * 100  # in parts
