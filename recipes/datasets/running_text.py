"""Opens running text, the bundled reference of Python or your own files, and cuts it into windows of characters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recipes.core.errors import InputError
from recipes.core.files import own_path
from recipes.datasets.bundled import bundled
from recipes.datasets.own import PAIR_PARTS, described, pair_of_datasets
from recipes.datasets.reading import by_split, file_or_folder, files_in, is_folder
from recipes.datasets.text_files import PARTS, lines_of

UNKNOWN = 0  # stands for every character that the train text does not hold


@dataclass
class Windows:
    """A text cut into windows, each with its target: the characters `shift` positions later.

    Attributes:
        ids: numbers of the text's characters, (characters,).
        context: characters in a window.
        characters: of the train text in sorted order, after one that stands for all others.
        shift: 1 for a target that is the next character.
        stride: characters from the start of a window to that of the next; `context` if not given.
        jitter: start a window anywhere from its own start to the next one's, so that no two epochs are alike.
    """

    ids: Tensor = field(repr=False)
    context: int
    characters: list[str] = field(repr=False)
    shift: int = 1
    stride: int | None = None
    jitter: bool = False

    def __len__(self) -> int:
        return 1 + (len(self.ids) - self.shift - self.context) // (self.stride or self.context)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Characters and targets, (batch, context) each."""
        stride = self.stride or self.context
        starts = torch.tensor(indices) * stride
        if self.jitter:
            starts += torch.randint(stride, starts.shape)
            starts.clamp_(max=len(self.ids) - self.shift - self.context)
        positions = starts[:, None] + torch.arange(self.context)  # (batch, context)
        return self.ids[positions], self.ids[positions + self.shift]


def open_characters(
    data: Any = None,
    context: int = 64,
    *,
    shift: int = 1,
    limit: int | None = None,
    characters: list[str] | None = None,
) -> tuple[Windows, Windows]:
    """Running text as windows of characters: the train part, jittered, and the test part, half a window apart.

    Args:
        data: as `open_running_text` takes it.
        context: characters in a window.
        shift: characters from an input to its target.
        limit: characters of the train text that are used, from its beginning; all of them if not given.
        characters: that a model knows already; those of the train text if not given.

    Raises:
        InputError: as `open_running_text` raises it, or a part of the text has no room for a window.
    """
    texts = open_running_text(data)
    # of the whole text also where less of it is used, so that both models know the same
    characters = characters or vocabulary(texts[0])
    parts = [encoded(text, characters) for text in (texts[0][:limit], texts[1])]
    for name, ids in zip(PAIR_PARTS, parts, strict=True):
        if len(ids) < context + max(shift, 1):
            raise InputError(
                f"option context: expected less than the {name} text has, {len(ids):,} characters, got {context}"
            )
    train_set = Windows(parts[0], context, characters, shift, jitter=True)
    return train_set, Windows(parts[1], context, characters, shift, stride=max(1, context // 2))


def vocabulary(text: str) -> list[str]:
    return ["�", *sorted(set(text) - {"�"})]


def encoded(text: str, characters: Sequence[str]) -> Tensor:
    """The characters' numbers, (characters,)."""
    number = {character: index for index, character in enumerate(characters)}
    return torch.tensor([number.get(character, UNKNOWN) for character in text], dtype=torch.int64)


def open_running_text(data: Any = None, *, held_out: float = 0.1) -> tuple[str, str]:
    """Opens running text: what to train on, and what to test on.

    One text is cut in two by position: neighboring sentences share words, so a random draw of them would be no
    fair test.

    Args:
        data: a text file in UTF-8; or a folder whose files *.txt, also in folders below it, are joined in the
            order of their names, unless it holds a file train.txt and a file test.txt (or valid.txt), or
            wiki.train.tokens and wiki.test.tokens, as WikiText2 has them; or a pair
            (train, test) of texts, or of your own Datasets, whose samples are texts.
            Default: the bundled reference of the Python language.
        held_out: share of the characters at the end that is for testing.

    Raises:
        InputError: nothing there, a file that is not UTF-8, or too little text; it names the file.
    """
    if isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(text, str) for text in data):
        return whole_text(data[0], "data: the train text"), whole_text(data[1], "data: the test text")
    pair = pair_of_datasets(data)
    if pair is not None:
        return joined_samples(pair[0], "train"), joined_samples(pair[1], "test")
    path = bundled("python_reference") if data is None else file_or_folder(own_path(data))
    files = [path]
    if is_folder(path):
        files = files_in(path, (".txt", ".tokens"), deep=True)
        if not files:
            raise InputError(f"{path}: expected a folder with files *.txt, found none")
        named = {file.with_name(file.name.removeprefix("wiki.")): file for file in files if file.parent == path}
        splits = by_split(named)
        parts = [[named[splits[split]] for split in PARTS[part] if split in splits] for part in PAIR_PARTS]
        if all(parts):
            return read_text(parts[0][0]), read_text(parts[1][0])
    text = "\n\n".join(read_text(file) for file in files)
    cut = len(text) - int(len(text) * held_out)
    if not 0 < cut < len(text):
        raise InputError(f"{path}: {len(text)} characters, expected enough for a train and a test part")
    return text[:cut], text[cut:]


def read_text(path: Path) -> str:
    """The file's characters, lines ended by a newline alone."""
    return whole_text("\n".join(lines_of(path)), f"{path}: the file")


def whole_text(text: str, source: str) -> str:
    """The text, lines ended by a newline alone.

    Raises:
        InputError: there is nothing in it; names the source.
    """
    text = text.replace("\r\n", "\n").strip("\n")
    if not text.strip():
        raise InputError(f"{source} is empty; expected text")
    return text


def joined_samples(dataset: Any, part: str) -> str:
    """The texts of a Dataset, one after the other; a sample may also be a dict with a "text".

    Raises:
        InputError: a sample is no text; names the part and the sample.
    """
    texts = []
    for number in range(len(dataset)):
        sample = dataset[number]
        text = sample.get("text") if isinstance(sample, dict) else sample
        if not isinstance(text, str):
            raise InputError(f"data: {part} sample {number}: expected a text, got {described(sample)}")
        texts.append(text)
    return whole_text("\n".join(texts), f"data: the {part} part")
