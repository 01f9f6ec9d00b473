"""Bags of words against scikit-learn's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recipes
from recipes.core.errors import InputError
from recipes.datasets.texts import open_texts
from recipes.nlp.text_classification import classical
from recipes.nlp.text_classification.classical import BagOfWords, BagOptions, NaiveBayes, ngrams, open_counted
from recipes.nlp.text_classification.encoding import tokenize


@pytest.mark.parametrize("tf_idf", [False, True])
def test_bag_equals_scikit_learn(tf_idf: bool) -> None:
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    train_set, test_set = open_counted(BagOptions(longest=2, tf_idf=tf_idf))
    kind = TfidfVectorizer if tf_idf else CountVectorizer
    theirs = kind(tokenizer=tokenize, token_pattern=None, lowercase=False, ngram_range=(1, 2))
    expected = theirs.fit_transform(train_set.texts)
    assert train_set.ngrams == theirs.get_feature_names_out().tolist()
    assert abs(train_set.features - expected).max() < 1e-12
    assert abs(test_set.features - theirs.transform(test_set.texts)).max() < 1e-12
    unknown = classical.features(["?!"], train_set.ngrams, BagOptions(), train_set.idf)
    assert unknown.nnz == 0


def test_the_network_weighs_as_the_features_are_weighed() -> None:
    options = BagOptions(longest=2)
    train_set, test_set = open_counted(options)
    model = BagOfWords(len(train_set.ngrams), 2)
    model.idf.copy_(torch.from_numpy(train_set.idf))
    counts = classical.features(test_set.texts[:5], train_set.ngrams, options, None)
    weighted = torch.from_numpy(test_set.features[:5].toarray()).float()
    found = model(torch.from_numpy(counts.toarray()).float())
    torch.testing.assert_close(found, model.head(weighted), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pseudo_count", [1.0, 0.1])
def test_naive_bayes_equals_scikit_learn(pseudo_count: float) -> None:
    from sklearn.naive_bayes import MultinomialNB

    train_set, test_set = open_counted(BagOptions(longest=1))
    features, labels, unseen = train_set.features, train_set.labels.numpy(), test_set.features
    mine = NaiveBayes(pseudo_count).fit(features, labels)
    theirs = MultinomialNB(alpha=pseudo_count).fit(features, labels)
    np.testing.assert_allclose(mine.coef_, theirs.feature_log_prob_, rtol=0, atol=1e-10)
    assert (mine.predict(unseen) == theirs.predict(unseen)).all()
    taught_nothing = NaiveBayes().fit(features, np.random.default_rng(0).permutation(labels))
    assert (taught_nothing.predict(unseen) == test_set.labels.numpy()).mean() < 0.58


def test_ngrams() -> None:
    assert ngrams("Not very good", 2) == ["not", "very", "good", "not very", "very good"]
    assert ngrams("好", 3) == ["好"]


@pytest.mark.parametrize("method", ["svm", "logistic", "bayes"])
def test_the_model_in_use_answers_as_it_was_measured(method: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = classical.run(device="cpu", longest=2, method=method, claims=False, out=str(out))
    trained = recipes.trained(out, device="cpu")
    test_set = open_texts()[1]
    answers = trained(test_set.texts, batch_size=100)
    found = torch.tensor([test_set.classes.index(answer["class"]) for answer in answers])
    assert (found == test_set.labels).double().mean().item() == pytest.approx(result["accuracy"], abs=0.002)
    assert [answer["class"] for answer in trained(["It was a bargain.", "It was a letdown."])] == [
        "positive",
        "negative",
    ]


def test_options_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="option longest: expected a whole number of at least 1"):
        classical.run(longest=0, device="cpu")
    with pytest.raises(InputError, match="option method"):
        classical.run(method="forest", device="cpu")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no word in the train texts"):
        classical.run(data=([("?", 0), ("!", 1)] * 5, [("?", 0)]), device="cpu")


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
def test_own_texts_in_two_languages_and_three_classes(table: Path, tmp_path: Path) -> None:
    result = classical.run(data=str(table), device="cpu", out=str(tmp_path / "out"))
    assert result["accuracy"] == 1
    assert (tmp_path / "out" / "figure.png").stat().st_size > 10_000
    answers = recipes.trained(tmp_path / "out", device="cpu")(["a hot soup", "下雨"])
    assert [answer["class"] for answer in answers] == ["food", "rain"]
