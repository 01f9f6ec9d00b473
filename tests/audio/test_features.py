import pytest
import torch

from recipes.audio.features import FLOOR, MELS, hertz_to_mel, log_mel, mel_filters, mel_to_hertz, normalized


def test_filters_equal_librosa() -> None:
    filters = pytest.importorskip("librosa.filters")
    theirs = torch.from_numpy(filters.mel(sr=8000, n_fft=256, n_mels=MELS, htk=True, norm=None)).T
    torch.testing.assert_close(mel_filters(8000, 256), theirs, rtol=0, atol=1e-5)


def test_filters_equal_torchaudio() -> None:
    functional = pytest.importorskip("torchaudio.functional")
    theirs = functional.melscale_fbanks(129, 0.0, 4000.0, MELS, 8000)
    torch.testing.assert_close(mel_filters(8000, 256), theirs, rtol=0, atol=1e-4)


def test_the_mel_scale() -> None:
    assert hertz_to_mel(torch.tensor(1000.0)) == pytest.approx(1000, abs=0.1)
    hertz = torch.linspace(0, 8000, 50)
    torch.testing.assert_close(mel_to_hertz(hertz_to_mel(hertz)), hertz, rtol=1e-4, atol=0.01)


def test_neighbouring_triangles_add_up_to_one() -> None:
    filters = mel_filters(8000, 256)
    assert filters.shape == (129, MELS)
    assert filters.sum(dim=0).min() > 0.9, "no band is empty"
    torch.testing.assert_close(filters.sum(dim=1)[4:110], torch.ones(106))


def test_a_tone_is_loud_in_its_band_and_silence_is_the_floor() -> None:
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 8000)
    spectra = log_mel(torch.stack([tone, torch.zeros(8000)]), 8000)
    assert spectra.shape == (2, MELS, 63)
    assert spectra[0, :, 30].argmax() == mel_filters(8000, 256)[32].argmax()  # bin 32 is 1,000 Hz
    torch.testing.assert_close(spectra[1], torch.full_like(spectra[1], FLOOR).log10())


def test_one_frame_by_the_definition() -> None:
    wave = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()
    frame = wave[0, 10 * 128 - 128 : 10 * 128 + 128] * torch.hann_window(256)  # centred on sample 1,280
    power = torch.fft.rfft(frame).abs().square()
    expected = (power @ mel_filters(8000, 256) + FLOOR).log10()
    torch.testing.assert_close(log_mel(wave, 8000)[0, :, 10], expected, rtol=1e-4, atol=1e-4)


def test_normalized_waves_peak_at_one_and_silence_stays() -> None:
    waves = torch.tensor([[0.1, -0.2, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(normalized(waves), torch.tensor([[0.5, -1.0, 0.0], [0.0, 0.0, 0.0]]))
