"""Random changes of whole batches of sound, each recording by itself, on the batch's device."""

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.audio.features import MELS, log_mel


def drawn(batch: Tensor, low: float, high: float, generator: torch.Generator | None) -> Tensor:
    """A random number from `low` to `high` for each of a batch: (batch, 1)."""
    return low + (high - low) * torch.rand(len(batch), 1, generator=generator, device=batch.device)


def loudness(waves: Tensor) -> Tensor:
    """Root mean square (batch, 1) over the samples that are not silence."""
    return (waves.square().sum(1, keepdim=True) / (waves != 0).sum(1, keepdim=True).clamp(min=1)).sqrt()


def speed(waves: Tensor, generator: torch.Generator | None = None, amount: float = 0.2) -> Tensor:
    """Waves (batch, samples) played faster or slower, by a factor of up to 1 + `amount`; the pitch rises or falls too.

    Samples between two are interpolated linearly. The batch becomes longer, (batch, samples * (1 + amount)), so that
    the slowest recording keeps its end; the others are followed by silence.

    Args:
        waves: float (batch, samples).
        generator: on the same device; torch's own random numbers if not given.
        amount: above 0.
    """
    samples = waves.shape[1]
    factor = (1 + amount) ** drawn(waves, -1, 1, generator)  # (batch, 1)
    time = torch.arange(round(samples * (1 + amount)), device=waves.device) * factor  # (batch, longer), in samples
    before = time.long().clamp(max=samples - 1)
    after = (before + 1).clamp(max=samples - 1)
    share = time - before
    played = waves.gather(1, before) * (1 - share) + waves.gather(1, after) * share
    return played * (time <= samples - 1)


def noise(waves: Tensor, generator: torch.Generator | None = None, low: float = -5, high: float = 50) -> Tensor:
    """White noise under waves (batch, samples), `low` to `high` decibels softer than they are; louder below 0."""
    hiss = torch.randn(waves.shape, generator=generator, device=waves.device)
    return waves + hiss * loudness(waves) * 10 ** (-drawn(waves, low, high, generator) / 20)


def heard_elsewhere(waves: Tensor, rate: int) -> Tensor:
    """Spectra (batch, mels, frames) as other voices, rooms and microphones would give them, at random.

    Each string is a little faster or slower, white noise lies 0 to 40 decibels below its voice, and a smooth curve
    over the bands makes some of them up to 10 decibels louder or softer.
    """
    spectra = log_mel(noise(speed(waves, amount=0.1), low=0, high=40), rate)
    tone = 2 * torch.rand(len(waves), 1, 4, device=waves.device) - 1  # powers of ten, at four of the bands
    return spectra + F.interpolate(tone, MELS, mode="linear", align_corners=True).mT
