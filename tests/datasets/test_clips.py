"""Clips that a single frame does not betray, and folders of frames."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from recipes.core.errors import InputError
from recipes.datasets import clips as clips_module
from recipes.datasets.clips import MOTIONS, Clips, draw_clips, moving, open_clips
from recipes.datasets.images import Images
from recipes.datasets.plain.clips import open_clips as open_plainly

SIDE = 16


def picture(pixels: torch.Tensor) -> Images:
    return Images(pixels, torch.zeros(len(pixels), dtype=torch.long), ["blot"])


def drawn(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames (N, T, SIDE, SIDE) of the picture alone, and the motion of each clip."""
    labels = torch.arange(120) % len(MOTIONS)
    return moving(picture(pixels), labels, torch.Generator().manual_seed(0), 8, SIDE)[:, 0], labels


def steps_of(frames: torch.Tensor, axis: int) -> torch.Tensor:
    """By how many pixels the ink moves from frame to frame, (N, T - 1), on a plane without borders."""
    wave = torch.polar(torch.ones(SIDE), torch.arange(SIDE) * 2 * torch.pi / SIDE)
    phase = (frames.sum(dim=axis) * wave).sum(dim=2).angle()
    return (torch.remainder(phase.diff(dim=1) + torch.pi, 2 * torch.pi) - torch.pi) * SIDE / (2 * torch.pi)


def test_pictures_move_as_their_labels_say() -> None:
    frames, labels = drawn(torch.full((1, 1, 8, 8), 255, dtype=torch.uint8))
    for axis, (back, forth) in ((2, (0, 1)), (3, (2, 3))):  # sums over rows tell where across it is
        mean = steps_of(frames, axis).mean(dim=1)
        assert (mean[labels == back] < -1).all()
        assert (mean[labels == forth] > 1).all()
        others = ~torch.isin(labels, torch.tensor((back, forth)))
        assert mean[others].abs().max() < 0.5


def test_turning_right_is_clockwise() -> None:
    """A bar from the middle to the right turns down."""
    pixels = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    pixels[:, :, 4, 4:] = 255
    frames, labels = drawn(pixels)
    across, down = (steps_of(frames, axis) for axis in (2, 3))
    turns = (across[:, :-1] * down[:, 1:] - across[:, 1:] * down[:, :-1]).sum(dim=1)  # above 0: clockwise
    assert (turns[labels == MOTIONS.index("turning right")] > 0).all()
    assert (turns[labels == MOTIONS.index("turning left")] < 0).all()


def test_the_motion_is_that_of_the_brighter_picture() -> None:
    clips = draw_clips(picture(torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)), 240, 0)
    assert clips.frames.shape == (240, 1, 8, SIDE, SIDE)
    assert torch.bincount(clips.labels).tolist() == [40] * 6
    bright = (clips.frames[:, 0].float() / 255 - 0.85).clamp(min=0)
    mean = steps_of(bright, 2).mean(dim=1)
    assert (mean[clips.labels == 0] < -0.5).float().mean() > 0.95
    assert (mean[clips.labels == 1] > 0.5).float().mean() > 0.95


def test_train_and_test_clips_are_drawn_anew_with_the_seed() -> None:
    first, again, other = (open_clips(count=12, seed=seed) for seed in (0, 0, 1))
    assert [len(part) for part in first] == [12, 6]
    assert all(torch.equal(one.frames, same.frames) for one, same in zip(first, again, strict=True))
    assert not torch.equal(first[0].frames, other[0].frames)
    assert all(
        torch.equal(one.frames, same.frames) for one, same in zip(first, open_plainly(count=12, seed=0), strict=True)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Clips of two classes, of 5 and 12 frames: brighter and brighter, and the other way round."""
    for kind in ("dawn", "dusk"):
        for number in range(5):
            clip = tmp_path / kind / f"clip{number}"
            clip.mkdir(parents=True)
            count = 5 if number % 2 else 12
            for time in range(count):
                level = 20 * (time if kind == "dawn" else count - time)
                Image.new("RGB", (30, 20), (level, 0, 255 - level)).save(clip / f"{time}.png")
    return tmp_path


def test_folders_of_frames(folder: Path) -> None:
    train, test = open_clips(str(folder), frames=4, image_size=10)
    assert train.classes == ["dawn", "dusk"]
    assert [len(train), len(test)] == [8, 2]
    assert train.shape == (3, 4, 10, 10)
    reds = train.frames[:, 0, :, 5, 5].int().diff(dim=1)
    assert (reds[train.labels == 0] > 0).all()
    assert (reds[train.labels == 1] < 0).all()


def test_parts_of_their_own_and_the_lean_opener(folder: Path) -> None:
    for split in ("train", "test"):
        (folder / split).mkdir()
    for kind in ("dawn", "dusk"):
        (folder / "test" / kind).mkdir()
        (folder / kind / "clip0").rename(folder / "test" / kind / "clip0")
        (folder / kind).rename(folder / "train" / kind)
    whole, lean = open_clips(str(folder), frames=4, image_size=10), open_plainly(str(folder), frames=4, image_size=10)
    for one, other in zip(whole, lean, strict=True):
        assert one.classes == other.classes
        assert torch.equal(one.labels, other.labels)
        assert one.frames.shape == other.frames.shape
    assert [len(part) for part in whole] == [8, 2]


def test_what_is_no_clip_is_left_out_and_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (9, 9)).save(folder / "loose.png")
    for name in ("dawn/film.mp4", "dusk/1.png", "noon/2.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert open_clips(str(folder))[0].classes == ["dawn", "dusk"]
    told = ["1 .mp4 files in no clip left out", "2 .png files in no clip left out"]
    told += ["1 class folders without a clip left out (noon)"]
    loose = f"{folder}: 1 pictures outside of the class folders left out"
    assert capsys.readouterr().err.splitlines() == [loose, f"{folder}: {', '.join(told)}"]


@pytest.mark.parametrize(("name", "text"), [("test/dawn/clip/a.mp4", "expected frames"), ("test/dawn/a.png", "clips")])
def test_a_test_part_without_frames_is_refused(folder: Path, name: str, text: str) -> None:
    (folder / "train").mkdir()
    for kind in ("dawn", "dusk"):
        (folder / kind).rename(folder / "train" / kind)
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(b"x")
    with pytest.raises(InputError, match=f"test.*{text}"):
        open_clips(str(folder))


def test_pictures_in_folders_are_made_to_move(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for number in range(8):
            folder = tmp_path / part / ("sun" if number % 2 else "sea")
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("L", (12, 12), 20 * number).save(folder / f"{number}.png")
    for root in (tmp_path, tmp_path / "train"):
        assert open_clips(str(root), count=12)[0].classes == MOTIONS


def test_what_cannot_be_used_is_named(folder: Path) -> None:
    (folder / "dawn" / "clip1" / "3.png").write_text("no picture")
    with pytest.raises(InputError, match=r"clip1.*3\.png"):
        open_clips(str(folder))
    with pytest.raises(InputError, match="expected frames"):
        clips_module.read_clip(folder, (3, 4, 8, 8))
    (folder / "empty").mkdir()
    with pytest.raises(InputError):
        open_clips(str(folder / "empty"))


def test_clips_are_fetched_on_the_scale_of_one() -> None:
    frames = torch.arange(0, 240, 10, dtype=torch.uint8).view(2, 1, 3, 2, 2)
    batch, labels = Clips(frames, torch.tensor([1, 0]), ["a", "b"]).__getitems__([1])
    torch.testing.assert_close(batch, frames[1:].float() / 255)
    assert labels.tolist() == [0]
