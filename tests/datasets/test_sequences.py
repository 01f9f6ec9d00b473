"""Opening sequences of frames: the bundled set, the ground truth's spellings, and what is refused."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from recipes.core.errors import InputError
from recipes.datasets.bundled import bundled
from recipes.datasets.plain import sequences_otb
from recipes.datasets.sequences import TRUTH, FrameSequence, open_sequences, read_start

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def sequences() -> tuple[list[FrameSequence], list[FrameSequence]]:
    return open_sequences()


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DATA)  # it imports its neighbor
    spec = importlib.util.spec_from_file_location("make_sequences", DATA / "make_sequences.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save(home: Path, lines: list[str], frames: int = 3, suffix: str = "png", size: tuple[int, int] = (30, 20)) -> Path:
    (home / "img").mkdir(parents=True, exist_ok=True)
    for i in range(1, frames + 1):
        noise = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(home / "img" / f"{i:04}.{suffix}")
    (home / TRUTH).write_text("\n".join(lines) + "\n")
    return home


def test_bundled_set(sequences: tuple[list[FrameSequence], list[FrameSequence]]) -> None:
    train, test = sequences
    assert (len(train), len(test)) == (64, 12)
    assert {len(one) for one in train} == {4}
    assert {len(one) for one in test} == {24}
    for one in train + test:
        assert one.boxes.shape == (len(one), 4)
        assert one.boxes.min() >= 0
        assert one.boxes.max() <= 64
        assert one.frame(0).shape == (3, 64, 64)
        assert one.frame(0).dtype == torch.uint8


def test_maker_makes_the_same_frames(maker: ModuleType, tmp_path: Path) -> None:
    maker.make(tmp_path, {"train": 1, "test": 1})
    for split, frames in (("train", 4), ("test", 24)):
        for name in (f"{split}/digit01/img/{frame:04}.png" for frame in range(1, frames + 1)):
            mine, theirs = (
                np.asarray(Image.open(root / name).convert("RGB")) for root in (tmp_path, DATA / "sequences")
            )
            assert np.array_equal(mine, theirs), name
        text = (tmp_path / split / "digit01" / TRUTH).read_text()
        assert text == (bundled("sequences") / split / "digit01" / TRUTH).read_text()


def test_hands_are_disjoint(maker: ModuleType) -> None:
    assert not set(maker.SOURCES["train"]) & set(maker.SOURCES["test"])


@pytest.mark.parametrize("line", ["3,4,10,8", "3\t4\t10\t8", " 3 4  10 8 ", "3, 4, 10, 8", "3.0,4.0,10,8"])
def test_spellings_of_a_box(tmp_path: Path, line: str) -> None:
    save(tmp_path / "walk", [line] * 3, suffix="jpg")
    for folder in (tmp_path, tmp_path / "walk"):  # of sequences, and one
        train, test = open_sequences(folder)
        assert len(train) == 64, "the bundled ones"
        assert [one.name for one in test] == ["walk"]
        assert test[0].boxes.tolist() == [[2, 3, 12, 11]] * 3
        assert test[0].frame(2).shape == (3, 20, 30)


def test_own_train_part(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a", ["1,1,5,5"] * 3)
    with pytest.raises(InputError, match="train alone: expected test or val"):
        open_sequences(tmp_path)
    save(tmp_path / "test" / "b", ["1,1,5,5"] * 3)
    train, test = open_sequences(tmp_path)
    assert [one.name for one in train + test] == ["a", "b"]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["1,1,5,5", "1,1,5", "1,1,5,5"], "line 2: expected left, top"),
        (["1,1,5,5", "1,1,5,5,5", "1,1,5,5"], "line 2: expected left, top"),
        (["1,1,5,5", "", "1,1,5,5"], "line 2: expected left, top"),
        (["a,1,5,5"] * 3, "line 1: expected left, top"),
        (["nan,1,5,5"] * 3, "line 1: expected finite"),
        (["1,1,0,5"] * 3, "line 1: expected finite numbers and a size above 0"),
        (["1,1,5,5"] * 4, "4 boxes for 3 frames"),
        (["1,1,5,5"], "1 boxes for 3 frames"),
        (["0,0,0,0", "1,1,5,5", "nan,nan,nan,nan"], "1 frames show the object"),
        (["1e39,1,5,5"] * 3, "line 1: expected left, top"),
        (["1,1,5,5", "1,1,5,5", "31,1,5,5"], "box 3 lies outside"),
        (["-9,1,5,5"] * 3, "box 1 lies outside"),
    ],
)
def test_refused_ground_truth(tmp_path: Path, lines: list[str], text: str) -> None:
    save(tmp_path, lines)
    with pytest.raises(InputError, match=text) as caught:
        open_sequences(tmp_path)
    assert TRUTH in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refused_folders_and_frames(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder"):
        open_sequences(tmp_path / "missing")
    with pytest.raises(InputError, match="found no sequence"):
        open_sequences(tmp_path)
    home = save(tmp_path, ["1,1,5,5"] * 3)
    Image.new("RGB", (31, 20)).save(home / "img" / "0002.png")
    with pytest.raises(InputError, match=r"0002\.png: is 31 x 20 pixels, expected 30 x 20"):
        open_sequences(tmp_path)
    (home / "img" / "0002.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"0002\.png"):
        open_sequences(tmp_path)
    (home / TRUTH).write_bytes(b"\xff\xfe")
    save(tmp_path / "img2", ["1,1,5,5"])
    (home / "img" / "0002.png").unlink()
    with pytest.raises(InputError, match=r"groundtruth_rect\.txt, line 1: expected UTF-8"):
        open_sequences(tmp_path)


def test_unpadded_frames_are_in_natural_order(tmp_path: Path) -> None:
    """The object is red and moves by 4 pixels a frame."""
    (tmp_path / "img").mkdir()
    for i in range(12):
        picture = Image.new("RGB", (64, 64), (30, 30, 30))
        picture.paste((250, 30, 30), (2 + 4 * i, 20, 12 + 4 * i, 30))
        picture.save(tmp_path / "img" / f"{i + 1}.PNG")
    (tmp_path / "img" / "._1.png").write_bytes(b"left by a Mac")
    (tmp_path / TRUTH).write_text("".join(f"{3 + 4 * i},21,10,10\n" for i in range(12)))
    (one,) = open_sequences(tmp_path)[1]
    for i, (left, top, right, bottom) in enumerate(one.boxes.int().tolist()):
        assert (one.frame(i)[0, top:bottom, left:right] == 250).all()
    (lean,) = sequences_otb.open_sequences(str(put_into_parts(tmp_path)))[1]
    assert [file.name for file in lean.files] == [f"{i}.PNG" for i in range(1, 13)]


def put_into_parts(home: Path) -> Path:
    """The sequence as the only one of a train and a test part, without what a Mac left."""
    (home / "img" / "._1.png").unlink()
    for part in ("train", "test"):
        for name in ("img", TRUTH):
            target = home / "parts" / part / "walk" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(home / name)
    return home / "parts"


@pytest.mark.parametrize(("name", "first"), [("David", 299), ("Football1", 0)])
def test_fewer_boxes_than_frames(tmp_path: Path, name: str, first: int, capsys: pytest.CaptureFixture[str]) -> None:
    """David's 471 boxes are those of frames 300 to 770; where nothing is known, they are those of the first frames."""
    save(tmp_path / name, ["1,1,5,5"] * 20, frames=330, size=(8, 8))
    (one,) = open_sequences(tmp_path)[1]
    assert isinstance(one.files, list)
    assert [file.name for file in one.files] == [f"{i + 1:04}.png" for i in range(first, first + 20)]
    assert "20 boxes for 330 frames in img/, taken as those of" in capsys.readouterr().err
    start = read_start(tmp_path / name)
    assert isinstance(start.files, list)
    assert start.files[0].name == f"{first + 1:04}.png"


def test_several_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = save(tmp_path / "Jogging", ["1,1,5,5"] * 3)
    (home / TRUTH).rename(home / "groundtruth_rect.1.txt")
    (home / "groundtruth_rect.2.txt").write_text("6,6,5,5\n" * 3)
    (home / "groundtruth_rect.txt~").write_text("what an editor left")
    one, other = open_sequences(tmp_path)[1]
    assert (one.name, other.name) == ("Jogging.1", "Jogging.2")
    assert other.boxes[2].tolist() == [5, 5, 10, 10]
    assert capsys.readouterr().err == ""
    assert read_start(home).boxes.tolist() == [[0, 0, 5, 5]]
    told = "has the boxes of 2 objects: that of groundtruth_rect.1.txt is followed"
    assert capsys.readouterr().err == f"{home}: {told}\n"


def test_frames_without_the_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, ["1,1,5,5", "0,0,0,0", "NaN,NaN,NaN,NaN", "2,2,5,5,"], frames=4)
    (one,) = open_sequences(tmp_path)[1]
    assert isinstance(one.files, list)
    assert [file.name for file in one.files] == ["0001.png", "0004.png"]
    assert one.boxes.tolist() == [[0, 0, 5, 5], [1, 1, 6, 6]]
    assert "2 frames without the object left out" in capsys.readouterr().err


@pytest.mark.parametrize("names", [("Training", "Testing"), ("train", "val"), ("TRAIN", "dev")])
def test_names_of_parts(tmp_path: Path, names: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for name in names:
        save(tmp_path / name / "walk 10", ["1,1,5,5"] * 3)
        save(tmp_path / name / "walk 9", ["1,1,5,5"] * 3)
    train, test = open_sequences(tmp_path)
    assert [one.name for one in train + test] == ["walk 9", "walk 10"] * 2
    save(tmp_path / ("valid" if names[1] == "Testing" else "test") / "run", ["1,1,5,5"] * 3)
    open_sequences(tmp_path)
    assert capsys.readouterr().err == f"{tmp_path}: the val part is left out, since there is a test part\n"


def test_damaged_frame_is_named_when_it_is_read(tmp_path: Path) -> None:
    save(tmp_path, ["1,1,5,5"] * 3)
    frame = tmp_path / "img" / "0003.png"
    frame.write_bytes(frame.read_bytes()[:200])
    (one,) = open_sequences(tmp_path)[1]
    with pytest.raises(InputError, match=r"0003\.png: expected a whole picture"):
        one.frame(2)


def test_a_start_needs_one_box(tmp_path: Path) -> None:
    save(tmp_path, ["3,4,10,8"], frames=11)
    (tmp_path / "img" / "0011.png").rename(tmp_path / "img" / "11.png")
    (tmp_path / "img" / "0002.png").rename(tmp_path / "img" / "2.png")
    (tmp_path / "img" / "._0001.png").write_bytes(b"what a Mac leaves in an archive")
    one = read_start(tmp_path)
    assert isinstance(one.files, list)
    assert [file.name for file in one.files][:3] == ["0001.png", "2.png", "0003.png"]
    assert len(one) == 11
    assert one.boxes.tolist() == [[2, 3, 12, 11]]
    assert read_start((str(tmp_path), [1, 2, 7, 9])).boxes.tolist() == [[1, 2, 7, 9]]
    for box, text in (([7, 2, 7, 9], "empty"), ([40, 2, 47, 9], "outside"), ([1, 2], "4 numbers"), ("a", "4 numbers")):
        with pytest.raises(InputError, match=text):
            read_start((tmp_path, box))
    with pytest.raises(InputError, match="expected a folder with frames"):
        read_start(tmp_path / "img")


def test_own_datasets() -> None:
    frames, boxes = torch.zeros(3, 3, 20, 30, dtype=torch.uint8), torch.tensor([[1.0, 2, 7, 9]]).expand(3, -1)
    train, test = open_sequences(([(frames, boxes)], [(frames.numpy(), boxes.tolist())] * 2))
    assert [len(one) for one in train + test] == [3, 3, 3]
    assert torch.equal(test[1].boxes, boxes)
    assert test[0].frame(1).shape == (3, 20, 30)


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        (torch.zeros(3, 3, 20, 30), "expected .frames, boxes."),
        ((torch.zeros(3, 3, 20, 30), torch.ones(3, 4)), "uint8"),
        ((torch.zeros(3, 20, 30, dtype=torch.uint8), torch.ones(3, 4)), "expected frames"),
        ((torch.zeros(3, 3, 20, 30, dtype=torch.uint8), torch.ones(2, 4)), "a box each"),
        ((torch.zeros(3, 3, 20, 30, dtype=torch.uint8), torch.ones(3, 4)), "box 1 lies outside its frame or is empty"),
        ((torch.zeros(3, 3, 20, 30, dtype=torch.uint8), "boxes"), "expected boxes"),
        ((torch.zeros(3, 3, 20, 30, dtype=torch.uint8), torch.full((3, 4), torch.nan)), "box 1 lies outside"),
    ],
)
def test_refused_samples(sample: Any, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        open_sequences(([sample], [sample]))
    assert "data: train sample 0" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.real
def test_real_basketball(real_data: Path) -> None:
    _, (one,) = open_sequences(real_data / "otb" / "Basketball")
    assert len(one) == 80
    assert one.boxes[0].tolist() == [197, 213, 231, 294]
    assert one.frame(0).shape[0] == 3
