"""Damaged and odd files of every opener of texts and sounds: they open, or one line names the file."""

import gzip
import json
import math
import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recipes.core.errors import InputError
from recipes.core.options import Options, field_types
from recipes.datasets.parallel import open_pairs
from recipes.datasets.passages import open_passages
from recipes.datasets.questions import open_questions
from recipes.datasets.running_text import open_running_text
from recipes.datasets.sentence_scores import open_scored_pairs
from recipes.datasets.speech import open_speech
from recipes.datasets.tagged_words import open_tagged_words
from recipes.datasets.texts import open_texts
from recipes.datasets.word_vectors import read_vectors

NESTED = [
    {"title": f"T{n}", "paragraphs": [{"context": f"Paris {n}.", "qas": [asked]}]}
    for n in range(6)
    for asked in [{"id": str(n), "question": "Where?", "answers": [{"text": "Paris", "answer_start": 0}]}]
]
FLAT = [
    {"title": f"T{n}", "context": "In Rome.", "question": "Where?", "answers": {"text": ["Rome"], "answer_start": [3]}}
    for n in range(6)
]
WAV = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 836, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", 800)
SOUND = WAV + np.arange(400).astype("<i2").tobytes()

# An opener, and the files of a folder that it opens, the damaged one first; it is given that file if it stands alone.
Case = tuple[Callable[[Path], Any], dict[str, bytes | str]]
ROWS = [(f"a fine film, {n}", "good") if n % 2 else (f"a poor film, {n}", "bad") for n in range(10)]
CASES: dict[str, Case] = {
    "csv": (open_texts, {"a.csv": "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS)}),
    "csv of news": (open_texts, {"a.csv": "".join(f'{label},a title,"{text}"\n' for text, label in ROWS)}),
    "tsv": (open_texts, {"train.tsv": "".join(f"{a}\t{b}\n" for a, b in ROWS), "test.tsv": "a b\tgood\nb a\tbad\n"}),
    "json": (open_texts, {"a.json": json.dumps([{"text": a, "label": b} for a, b in ROWS])}),
    "json lines": (open_texts, {"a.jsonl": "".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in ROWS)}),
    "labeled lines": (open_texts, {"a.label": "".join(f"{label}:kind {text}\n" for text, label in ROWS)}),
    "scores": (open_scored_pairs, {"a.tsv": "".join(f"text {n}\tother\t{n}.5\n" for n in range(10))}),
    "scored words": (open_scored_pairs, {"a.csv": "".join(f"cat{n},dog,{n}.5\n" for n in range(10))}),
    "entities": (open_tagged_words, {"a.conll": "Anna B-PER\nsings O\n\nin O\nRome B-LOC\n\nso O\n\n" * 3}),
    "numbered entities": (open_tagged_words, {"a.tsv": "# x\n1\tAnna\tB-PER\n2\tsings\tO\n\n1\tso\tO\n\n" * 3}),
    "questions": (open_questions, {"a.json": json.dumps({"data": NESTED})}),
    "flat questions": (open_questions, {"a.json": json.dumps(FLAT)}),
    "pairs": (open_pairs, {"a.tsv": "".join(f"Go {n}.\tGeh {n}.\tby me\n" for n in range(10))}),
    "aligned": (open_pairs, {"train.en": "a\nb\n", "train.de": "c\nd\n", "test.en": "e\n", "test.de": "f\n"}),
    "passages": (open_passages, {"a.txt": "one\n\ntwo\n", "b.txt": "three\n\nfour\n"}),
    "running text": (open_running_text, {"train.txt": "some text " * 20, "valid.txt": "other text " * 20}),
    "vectors": (read_vectors, {"a.txt": "2 3\nthe 1 2 3\nof 4 5e-2 6\n"}),
    "speech": (open_speech, {f"{word}_{name}_0.wav": SOUND for word in ("yes", "no") for name in ("ann", "bob")}),
}
ODD_TEXTS = [
    b"",
    b"\n",
    b"\x00" * 100,
    b"\xff\xfe\x00\x00",
    b"\xef\xbb\xbf",
    b"PK\x03\x04" * 9,
    b"\r\r\r",
    b"\n" * 10_000,
    b"x" * 300_000,
    b"[" * 100_000,
    b'{"data": ' * 50_000,
    b'[{"text": ' + b"9" * 5_000 + b', "label": 1}]',
    b'{"data": [{"paragraphs": [{"context": "a", "qas": [{"question": 1, "answers": [[]]}]}]}]}',
    b'[{"text": "\\ud800", "label": "\\udfff"}, 3, null]',
    b"{}",
    b"[]",
    b"null",
    b"1e999\t1e999\t1e999\n" * 3,
    b"a\tb\tnan\n" * 3,
    b'"' * 99,
    "a,b\u2028c,d\n".encode() * 9,
    "\u00a0\t\u3000\n".encode() * 9,
]


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content with one to three of the things that happen to files."""
    for _ in range(draw.randint(1, 3)):
        content = draw.choice(damages(content, draw))
    return content


def damages(content: bytes, draw: random.Random) -> list[bytes]:
    place = draw.randint(0, max(0, len(content) - 1))
    piece, before, behind = content[place : place + draw.randint(1, 40)], content[:place], content[place:]
    size = struct.pack("<I", draw.choice([0, 1, 7, 0x7FFFFFFF, 0xFFFFFFFF]))
    text = content.decode("utf-8", "replace")
    return [
        before,
        behind,
        before + bytes(draw.randrange(256) for _ in range(4)) + behind[4:],
        before + piece + behind,
        before + behind[len(piece) :],
        before + size + behind[4:],
        content[:40] + size + content[44:],
        content.replace(b"\n", draw.choice([b"\r\n", b"\r", b"\n\n", b"\x0b", b"\xe2\x80\xa8"])),
        content.replace(draw.choice([b"\t", b",", b" ", b'"']), draw.choice([b"", b"\t", b"\xc2\xa0"])),
        content.replace(b"1", draw.choice([b"-1", b"1e400", b"nan", b"9" * 400])),
        text.encode(draw.choice(["utf-16", "utf-8-sig", "cp1252"]), "replace"),
    ]


def in_places_of_a_file(path: Path) -> Iterator[str]:
    """Puts what is no file at the path, one thing after the other."""
    path.mkdir()
    yield "folder"
    path.rmdir()
    os.mkfifo(path)
    yield "pipe"
    path.unlink()
    for target in ("nowhere", path.name, "/dev/zero", "/proc/self/mem"):
        path.symlink_to(target)
        yield f"link to {target}"
        path.unlink()


def opens_or_tells(open_it: Callable[[Path], Any], given: Path, folder: Path) -> bool:
    """Whether it opens; else it raises what it should."""
    before = sorted((path.name, path.lstat().st_size) for path in folder.iterdir())
    try:
        open_it(given)
        message = None
    except InputError as error:
        message = str(error)
    assert sorted((path.name, path.lstat().st_size) for path in folder.iterdir()) == before
    assert message is None or (message.isprintable() and len(message) < 1000 and folder.name in message), message
    return message is None


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", CASES)
def test_damaged_files(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Forty or so for each kind of file."""
    open_it, files = CASES[name]
    contents = {file: content.encode() if isinstance(content, str) else content for file, content in files.items()}
    for file, content in contents.items():
        (tmp_path / file).write_bytes(content)
    victim = tmp_path / next(iter(contents))
    given = victim if len(contents) == 1 else tmp_path
    whole = victim.read_bytes()
    assert opens_or_tells(open_it, given, tmp_path)

    draw = random.Random(name)
    for content in [*ODD_TEXTS, *(damaged(whole, draw) for _ in range(20))]:
        victim.write_bytes(content)
        opens_or_tells(open_it, given, tmp_path)
    victim.unlink()
    for what in in_places_of_a_file(victim):
        opens = opens_or_tells(open_it, given, tmp_path)
        assert not opens or (what == "folder" and given != victim)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["csv", "entities", "pairs", "questions", "vectors"])
def test_names_that_would_break_the_line(name: str, tmp_path: Path) -> None:
    open_it, files = CASES[name]
    folder = tmp_path / "folder"
    folder.mkdir()
    file = folder / f"a\nb\x1b{Path(next(iter(files))).suffix}"
    file.write_bytes(b"\xff\xff\xff")
    assert not opens_or_tells(open_it, file, folder)


@pytest.mark.parametrize("open_it", [open_texts, open_scored_pairs, open_tagged_words, open_pairs, open_running_text])
def test_users_that_are_none(open_it: Callable[[str], Any]) -> None:
    with pytest.raises(InputError, match="~nobody-of-that-name/texts: no such user"):
        open_it("~nobody-of-that-name/texts")


def test_packed_files_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "a.tsv.gz"
    bomb.write_bytes(gzip.compress(b"".join(b"%d times\tb\n" % n for n in range(10**5))))
    monkeypatch.setenv("RECIPES_MAX_BYTES", "100000")
    with pytest.raises(InputError, match=r"a\.tsv\.gz: expected at most 100000 bytes"):
        open_pairs(bomb)
    monkeypatch.setenv("RECIPES_MAX_BYTES", "10000000")
    assert [len(part) for part in open_pairs(bomb, limit=10)] == [10, 10_000]


ODD_VALUES: list[Any] = [None, 0, -1, 1.5, 2**31, 2**64, 10**9999, True, "", "x", "3", math.nan, -math.inf, [], {}]
ODD_VALUES += [object(), b"1", Path("a"), np.int64(3), np.float32(0.5), np.zeros(2), torch.tensor(2), torch.zeros(2)]


@pytest.mark.parametrize(
    "recipe", ["nlp.text_classification", "nlp.language_model", "audio.speech_recognition", "vision.classification"]
)
def test_odd_options(recipe: str) -> None:
    """Each is taken as the type it stands for, or is one line that names the option."""
    from recipes import catalog

    kind: type[Options] = catalog.load(recipe).run.recipe.options
    for name in [name for name, hint in field_types(kind).items() if hint is not Any]:
        for value in ODD_VALUES:
            message = f"option {name}: expected "
            try:
                taken = getattr(kind(**{name: value}), name)
            except InputError as error:
                taken, message = None, str(error)
            assert message.startswith(f"option {name}: expected ")
            assert message.isprintable()
            assert type(taken) in (int, float, bool, str, type(None))
