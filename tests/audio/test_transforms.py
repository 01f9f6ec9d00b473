import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.audio.features import log_mel
from recipes.audio.transforms import heard_elsewhere, loudness, noise, speed


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waves() -> Tensor:
    """Fifty different tones, a third of a second each, with silence behind them."""
    tones = torch.sin(torch.arange(1, 51)[:, None] * torch.arange(3200) / 200)
    return F.pad(tones, (0, 800))


def test_loudness_leaves_silence_out() -> None:
    assert loudness(torch.tensor([[0.5, -0.5, 0, 0], [0, 0, 0, 0]])).tolist() == [[0.5], [0]]


@pytest.mark.parametrize("decibels", [0, 10, 30])
def test_noise_has_the_ratio_it_is_asked_for(decibels: int) -> None:
    added = noise(waves(), generator(), decibels, decibels) - waves()
    measured = 20 * (loudness(waves()) / added.square().mean(1, keepdim=True).sqrt()).log10()
    torch.testing.assert_close(measured, torch.full((50, 1), float(decibels)), rtol=0, atol=0.5)
    spectrum = torch.fft.rfft(added).abs().square().mean(dim=0)
    low, high = spectrum[1:1000].mean(), spectrum[1000:2000].mean()
    assert math.isclose(low, high, rel_tol=0.1), "as strong at every pitch"


def test_speed_moves_the_pitch_and_loses_no_end() -> None:
    waves = torch.sin(2 * torch.pi * 500 * torch.arange(4000) / 8000).repeat(50, 1)
    played = speed(waves, torch.Generator().manual_seed(0), amount=0.2)
    assert played.shape == (50, 4800)
    durations = (played.abs() > 0).long().cumsum(1).argmax(1) + 1  # up to the last sample that is not 0
    assert durations.min() < 3500
    assert durations.max() > 4500
    pitches = torch.fft.rfft(played, 8000).abs().argmax(dim=1)  # in Hz
    torch.testing.assert_close(pitches * durations / 4000, torch.full((50,), 500.0), rtol=0.01, atol=0)


def test_heard_elsewhere_keeps_what_is_said() -> None:
    """Each string gets its own noise and its own filter, within 10 decibels; the loudest tone stays the loudest."""
    torch.manual_seed(0)
    waves = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 8000).repeat(20, 1)
    plain, changed = log_mel(waves, 8000), heard_elsewhere(waves, 8000)
    assert changed.shape[:2] == plain.shape[:2]
    middle = slice(10, 40)
    assert (changed[:, :, middle].mean(2).argmax(1) - plain[:, :, middle].mean(2).argmax(1)).abs().max() <= 2
    assert (changed[:, :, middle].amax((1, 2)) - plain[:, :, middle].amax((1, 2))).abs().max() < 1.3
    assert (changed[0] - changed[1]).abs().max() > 0.1
