"""A pair of the user's own Datasets, in place of a path: the checks that all openers share."""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from os import PathLike
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset

from recipes.core.errors import InputError

EXPECTED = "data: expected a path or a pair (train, test) of map-style Datasets"
PAIR_PARTS = ("train", "test")


def pair_of_datasets(data: Any) -> tuple[Any, Any] | None:
    """The train and the test part if `data` is a pair of Datasets; None if it is a path, a name or None.

    A Dataset is whatever has `__len__` and `__getitem__` by number: torch's, Hugging Face's, or a list of samples.

    Raises:
        InputError: a pair of anything else, a Dataset alone, a part that is empty or can only be iterated over.
    """
    if data is None or isinstance(data, (str, PathLike)):
        return None
    if not isinstance(data, (tuple, list)):
        raise InputError(f"{EXPECTED}, got {described(data)}")
    if len(data) != 2:
        raise InputError(f"{EXPECTED}, got a {type(data).__name__} of {len(data)}")
    for name, part in zip(PAIR_PARTS, data, strict=True):
        if isinstance(part, (str, bytes, PathLike, dict, tuple, Tensor, np.ndarray)):
            raise InputError(f"{EXPECTED}, got {described(part)} as {name} part")
        # torch's Dataset has a __getitem__ even where a subclass gives it none, and no __len__
        has_both = hasattr(part, "__getitem__") and hasattr(part, "__len__")
        if isinstance(part, (IterableDataset, type)) or not has_both:
            raise InputError(
                f"{EXPECTED}, but the {name} part, {described(part)}, has no length or no sample by number"
            )
        if len(part) == 0:
            raise InputError(f"{EXPECTED}, but the {name} part is empty")
    return data[0], data[1]


def samples_of(dataset: Any, part: str, expected: str = "(image, label)") -> Iterator[tuple[Any, ...]]:
    """The samples in order, each a tuple of as many values as `expected` names, such as "(image, label)".

    A sample may also be a dict with these names, as those of Hugging Face's data sets are.

    Raises:
        InputError: a sample cannot be read, or is no such tuple; it names the part ("train") and the sample.
    """
    for number in range(len(dataset)):
        yield sample_of(dataset, number, part, expected)


def sample_of(dataset: Any, number: int, part: str, expected: str = "(image, label)") -> tuple[Any, ...]:
    """One sample, as `samples_of` yields it."""
    where = f"data: {part} sample {number}"
    try:
        sample = dataset[number]
    except Exception as error:  # of the user's own code
        reason = str(error).partition("\n")[0]
        raise InputError(f"{where}: expected {expected}, but it raises {type(error).__name__} ({reason})") from error
    names = expected.strip("()").split(", ")
    if isinstance(sample, Mapping) and all(name in sample for name in names):
        return tuple(sample[name] for name in names)
    if not isinstance(sample, (tuple, list)) or len(sample) != len(names):
        raise InputError(f"{where}: expected {expected}, got {described(sample)}")
    return tuple(sample)


def class_names(pair: tuple[Any, Any]) -> list[str] | None:
    """The classes' names as the Datasets' attribute `classes` has them, which a torch Subset has of the whole set.

    Raises:
        InputError: the two parts have different ones, so that their numbers would not mean the same.
    """
    found: list[list[str] | None] = []
    for dataset in pair:
        while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
            dataset = dataset.dataset
        names = getattr(dataset, "classes", None)
        found.append([str(name) for name in names] if isinstance(names, (list, tuple)) and names else None)
    train, test = found
    if train is not None and test is not None and train != test:
        told = " and ".join(", ".join(names[:5]) for names in (train, test))
        raise InputError(f"data: expected the same classes in the train and the test part, got {told}")
    return train or test


def numbered_labels(
    labels: Sequence[Sequence[Any]], names: Sequence[str] | None = None
) -> tuple[list[list[int]], list[str]]:
    """Class numbers of the train and the test part's labels, and the classes' names.

    Args:
        labels: of each part: whole numbers from 0 (also numpy's, or tensors of one), or names.
        names: of the classes, as a Dataset's `classes` has them; the numbers themselves where it is None, or
            the labels in sorted order where they are names.

    Raises:
        InputError: a label that is neither, mixes the two, or is not among the names.
    """
    values = [
        [plain_label(label, f"data: {part} sample {i}") for i, label in enumerate(found)]
        for part, found in zip(PAIR_PARTS, labels, strict=True)
    ]
    kinds = {type(value) for found in values for value in found}
    if len(kinds) > 1:
        raise InputError("data: expected labels that are all numbers or all names, got both")
    by_name = kinds == {str}
    classes = list(names) if names is not None else [str(one) for one in all_labels(values)]
    index: dict[Any, int] = {name if by_name else number: number for number, name in enumerate(classes)}
    for part, found in zip(PAIR_PARTS, values, strict=True):
        for number, value in enumerate(found):
            if value not in index:
                raise InputError(
                    f"data: {part} sample {number}: expected a label among {len(classes)} classes, got {value!r}"
                )
    return [[index[value] for value in found] for found in values], classes


def all_labels(values: list[list[Any]]) -> list[Any]:
    """All names there are, sorted, or all numbers from 0 to the largest."""
    found = sorted({value for part in values for value in part})
    return found if isinstance(found[0], str) else list(range(found[-1] + 1))


def plain_label(label: Any, where: str) -> int | str:
    """The label as an int or a str."""
    if isinstance(label, (Tensor, np.ndarray, np.generic)) and label.reshape(-1).shape == (1,):
        label = label.item()
    if isinstance(label, str) or (isinstance(label, Integral) and not isinstance(label, bool)):
        value = label if isinstance(label, str) else int(label)
        if isinstance(value, str) or value >= 0:
            return value
    raise InputError(f"{where}: expected a class number from 0 or a class name as label, got {described(label)}")


def described(value: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(value, (Tensor, np.ndarray)):
        return f"a {type(value).__name__} of shape {tuple(value.shape)} and type {value.dtype}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, (int, float, str, bool)):
        return repr(value)[:60]
    return f"a {type(value).__name__}"
