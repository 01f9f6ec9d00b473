"""Measures of text classifiers against scikit-learn's."""

import numpy as np
import pytest
import torch

from recipes.nlp.text_classification.encoding import EncodedTexts
from recipes.nlp.text_classification.scoring import linear_svm, majority, scores


@pytest.mark.parametrize("count", [2, 4])
def test_scores_equal_scikit_learn(count: int) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    generator = torch.Generator().manual_seed(count)
    for _ in range(5):
        labels = torch.randint(0, count, (40,), generator=generator) * torch.randint(0, 2, (40,), generator=generator)
        predicted = torch.where(torch.rand(40, generator=generator) < 0.7, labels, 0)
        mine = scores(predicted, labels, count)
        rarer = int(torch.bincount(labels, minlength=2).argmin())
        how = {"average": "macro"} if count > 2 else {"pos_label": rarer}
        assert mine["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
        assert mine["f1"] == pytest.approx(f1_score(labels, predicted, **how))


def test_majority_knows_the_classes_alone(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    measured = majority(*reviews)
    assert measured["accuracy"] == pytest.approx(0.5, abs=0.01)
    assert measured["loss"] == pytest.approx(np.log(2), abs=1e-4)


def test_longer_runs_help_the_linear_svm(reviews: tuple[EncodedTexts, EncodedTexts]) -> None:
    words, pairs, triples = (linear_svm(*reviews, longest=longest)["accuracy"] for longest in (1, 2, 3))
    assert words + 0.1 < pairs < triples
