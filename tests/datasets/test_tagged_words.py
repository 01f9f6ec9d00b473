"""The bundled entities, and the opener of tagged words: each way of tagging, and each way to be wrong."""

import importlib.util
import random
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

from recipes.core.errors import InputError
from recipes.datasets.bundled import bundled
from recipes.datasets.tagged_words import open_tagged_words, spans_of, well_formed

MAKER = Path(__file__).parents[2] / "data" / "make_entities.py"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_entities", MAKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_entities"] = module
    spec.loader.exec_module(module)
    return module


def test_bundled_bytes_are_made_again(maker: ModuleType, tmp_path: Path) -> None:
    maker.write(tmp_path)
    for part in ("train", "test"):
        assert (tmp_path / f"{part}.conll").read_bytes() == (bundled("entities") / f"{part}.conll").read_bytes()


def test_bundled_parts() -> None:
    train_part, test_part = open_tagged_words()
    assert (len(train_part), len(test_part), train_part.kinds) == (2000, 500, ["LOC", "ORG", "PER"])
    assert not {" ".join(words) for words in train_part.words} & {" ".join(words) for words in test_part.words}
    kinds: dict[str, set[str]] = {}
    seen = {word for words in train_part.words for word in words}
    new = total = 0
    for words, tags in zip(test_part.words, test_part.tags, strict=True):
        for start, end, kind in spans_of(tags):
            kinds.setdefault(" ".join(words[start:end]), set()).add(kind)
            new, total = new + (not set(words[start:end]) <= seen), total + 1
    assert sum(len(found) > 1 for found in kinds.values()) >= 100, "names that are of several kinds"
    assert 0.4 < new / total < 0.7


def test_bundled_wordings_are_joined_to_others_in_the_test_part(maker: ModuleType) -> None:
    pairs: dict[str, set[tuple[str, str]]] = {}
    for part in ("train", "test"):
        writer = maker.Writer(part, ["Harwick"], random.Random(0))
        pairs[part] = {writer.pair(maker.PREDICATES["per"].split("|"), maker.CLAUSES.split("|")) for _ in range(2000)}
    assert not pairs["train"] & pairs["test"]
    assert {cue for cue, _ in pairs["test"]} == {cue for cue, _ in pairs["train"]}


def test_bundled_chinese_entities(tmp_path: Path) -> None:
    """Made again byte for byte; a character a word; names of several kinds; test names that train never has."""
    make = runpy.run_path(str(MAKER.with_name("make_entities_zh.py")))
    make["main"](tmp_path)
    for part in ("train", "test"):
        name = f"entities_zh/{part}.conll"
        assert (tmp_path / name).read_bytes() == (bundled("entities_zh") / f"{part}.conll").read_bytes()
    train_part, test_part = open_tagged_words("bundled:entities_zh")
    assert (len(train_part), len(test_part), train_part.kinds) == (1500, 400, ["LOC", "ORG", "PER"])
    kinds: dict[str, set[str]] = {}
    for part in (train_part, test_part):
        for words, tags in zip(part.words, part.tags, strict=True):
            assert all(len(word) == 1 for word in words)
            assert tags == well_formed(tags)
    text = "".join(word for words in train_part.words for word in words)
    for words, tags in zip(test_part.words, test_part.tags, strict=True):
        for start, end, kind in spans_of(tags):
            name = "".join(words[start:end])
            assert name not in text or len(name) == 1, "a surname may recur"
            kinds.setdefault(name, set()).add(kind)
    assert sum(len(found) > 1 for found in kinds.values()) >= 50, "names that are of several kinds"
    assert all(any(name in one for one in kinds) for name in make["names_of"]("test"))
    assert not any(name in text for name in make["names_of"]("test"))


def test_a_bundled_set_there_is_not() -> None:
    with pytest.raises(InputError, match="the bundled data set 'entities_fr' is missing"):
        open_tagged_words("bundled:entities_fr")


def test_own_datasets() -> None:
    mine = [(["Ann", "met", "Bob"], ["S-PER", "O", "B-PER"]), (("In", "New", "York"), ("O", "B-LOC", "E-LOC"))]
    train_part, test_part = open_tagged_words((mine, mine[:1]))
    assert train_part.words == [["Ann", "met", "Bob"], ["In", "New", "York"]]
    assert train_part.tags == [["B-PER", "O", "B-PER"], ["O", "B-LOC", "I-LOC"]]
    assert (len(test_part), test_part.kinds) == (1, ["LOC", "PER"])


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ((["a", "b"], ["O"]), "train sample 0: expected words that are not empty, and as many tags, got 2 and 1"),
        (([" "], ["O"]), "train sample 0: expected words that are not empty"),
        ((["a"], [3]), r"train sample 0: expected \(words, tags\), two lists of text"),
        (("a b", ["O", "O"]), r"train sample 0: expected \(words, tags\), two lists of text, got 'a b'"),
        ((["a"], ["PER"]), "train sample 0: expected tags such as O or B-PER, got 'PER'"),
        (["a"], r"train sample 0: expected \(words, tags\), got a list of 1"),
        ((["a"], ["O"]), "data: no entity in the train part"),
    ],
)
def test_own_datasets_that_cannot_be(sample: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_tagged_words(([sample], [sample]))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-A I-A O B-B", "B-A I-A O B-B"),
        ("B-A E-A O S-B", "B-A I-A O B-B"),
        ("B-A M-A E-A S-B", "B-A I-A I-A B-B"),
        ("B-A I-A L-A U-B", "B-A I-A I-A B-B"),
        ("I-A I-A O I-B", "B-A I-A O B-B"),
        ("B-A I-B I-B B-B", "B-A B-B I-B B-B"),
    ],
)
def test_ways_of_tagging(tmp_path: Path, tags: str, expected: str) -> None:
    lines = [f"word{n}\tNN\t{tag}" for n, tag in enumerate(tags.split())]
    (tmp_path / "mine.conll").write_text("-DOCSTART- X O\n\n" + "\n".join([*lines, ""] * 5), "utf-8")
    train_part, test_part = open_tagged_words(tmp_path / "mine.conll")
    assert (len(train_part), len(test_part)) == (4, 1)
    assert train_part.tags[0] == expected.split()
    assert train_part.words[0] == ["word0", "word1", "word2", "word3"]


def test_spans() -> None:
    assert spans_of(["B-A", "I-A", "B-A", "O", "I-B"]) == [(0, 2, "A"), (2, 3, "A"), (4, 5, "B")]
    assert well_formed(["O", "I-A"]) == ["O", "B-A"]


def test_parts_of_a_folder(tmp_path: Path) -> None:
    for name in ("mytrain.conll", "my.dev.conll", "README.md"):
        (tmp_path / name).write_text("a B-X\n\nb O\n" if name != "README.md" else "about train and test", "utf-8")
    train_part, test_part = open_tagged_words(tmp_path)
    assert train_part.words == test_part.words == [["a"], ["b"]]
    (tmp_path / "mytrain.conll").unlink()
    with pytest.raises(InputError, match=r"expected a file such as train\.conll, found my\.dev\.conll"):
        open_tagged_words(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a O\n\nb B-X\nc\n", "line 4: expected a word and a tag such as O or B-PER, got 'c'"),
        ("a O\n\nb X-PER\n", "line 3: expected a word and a tag"),
        ("a O\n\nb B-\n", "line 3: expected a word and a tag"),
        ("a O\nb B-X\n", "1 sentences, expected several"),
        ("", "0 sentences, expected several"),
        ("a O\n\nb O\n", "no entity in the train part"),
        (b"a O\n\n\xff O\n", "line 3: expected UTF-8"),
    ],
)
def test_input_that_cannot_be(tmp_path: Path, content: str | bytes, message: str) -> None:
    (tmp_path / "mine.conll").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        open_tagged_words(tmp_path / "mine.conll")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_tagged_words(tmp_path / "none")


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "sizes", "kinds", "entities"), [("wnut17", (3394, 1287), 6, 1079), ("resume_ner_zh", (3821, 477), 8, 1630)]
)
def test_real_sets(real_data: Path, name: str, sizes: tuple[int, int], kinds: int, entities: int) -> None:
    train_part, test_part = open_tagged_words(real_data / name)
    assert (len(train_part), len(test_part)) == sizes
    assert len(train_part.kinds) == kinds
    assert sum(len(spans_of(tags)) for tags in test_part.tags) == entities


def test_a_no_break_space_is_part_of_a_word(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("New\u00a0York B-LOC\nso O\n\nRome\u3000II B-LOC\n\n" * 3, "utf-8")
    train, test = open_tagged_words(tmp_path / "a.txt")
    assert {word for sentence in train.words + test.words for word in sentence} == {
        "New\u00a0York",
        "so",
        "Rome\u3000II",
    }


@pytest.mark.parametrize("between", ["\t", " "])
def test_numbers_before_words_are_no_words(tmp_path: Path, between: str) -> None:
    lines = ["# of a newspaper", "1 Anna B-PER", "2 sings O", "", "1 7 O", "2 Rome B-LOC", "", "1 so O", ""] * 3
    (tmp_path / "a.conll").write_text("\n".join(line.replace(" ", between) for line in lines))
    train, test = open_tagged_words(tmp_path / "a.conll")
    words = {word for sentence in train.words + test.words for word in sentence}
    assert words == {"Anna", "sings", "7", "Rome", "so"}


def test_files_named_as_those_of_2003(tmp_path: Path) -> None:
    for name, word in (("eng.train", "Anna"), ("eng.testb", "Bob"), ("._eng.train", "\0"), ("README.md", "x")):
        (tmp_path / name).write_text(f"{word} NNP I-NP B-PER\n\n" * 2)
    train, test = open_tagged_words(tmp_path)
    assert (train.words[0], test.words[0]) == (["Anna"], ["Bob"])


def test_a_comment_is_none_of_the_words_whatever_it_ends_in(tmp_path: Path) -> None:
    sentence = "1\tJohn\tB-PER\n2\tsent\tO\n\n"
    (tmp_path / "mail.conllu").write_text("# text = He sent an E-mail\n" + 6 * sentence, "utf-8")
    parts = open_tagged_words(str(tmp_path / "mail.conllu"))
    assert [words for part in parts for words in part.words] == 6 * [["John", "sent"]]
