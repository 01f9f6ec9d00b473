"""Opens running text by topic: the language reference that every Python carries, or a folder with a file a topic."""

from collections.abc import Iterable
from pathlib import Path

from recipes.core.errors import InputError
from recipes.core.files import own_path
from recipes.datasets.reading import files_in, require_folder
from recipes.datasets.running_text import read_text


def open_passages(data: str | Path | None = None) -> dict[str, list[str]]:
    """The passages of each topic, in their order; one that comes several times stands where it comes first.

    Args:
        data: a folder with a text file for each topic (`*.txt`, UTF-8), with an empty line between passages.
            Default: `pydoc_data.topics` of Python's standard library.

    Raises:
        InputError: nothing there, a single file, or a file that is empty or not UTF-8; it names the file.
    """
    if data is None:
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise InputError("pydoc_data is missing from this Python; name a folder with data=PATH") from None
        texts = dict(sorted(topics.items()))
    else:
        path, expected = own_path(data), "a folder with a file *.txt for each topic, two or more"
        require_folder(path, expected)
        files = files_in(path, (".txt",))
        if len(files) < 2:
            raise InputError(f"{path}: expected {expected}; found {'one' if files else 'none'}")
        texts = {file.stem: read_text(file) for file in files}
    seen: set[str] = set()
    return {topic: list(unseen(text.split("\n\n"), seen)) for topic, text in texts.items()}


def unseen(passages: Iterable[str], seen: set[str]) -> Iterable[str]:
    """The passages that are not empty and not among those seen, which they join."""
    for passage in passages:
        stripped = passage.strip("\n")
        if stripped.strip() and stripped not in seen:
            seen.add(stripped)
            yield stripped
