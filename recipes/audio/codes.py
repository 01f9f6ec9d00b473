"""Recordings as strings of codes: a codebook of frames, found by k-means, and what each recording is in it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from recipes.audio.features import HOP, log_mel, normalized
from recipes.audio.transforms import speed
from recipes.core.errors import InputError
from recipes.datasets.speech import Recordings

NOTHING = -100  # the target behind the end of a word, which cross-entropy passes over


def frames_of(waves: Tensor, rate: int) -> list[Tensor]:
    """The log-mel frames of each of these waves (batch, samples), (frames, mels), without the silence behind it."""
    last = (waves != 0).cumsum(dim=1).argmax(dim=1)  # the last sample that is not 0
    spectra = log_mel(normalized(waves), rate).transpose(1, 2)
    return [spectrum[: int(end) // round(HOP * rate) + 1] for spectrum, end in zip(spectra, last, strict=True)]


def learn_codebook(recordings: Recordings, size: int, seed: int, *, rounds: int = 20) -> Tensor:
    """Frames (size, mels) that stand for those of recordings, a thousand at most: k-means."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(recordings), generator=generator)[:1000]
    frames = torch.cat(frames_of(recordings.__getitems__(rows)[0], recordings.rate))
    if len(frames) < size:
        raise InputError(f"option codes: expected at most the {len(frames)} frames of the train part, got {size}")
    codebook = frames[torch.randperm(len(frames), generator=generator)[:size]]
    for _ in range(rounds):
        codes = nearest_codes(frames, codebook)
        counts = codes.bincount(minlength=size).unsqueeze(1)
        sums = torch.zeros_like(codebook).index_add_(0, codes, frames)
        codebook = torch.where(counts > 0, sums / counts.clamp(min=1), codebook)
    return codebook


def nearest_codes(frames: Tensor, codebook: Tensor) -> Tensor:
    """The code of each frame, (frames,)."""
    return torch.cdist(frames, codebook).argmin(dim=1)


class SpokenCodes:
    """Recordings as words: (class, codes before the last) to codes and end, (batch, longest of the batch) each."""

    def __init__(self, recordings: Recordings, codebook: Tensor, *, copies: int = 0, seed: int = 0) -> None:
        self.recordings, self.codebook, self.end = recordings, codebook, len(codebook)
        self.classes, self.rate = recordings.classes, recordings.rate
        self.codes, found, generator = list[Tensor](), list[Tensor](), torch.Generator().manual_seed(seed)
        for rows in torch.arange(len(recordings)).split(256):
            waves, _ = recordings.__getitems__(rows)
            for version in [waves, *(speed(waves, generator) for _ in range(copies))]:
                codes = [nearest_codes(frames, codebook) for frames in frames_of(version, self.rate)]
                self.codes += [F.pad(one, (0, 1), value=self.end).short() for one in codes]
                found.append(rows)
        self.rows = torch.cat(found)  # the recording of each sample
        self.labels = recordings.labels[self.rows]
        self.longest = max(map(len, self.codes)) - 1  # codes of a word

    def __len__(self) -> int:
        return len(self.codes)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        targets = pad_sequence([self.codes[i].long() for i in indices], batch_first=True, padding_value=NOTHING)
        first = self.end + 1 + self.labels[torch.as_tensor(indices), None]
        return torch.cat([first, targets[:, :-1].clamp(min=0)], dim=1), targets

    def spectrum(self, index: int) -> Tensor:
        """What the codes of a recording stand for, (frames, mels)."""
        return self.codebook[self.codes[index][:-1].long()]
