"""A pair of the user's own Datasets: what is taken, and the one line for what is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset, random_split

from recipes.core.errors import InputError
from recipes.datasets.own import class_names, numbered_labels, pair_of_datasets, samples_of


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        yield 1


class NoLength(Dataset):
    def __getitem__(self, index: int) -> int:
        return index


class Broken(Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[int, int]:
        if index == 2:
            raise KeyError("no such thing\nand more")
        return index, 0


WHOLE = TensorDataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]))


def one_line(error: pytest.ExceptionInfo[InputError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_pairs_and_what_is_none() -> None:
    for data in (None, "folder", Path("folder"), "torchvision:MNIST"):
        assert pair_of_datasets(data) is None
    for pair in ((WHOLE, WHOLE), [WHOLE, Subset(WHOLE, [0])], ([("a", 0)], [("b", 1)])):
        train, test = pair_of_datasets(pair) or (None, None)
        assert (train, test) == (pair[0], pair[1])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (WHOLE, ["got a TensorDataset"]),
        ((WHOLE,), ["a tuple of 1"]),
        ((WHOLE, WHOLE, WHOLE), ["a tuple of 3"]),
        ((WHOLE, None), ["test part"]),
        (("train", "test"), ["'train'", "train part"]),
        ((WHOLE, Path("test")), ["test part"]),
        ((WHOLE, torch.zeros(3, 2)), ["a Tensor of shape (3, 2)"]),
        ((np.zeros((3, 2)), WHOLE), ["a ndarray of shape (3, 2)", "float64"]),
        (((1, 0), (2, 1)), ["a tuple of 2 as train part"]),
        (({"a": 1}, WHOLE), ["a dict"]),
        ((WHOLE, Endless()), ["test part", "Endless"]),
        ((NoLength(), WHOLE), ["train part", "NoLength", "no length"]),
        ((TensorDataset, WHOLE), ["train part"]),
        ((WHOLE, []), ["test part is empty"]),
        (7, ["got 7"]),
    ],
)
def test_what_is_no_pair(data: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        pair_of_datasets(data)
    one_line(error, "data: expected a path or a pair (train, test)", *words)


def test_samples_that_are_none() -> None:
    assert [label for _, label in samples_of([("a", 0), ["b", 1]], "train")] == [0, 1]
    with pytest.raises(InputError) as error:
        list(samples_of(Broken(), "test"))
    one_line(error, "data: test sample 2", "(image, label)", "KeyError", "no such thing")
    with pytest.raises(InputError) as error:
        list(samples_of([("a", 0), {"text": "b"}], "train", "(text, label)"))
    one_line(error, "data: train sample 1: expected (text, label), got a dict")
    named = [{"label": 1, "id": "x", "text": "a"}]  # as samples of Hugging Face's data sets are
    assert list(samples_of(named, "train", "(text, label)")) == [("a", 1)]
    with pytest.raises(InputError) as error:
        list(samples_of([("a", 0)], "train", "(image, boxes, labels)"))
    one_line(error, "got a tuple of 2")


def test_labels_become_numbers() -> None:
    labels = [0, np.int64(2), torch.tensor(1), torch.tensor([2]), np.array([0])]
    assert numbered_labels([labels, [3]]) == ([[0, 2, 1, 2, 0], [3]], ["0", "1", "2", "3"])
    assert numbered_labels([[1, 0], [1]], ["cat", "dog"]) == ([[1, 0], [1]], ["cat", "dog"])
    assert numbered_labels([["dog", "cat"], ["cat"]]) == ([[1, 0], [0]], ["cat", "dog"])
    assert numbered_labels([["dog", "cat"], ["cat"]], ["dog", "cat"]) == ([[0, 1], [1]], ["dog", "cat"])


@pytest.mark.parametrize(
    ("labels", "names", "words"),
    [
        ([[0, -1], [0]], None, ["train sample 1", "-1"]),
        ([[0, 1], [0.5]], None, ["test sample 0", "0.5"]),
        ([[0, True], [0]], None, ["train sample 1", "True"]),
        ([[0, torch.zeros(3)], [0]], None, ["train sample 1", "shape (3,)"]),
        ([[0, None], [0]], None, ["train sample 1", "NoneType"]),
        ([[0, "b"], [0]], None, ["both"]),
        ([[0, 1], [2]], ["a", "b"], ["test sample 0", "2 classes", "got 2"]),
        ([["a", "b"], ["c"]], ["a", "b"], ["test sample 0", "'c'"]),
    ],
)
def test_labels_that_are_none(labels: Any, names: list[str] | None, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        numbered_labels(labels, names)
    one_line(error, "data: ", *words)


def test_names_of_classes_are_found_below_a_subset_and_must_agree() -> None:
    named, other = TensorDataset(torch.zeros(4)), TensorDataset(torch.zeros(4))
    named.classes, other.classes = ["a", "b"], ("b", "a")  # type: ignore[attr-defined]
    assert class_names((WHOLE, WHOLE)) is None
    assert class_names((Subset(Subset(named, [0, 1]), [0]), WHOLE)) == ["a", "b"]
    assert class_names(tuple(random_split(named, [2, 2]))) == ["a", "b"]
    with pytest.raises(InputError) as error:
        class_names((named, other))
    one_line(error, "the same classes", "a, b and b, a")
