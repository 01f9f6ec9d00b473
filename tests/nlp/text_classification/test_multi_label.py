"""Several labels a text: scores are scikit-learn's, thresholds, and a trained model on texts without labels."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

import recipes
from recipes.nlp.text_classification import multi_label
from recipes.nlp.text_classification.multi_label import f1_by_class, given_labels, label_scores


def test_scores_are_those_of_scikit_learn() -> None:
    torch.manual_seed(0)
    given, labels = (torch.rand(2, 40, 5) < 0.4).float()
    scores = label_scores(given, labels)
    for name, average in (("f1", "micro"), ("macro_f1", "macro")):
        assert scores[name] == pytest.approx(f1_score(labels.numpy(), given.numpy(), average=average))
    assert scores["exact"] == pytest.approx(accuracy_score(labels.numpy(), given.numpy()))
    assert f1_by_class(given, labels) == pytest.approx(f1_score(labels.numpy(), given.numpy(), average=None).tolist())


def test_no_label_at_all_is_no_division_by_zero() -> None:
    nothing = torch.zeros(3, 2)
    assert label_scores(nothing, torch.ones(3, 2)) == {"f1": 0, "macro_f1": 0, "exact": 0}
    assert label_scores(torch.ones(3, 2), nothing)["f1"] == 0


def test_labels_are_given_above_the_threshold_or_one_by_softmax() -> None:
    logits = torch.tensor([[2.0, 1.0, -1.0], [-3.0, -2.0, -1.0]])
    several = SimpleNamespace(loss="sigmoid", threshold=0.5)
    assert given_labels(logits, several).tolist() == [[True, True, False], [False, False, False]]
    surer = SimpleNamespace(loss="sigmoid", threshold=0.8)
    assert given_labels(logits, surer).tolist() == [[True, False, False], [False, False, False]]
    one = SimpleNamespace(loss="softmax", threshold=0.5)
    assert given_labels(logits, one).tolist() == [[True, False, False], [False, False, True]]


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_own_texts_to_labels_in_another_place(loss: str, tmp_path: Path) -> None:
    rows = [("a red ball", "red"), ("the blue sea", "blue"), ("red and blue", "blue;red"), ("nothing here", "")]
    lines = [f"{text} {number % 7},{labels}" for number in range(20) for text, labels in rows]
    (tmp_path / "mine.csv").write_text("\n".join(["text,labels", *lines]) + "\n", "utf-8")
    out = tmp_path / "out"
    small = {"embedding_size": 8, "filters": 8, "windows": "1,2", "steps": 150, "dropout": 0.0}
    result = multi_label.run(
        data=str(tmp_path / "mine.csv"), loss=loss, out=str(out), claims=False, device="cpu", **small
    )
    answers = recipes.trained(out, device="cpu")(["red and blue 3", "nothing here 2"])
    assert set(answers[0]) == {"text", "labels", "classes"}
    assert set(answers[0]["classes"]) == {"blue", "red"}
    if loss == "sigmoid":
        assert result.metrics["exact"] == 1
        assert [one["labels"] for one in answers] == [["blue", "red"], []]
    else:
        assert result.metrics["exact"] < 1
        assert [len(one["labels"]) for one in answers] == [1, 1]
    assert (out / "figure.png").stat().st_size > 10_000
