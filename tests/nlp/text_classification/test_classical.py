"""Bags of words against scikit-learn's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.texts import open_texts
from recipes.nlp.text_classification import classical
from recipes.nlp.text_classification.encoding import tokenize


@pytest.mark.parametrize("tf_idf", [False, True])
def test_bag_equals_scikit_learn(tf_idf: bool) -> None:
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    train_set, test_set = open_texts()
    kind = TfidfVectorizer if tf_idf else CountVectorizer
    theirs = kind(tokenizer=tokenize, token_pattern=None, lowercase=False, ngram_range=(1, 2))
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


@pytest.mark.xdist_group("nlp.text_classification.classical")
def test_ngrams_beat_single_words(default_run: Callable[[str], Result]) -> None:
    result = default_run("nlp.text_classification.classical")
    assert all(claim.holds for claim in result.claims)
    assert result.claims[0].measured > result.claims[0].reference + 0.1
    assert result.model.predict(["It was a bargain.", "It was a letdown."]).tolist() == [1, 0]


def test_options_that_cannot_be() -> None:
    with pytest.raises(InputError, match="option longest: expected a whole number of at least 2"):
        classical.run(longest=1, device="cpu")


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
def test_own_texts_in_two_languages_and_three_classes(table: Path, tmp_path: Path) -> None:
    result = classical.run(data=str(table), device="cpu", out=str(tmp_path / "out"))
    assert result.metrics["accuracy"] == 1
    assert (tmp_path / "out" / "figure.png").stat().st_size > 10_000
