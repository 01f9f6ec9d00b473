"""Word vectors as text: what is read, what is refused, and where a model starts."""

from pathlib import Path

import pytest
import torch
from torch import nn

from recipes.core.errors import InputError
from recipes.datasets.word_vectors import WordVectors, read_vectors, start_from, write_vectors


def write(folder: Path, content: str | bytes) -> Path:
    file = folder / "vectors.txt"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_words_and_numbers(tmp_path: Path) -> None:
    vectors = read_vectors(write(tmp_path, "the 0.5 -1e-2\n. . 1 2\r\n好 3 4\nthe 9 9\n"))
    assert vectors.words == ["the", ". .", "好"]
    torch.testing.assert_close(vectors.table, torch.tensor([[0.5, -0.01], [1, 2], [3, 4]]))


def test_a_first_line_of_word2vec_is_passed_over(tmp_path: Path) -> None:
    assert read_vectors(write(tmp_path, "2 3\na 1 2 3\nb 4 5 6\n")).words == ["a", "b"]


def test_only_wanted_words_are_kept(tmp_path: Path) -> None:
    file = write(tmp_path, "a 1 2\nb 3 4\nc 5 6\n")
    assert read_vectors(file, ["c", "d", "a"]).words == ["a", "c"]
    with pytest.raises(InputError, match=r"vectors.txt: none of the words that are wanted"):
        read_vectors(file, ["x"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a 1 2\nb 3\n", "row 2: 1 numbers; expected a word and 2 of them"),
        ("a 1 2\nb 3 4 5\n", "row 2: 3 numbers; expected a word and 2 of them"),
        ("a 1 2\nb 3 x\n", "row 2: expected a number, got 'x'"),
        ("a 1 nan\n", "row 1: expected a number, got 'nan'"),
        ("a 1 2\n\nb 3 4\n", "row 2: the line is empty"),
        ("word\n", "row 1: 0 numbers; expected a word and its numbers"),
        (b"a 1 2\nna\xefve 1 2\n", "row 2: expected UTF-8 text"),
        ("", "no line in it"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=rf"vectors.txt(, |: ){message}"):
        read_vectors(write(tmp_path, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.txt: no such file"):
        read_vectors(tmp_path / "nothing.txt")


def test_written_vectors_are_read_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vectors = WordVectors(["a", "b"], torch.randn(2, 5))
    write_vectors(tmp_path / "out" / "vectors.txt", vectors)
    again = read_vectors(tmp_path / "out" / "vectors.txt")
    assert again.words == vectors.words
    torch.testing.assert_close(again.table, vectors.table, rtol=1e-4, atol=0)


def test_a_model_starts_from_them() -> None:
    embedding = nn.Embedding(4, 2, padding_idx=0)
    before = embedding.weight.detach().clone()
    vectors = WordVectors(["b", "<pad>", "a"], torch.tensor([[1.0, 2.0], [9.0, 9.0], [3.0, 4.0]]))
    assert start_from(embedding, ["<pad>", "a", "x", "b"], vectors) == 0.5
    assert embedding.weight[1].tolist() == [3, 4]
    assert embedding.weight[3].tolist() == [1, 2]
    assert torch.equal(embedding.weight[[0, 2]], before[[0, 2]])
    assert embedding.weight.requires_grad


@pytest.mark.real
def test_real_vectors(real_data: Path) -> None:
    vectors = read_vectors(real_data / "glove" / "glove.6B.50d.top20k.txt")
    assert vectors.table.shape == (20_000, 50)
    assert vectors.words[0] == "the"
