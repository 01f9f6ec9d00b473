"""From a log-mel spectrogram back to sound, with phases found by Griffin and Lim's iteration."""

import math
import wave
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.audio.features import FLOOR, HOP, WINDOW, mel_filters


def griffin_lim(magnitudes: Tensor, hop: int, *, rounds: int = 32, momentum: float = 0.99, seed: int = 0) -> Tensor:
    """A wave (hop · (frames - 1),) whose spectra have these magnitudes (window // 2 + 1, frames), as nearly as may be.

    A round goes from magnitudes and phases to the wave and back, and keeps only the new phases: frames overlap, so
    that few phases fit all of them. With momentum, a round goes on in the direction of the one before.

    Source: Griffin, Lim (1984), https://doi.org/10.1109/TASSP.1984.1164317; momentum: Perraudin, Balazs, Søndergaard
        (2013), https://doi.org/10.1109/WASPAA.2013.6701851

    Args:
        magnitudes: of Hann windows of an even number of samples, one every `hop` samples.
        hop: samples, at most half a window.
        rounds: of the iteration.
        momentum: 0 for the plain iteration of 1984.
        seed: of the phases to begin with.
    """
    window = 2 * (len(magnitudes) - 1)
    hann, generator = torch.hann_window(window), torch.Generator().manual_seed(seed)
    angles = 2 * math.pi * torch.rand(magnitudes.shape, generator=generator)
    phases, before = torch.polar(torch.ones_like(angles), angles), torch.zeros(1)
    for _ in range(rounds):
        sound = torch.istft(magnitudes * phases, window, hop, window=hann)
        spectra = torch.stft(sound, window, hop, window=hann, pad_mode="constant", return_complex=True)
        ahead = spectra + momentum * (spectra - before)
        phases, before = ahead / ahead.abs().clamp(min=1e-9), spectra
    return torch.istft(magnitudes * phases, window, hop, window=hann)


def mel_to_wave(spectrum: Tensor, rate: int) -> Tensor:
    """A wave (samples,), its largest sample 0.9, of a log-mel spectrogram (frames, mels) as `log_mel` makes them."""
    window, hop = 2 * (round(WINDOW * rate) // 2), round(HOP * rate)
    filters = mel_filters(rate, window, spectrum.shape[1])  # (window // 2 + 1, mels)
    spectrum = F.pad(spectrum, (0, 0, 0, max(0, 3 - len(spectrum))), value=math.log10(FLOOR))
    gathered = (10**spectrum - FLOOR).clamp(min=0)
    power = (gathered @ torch.linalg.pinv(filters)).clamp(min=0)  # (frames, window // 2 + 1)
    sound = griffin_lim(power.sqrt().T, hop)
    return 0.9 * sound / sound.abs().max().clamp(min=1e-4)


def write_wav(path: Path, sound: Tensor, rate: int) -> None:
    """Writes a wave (samples,) of -1 to 1 in 16 bits, one channel."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((sound * (2**15 - 1)).round().short().numpy().astype("<i2").tobytes())
