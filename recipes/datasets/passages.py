"""Opens running text by topic: the bundled reference of Python, or a folder with a text file a topic."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from recipes.core.errors import InputError
from recipes.core.files import own_path
from recipes.core.loading import holdout
from recipes.datasets.bundled import bundled
from recipes.datasets.own import pair_of_datasets
from recipes.datasets.reading import files_in, require_folder
from recipes.datasets.running_text import read_text
from recipes.datasets.text_files import word_count
from recipes.datasets.texts import Texts, texts_of


def open_passages(data: str | Path | None = None) -> dict[str, list[str]]:
    """The passages of each topic, in their order; one that comes several times stands where it comes first.

    Args:
        data: a folder with a text file for each topic (`*.txt`, UTF-8), with an empty line between passages.
            Default: the bundled reference of the Python language.

    Raises:
        InputError: nothing there, a single file, or a file that is empty or not UTF-8; it names the file.
    """
    path = bundled("python_reference") if data is None else own_path(data)
    expected = "a folder with a file *.txt for each topic, two or more"
    require_folder(path, expected)
    files = files_in(path, (".txt",))
    if len(files) < 2:
        raise InputError(f"{path}: expected {expected}; found {'one' if files else 'none'}")
    texts = {file.stem: read_text(file) for file in files}
    seen: set[str] = set()
    return {topic: list(unseen(text.split("\n\n"), seen)) for topic, text in texts.items()}


def open_labeled_passages(
    data: Any = None, *, most: int = 8, words: int = 10, seed: int = 0
) -> tuple[Texts, Texts, list[str]]:
    """Passages of the largest topics to tell apart, two thirds to train on and a third to test on, and all the text.

    Args:
        data: as `open_passages` takes it, or a pair of your own Datasets (train, test), whose samples are
            (text, label): then these are the two parts, and all the text is that of the train part.
        most: topics that are taken, at most.
        words: that a passage must have; each character of Chinese and Japanese is one.
        seed: of the draw.

    Returns:
        The train part, the test part, and every passage of every topic that is not in the test part.

    Raises:
        InputError: see `open_passages`, or fewer than two topics have three such passages.
    """
    pair = pair_of_datasets(data)
    if pair is not None:
        train_set, test_set = texts_of(pair)
        return train_set, test_set, train_set.texts
    passages = open_passages(data)
    long = {name: [text for text in texts if word_count(text) >= words] for name, texts in passages.items()}
    names = sorted(sorted((name for name in long if len(long[name]) > 2), key=lambda name: -len(long[name]))[:most])
    if len(names) < 2:
        raise InputError(f"expected two topics or more with three passages of {words} words, found {len(names)}")
    texts = [text for name in names for text in long[name]]
    labels = torch.tensor([number for number, name in enumerate(names) for _ in long[name]])
    train_set, test_set = (
        Texts([texts[index] for index in part.tolist()], labels[part], names) for part in holdout(labels, 1 / 3, seed)
    )
    hidden = set(test_set.texts)
    return train_set, test_set, [text for part in passages.values() for text in part if text not in hidden]


def unseen(passages: Iterable[str], seen: set[str]) -> Iterable[str]:
    """The passages that are not empty and not among those seen, which they join."""
    for passage in passages:
        stripped = passage.strip("\n")
        if stripped.strip() and stripped not in seen:
            seen.add(stripped)
            yield stripped
