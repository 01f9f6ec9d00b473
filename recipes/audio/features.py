"""What a network sees of a sound: how loud each pitch is, frame by frame (the log-mel spectrogram)."""

from functools import cache

import torch
from torch import Tensor

WINDOW = 0.032  # seconds that a spectrum is taken of
HOP = 0.016  # seconds from one spectrum to the next
MELS = 32  # bands of pitch
FLOOR = 1e-4  # added to the power, so that silence has a logarithm: what is much softer is not told from it


def hertz_to_mel(hertz: Tensor) -> Tensor:
    """The mel scale, on which equal steps sound equal: even at first, logarithmic above about 700 Hz.

    Source: O'Shaughnessy (1987), "Speech Communication", page 150.
    """
    return 2595 * torch.log10(1 + hertz / 700)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """The inverse of `hertz_to_mel`."""
    return 700 * (10 ** (mel / 2595) - 1)


@cache
def mel_filters(rate: int, window: int, mels: int = MELS) -> Tensor:
    """Weights (window // 2 + 1, mels) that gather the frequencies of a spectrum in overlapping triangles.

    The corners lie evenly on the mel scale from 0 to half of `rate`; each triangle rises from one corner
    to 1 at the next and falls to 0 at the one after it.

    Args:
        rate: samples a second.
        window: samples that the spectrum is taken of.
        mels: triangles.
    """
    bins = torch.linspace(0, rate / 2, window // 2 + 1)  # Hz
    top = hertz_to_mel(torch.tensor(rate / 2)).item()
    corners = mel_to_hertz(torch.linspace(0, top, mels + 2))  # Hz
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - low) / (peak - low)  # (bins, mels)
    falling = (high - bins[:, None]) / (high - peak)
    return torch.minimum(rising, falling).clamp(min=0)


def log_mel(waves: Tensor, rate: int, mels: int = MELS) -> Tensor:
    """Log-mel spectrograms (batch, mels, frames) of waves (batch, samples), a frame every `HOP` seconds.

    Args:
        waves: float, in -1 to 1.
        rate: samples a second.
        mels: bands of pitch.
    """
    window, hop = round(WINDOW * rate), round(HOP * rate)
    hann = torch.hann_window(window, device=waves.device)
    spectrum = torch.stft(waves, window, hop, window=hann, pad_mode="constant", return_complex=True)
    power = spectrum.abs().square()  # (batch, window // 2 + 1, frames)
    gathered = mel_filters(rate, window, mels).to(waves.device).T @ power  # (batch, mels, frames)
    return (gathered + FLOOR).log10()


def normalized(waves: Tensor) -> Tensor:
    """Waves (batch, samples) scaled so that the largest sample of each is 1: loud or soft, a voice is heard alike."""
    return waves / waves.abs().amax(dim=1, keepdim=True).clamp(min=1e-4)
