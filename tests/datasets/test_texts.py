"""The bundled reviews, and the opener of labelled texts: each format, and each way to be wrong."""

import importlib.util
import json
import os
import re
import runpy
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch

from recipes.core.errors import InputError
from recipes.core.loading import batches
from recipes.core.options import Options
from recipes.datasets.bundled import bundled
from recipes.datasets.texts import Texts, open_texts

MAKER = Path(__file__).parents[2] / "data" / "make_reviews.py"
ROWS = [(f"text number {n}, with a comma", ("bad", "good")[n % 2]) for n in range(20)]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reviews", MAKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_reviews"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reviews() -> tuple[Texts, Texts]:
    return open_texts()


def frame_pattern(frame: str) -> re.Pattern[str]:
    """What every filling of a frame looks like."""
    pieces = [re.escape(piece) for piece in re.split(r"\{[^}]*\}", frame)]
    return re.compile(re.sub(r"\b([Aa])\\ ", r"\1n?\\ ", "[^.!?]+?".join(pieces)))


def test_bundled_counts_and_balance(reviews: tuple[Texts, Texts]) -> None:
    for part, count in zip(reviews, (4000, 1000), strict=True):
        assert len(part) == count
        assert part.classes == ["negative", "positive"]
        assert abs(part.labels.float().mean().item() - 0.5) <= 0.01
        assert all(8 <= len(text.split()) <= 40 for text in part.texts)
    assert sum((bundled("reviews") / f"{part}.csv").stat().st_size for part in ("train", "test")) < 700_000


def test_bundled_has_no_text_twice(reviews: tuple[Texts, Texts]) -> None:
    texts = reviews[0].texts + reviews[1].texts
    assert len({text.lower() for text in texts}) == len(texts)


def test_bundled_is_reproduced_to_the_byte(maker: ModuleType, tmp_path: Path) -> None:
    maker.write(tmp_path)
    for part in ("train", "test"):
        assert (tmp_path / f"{part}.csv").read_bytes() == (bundled("reviews") / f"{part}.csv").read_bytes()


def test_held_out_frames_are_unseen(maker: ModuleType, reviews: tuple[Texts, Texts]) -> None:
    def frames(part: str) -> set[str]:
        cores = {frame for kind in maker.FRAMES[part].values() for frame in kind}
        verdicts = {verdict for polarity in maker.VERDICTS[part].values() for verdict in polarity}
        return cores | set(maker.OPENINGS[part]) | set(maker.CLOSINGS[part]) | verdicts

    assert not frames("train") & frames("test")
    for frame in frames("test"):
        pattern = frame_pattern(frame)
        # A sentence that only begins a longer one would be found inside it, so whole texts count.
        assert not any(pattern.match(text) for text in reviews[0].texts), frame
    used = {frame for review in maker.build()["test"] for frame in review.frames}
    assert {frame for kind in maker.FRAMES["test"].values() for frame in kind} <= used


def test_held_out_words_are_unseen(maker: ModuleType, reviews: tuple[Texts, Texts]) -> None:
    train, test = (" " + " ".join(part.texts).lower() + " " for part in reviews)
    nouns = [noun for field in maker.FIELDS.values() for noun in field.subjects["test"] + field.aspects["test"]]
    opinions = [word for polarity in maker.HELD_OUT.values() for word in polarity]
    for word in nouns + opinions + maker.PEOPLE["test"]:
        assert re.search(rf"\b{word}\b", test), word
        assert not re.search(rf"\b{word}\b", train), word


def test_words_of_both_polarities_stand_in_both_classes(maker: ModuleType, reviews: tuple[Texts, Texts]) -> None:
    counts = {label: Counter[str]() for label in (0, 1)}
    for text, label in zip(reviews[0].texts, reviews[0].labels.tolist(), strict=True):
        counts[label].update(re.findall(r"[\w-]+", text.lower()))
    for polarity in maker.POLARITIES:
        for word in maker.GRADED[polarity] + maker.STRONG[polarity]:
            here, there = counts[0][word], counts[1][word]
            assert min(here, there) >= 0.15 * (here + there) > 0, word


@pytest.mark.parametrize(("before", "after"), [("a excellent", "an excellent"), ("a useful", "a useful")])
def test_article(maker: ModuleType, before: str, after: str) -> None:
    writer = maker.Writer("train", "positive", maker.random.Random(0))
    assert writer.fill(f"It was {before} hotel.") == f"It was {after} hotel."


def write_table(path: Path, delimiter: str, header: bool, rows: list[tuple[str, str]] = ROWS) -> None:
    quote = '"' if delimiter == "," else ""
    lines = ([delimiter.join(("sentence", "category"))] if header else []) + [
        delimiter.join((quote + text + quote, label)) for text, label in rows
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize(("ending", "delimiter"), [("csv", ","), ("tsv", "\t"), ("txt", "\t"), ("txt", ",")])
def test_tables(tmp_path: Path, ending: str, delimiter: str, header: bool) -> None:
    write_table(tmp_path / f"train.{ending}", delimiter, header)
    write_table(tmp_path / f"dev.{ending}", delimiter, header, ROWS[:4])
    train, test = open_texts(tmp_path)
    assert [(train[n][0], train.classes[train[n][1]]) for n in range(len(train))] == ROWS
    assert test.texts == [text for text, _ in ROWS[:4]]


def test_json_lines_with_a_byte_order_mark_and_whole_number_labels(tmp_path: Path) -> None:
    lines = [json.dumps({"id": n, "text": text, "label": n % 2}) for n, (text, _) in enumerate(ROWS)]
    for part in ("train", "test"):
        (tmp_path / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    train, test = open_texts(tmp_path)
    assert train.classes == ["0", "1"]
    assert train.texts == test.texts == [text for text, _ in ROWS]


def test_test_goes_before_dev(tmp_path: Path) -> None:
    for part, count in (("train", 20), ("dev", 6), ("test", 4)):
        write_table(tmp_path / f"{part}.csv", ",", True, ROWS[:count])
    assert [len(part) for part in open_texts(tmp_path)] == [20, 4]


def test_named_columns(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("stars,title,words\n" + "".join(f"{n % 2},t,w{n}\n" for n in range(10)))
    train, test = open_texts(tmp_path / "all.csv", text_column="words", label_column="stars")
    assert sorted(train.texts + test.texts) == [f"w{n}" for n in range(10)]


def test_quotes_and_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text('text,label\n"one, ""two""\nthree",a\nfour,b\nfive,b\nsix,a\n')
    train, test = open_texts(tmp_path / "all.csv")
    assert 'one, "two"\nthree' in train.texts + test.texts
    (tmp_path / "Collection").write_text('a\t"a stray quote\nb\ttext\na\tmore text\nb\tlast "one\r\n')
    train, test = open_texts(tmp_path / "Collection")
    assert sorted(train.texts + test.texts) == ['"a stray quote', 'last "one', "more text", "text"]


def test_one_file_is_split_and_copies_stay_together(tmp_path: Path) -> None:
    write_table(tmp_path / "all", "\t", False, [(f"text number {n % 25}", "ab"[n % 25 % 2]) for n in range(100)])
    train, test = open_texts(tmp_path / "all")
    assert not set(train.texts) & set(test.texts)
    assert len(train) + len(test) == 100
    assert len(test) == 20
    assert open_texts(tmp_path / "all")[1].texts == test.texts
    assert open_texts(tmp_path / "all", seed=1)[1].texts != test.texts


def test_a_batch_at_a_time(reviews: tuple[Texts, Texts]) -> None:
    texts, labels = next(iter(batches(reviews[0], Options(batch_size=32))))
    assert len(texts) == 32
    assert labels.shape == (32,)
    assert labels.dtype == torch.int64
    where = [reviews[0].texts.index(text) for text in texts]
    assert torch.equal(reviews[0].labels[where], labels)


BAD = {
    "no known column": ("title,label\nx,a\ny,b\n", "no column of texts among title, label"),
    "no known column at all": (
        "title,stars\n" + "x,1\ny,2\nz,1\nw,2\n",
        "no known name among the columns title, stars",
    ),
    "empty text": ("text,label\nx,a\n,b\n", "row 3: the text is empty"),
    "empty label": ("text,label\nx,\ny,b\n", "row 2: the label is empty"),
    "too few fields": ("text,label\nx,a\ny\n", "row 3: 1 fields, expected 2"),
    "too many fields": ("text,label\nx,a\ny,z,b\n", "row 3: 3 fields, expected 2"),
    "after a line break": ('text,label\n"x\nx",a\ny\n', "row 4: 1 fields, expected 2"),
    "open quote": ('text,label\nx,a\n"y,b\n', "row 3: "),
    "one class": ("text,label\nx,a\ny,a\n", "one class, 'a'"),
    "empty": ("", "the file is empty"),
    "header alone": ("text,label\n", "no row below the header"),
    "three columns and no header": ("x,y,z\nx,y,z\n", "3 columns and no header"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_table(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    path = tmp_path / "all.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        open_texts(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ['["x", "a"]', '{"text": "x"', '{"text": "x"}', '{"text": ["x"], "label": 1}'])
def test_bad_json_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "all.jsonl").write_text('{"text": "x", "label": "a"}\n' + line + "\n")
    with pytest.raises(InputError, match=r"all\.jsonl, row 2: .*expected"):
        open_texts(tmp_path / "all.jsonl")


def test_bad_utf8(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_bytes("text,label\nx,a\ncafé,b\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"all\.csv, row 3: expected UTF-8"):
        open_texts(tmp_path / "all.csv")


def test_unknown_column_lists_the_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "all.csv", ",", True)
    with pytest.raises(InputError, match="no column 'words'; the columns are sentence, category"):
        open_texts(tmp_path / "all.csv", text_column="words")
    write_table(tmp_path / "all.tsv", "\t", False)
    with pytest.raises(InputError, match="no column 'words'; the columns are"):
        open_texts(tmp_path / "all.tsv", text_column="words")


def test_bad_folders_and_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_texts(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"expected a file train\.csv.* found no such file"):
        open_texts(tmp_path)
    write_table(tmp_path / "train.csv", ",", True)
    with pytest.raises(InputError, match=r"expected a file test\.csv.* found train\.csv"):
        open_texts(tmp_path)


def test_a_label_unseen_in_train(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", ",", True)
    write_table(tmp_path / "test.csv", ",", True, [*ROWS[:3], ("a text", "ugly")])
    with pytest.raises(InputError, match=r"test\.csv, row 5: the label 'ugly' .* bad, good"):
        open_texts(tmp_path)


def test_hub_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=re.escape('pip install "pytorch-recipes[hub]"')):
        open_texts("hf:ag_news")


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    class Table(list[dict[str, object]]):
        column_names = ("text", "label")
        features = {"text": None, "label": type("ClassLabel", (), {"names": ["neg", "pos"]})}  # noqa: RUF012

    hub = ModuleType("datasets")
    table = Table({"text": f"text {n}", "label": n % 2} for n in range(10))
    hidden = Table([{"text": "text", "label": -1}])
    hub.load_dataset = lambda name: {"train": table, "test": hidden, "validation": table}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", hub)
    train, test = open_texts("hf:some/set")
    assert train.classes == ["neg", "pos"]
    assert train[3] == ("text 3", 1)
    assert len(test) == 10


@pytest.fixture
def real() -> Path:
    if "RECIPES_REAL_DATA" not in os.environ:
        pytest.skip("RECIPES_REAL_DATA names no folder")
    return Path(os.environ["RECIPES_REAL_DATA"])


@pytest.mark.real
@pytest.mark.parametrize(("name", "counts"), [("sst2", [6920, 1821]), ("chnsenticorp", [7566, 1172])])
def test_real_folder(real: Path, name: str, counts: list[int], tmp_path: Path) -> None:
    parts = open_texts(real / name)
    assert [len(part) for part in parts] == counts
    assert parts[0].classes == ["0", "1"]
    for part in ("train", "dev"):
        (tmp_path / f"{part}.tsv").symlink_to(real / name / f"{part}.tsv")
    assert len(open_texts(tmp_path)[1]) == {"sst2": 872, "chnsenticorp": 1132}[name]


@pytest.mark.real
def test_real_single_file(real: Path) -> None:
    train, test = open_texts(real / "sms_spam" / "SMSSpamCollection")
    assert len(train) + len(test) == 5574
    assert train.classes == ["ham", "spam"]
    assert train.texts[0].startswith("Go until jurong point") or test.texts[0].startswith("Go until jurong point")
    assert not set(train.texts) & set(test.texts)
    assert len(test) / 5574 == pytest.approx(0.2, abs=0.02)


def test_bundled_chinese_reviews(tmp_path: Path) -> None:
    """Made again byte for byte; as many of each class; frames, names and words of their own in the test part."""
    make = runpy.run_path(str(MAKER.with_name("make_reviews_zh.py")))
    make["main"](tmp_path)
    for part in ("train", "test"):
        name = f"reviews_zh/{part}.csv"
        assert (tmp_path / name).read_bytes() == (bundled("reviews_zh") / f"{part}.csv").read_bytes()
    train_set, test_set = open_texts("bundled:reviews_zh")
    assert [part.labels.bincount().tolist() for part in (train_set, test_set)] == [[600, 600], [150, 150]]
    assert not set(train_set.texts) & set(test_set.texts)
    train, test = "".join(train_set.texts), "".join(test_set.texts)
    own = {word for kind in make["KINDS"].values() for both in kind.values() for word in words_of_test(both)}
    for word in own | set(make["NAMES"]["test"]):
        assert word in test
        assert word not in train


def words_of_test(both: str) -> set[str]:
    return {word for half in both.split(" / ") for word in half.partition("|")[2].split()}


def test_a_bundled_set_there_is_not() -> None:
    with pytest.raises(InputError, match=r"the bundled data set 'reviews_fr' is missing"):
        open_texts("bundled:reviews_fr")


def test_a_pair_of_datasets() -> None:
    """Labels are numbers or names; the train part's `classes` name the numbers."""

    class Reviews(list[tuple[str, int]]):
        classes = ("bad", "good")

    numbers = Reviews([(" a fine film ", 1), ("a poor one", 0), ("fine", 1)])
    train, test = open_texts((numbers, numbers[:2]))
    assert train.texts == ["a fine film", "a poor one", "fine"]
    assert train.labels.tolist() == [1, 0, 1]
    assert train.classes == ["bad", "good"]
    assert test.texts == train.texts[:2]
    train, _ = open_texts(([("x", "b"), ("y", "a")], [("z", "a")]))
    assert [train.classes[label] for label in train.labels] == ["b", "a"]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([("x", 0), ("y", 0)], "data: all train samples are of one class, '0'"),
        ([("x", 0), (3, 1)], "data: train sample 1: expected a text, got 3"),
        ([("x", 0), (" ", 1)], "data: train sample 1: expected a text"),
        ([("x", 0), ("y",)], r"data: train sample 1: expected \(text, label\)"),
        ([("x", 0), ("y", 0.5)], "data: train sample 1: expected a class number"),
    ],
)
def test_a_pair_that_cannot_be(train: list[tuple[object, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_texts((train, [("z", 0)]))


def told_of(found: tuple[Texts, Texts]) -> dict[str, str]:
    """The class of each text, of both parts."""
    return {text: part.classes[label] for part in found for text, label in zip(part.texts, part.labels, strict=True)}


TREC = "".join(f"{'DESC:manner' if n % 2 else 'NUM:date'} In which café {n} ?\n" for n in range(20))
WITHOUT_HEADER = {
    "news: class, title, description": (
        "a.csv",
        "".join(f'"{n % 4}","Title {n} of news","A text, {n}."\n' for n in range(40)),
        ("Title 5 of news A text, 5.", "1"),
    ),
    "class and text": ("a.csv", "".join(f'"{n % 2}","Nice place {n}"\n' for n in range(40)), ("Nice place 5", "1")),
    "source, label, mark and text, as in CoLA": (
        "a.tsv",
        "".join(f"gj04\t{n % 2}\t{'*' * (n % 2)}\tSentence {n} is here.\n" for n in range(20)),
        ("Sentence 5 is here.", "1"),
    ),
    "LABEL:sub": ("a.label", TREC, ("In which café 5 ?", "DESC")),
    "fastText's": ("a.txt", "".join(f"__label__{n % 2} some text {n}\n" for n in range(20)), ("some text 5", "1")),
    "JSON array": ("a.json", json.dumps([{"text": f"t {n}", "label": n % 2} for n in range(20)]), ("t 5", "1")),
    "a bare carriage return": ("a.csv", "text,label\n" + "".join(f"a\r{n},{n % 2}\n" for n in range(10)), ("a 5", "1")),
    "lines of the first Macs": ("a.csv", "text,label\r" + "".join(f"a {n},{n % 2}\r" for n in range(10)), ("a 5", "1")),
    "a cell of 180,000 characters": (
        "a.csv",
        "text,label\n" + "".join(f"{'long ' * 36_000}{n},{n % 2}\n" for n in range(4)),
        ("long " * 36_000 + "1", "1"),
    ),
    "half a character": (
        "a.jsonl",
        "".join(f'{{"text": "a\\ud800 {n}", "label": {n % 2}}}\n' for n in range(10)),
        ("a� 5", "1"),
    ),
}


@pytest.mark.parametrize("name", WITHOUT_HEADER)
def test_what_people_have(tmp_path: Path, name: str) -> None:
    file, content, (text, label) = WITHOUT_HEADER[name]
    (tmp_path / file).write_bytes(content.encode())
    assert told_of(open_texts(tmp_path / file))[text] == label


def test_another_encoding_only_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.label").write_bytes(TREC.encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.label, row 1: expected UTF-8 text; .* --encoding latin-1"):
        open_texts(tmp_path / "a.label")
    assert "In which café 5 ?" in told_of(open_texts(tmp_path / "a.label", encoding="latin-1"))
    with pytest.raises(InputError, match=r"row 1: expected text in ascii"):
        open_texts(tmp_path / "a.label", encoding="ascii")
    for encoding in ("latin-0", "utf-16", ""):
        with pytest.raises(InputError, match="option encoding: expected one such as utf-8, latin-1"):
            open_texts(tmp_path / "a.label", encoding=encoding)


def test_a_test_part_without_labels_gives_way_to_the_validation_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Training.TSV").write_text("sentence\tlabel\n" + "".join(f"a film {n}\t{n % 2}\n" for n in range(20)))
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tunknown\n")
    with pytest.raises(InputError, match=r"test\.tsv: no column of labels among index, sentence"):
        open_texts(tmp_path)
    (tmp_path / "Dev.tsv").write_text("sentence\tlabel\nanother film\t0\n")
    assert open_texts(tmp_path)[1].texts == ["another film"]
    assert capsys.readouterr().err == f"{tmp_path / 'test.tsv'}: has no labels; Dev.tsv is taken instead\n"
    (tmp_path / "test.tsv").write_text("sentence\tlabel\nhidden\t-1\nhidden too\t-1\n")
    assert open_texts(tmp_path)[1].texts == ["another film"]


def test_a_small_test_part_without_header_has_the_columns_of_the_train_part(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("".join(f"text {n}\t{'good' if n % 2 else 'bad'}\n" for n in range(10)))
    (tmp_path / "test.tsv").write_text("a b\tgood\nb a\tbad\n")
    assert open_texts(tmp_path)[1].texts == ["a b", "b a"]


def test_too_few_texts_to_test_on(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nx,0\ny,1\n")
    with pytest.raises(InputError, match=r"a\.csv: 2 different texts, expected two or more of a class"):
        open_texts(tmp_path / "a.csv")


def test_of_several_labels_in_a_line_the_first_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"__label__{'pos' if n % 2 else 'neg'} __label__short good film {n}" for n in range(40)]
    (tmp_path / "films.txt").write_text("\n".join(rows), "utf-8")
    parts = open_texts(str(tmp_path / "films.txt"))
    assert {text for part in parts for text in part.texts} == {f"good film {n}" for n in range(40)}
    assert parts[0].classes == ["neg", "pos"]
    assert "40 rows have several labels: the first is taken" in capsys.readouterr().err


def test_chinese_news_of_three_columns_without_a_header(tmp_path: Path) -> None:
    rows = "".join(f'"{1 + n % 2}","标题第{n}段","正文第{n}段，内容{n * 7}"\n' for n in range(40))
    (tmp_path / "news.csv").write_text(rows, "utf-8")
    parts = open_texts(str(tmp_path / "news.csv"))
    assert parts[0].classes == ["1", "2"]
    assert "标题第0段 正文第0段，内容0" in {text for part in parts for text in part.texts}


def test_an_array_in_another_encoding(tmp_path: Path) -> None:
    rows = [{"text": f"房间{n}", "label": "好" if n % 2 else "坏"} for n in range(30)]
    (tmp_path / "rooms.json").write_text(json.dumps(rows, ensure_ascii=False), "gbk")
    assert sorted(open_texts(str(tmp_path / "rooms.json"), encoding="gbk")[0].classes) == ["坏", "好"]
