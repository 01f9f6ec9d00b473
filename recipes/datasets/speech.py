"""Opens recordings of spoken words: folders of WAV files by class, or the class in the file's name."""

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from recipes.core.errors import InputError, tell
from recipes.core.files import own_path
from recipes.core.loading import holdout
from recipes.datasets.bundled import bundled
from recipes.datasets.own import PAIR_PARTS, class_names, described, numbered_labels, pair_of_datasets, samples_of
from recipes.datasets.reading import (
    by_split,
    file_content,
    file_lines,
    files_in,
    folders_in,
    is_there,
    require_folder,
    tell_left_out,
)
from recipes.datasets.text_files import PARTS

RATES = range(1000, 400_000)  # samples a second that a recording may have
LONGEST = 86_400  # seconds
CLASS_SPEAKER_NUMBER = re.compile(r"([^_]+)_([^_]+)_\d+")  # 7_jackson_32
SPEAKER_NOHASH_NUMBER = re.compile(r"(\w+?)_nohash_\d+")  # 0a7c2a8d_nohash_0, in Speech Commands
SOURCE_CLASS_PLACE = re.compile(r"(\d+)-(\d)-\d+-\d+")  # 100032-3-0-0, in UrbanSound8K's folders fold1 to fold10
FOLD = re.compile(r"fold\d+", re.IGNORECASE)
URBAN_SOUNDS = (
    *("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling"),
    *("engine_idling", "gun_shot", "jackhammer", "siren", "street_music"),
)
EXTENSIBLE, STREAMED = 0xFFFE, 0xFFFFFFFF  # the real encoding stands further on; a size that is not known yet
# How samples are stored, by encoding (1 integers, 3 floats) and bits: type, offset, and what makes them as int16's.
SAMPLES: dict[tuple[int, int], tuple[str, float, float]] = {
    (1, 8): ("<u1", 128, 2**8),
    (1, 16): ("<i2", 0, 1),
    (1, 24): ("<i4", 0, 2**-16),
    (1, 32): ("<i4", 0, 2**-16),
    (3, 32): ("<f4", 0, 2**15),
    (3, 64): ("<f8", 0, 2**15),
}
CROSSINGS = 8  # zero crossings of the interpolating kernel, to either side


@dataclass
class Recordings:
    """Recordings of one spoken word each, held in memory.

    Attributes:
        samples: int16, those of all recordings, one after the other.
        starts: int64 (N,), where each recording begins in `samples`.
        lengths: int64 (N,), how many samples it has.
        labels: int64 (N,), indices into `classes`.
        speakers: N names; "" where the file's name tells none.
        classes: their names.
        rate: samples a second.
        longest: samples that a batch is filled up to with silence, the longest recording's in both parts.
    """

    samples: Tensor = field(repr=False)
    starts: Tensor = field(repr=False)
    lengths: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    speakers: list[str] = field(repr=False)
    classes: list[str]
    rate: int
    longest: int

    def __len__(self) -> int:
        return len(self.labels)

    def wave(self, index: int) -> Tensor:
        """One recording without silence behind it: float32 (samples,) in -1 to 1."""
        start = int(self.starts[index])
        return self.samples[start : start + int(self.lengths[index])].float() / 2**15

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One recording, float32 (longest,), and its class."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"recording {index} of {len(self)}")
        waves, labels = self.__getitems__([index % len(self)])
        return waves[0], int(labels[0])

    def __getitems__(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """A batch: recordings, float32 (B, longest), each followed by silence, and their classes (B,)."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        step = torch.arange(self.longest)
        source = (self.starts[index, None] + step).clamp(max=len(self.samples) - 1)  # (B, longest)
        waves = self.samples[source].float().mul_(2**-15).masked_fill_(step >= self.lengths[index, None], 0)
        return waves, self.labels[index]

    def subset(self, indices: Sequence[int] | Tensor) -> Self:
        """These recordings alone."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        speakers = [self.speakers[i] for i in index.tolist()]
        return replace(
            self,
            starts=self.starts[index],
            lengths=self.lengths[index],
            labels=self.labels[index],
            speakers=speakers,
        )


def open_speech(
    data: Any = None, *, rate: int = 8000, seconds: float = 2.0, seed: int = 0
) -> tuple[Recordings, Recordings]:
    """Opens recordings of spoken words: the train and the test part.

    A part is a folder with a folder of WAV files for each class, or a folder of WAV files named
    CLASS_SPEAKER_NUMBER.wav, as in the Free Spoken Digit Dataset. In class folders, speakers are told from
    such names, from Speech Commands' SPEAKER_nohash_NUMBER.wav, or by folders within the class folder. Folders
    whose name starts with a dot or an underscore (`_background_noise_`) are left out. UrbanSound8K's folders
    fold1 to fold10 stand for speakers. WAV files have integers of 8 to 32 bits, or floats.

    Args:
        data: None for the bundled digits; a folder with the parts `train/` and `test/` (or `val/`), or a part
            itself, where a file testing_list.txt may name the test part (Speech Commands); or a pair of your own
            Datasets (train, test) with samples (waveform, label). Without a test part, all recordings of one in
            five speakers, at least of one, are held out where the names tell speakers; otherwise one fifth of each
            class. Waveforms of a Dataset have `rate` samples a second, floats in -1 to 1 or int16, in one
            dimension or (channels, samples).
        rate: samples a second that recordings are brought to; channels are mixed to one.
        seconds: what is longer is cut.
        seed: of what is held out.

    Raises:
        InputError: the folder, a file in it, a sample or an option cannot be used.
    """
    if rate not in RATES:
        raise InputError(f"option rate: expected {RATES[0]} to {RATES[-1]} samples a second, got {rate}")
    if not 0 < seconds <= LONGEST:
        raise InputError(f"option seconds: expected a number above 0 and of at most {LONGEST}, got {seconds}")
    pair = pair_of_datasets(data)
    if pair is not None:
        return recordings_of_pair(pair, rate, seconds)
    folder = bundled("speech") if data is None else own_path(data)
    require_folder(folder, "a folder of recordings")
    splits = by_split(folders_in(folder))
    test_folder = next((splits[name] for name in PARTS["test"] if name in splits), folder)
    if "train" in splits and test_folder is not folder:
        train_files, test_files = labelled_files(splits["train"]), labelled_files(test_folder)
    else:
        train_files, test_files = by_lists(folder, labelled_files(folder))
    if split := bool(test_files):
        train_classes, test_classes = ({label for _, label, _ in part} for part in (train_files, test_files))
        if test_classes - train_classes:
            lacking = ", ".join(sorted(test_classes - train_classes))
            raise InputError(f"{test_folder}: expected classes of the train part, which lacks {lacking}")
    files = train_files + test_files
    classes = sorted({label for _, label, _ in files})
    if len(classes) < 2:
        raise InputError(f"{folder}: expected at least two classes, found only {classes[0]!r}")
    recordings = joined(
        [read_wav(path, rate, seconds) for path, _, _ in files],
        [classes.index(label) for _, label, _ in files],
        [speaker for _, _, speaker in files],
        classes,
        rate,
    )
    if split:
        train_rows, test_rows = torch.arange(len(files)).tensor_split([len(train_files)])
    else:
        train_rows, test_rows = by_speaker(recordings, seed) or holdout(recordings.labels, seed=seed)
    if not len(test_rows):
        raise InputError(f"{folder}: expected two or more recordings of a class, to test on some of them")
    return recordings.subset(train_rows), recordings.subset(test_rows)


def joined(waves: list[Tensor], labels: list[int], speakers: list[str], classes: list[str], rate: int) -> Recordings:
    """All recordings as one set."""
    lengths = torch.tensor([len(samples) for samples in waves])
    return Recordings(
        samples=torch.cat(waves),
        starts=lengths.cumsum(0) - lengths,
        lengths=lengths,
        labels=torch.tensor(labels),
        speakers=speakers,
        classes=classes,
        rate=rate,
        longest=int(lengths.max()),
    )


def recordings_of_pair(pair: tuple[Any, Any], rate: int, seconds: float) -> tuple[Recordings, Recordings]:
    """The train and the test part of the user's own Datasets of samples (waveform, label)."""
    waves: list[Tensor] = []
    labels: list[list[Any]] = [[], []]
    for found, part, dataset in zip(labels, PAIR_PARTS, pair, strict=True):
        for number, (wave_form, label) in enumerate(samples_of(dataset, part, "(waveform, label)")):
            mixed = within(as_wave(wave_form, f"data: {part} sample {number}"), rate, seconds)
            waves.append((mixed * 2**15).round().clamp(-(2**15), 2**15 - 1).short())
            found.append(label)
    numbers, classes = numbered_labels(labels, class_names(pair))
    if len(set(numbers[0])) < 2:
        raise InputError(f"data: expected at least two classes in the train part, found {len(set(numbers[0]))}")
    recordings = joined(waves, numbers[0] + numbers[1], [""] * len(waves), classes, rate)
    train_rows, test_rows = torch.arange(len(waves)).tensor_split([len(numbers[0])])
    return recordings.subset(train_rows), recordings.subset(test_rows)


def as_wave(value: Any, where: str) -> Tensor:
    """A wave of any kind as float32 (samples,), mixed to one channel.

    Raises:
        InputError: it is no wave, has no sample, or holds what is not in -1 to 1; it begins with `where`.
    """
    samples = torch.as_tensor(value) if isinstance(value, (Tensor, np.ndarray)) else torch.empty(0, 0, 0)
    known = samples.dtype.is_floating_point or samples.dtype == torch.int16
    if samples.ndim not in (1, 2) or not known or not samples.numel():
        raise InputError(f"{where}: expected a wave of floats or int16, (samples,), got {described(value)}")
    samples = samples.float() / (2**15 if samples.dtype == torch.int16 else 1)
    if not samples.isfinite().all() or samples.abs().max() > 1.001:
        raise InputError(f"{where}: expected samples in -1 to 1, got up to {samples.abs().max():.3g}")
    return samples.mean(dim=0) if samples.ndim == 2 else samples


def load_recording(item: Any, rate: int) -> Tensor:
    """A WAV file brought to `rate`, or a wave that has it: float32 (samples,) in -1 to 1."""
    if isinstance(item, (Tensor, np.ndarray)):
        return as_wave(item, "recording")
    return read_wav(own_path(item), rate).float() / 2**15


def labelled_files(folder: Path) -> list[tuple[Path, str, str]]:
    """The WAV files of a part, each with its class and its speaker ("" where none is told)."""
    found = []
    for path in files_in(folder, (".wav",)):
        named = CLASS_SPEAKER_NUMBER.fullmatch(path.stem)
        if not named:
            raise InputError(f"{path}: expected a name like CLASS_SPEAKER_NUMBER.wav, or a folder for each class")
        found.append((path, named[1], named[2]))
    if found:
        return found
    kinds = [path for path in folders_in(folder) if path.name[0] != "_"]
    if [kind.name.lower() for kind in kinds] in (["audio"], ["audio", "metadata"]):
        kinds = folders_in(kinds[0])
    for kind in kinds:
        paths = files_in(kind, (".wav",), deep=True)
        if not paths:
            raise InputError(f"{kind}: expected WAV files, found none")
        for path in paths:
            named, nohash = CLASS_SPEAKER_NUMBER.fullmatch(path.stem), SPEAKER_NOHASH_NUMBER.fullmatch(path.stem)
            urban = SOURCE_CLASS_PLACE.fullmatch(path.stem) if FOLD.fullmatch(kind.name) else None
            if urban:
                found.append((path, URBAN_SOUNDS[int(urban[2])], kind.name))
            else:
                within = "" if path.parent == kind else path.parent.name
                found.append((path, kind.name, nohash[1] if nohash else named[2] if named else within))
    if not found:
        raise InputError(f"{folder}: expected WAV files named CLASS_SPEAKER_NUMBER.wav, or a folder for each class")
    return found


def by_lists(folder: Path, files: list[tuple[Path, str, str]]) -> tuple[list[Any], list[Any]]:
    """The train and the test part as Speech Commands' lists tell them; without them all is of the train part."""
    listed: dict[str, set[str]] = {}
    for name in ("testing_list.txt", "validation_list.txt"):
        if is_there(folder / name):
            listed[name] = {line.replace("\\", "/").lower() for line in file_lines(folder / name)}
    if "testing_list.txt" not in listed:
        return files, []
    names = [path.relative_to(folder).as_posix().lower() for path, _, _ in files]
    for name, wanted in listed.items():
        tell_left_out(folder / name, {"recordings that are not there": len(wanted.difference(names))})
    test = [file for file, name in zip(files, names, strict=True) if name in listed["testing_list.txt"]]
    held_out = set().union(*listed.values())
    train = [file for file, name in zip(files, names, strict=True) if name not in held_out]
    if not test or not train:
        raise InputError(f"{folder / 'testing_list.txt'}: expected some of the recordings of {folder.name}, not all")
    return train, test


def by_speaker(recordings: Recordings, seed: int) -> tuple[Tensor, Tensor] | None:
    """Rows of the train and the test part, no speaker in both, and every class in the first.

    None where that cannot be: with a speaker unknown, or with fewer than two.
    """
    speakers = sorted(set(recordings.speakers))
    if len(speakers) < 2 or "" in speakers:
        return None
    order = torch.randperm(len(speakers), generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = {speakers[i] for i in order[: max(1, len(speakers) // 5)]}
    tested = torch.tensor([speaker in held_out for speaker in recordings.speakers])
    if len(recordings.labels[~tested].unique()) < len(recordings.classes):
        return None
    return (~tested).nonzero().flatten(), tested.nonzero().flatten()


def read_wav(path: Path, rate: int, seconds: float | None = None) -> Tensor:
    """A WAV file as int16 (samples,), mixed to one channel and brought to `rate`; what is longer is cut."""
    form, content = wav_chunks(path)
    kind, channels, own_rate, _, align, bits = struct.unpack("<HHIIHH", form[:16])
    if kind == EXTENSIBLE and len(form) >= 26:
        (kind,) = struct.unpack("<H", form[24:26])
    if (kind, bits) not in SAMPLES or not channels or align != channels * bits // 8:
        told = f"found encoding {kind} of {bits} bits in {channels} channels, {align} bytes together"
        raise InputError(f"{path}: expected a WAV file of integers of 8 to 32 bits or of floats, {told}")
    if own_rate not in RATES:
        raise InputError(f"{path}: expected {RATES[0]} to {RATES[-1]} samples a second, found {own_rate}")
    count = len(content) // align
    if seconds is not None:
        count = min(count, math.ceil((seconds + 1) * own_rate))  # the last sample that is kept looks a little ahead
    if not count:
        raise InputError(f"{path}: expected sound, found no sample")
    kept = bytes(content[: count * align])
    if bits == 24:
        bytes_of = np.frombuffer(kept, np.uint8).reshape(-1, 3)
        whole = np.zeros((len(bytes_of), 4), np.uint8)  # as integers of 32 bits
        whole[:, 1:] = bytes_of
        kept = whole.tobytes()
    stored, offset, scale = SAMPLES[kind, bits]
    values = torch.from_numpy((np.frombuffer(kept, stored).astype(np.float32) - offset) * np.float32(scale))
    loudest = values.abs().max() / 2**15
    if not loudest <= 8:  # no number, or floats that are integers
        raise InputError(f"{path}: expected samples in -1 to 1, got up to {loudest:.3g}")
    if loudest > 1.001:
        tell("some recordings have samples beyond 1, which are cut off there")
    mixed = values.view(-1, channels).mean(dim=1)  # (samples,)
    found = resample(mixed, own_rate, rate).round().clamp(-(2**15), 2**15 - 1).short()
    return found if seconds is None else within(found, rate, seconds)


def within(wave: Tensor, rate: int, seconds: float) -> Tensor:
    """The first seconds of a recording (samples,); it is told where most of the sound is lost."""
    longest = max(1, round(rate * seconds))
    energy = wave.double().square()
    if energy[longest:].sum() > 0.5 * energy.sum():
        tell(f"of some recordings most comes after {seconds:g} seconds and is not heard")
    return wave[:longest]


def wav_chunks(path: Path) -> tuple[bytes, memoryview]:
    """The description of the format and the samples of a WAV file.

    Raises:
        InputError: a size in it is none, or one of them is missing.
    """
    content = memoryview(file_content(path))
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise InputError(f"{path}: expected a WAV file, it begins otherwise")
    form, place = b"", 12
    while place + 8 <= len(content):
        name, size = struct.unpack("<4sI", content[place : place + 8])
        place += 8
        if name == b"data" and size == STREAMED:
            size = len(content) - place
        if size > len(content) - place:
            told = f"its part {name.decode('latin-1')!r} has {len(content) - place} of {size} bytes: the file is cut"
            raise InputError(f"{path}: expected a WAV file, but {told}")
        if name == b"data" and form:
            return form, content[place : place + size]
        if name == b"fmt " and size >= 16:
            form = bytes(content[place : place + size])
        place += size + size % 2
    raise InputError(f"{path}: expected a WAV file with the parts 'fmt ' and 'data'")


def resample(samples: Tensor, rate: int, new_rate: int) -> Tensor:
    """The same sound at another rate: (N,) to (ceil(N * new_rate / rate),).

    Each new sample is a sum of old ones about its time, weighted by a windowed sinc. Where the rate falls,
    the sinc is as much wider, which takes away the tones that the new rate cannot hold.
    """
    if rate == new_rate:
        return samples
    shared = math.gcd(rate, new_rate)
    phases = new_rate // shared  # the times of new samples repeat, relative to the old, after so many
    weights = kernel(rate // shared, phases)  # (phases, taps)
    taps = weights.shape[1]
    new = torch.arange(-(-len(samples) * new_rate // rate))
    nearest = new * (rate // shared) // phases  # the old sample at or before each new one
    padded = torch.nn.functional.pad(samples, (taps // 2, taps // 2))
    about = padded.unfold(0, taps, 1)[nearest]  # (new, taps)
    return (about * weights[new % phases]).sum(dim=1)


@cache
def kernel(down: int, up: int) -> Tensor:
    """Weights (up, taps) of the old samples about each of the `up` times at which new ones can fall."""
    cutoff = min(1.0, 0.95 * up / down)  # as a share of half the old rate
    reach = math.ceil(CROSSINGS / cutoff)
    after = torch.arange(up) * down % up / up  # new samples' time after the old one before them
    times = torch.arange(-reach, reach + 1) - after[:, None]  # (up, taps)
    window = (math.pi / 2 * (times / (reach + 1))).clamp(-math.pi / 2, math.pi / 2).cos().square()
    weights = torch.sinc(times * cutoff) * window
    return weights / weights.sum(dim=1, keepdim=True)
