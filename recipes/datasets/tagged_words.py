"""Opens tagged words: the bundled entities, or yours in the columns of CoNLL, a word and its tag a line."""

import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from recipes.core.errors import InputError
from recipes.core.files import own_path
from recipes.datasets.bundled import bundled
from recipes.datasets.own import described, pair_of_datasets, samples_of
from recipes.datasets.reading import file_or_folder, files_in, is_folder
from recipes.datasets.text_files import PARTS, lines_of, part_files

PREFIXES = {"B": "B", "I": "I", "M": "I", "E": "I", "L": "I", "S": "B", "U": "B"}  # of BIO, BMES, BIOES and BILOU
SAMPLE = "(words, tags)"
Span = tuple[int, int, str]  # first word, last word + 1, kind


@dataclass
class TaggedWords:
    """Sentences as words, each with its tag: O, or B- and I- with the kind of entity that begins or goes on.

    Attributes:
        words: N sentences.
        tags: as many tags in each.
        kinds: of entities, sorted.
    """

    words: list[list[str]]
    tags: list[list[str]]
    kinds: list[str]

    def __len__(self) -> int:
        return len(self.words)

    def subset(self, indices: list[int]) -> "TaggedWords":
        return TaggedWords([self.words[one] for one in indices], [self.tags[one] for one in indices], self.kinds)


def open_tagged_words(data: Any = None, *, seed: int = 0) -> tuple[TaggedWords, TaggedWords]:
    """Opens tagged words: the train and the test part.

    A line holds a word, perhaps other columns, and a tag, between tabs or spaces; an empty line ends a sentence. The
    words' numbers in the sentence may stand before them, and comments (`# …`) before the sentence.
    Tags are BIO, BMES, BIOES or BILOU, and come out as BIO.

    Args:
        data: a folder with a file whose name holds `train` and one whose name holds `test` (or `dev`, `valid`);
            or one file, a fifth of whose sentences is drawn for the test part; or `bundled:entities_zh`, sentences in
            Chinese, a character a word; or a pair of your own Datasets (train, test), whose samples are (words, tags),
            two lists of text. Default: the bundled entities in English.
        seed: of the draw that splits a single file.

    Raises:
        InputError: nothing there, or a line that is not a word and a tag; it names the file and the line, or the
            part and the sample.
    """
    pair = pair_of_datasets(data)
    if pair is not None:
        parts = [tagged_words_of(dataset, name) for dataset, name in zip(pair, ("train", "test"), strict=True)]
        return with_kinds(parts, "data")
    named = data is not None and str(data).startswith("bundled:")
    path = bundled(str(data)[8:] if named else "entities") if named or data is None else file_or_folder(own_path(data))
    if is_folder(path):
        files = [file for file in files_in(path) if file.suffix.lower() != ".md"]
        found = [part_files(path, files, part, f"a file such as {part}.conll") for part in PARTS]
        parts = [read_tagged_words(candidates[0]) for candidates in found]
    else:
        whole = read_tagged_words(path)
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed)).tolist()
        count = max(1, len(whole) // 5)
        parts = [whole.subset(sorted(order[count:])), whole.subset(sorted(order[:count]))]
    return with_kinds(parts, path)


def with_kinds(parts: list[TaggedWords], source: Any) -> tuple[TaggedWords, TaggedWords]:
    """Both parts with the kinds of entities that the train part has."""
    kinds = sorted({kind for tags in parts[0].tags for _, _, kind in spans_of(tags)})
    if not kinds:
        raise InputError(f"{source}: no entity in the train part; expected tags such as B-PER")
    train_part, test_part = (TaggedWords(part.words, part.tags, kinds) for part in parts)
    return train_part, test_part


def tagged_words_of(dataset: Any, part: str) -> TaggedWords:
    """The sentences of the user's own Dataset, read once."""
    whole = TaggedWords([], [], [])
    for number, (words, tags) in enumerate(samples_of(dataset, part, SAMPLE)):
        where = f"data: {part} sample {number}"
        for values in (words, tags):
            if not isinstance(values, (list, tuple)) or not all(isinstance(one, str) for one in values):
                raise InputError(f"{where}: expected {SAMPLE}, two lists of text, got {described(values)}")
        if len(words) != len(tags) or not all(word.strip() for word in words):
            raise InputError(
                f"{where}: expected words that are not empty, and as many tags, got {len(words)} and {len(tags)}"
            )
        for tag in tags:
            if bio_tag(tag) is None:
                raise InputError(f"{where}: expected tags such as O or B-PER, got {tag!r:.60}")
        if words:
            whole.words.append(list(words))
            whole.tags.append(well_formed([bio_tag(tag) or "O" for tag in tags]))
    return whole


def bio_tag(tag: str) -> str | None:
    """A tag of any of the schemes in BIO; None if it is not one."""
    prefix, _, kind = tag.partition("-")
    return "O" if tag == "O" else f"{PREFIXES[prefix]}-{kind}" if prefix in PREFIXES and kind else None


def read_tagged_words(path: Path) -> TaggedWords:
    """The sentences of one file."""
    words: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    second: list[str] = []  # column, which has the words where the first one numbers them
    numbered = True
    for number, line in enumerate(lines_of(path), 1):
        # A no-break space is part of a word.
        fields = line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))
        if not any(field.strip() for field in fields) or (not fields[0].strip() and fields[-1].strip() == "O"):
            if words[-1]:  # an empty line, or a word that is but white space
                words.append([])
                tags.append([])
        elif not line.startswith("-DOCSTART-"):
            tag = bio_tag(fields[-1].strip(" "))
            if line.startswith("#") and not words[-1] and (tag is None or " = " in line):
                continue  # a comment, whatever its last word is
            if len(fields) < 2 or tag is None:
                raise InputError(
                    f"{path}, line {number}: expected a word and a tag such as O or B-PER, got {line!r:.60}"
                )
            words[-1].append(fields[0].strip(" "))
            tags[-1].append(tag)
            numbered = numbered and len(fields) > 2 and words[-1][-1] == str(len(words[-1]))
            second.append(fields[1].strip(" "))
    if not words[-1]:
        words, tags = words[:-1], tags[:-1]
    if numbered:
        following = iter(second)
        words = [list(islice(following, len(sentence))) for sentence in words]
    if len(words) < 2:
        raise InputError(f"{path}: {len(words)} sentences, expected several with an empty line after each")
    return TaggedWords(words, [well_formed(sentence) for sentence in tags], [])


def well_formed(tags: list[str]) -> list[str]:
    """The tags, an I- that goes on with nothing of its kind turned into the B- of a new entity."""
    before = ["O", *tags]
    return [f"B-{tag[2:]}" if tag[0] == "I" and last[2:] != tag[2:] else tag for last, tag in zip(before, tags)]  # noqa: B905


def spans_of(tags: list[str]) -> list[Span]:
    """The entities that tags in BIO tell of."""
    spans: list[Span] = []
    for place, tag in enumerate(well_formed(tags)):
        if tag[0] == "B":
            spans.append((place, place + 1, tag[2:]))
        elif tag[0] == "I":
            start, _, kind = spans[-1]
            spans[-1] = (start, place + 1, kind)
    return spans
