"""The bundled translations, and the opener of sentence pairs: each format, and each way to be wrong."""

import gzip
import importlib.util
import itertools
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from recipes.core.errors import InputError
from recipes.datasets.bundled import bundled
from recipes.datasets.parallel import open_pairs

MAKER = Path(__file__).parents[2] / "data" / "make_translations.py"
PAIRS = [(f"sentence {n}", f"Satz {n}") for n in range(20)]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_translations", MAKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_translations"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def words(sentences: list[str]) -> set[str]:
    return {word for sentence in sentences for word in re.findall(r"\w+", sentence.lower())}


def test_bundled_bytes_are_made_again(maker: ModuleType, tmp_path: Path) -> None:
    maker.write(tmp_path)
    for part in ("train", "test"):
        made, kept = (folder / f"{part}.tsv.gz" for folder in (tmp_path, bundled("translations")))
        assert gzip.decompress(made.read_bytes()) == gzip.decompress(kept.read_bytes())


def test_parts_share_words_but_no_frame_and_no_adjective_with_its_noun(maker: ModuleType) -> None:
    train_part, test_part = open_pairs(bundled("translations"))
    assert (len(train_part), len(test_part), train_part.languages) == (3500, 400, ("english", "german"))
    assert not set(train_part.sources) & set(test_part.sources)
    assert not words(test_part.sources) - words(train_part.sources)
    adjectives = {adjective[0] for adjective in maker.ADJECTIVES}
    things = {noun.english for noun in maker.PEOPLE + maker.ANIMALS + maker.THINGS + maker.FOOD}
    pairs = []
    for part in (train_part, test_part):
        split = [re.findall(r"\w+", sentence.lower()) for sentence in part.sources]
        pairs.append({pair for sentence in split for pair in itertools.pairwise(sentence)})
    shared = {(one, other) for one, other in pairs[0] & pairs[1] if one in adjectives and other in things}
    assert not shared


def test_each_two_of_a_held_out_frame_meet_in_train(maker: ModuleType) -> None:
    frames = [(front, tense, kind) for front in maker.FRONTS for tense in maker.TENSES for kind in maker.KINDS]
    train = {frame for frame in frames if not maker.held_out_frame(*frame)}
    for front, tense, kind in set(frames) - train:
        assert any((front, tense) == frame[:2] for frame in train)
        assert any((tense, kind) == frame[1:] for frame in train)
        assert any((front, kind) == frame[::2] for frame in train)


def write_tsv(path: Path, *, header: str = "") -> Path:
    path.write_text(header + "".join(f"{one}\t{other}\n" for one, other in PAIRS), "utf-8")
    return path


def test_one_table_is_split(tmp_path: Path) -> None:
    train_part, test_part = open_pairs(write_tsv(tmp_path / "mine.tsv"))
    assert (len(train_part), len(test_part)) == (18, 2)
    assert sorted(zip(train_part.sources + test_part.sources, train_part.targets + test_part.targets, strict=True)) == (
        sorted(PAIRS)
    )


def test_header_and_direction(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "mine.tsv", header="en\tde\n")
    train_part, _ = open_pairs(path, source="de", limit=3)
    assert train_part.languages == ("de", "en")
    assert len(train_part) == 3
    assert train_part.sources[0].startswith("Satz")


def test_long_texts(tmp_path: Path) -> None:
    long = "word " * 40_000
    (tmp_path / "mine.tsv").write_text(f'article\tsummary\n{long}\tWords.\nA word.\tA "word\n', "utf-8")
    train_part, test_part = open_pairs(tmp_path / "mine.tsv")
    assert {*train_part.sources, *test_part.sources} == {long.strip(), "A word."}
    assert 'A "word' in train_part.targets + test_part.targets


@pytest.mark.parametrize("packed", [False, True])
def test_two_files_a_part(tmp_path: Path, packed: bool) -> None:
    for part in ("train", "test_2016_flickr"):
        for column, language in enumerate(("en", "de")):
            content = "".join(pair[column] + "\n" for pair in PAIRS).encode()
            file = tmp_path / f"{part}.{language}{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(content) if packed else content)
    train_part, test_part = open_pairs(tmp_path)
    assert list(zip(train_part.sources, train_part.targets, strict=True)) == PAIRS
    assert test_part.languages == ("en", "de")
    assert open_pairs(tmp_path, target="en")[0].sources[0] == "Satz 0"


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {}, "expected train.tsv, or two files such as train.en and train.de, found nothing"),
        ({"train.tsv": "a\tb\nc\n"}, {}, "train.tsv, row 2: 1 fields between tabs, expected 2"),
        ({"train.tsv": "A\tb\nC\t \n"}, {}, "train.tsv, row 2: the target is empty"),
        ({"train.tsv": ""}, {}, "train.tsv: the file is empty"),
        ({"train.tsv": "A\tB\n"}, {"source": "en"}, "row 1: expected the names of the columns"),
        ({"train.tsv": "en\tde\nA\tB\n"}, {"source": "fr"}, "option source: .* has en, de, got 'fr'"),
        ({"train.tsv": "en\tde\nA\tB\n"}, {"source": "de", "target": "de"}, "expected two languages, got 'de' twice"),
        ({"train.tsv": "A\tB\n"}, {}, "expected test.tsv"),
        ({"train.tsv": "A\tB\n"}, {"limit": 0}, "option limit"),
        ({"train.en": "A\nB\n", "train.de": "A\n"}, {}, "train.en has 2 lines and train.de 1, expected as many"),
        ({"train.tsv.gz": "not packed"}, {}, "expected a whole gzip file"),
        ({"train.tsv.gz": gzip.compress(b"A\tB\n")[:-9]}, {}, "train.tsv.gz: expected a whole gzip file"),
        ({"train.tsv.gz": gzip.compress(b"")[:10] + bytes(20)}, {}, "train.tsv.gz: expected a whole gzip file"),
        ({"train.tsv": b"A\tB\n\xff\tC\n"}, {}, "train.tsv, line 2: expected UTF-8"),
    ],
)
def test_input_that_cannot_be(tmp_path: Path, files: dict[str, str | bytes], options: dict, message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        open_pairs(tmp_path, **options)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_pairs(tmp_path / "none")


@pytest.mark.real
def test_multi30k(real_data: Path) -> None:
    train_part, test_part = open_pairs(real_data / "multi30k", limit=100)
    assert (len(train_part), len(test_part), train_part.languages) == (100, 1000, ("en", "de"))


def sources_of(path: Path, **given: Any) -> dict[str, str]:
    parts = open_pairs(path, **given)
    return {one: other for part in parts for one, other in zip(part.sources, part.targets, strict=True)}


def test_pairs_of_words_have_no_header(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("cat\tKatze\ndog\thund\nhouse\thaus\n".lower())
    assert sources_of(tmp_path / "a.tsv") == {"cat": "katze", "dog": "hund", "house": "haus"}
    (tmp_path / "a.tsv").write_text("english\tgerman\ncat\tkatze\ndog\thund\n")
    assert sources_of(tmp_path / "a.tsv", target="english") == {"katze": "cat", "hund": "dog"}


@pytest.mark.parametrize("row", ["Go {n}.\tGeh {n}.\tCC-BY 2.0 by me", "{n}\tGo {n}.\t1{n}\tGeh {n}."])
def test_further_columns_are_left_out_and_told(tmp_path: Path, row: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.tsv").write_text("".join(row.format(n=n) + "\n" for n in range(5)))
    assert sources_of(tmp_path / "a.tsv") == {f"Go {n}.": f"Geh {n}." for n in range(5)}
    assert "a.tsv: pairs are taken from columns" in capsys.readouterr().err


def test_a_bare_carriage_return_does_not_move_the_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in (("Train.en", "a\rb\nc\nd\n"), ("Train.de", "x\ny\n\n"), ("dev.en", "q\n"), ("dev.de", "r\n")):
        (tmp_path / name).write_bytes(content.encode())
    assert sources_of(tmp_path) == {"a b": "x", "c": "y", "q": "r"}
    assert "Train.en: 1 lines are empty here or in de: left out" in capsys.readouterr().err


@pytest.mark.parametrize("header", ["id\tsource\ttarget", "No\tEnglish\tGerman", "编号\t英文\t德文"])
@pytest.mark.parametrize("english", ["I have {n} books.", "我有{n}本书。"])
def test_a_header_names_the_texts_whatever_stands_before_them(tmp_path: Path, header: str, english: str) -> None:
    rows = "".join(f"{n}\t{english.format(n=n)}\tIch habe {n} Bücher.\n" for n in range(20))
    (tmp_path / "pairs.tsv").write_text(f"{header}\n{rows}", "utf-8")
    parts = open_pairs(str(tmp_path / "pairs.tsv"))
    assert parts[0].languages == tuple(header.split("\t")[1:])
    found = {pair for part in parts for pair in zip(part.sources, part.targets, strict=True)}
    assert found == {(english.format(n=n), f"Ich habe {n} Bücher.") for n in range(20)}
