"""Opening recordings: each layout and format, what is held out, and what is refused."""

import importlib.util
import math
import shutil
import struct
import subprocess
import wave
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recipes.core.errors import InputError
from recipes.datasets.bundled import bundled
from recipes.datasets.speech import open_speech, read_wav, resample


def tone(rate: int, hertz: float = 440, seconds: float = 0.2) -> Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(round(rate * seconds)) / rate)


def record(path: Path, samples: Tensor | None = None, rate: int = 8000, width: int = 2, channels: int = 1) -> Path:
    """Writes a WAV file, the same sound in all channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = (tone(rate) if samples is None else samples).repeat_interleave(channels) * 0.5
    content = (values * 2**15).short() if width == 2 else (values * 128 + 128).byte()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(content.numpy().tobytes())
    return path


def refused(data: Path, *words: str, **options: int) -> None:
    with pytest.raises(InputError) as caught:
        open_speech(data, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Two words by three speakers, twice each, in one folder."""
    for word in ("no", "yes"):
        for speaker in ("ann", "bob", "cy"):
            for number in range(2):
                record(tmp_path / f"{word}_{speaker}_{number}.wav")
    return tmp_path


def test_bundled_voices_are_in_one_part_alone() -> None:
    train, test = open_speech()
    assert (len(train), len(test)) == (280, 100)
    assert train.classes == list("0123456789")
    assert len(set(train.speakers)) == 28
    assert len(set(test.speakers)) == 10
    assert not set(train.speakers) & set(test.speakers)
    assert torch.bincount(train.labels).tolist() == [28] * 10
    waves, labels = test.__getitems__([3, 50])
    assert waves.shape == (2, train.longest)
    assert torch.equal(waves[1, : int(test.lengths[50])], test.wave(50))
    assert waves[1, int(test.lengths[50]) :].abs().sum() == 0
    assert labels.tolist() == test.labels[[3, 50]].tolist()
    assert 0.4 < waves.abs().max() < 1


def test_maker_reproduces_the_bundled_samples(tmp_path: Path) -> None:
    if not shutil.which("espeak-ng"):
        pytest.skip("espeak-ng is not installed")
    if " 1.51 " not in subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True).stdout:
        pytest.skip("another version of espeak-ng speaks differently")
    spec = importlib.util.spec_from_file_location("make_speech", bundled("speech").parent / "make_speech.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make(tmp_path)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.wav"))
    assert len(made) == len(list(bundled("speech").rglob("*.wav"))) == 380
    for path in made:
        mine, theirs = read_wav(tmp_path / path, 8000), read_wav(bundled("speech") / path, 8000)
        assert (mine.int() - theirs.int()).abs().max() <= 1, path


def test_a_whole_speaker_is_held_out_where_names_tell_speakers(named: Path) -> None:
    train, test = open_speech(named)
    assert (len(train), len(test)) == (8, 4)
    assert len(set(test.speakers)) == 1
    assert not set(train.speakers) & set(test.speakers)
    assert {open_speech(named, seed=seed)[1].speakers[0] for seed in range(9)} == {"ann", "bob", "cy"}


def test_class_folders_with_and_without_speakers(tmp_path: Path) -> None:
    for word in ("no", "yes", "_background_noise_"):
        for number in range(5):
            record(tmp_path / "plain" / word / f"{number}.wav")
            record(tmp_path / "commands" / word / f"{number:08x}_nohash_0.wav")
    train, test = open_speech(tmp_path / "plain")
    assert (train.classes, len(train), len(test)) == (["no", "yes"], 8, 2)
    train, test = open_speech(tmp_path / "commands")
    assert (len(train), len(test)) == (8, 2)
    assert len(set(test.speakers)) == 1
    shutil.copytree(tmp_path / "plain", tmp_path / "both" / "train")
    shutil.copytree(tmp_path / "plain" / "no", tmp_path / "both" / "test" / "no")
    train, test = open_speech(tmp_path / "both")
    assert (len(train), len(test)) == (10, 5)


@pytest.mark.parametrize(
    ("rate", "width", "channels"), [(8000, 2, 1), (8000, 1, 1), (16000, 2, 2), (44100, 2, 1), (11025, 1, 2)]
)
def test_every_format_becomes_the_same_sound(tmp_path: Path, rate: int, width: int, channels: int) -> None:
    path = record(tmp_path / "a.wav", rate=rate, width=width, channels=channels)
    samples = read_wav(path, 8000).float() / 2**15
    assert len(samples) == 1600
    inner = slice(100, -100)
    torch.testing.assert_close(samples[inner], 0.5 * tone(8000)[inner], rtol=0, atol=0.01 if width == 1 else 0.001)


def test_resampling_keeps_what_fits_and_removes_what_does_not() -> None:
    for rate in (6000, 8001, 22050, 48000):
        torch.testing.assert_close(resample(tone(rate), rate, 8000)[99:-99], tone(8000)[99:-99], rtol=0, atol=0.002)
    assert resample(tone(16000, hertz=5500), 16000, 8000)[99:-99].abs().max() < 0.002  # would sound as 2,500 Hz


def test_long_recordings_are_cut_and_rates_may_differ(named: Path) -> None:
    record(named / "no_ann_7.wav", tone(16000, seconds=3), rate=16000)
    train, _ = open_speech(named, seconds=0.5)
    assert train.longest == 4000


def test_what_cannot_be_used_is_named_in_one_line(named: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere", "no such folder")
    refused(named, "rate", rate=0)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty", "expected WAV files")
    record(tmp_path / "one" / "no" / "a.wav")
    refused(tmp_path / "one", "at least two classes", "'no'")
    (tmp_path / "one" / "yes").mkdir()
    refused(tmp_path / "one", "yes", "found none")
    victim = named / "no_bob_1.wav"
    whole = victim.read_bytes()
    for content, word in (
        (whole[:1000], "cut"),
        (whole[:30], "WAV"),
        (b"", "WAV"),
        (b"ID3 not sound at all", "WAV"),
        (whole[:34] + b"\x18\x00" + whole[36:], "24"),  # 24 bits, by the header
        (whole[:20] + b"\x03\x00" + whole[22:], "WAV"),  # floating point
    ):
        victim.write_bytes(content)
        refused(named, "no_bob_1.wav", word)
    victim.write_bytes(whole)
    record(named / "readme.wav")
    refused(named, "readme.wav", "CLASS_SPEAKER_NUMBER.wav")


def stored(path: Path, content: bytes, encoding: int, bits: int, *, extended: bool = False, size: int = -1) -> Path:
    """Writes a WAV file part by part."""
    form = struct.pack("<HHIIHH", 0xFFFE if extended else encoding, 1, 8000, 1000 * bits, bits // 8, bits)
    if extended:
        form += struct.pack("<HHIH", 22, bits, 0, encoding) + bytes(14)
    size = len(content) if size < 0 else size
    parts = b"WAVE" + b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"fmt " + struct.pack("<I", len(form)) + form
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + parts + b"data" + struct.pack("<I", size) + content)
    return path


WAVE = tone(8000).numpy() * 0.5
STORED: dict[str, tuple[bytes, int, int, dict[str, Any]]] = {
    "8 bits": ((WAVE * 128 + 128).astype("<u1").tobytes(), 1, 8, {}),
    "16 bits": ((WAVE * 2**15).astype("<i2").tobytes(), 1, 16, {}),
    "24 bits": ((WAVE * 2**31).astype("<i4").view("<u1").reshape(-1, 4)[:, 1:].tobytes(), 1, 24, {}),
    "32 bits": ((WAVE * 2**31).astype("<i4").tobytes(), 1, 32, {}),
    "floats": (WAVE.astype("<f4").tobytes(), 3, 32, {}),
    "floats of 64 bits": (WAVE.astype("<f8").tobytes(), 3, 64, {}),
    "extensible": ((WAVE * 2**15).astype("<i2").tobytes(), 1, 16, {"extended": True}),
    "extensible floats": (WAVE.astype("<f4").tobytes(), 3, 32, {"extended": True}),
    "streamed": ((WAVE * 2**15).astype("<i2").tobytes(), 1, 16, {"size": 0xFFFFFFFF}),
    "an odd byte": ((WAVE * 2**15).astype("<i2").tobytes() + b"\1", 1, 16, {}),
}


@pytest.mark.parametrize("name", STORED)
def test_every_way_to_store_a_sound(tmp_path: Path, name: str) -> None:
    content, encoding, bits, given = STORED[name]
    found = read_wav(stored(tmp_path / "a.wav", content, encoding, bits, **given), 8000)
    torch.testing.assert_close(found / 2**15, torch.from_numpy(WAVE), rtol=0, atol=2**-7 if bits == 8 else 2**-14)


@pytest.mark.parametrize(
    ("encoding", "bits", "size", "content", "message"),
    [
        (7, 8, -1, bytes(100), "found encoding 7 of 8 bits"),
        (1, 12, -1, bytes(100), "found encoding 1 of 12 bits"),
        (1, 16, 200, bytes(100), r"its part 'data' has 100 of 200 bytes: the file is cut"),
        (1, 16, -1, b"", "expected sound, found no sample"),
        (3, 32, -1, struct.pack("<f", math.nan) * 9, "expected samples in -1 to 1, got up to nan"),
        (3, 32, -1, struct.pack("<f", 27000.0) * 9, "expected samples in -1 to 1, got up to 2.7e"),
    ],
)
def test_sounds_that_cannot_be(
    tmp_path: Path, encoding: int, bits: int, size: int, content: bytes, message: str
) -> None:
    with pytest.raises(InputError, match=rf"a\.wav: .*{message}"):
        read_wav(stored(tmp_path / "a.wav", content, encoding, bits, size=size), 8000)


def test_floats_beyond_one_are_cut_off_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_wav(stored(tmp_path / "a.wav", WAVE.astype("<f4").tobytes(), 3, 32), 8000)
    assert capsys.readouterr().err == ""
    loud = read_wav(stored(tmp_path / "b.wav", struct.pack("<f", 3.0) * 9, 3, 32), 8000)
    assert loud.tolist() == [2**15 - 1] * 9
    assert "have samples beyond 1, which are cut off there" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0.05, 0.1])
def test_what_is_longer_is_cut_as_the_whole_would_be(tmp_path: Path, seconds: float) -> None:
    path = record(tmp_path / "a.wav", tone(11025, seconds=3), rate=11025)
    assert torch.equal(read_wav(path, 8000, seconds), read_wav(path, 8000)[: round(8000 * seconds)])


def test_folders_within_class_folders_are_speakers(tmp_path: Path) -> None:
    for word in ("yes", "no"):
        for name in ("ann", "bob", "cid"):
            record(tmp_path / word / name / "1.WAV")
    record(tmp_path / "_background_noise_" / "a.wav")
    (tmp_path / "__MACOSX").mkdir()
    train, test = open_speech(tmp_path)
    assert train.classes == ["no", "yes"]
    assert (set(train.speakers) | set(test.speakers), len(test)) == ({"ann", "bob", "cid"}, 2)
    assert not set(train.speakers) & set(test.speakers)


def test_lists_of_speech_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("yes", "no"):
        for number in range(4):
            record(tmp_path / word / f"{number}_nohash_0.wav")
    (tmp_path / "testing_list.txt").write_text("yes/0_nohash_0.wav\nno/1_nohash_0.wav\nno/9_nohash_0.wav\n")
    (tmp_path / "validation_list.txt").write_text("yes/1_nohash_0.wav\n")
    train, test = open_speech(tmp_path)
    assert (len(train), len(test)) == (5, 2)
    assert sorted(test.speakers) == ["0", "1"]
    assert "testing_list.txt: 1 recordings that are not there" in capsys.readouterr().err
    (tmp_path / "testing_list.txt").unlink()
    (tmp_path / "testing_list.txt").symlink_to("nowhere")  # there, and not to be read
    with pytest.raises(InputError, match=r"testing_list\.txt: cannot be read"):
        open_speech(tmp_path)


@pytest.mark.parametrize("within", ["", "audio"])
def test_folds_of_urban_sounds(tmp_path: Path, within: str) -> None:
    for fold in range(1, 11):
        for kind in (1, 8):
            record(tmp_path / within / f"fold{fold}" / f"{fold}00-{kind}-0-0.wav")
    if within:
        (tmp_path / "metadata").mkdir()
    train, test = open_speech(tmp_path)
    assert train.classes == ["car_horn", "siren"]
    assert (len(train), len(test)) == (16, 4)
    assert not set(train.speakers) & set(test.speakers)


@pytest.mark.real
def test_free_spoken_digits(real_data: Path) -> None:
    train, test = open_speech(real_data / "fsdd")
    assert (len(train), len(test)) == (600, 200)
    assert train.classes == list("0123456789")
    assert len(set(train.speakers)) == 3
    assert len(set(test.speakers)) == 1
