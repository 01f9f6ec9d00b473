"""Opens sentence pairs with a score: the bundled similarities, or yours as TSV, such as the STS benchmark's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recipes.core.errors import InputError
from recipes.core.files import own_path
from recipes.datasets.bundled import bundled
from recipes.datasets.own import described, pair_of_datasets, samples_of
from recipes.datasets.reading import file_or_folder, files_in, finite, is_folder
from recipes.datasets.text_files import PARTS, Unlabeled, csv_rows, first_labeled, lines_of, part_files

SENTENCE_COLUMNS = (
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("word1", "word2"),
)
SCORE_COLUMNS = ("score", "similarity", "relatedness_score", "label")
SAMPLE = "(sentence1, sentence2, score)"


@dataclass
class ScoredPairs:
    """Pairs of sentences, each with a score that is higher the more they have in common.

    Attributes:
        firsts: N sentences.
        seconds: N sentences.
        scores: (N,) on the scale of the file, such as 0 to 5.
    """

    firsts: list[str]
    seconds: list[str]
    scores: Tensor

    def __len__(self) -> int:
        return len(self.firsts)

    def subset(self, indices: list[int]) -> "ScoredPairs":
        firsts, seconds = ([side[index] for index in indices] for side in (self.firsts, self.seconds))
        return ScoredPairs(firsts, seconds, self.scores[indices])


def open_scored_pairs(data: Any = None, *, seed: int = 0) -> tuple[ScoredPairs, ScoredPairs]:
    """Opens sentence pairs with a score: the train and the test part.

    Columns stand between tabs. A header names them (`sentence1`, `sentence2`, `score`); without one there are
    three, the score first or last, or seven and more as in the STS benchmark, where the fifth is the score and
    the next two are the sentences.

    Args:
        data: a folder with a file `train` and a file `test` (or `dev`, `val`, `validation`), or with names that
            end so, such as `sts-train.csv`; or one file, a fifth of which is drawn for the test part, the same
            first sentence never on both sides; or a pair of your own Datasets (train, test), whose samples are
            (sentence1, sentence2, score), tuples or dicts. Default: the bundled similarities.
        seed: of the draw that splits a single file.

    Raises:
        InputError: nothing there, or a row that is not two sentences and a number; it names the file and the row.
    """
    pair = pair_of_datasets(data)
    if pair is not None:
        train_part, test_part = (scored_pairs_of(part, name) for part, name in zip(pair, PARTS, strict=True))
        return checked_scores(train_part, "data"), test_part
    path = bundled("similarities") if data is None else file_or_folder(own_path(data))
    if is_folder(path):
        files, expected = files_in(path, (".tsv", ".csv", ".txt")), "a file {}.tsv or one whose name ends in -{}"
        found = [part_files(path, files, part, expected.format(part, part)) for part in PARTS]
        train_part, test_part = (first_labeled(candidates, read_scored_pairs) for candidates in found)
    else:
        train_part, test_part = split_scored_pairs(path, read_scored_pairs(path), seed)
    return checked_scores(train_part, path), test_part


def checked_scores(train_part: ScoredPairs, source: Any) -> ScoredPairs:
    """The train part, whose scores must differ for there to be anything to learn."""
    if train_part.scores.min() == train_part.scores.max():
        raise InputError(f"{source}: all train pairs have the score {train_part.scores[0]:g}; expected different ones")
    return train_part


def scored_pairs_of(dataset: Any, part: str) -> ScoredPairs:
    """The pairs of the user's own Dataset, read once."""
    firsts, seconds, scores = [], [], []
    for number, (first, second, score) in enumerate(samples_of(dataset, part, SAMPLE)):
        where = f"data: {part} sample {number}"
        for text in (first, second):
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{where}: expected {SAMPLE}, two texts and a number, got {described(text)}")
        value = finite(score.item() if isinstance(score, (Tensor, np.number)) and score.ndim == 0 else score)
        if value is None:
            raise InputError(f"{where}: expected {SAMPLE}, two texts and a number, got {described(score)}")
        firsts.append(first.strip())
        seconds.append(second.strip())
        scores.append(value)
    return ScoredPairs(firsts, seconds, torch.tensor(scores))


def read_scored_pairs(path: Path) -> ScoredPairs:
    """The pairs of one file, between tabs (quotes are part of the sentences), commas, or blanks if they are words."""
    lines = [(number, line) for number, line in enumerate(lines_of(path, "row"), 1) if line.strip()]
    if not lines:
        raise InputError(f"{path}: the file is empty; expected two sentences and a score a row")
    between = next((mark for mark in "\t," if mark in lines[0][1]), " ")
    rows = [(number, line.split(between)) for number, line in lines]
    if between == ",":
        rows = list(csv_rows(path, lines_of(path, "row")))
    header = columns_by_name(path, rows[0][1])
    first, second, score = header or columns_by_place(path, rows[0][1])
    firsts, seconds, scores = [], [], []
    for number, fields in rows[1:] if header else rows:
        if len(fields) <= max(first, second, score):
            raise InputError(f"{path}, row {number}: {len(fields)} fields, expected {len(rows[0][1])}")
        pair = fields[first].strip(), fields[second].strip()
        value = finite(fields[score])
        if not all(pair) or value is None:
            raise InputError(f"{path}, row {number}: expected two sentences and a number, got {fields[score]!r:.40}")
        firsts.append(pair[0])
        seconds.append(pair[1])
        scores.append(value)
    if not scores:
        raise InputError(f"{path}: no row below the header; expected two sentences and a score")
    return ScoredPairs(firsts, seconds, torch.tensor(scores))


def columns_by_name(path: Path, fields: list[str]) -> tuple[int, int, int] | None:
    """Where a header says that the sentences and the score are; None if it is not a header."""
    names = [field.strip().lower() for field in fields]
    for one, other in SENTENCE_COLUMNS:
        for score in SCORE_COLUMNS:
            if {one, other, score} <= set(names):
                return names.index(one), names.index(other), names.index(score)
        if {one, other} <= set(names):
            raise Unlabeled(f"{path}: no column of scores among {', '.join(names)}; expected score")
    return None


def columns_by_place(path: Path, fields: list[str]) -> tuple[int, int, int]:
    """Where the sentences and the score are in a table without a header."""
    if len(fields) >= 7 and finite(fields[4]) is not None:
        return 5, 6, 4
    if len(fields) == 3 and finite(fields[2]) is not None:
        return 0, 1, 2
    if len(fields) == 3 and finite(fields[0]) is not None:
        return 1, 2, 0
    raise InputError(
        f"{path}, row 1: expected a header with sentence1, sentence2 and score, or three fields between tabs, "
        f"two sentences and a number; got {len(fields)} fields"
    )


def split_scored_pairs(path: Path, whole: ScoredPairs, seed: int) -> tuple[ScoredPairs, ScoredPairs]:
    """Splits 80 to 20; all pairs of one first sentence go to the same side."""
    different = list(dict.fromkeys(whole.firsts))
    if len(different) < 2:
        raise InputError(f"{path}: a single first sentence was found; expected enough for a train and a test part")
    order = torch.randperm(len(different), generator=torch.Generator().manual_seed(seed)).tolist()
    test = {different[index] for index in order[: max(1, len(different) // 5)]}
    sides: tuple[list[int], list[int]] = ([], [])
    for index, sentence in enumerate(whole.firsts):
        sides[sentence in test].append(index)
    return whole.subset(sides[0]), whole.subset(sides[1])
