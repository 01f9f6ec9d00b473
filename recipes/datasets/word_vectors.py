"""Opens word vectors written as text, the format of GloVe and of word2vec, and lets a model start from them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from recipes.core.errors import InputError
from recipes.core.files import own_path, write_whole
from recipes.datasets.reading import finite, opened_file

MOST_OF_A_ROW = 2**20  # bytes


@dataclass
class WordVectors:
    """Words and their vectors.

    Attributes:
        words: N different words.
        table: (N, width), a word's vector in its row.
    """

    words: list[str]
    table: Tensor


def read_vectors(path: str | Path, wanted: Collection[str] | None = None) -> WordVectors:
    """Reads a text file with a word and its numbers a line, with spaces between them.

    A first line such as `400000 50` is that of word2vec, which counts words and numbers, and is passed over.
    Of a word that comes twice the first vector counts.

    Args:
        path: of the file, in UTF-8.
        wanted: words to keep; all if not given.

    Raises:
        InputError: no such file, a line that is not a word with as many numbers as the others have, or a file
            without any word that is wanted; it names the file and the row.
    """
    path = own_path(path)
    chosen = set(wanted) if wanted is not None else None
    kept: dict[str, list[float]] = {}
    width = 0
    with opened_file(path) as file:
        for row, line in enumerate(iter(lambda: file.readline(MOST_OF_A_ROW), b""), 1):
            where = f"{path}, row {row}"
            try:
                text = line.decode("utf-8-sig" if row == 1 else "utf-8").rstrip()
            except UnicodeDecodeError:
                raise InputError(f"{where}: expected UTF-8 text; save the file as UTF-8") from None
            if row == 1 and [part.isdecimal() for part in text.split(" ")] == [True, True]:
                continue
            if not text:
                raise InputError(f"{where}: the line is empty; expected a word and its numbers")
            width = width or text.count(" ")
            word, *numbers = text.rsplit(" ", width)  # a few files have words with a space in them
            last = word.rpartition(" ")[2] if " " in word else ""
            if width == 0 or len(numbers) < width or finite(last) is not None:
                expected = f"a word and {width} of them, as before" if width else "a word and its numbers"
                raise InputError(f"{where}: {text.count(' ')} numbers; expected {expected}")
            if (chosen is None or word in chosen) and word not in kept:
                wrong = [number for number in numbers if finite(number) is None]
                if wrong:
                    raise InputError(f"{where}: expected a number, got {wrong[0]!r:.60}")
                kept[word] = [float(number) for number in numbers]
    if not kept:
        raise InputError(f"{path}: none of the words that are wanted is in it" if width else f"{path}: no line in it")
    return WordVectors(list(kept), torch.tensor(list(kept.values())))


def write_vectors(path: str | Path, vectors: WordVectors) -> None:
    """Writes the file that `read_vectors` reads, five digits a number."""
    rows = zip(vectors.words, vectors.table.tolist(), strict=True)
    lines = (" ".join([word, *(f"{number:.5g}" for number in row)]) + "\n" for word, row in rows)
    write_whole(Path(path), lambda target: target.write_text("".join(lines), "utf-8"))


@torch.no_grad()
def start_from(embedding: nn.Embedding, words: Sequence[str], vectors: WordVectors) -> float:
    """Sets an embedding's rows to their words' vectors; gives the share of the words that have one.

    Rows of other words, and that of the padding, stay as they are.

    Args:
        embedding: as wide as the vectors.
        words: one for each of its rows.
        vectors: to start from.
    """
    row_of = {word: row for row, word in enumerate(vectors.words)}
    found = [row for row, word in enumerate(words) if word in row_of and row != embedding.padding_idx]
    embedding.weight[found] = vectors.table[[row_of[words[row]] for row in found]].to(embedding.weight)
    return len(found) / len(words)
