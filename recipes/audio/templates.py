"""The plain way to recognize a word: the recording most like it, both stretched to the same length."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.audio.features import HOP, log_mel
from recipes.datasets.speech import Recordings


def same_size(spectrum: Tensor, frames: int = 16) -> Tensor:
    """A spectrogram (mels, any) stretched to so many frames, its mean 0 and deviation 1: (mels * frames,)."""
    stretched = F.interpolate(spectrum.unsqueeze(0), frames, mode="linear").flatten()
    return (stretched - stretched.mean()) / stretched.std().clamp(min=1e-6)


class Templates:
    """Recordings whose class is known; called with spectrograms (mels, frames), it answers with classes (N,)."""

    def __init__(self, recordings: Recordings) -> None:
        self.rate, self.labels = recordings.rate, recordings.labels
        known = [log_mel(recordings.wave(row).unsqueeze(0), self.rate)[0] for row in range(len(recordings))]
        self.templates = torch.stack([same_size(spectrum) for spectrum in known])  # (recordings, mels * frames)

    def __call__(self, spectra: Sequence[Tensor]) -> Tensor:
        asked = torch.stack([same_size(spectrum) for spectrum in spectra])
        return self.labels[torch.cdist(asked, self.templates).argmin(dim=1)]


def without_silence(spectra: Tensor, samples: Tensor, rate: int) -> list[Tensor]:
    """Each spectrogram (mels, frames) of a batch up to where its recording of that many samples ends."""
    hop = round(HOP * rate)
    return [spectrum[:, : int(count) // hop + 1] for spectrum, count in zip(spectra, samples, strict=True)]


def cut_at_pauses(spectrum: Tensor, quiet: float = 3, shortest: float = 0.06) -> list[Tensor]:
    """The stretches (mels, frames) of a spectrogram between pauses: frames `quiet` powers of ten below the peak.

    Pauses and stretches shorter than `shortest` seconds count for nothing.
    """
    loud = (spectrum.amax(dim=0) > spectrum.max() - quiet).nonzero().flatten()
    least = round(shortest / HOP)
    ends = (loud.diff() > least).nonzero().flatten() + 1
    stretches = [piece for piece in loud.tensor_split(ends.tolist()) if len(piece) > least] or [loud]
    return [spectrum[:, int(piece[0]) : int(piece[-1]) + 1] for piece in stretches]
