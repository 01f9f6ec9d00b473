"""Recordings of spoken words from WAV files of 16 bits and one channel, named CLASS_SPEAKER_NUMBER.wav."""

import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from recipes.datasets.bundled import bundled


@dataclass
class Recordings:
    """Recordings one after the other in `samples` (int16), with their `starts`, `lengths` and `labels` (N,)."""

    samples: Tensor
    starts: Tensor
    lengths: Tensor
    labels: Tensor
    speakers: list[str]
    classes: list[str]
    rate: int
    longest: int

    def __len__(self) -> int:
        return len(self.labels)

    def wave(self, index: int) -> Tensor:
        start = int(self.starts[index])
        return self.samples[start : start + int(self.lengths[index])].float() / 2**15

    def __getitems__(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        waves = torch.zeros(len(indices), self.longest)  # silence behind the shorter ones
        for row, index in zip(waves, indices, strict=True):
            row[: int(self.lengths[index])] = self.wave(int(index))
        return waves, self.labels[torch.as_tensor(indices)]

    def subset(self, indices: Sequence[int] | Tensor) -> "Recordings":
        index = torch.as_tensor(indices)
        kept = {name: getattr(self, name)[index] for name in ("starts", "lengths", "labels")}
        return replace(self, speakers=[self.speakers[i] for i in index.tolist()], **kept)


def open_speech(
    data: str | None = None, *, rate: int = 8000, seconds: float = 2.0, seed: int = 0
) -> tuple[Recordings, Recordings]:
    """The recordings in train/ and test/; the files have `rate` samples a second."""
    folder = Path(data) if data else bundled("speech")
    files = [sorted((folder / part).glob("*.wav")) for part in ("train", "test")]
    names = [path.stem.split("_") for path in files[0] + files[1]]
    classes = sorted({name for name, _, _ in names})
    waves = []
    for path in files[0] + files[1]:
        with wave.open(str(path)) as file:
            content = bytearray(file.readframes(file.getnframes()))
        waves.append(torch.frombuffer(content, dtype=torch.int16)[: round(rate * seconds)])
    lengths = torch.tensor([len(samples) for samples in waves])
    labels = torch.tensor([classes.index(name) for name, _, _ in names])
    speakers = [speaker for _, speaker, _ in names]
    starts, longest = lengths.cumsum(0) - lengths, int(lengths.max())
    recordings = Recordings(torch.cat(waves), starts, lengths, labels, speakers, classes, rate, longest)
    train_rows, test_rows = torch.arange(len(names)).tensor_split([len(files[0])])
    return recordings.subset(train_rows), recordings.subset(test_rows)


def by_speaker(recordings: Recordings, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of the train and of a held-out part, no speaker in both."""
    speakers = sorted(set(recordings.speakers))
    order = torch.randperm(len(speakers), generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = {speakers[i] for i in order[: max(1, len(speakers) // 5)]}
    tested = torch.tensor([speaker in held_out for speaker in recordings.speakers])
    return (~tested).nonzero().flatten(), tested.nonzero().flatten()
