"""Sound as codes and back, what counts and networks make of codes, and words that are said."""

import math
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import istft, stft
from torch import Tensor
from torch.nn import functional as F

from recipes.audio.code_counts import contexts
from recipes.audio.codes import SpokenCodes, frames_of, learn_codebook
from recipes.audio.features import log_mel, mel_filters, normalized
from recipes.audio.generation import GenerationOptions, build, evaluate, run, train
from recipes.audio.synthesis import griffin_lim, mel_to_wave, write_wav
from recipes.core.counting import chances_by_counts
from recipes.core.errors import InputError
from recipes.datasets.speech import Recordings, load_recording, open_speech
from recipes.predicting import draw_answer
from recipes.using import trained

CPU = torch.device("cpu")
RATE = 8000


@pytest.fixture(scope="module")
def voices() -> tuple[Recordings, Recordings]:
    return open_speech()


@pytest.fixture(scope="module")
def few(voices: tuple[Recordings, Recordings]) -> SpokenCodes:
    recordings = voices[1].subset(torch.arange(20))
    return SpokenCodes(recordings, learn_codebook(recordings, 16, 0), copies=1)


def tones(count: int = 40) -> list[tuple[Tensor, str]]:
    """Waves of two words: a low and a high tone, of 0.1 to 0.2 seconds."""
    generator, found = torch.Generator().manual_seed(0), []
    for number in range(count):
        samples = int(torch.randint(800, 1600, (), generator=generator))
        hertz = 400 if number % 2 else 1600
        found.append((0.5 * torch.sin(2 * math.pi * hertz * torch.arange(samples) / RATE), ["high", "low"][number % 2]))
    return found


def magnitudes_of(sound: Tensor) -> Tensor:
    return torch.stft(sound, 256, 64, window=torch.hann_window(256), pad_mode="constant", return_complex=True).abs()


def test_griffin_lim_is_scipys_iteration() -> None:
    """Without momentum, round by round, from the same phases to begin with."""
    sound = torch.randn(64 * 40, generator=torch.Generator().manual_seed(1))
    magnitudes = magnitudes_of(sound)
    angles = 2 * math.pi * torch.rand(magnitudes.shape, generator=torch.Generator().manual_seed(0)).double().numpy()
    how = {"window": "hann", "nperseg": 256, "noverlap": 192, "boundary": "zeros", "padded": False}
    spectra = magnitudes.double().numpy() * np.exp(1j * angles)
    for _ in range(5):
        guess = istft(spectra, window="hann", nperseg=256, noverlap=192)[1]
        phases = stft(guess, **how)[2]
        spectra = magnitudes.double().numpy() * phases / np.abs(phases)
    expected = istft(spectra, window="hann", nperseg=256, noverlap=192)[1] / 128  # scipy divides by the window's sum
    found = griffin_lim(magnitudes, 64, rounds=5, momentum=0)
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-3)


def test_more_rounds_and_momentum_come_nearer(voices: tuple[Recordings, Recordings]) -> None:
    magnitudes = magnitudes_of(voices[1].wave(3))
    off = [
        (magnitudes_of(griffin_lim(magnitudes, 64, **how)) - magnitudes).norm().item()
        for how in ({"rounds": 0}, {"rounds": 32, "momentum": 0}, {"rounds": 32})
    ]
    assert off[0] > 2 * off[1] > 2 * off[2]


def test_sound_comes_back_from_its_mel_spectrum() -> None:
    """A tone stays in its band, and the largest sample is 0.9."""
    tone = tones(2)[0][0]
    spectrum = log_mel(normalized(tone[None]), RATE)[0]
    sound = mel_to_wave(spectrum.T, RATE)
    assert sound.abs().max().item() == pytest.approx(0.9, abs=1e-5)
    again = log_mel(normalized(sound[None]), RATE)[0]
    assert torch.equal(again.mean(dim=1).argmax(), spectrum.mean(dim=1).argmax())
    for frames in (0, 1):  # shorter than any word
        assert mel_to_wave(torch.full((frames, 32), 1.0), RATE).isfinite().all()
    assert mel_filters(RATE, 256).shape == (129, 32)


def test_wav_files_are_read_again(tmp_path: Path) -> None:
    sound = tones(1)[0][0]
    write_wav(tmp_path / "tone.wav", sound, RATE)
    with wave.open(str(tmp_path / "tone.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (RATE, 1, len(sound))
    torch.testing.assert_close(load_recording(tmp_path / "tone.wav", RATE), sound, rtol=0, atol=1e-4)


def test_a_recording_is_its_class_and_its_codes(few: SpokenCodes) -> None:
    assert len(few) == 40
    assert few.rows.tolist() == [*range(20), *range(20)]
    words, targets = few.__getitems__([0, 30])
    assert words.shape == targets.shape
    assert words[:, 0].tolist() == [17 + int(few.labels[row]) for row in (0, 30)]
    for row, index in enumerate((0, 30)):
        count = len(few.codes[index])
        assert targets[row, count - 1] == 16
        assert (targets[row, count:] == -100).all()
        assert torch.equal(words[row, 1:count], targets[row, : count - 1])
    frames = frames_of(few.recordings.wave(0)[None], RATE)[0]
    off = (frames[:, None] - few.codebook).square().sum(dim=2)  # by hand
    assert torch.equal(few.codes[0][:-1].long(), off.argmin(dim=1))
    torch.testing.assert_close(few.spectrum(0), few.codebook[off.argmin(dim=1)])


def test_a_codebook_is_what_its_frames_are_in_the_mean(voices: tuple[Recordings, Recordings]) -> None:
    recordings = voices[1].subset(torch.arange(10))
    frames = torch.cat([frames_of(recordings.wave(row)[None], RATE)[0] for row in range(10)])
    codebook = learn_codebook(recordings, 8, 0, rounds=100)
    codes = torch.cdist(frames, codebook).argmin(dim=1)
    for code in codes.unique().tolist():
        torch.testing.assert_close(codebook[code], frames[codes == code].mean(dim=0), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="option codes: expected at most the"):
        learn_codebook(recordings, 5000, 0)


def test_no_code_sees_itself_and_the_cache_gives_the_same(few: SpokenCodes) -> None:
    torch.manual_seed(0)
    model = build(GenerationOptions(codes=16, width=16), few).eval()
    for name, one in model.named_parameters():
        if name.endswith("to_out.weight"):  # blocks add nothing at first
            torch.nn.init.normal_(one)
    words = few.__getitems__([0, 1])[0]
    changed = words.clone()
    changed[:, 8:] = (changed[:, 8:] + 1) % 16
    before, after = model(words), model(changed)
    torch.testing.assert_close(before[:, :8], after[:, :8])
    assert not torch.allclose(before[:, 8:], after[:, 8:])
    cache: list[list[Tensor]] = [[] for _ in model.blocks]
    steps = [model(words[:, : known + 1], cache)[:, -1] for known in range(words.shape[1])]
    torch.testing.assert_close(torch.stack(steps, dim=1), before, rtol=1e-4, atol=1e-5)
    before.sum().backward()
    assert all(one.grad is not None for one in model.parameters())


def test_bits_are_those_of_the_probabilities(few: SpokenCodes) -> None:
    model = build(GenerationOptions(codes=16, width=16), few)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    assert evaluate(model, few, CPU)["bits_per_frame"] == pytest.approx(math.log2(17))


def test_counts_weigh_what_shorter_contexts_say(few: SpokenCodes) -> None:
    known, truths = contexts(few, torch.arange(20))
    asked, asked_truths = contexts(few, torch.arange(20, 40))
    assert {len(one) for one in known.values()} == {len(truths)} == {sum(map(len, few.codes[:20]))}
    how: dict[str, Any] = {"weight": 5.0, "size": 17}
    even = chances_by_counts(known, truths, asked, asked_truths, chain=[], **how)
    assert even.tolist() == pytest.approx([1 / 17] * len(asked_truths))
    found = chances_by_counts(known, truths, asked, asked_truths, chain=["", "before", "class"], **how)
    by_hand = (truths.bincount(minlength=17)[asked_truths] + 5 / 17) / (len(truths) + 5)
    same = torch.ones(len(asked_truths), len(truths), dtype=torch.bool)
    for name in ("before", "class"):
        same &= asked[name][:, None] == known[name]
        here = (same & (asked_truths[:, None] == truths)).sum(dim=1)
        by_hand = (here + 5 * by_hand) / (same.sum(dim=1) + 5)
    torch.testing.assert_close(found.float(), by_hand.float())


def test_words_are_learned_and_said(tmp_path: Path) -> None:
    """By a network of two tones, which one that was opened again says alike; what comes is written as WAV."""
    pair = (tones(), tones(10))
    small: dict[str, Any] = {
        "codes": 8,
        "width": 16,
        "layers": 1,
        "copies": 0,
        "epochs": 20,
        "batch_size": 8,
        "device": "cpu",
    }
    result = run(data=pair, out=str(tmp_path / "out"), claims=False, temperature=0.5, **small)
    assert result["bits_per_frame"] < 1.2
    assert {"says_high.wav", "says_low.wav", "figure.png"} <= {path.name for path in (tmp_path / "out").iterdir()}
    again = trained(tmp_path / "out", device="cpu")
    answers = again(["low", "high"])
    for answer, hertz in zip(answers, (400, 1600), strict=True):
        sound = torch.tensor(answer["wave"])
        assert answer["seconds"] == len(sound) / RATE
        loudest = torch.fft.rfft(sound, 8000).abs().argmax().item()
        assert abs(loudest - hertz) < 200
    assert answers == again(["low", "high"])
    assert again(["high", "low", "low"], batch_size=2) == [answers[1], answers[0], answers[0]]
    labels, how = torch.tensor([1]), {"temperature": 0.5, "longest": again.task.to_dict()["longest"]}
    assert answers[0]["wave"] == result.model.say(labels, RATE, **how)[0].tolist()
    again.task.temperature = 0
    assert again(["low"])[0]["seconds"] > 0
    draw_answer(again.task, "low", answers[0], tmp_path / "drawn", 0)
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["1.png", "1.wav"]
    with pytest.raises(InputError, match="'middle': expected a word it knows, one of high, low"):
        again(["middle"])


def test_shuffled_words_are_no_help() -> None:
    recordings, _ = open_speech((tones(200), tones(10)))
    codebook = learn_codebook(recordings, 8, 0)
    truths = SpokenCodes(recordings, codebook)
    recordings.labels = recordings.labels[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    shuffled = SpokenCodes(recordings, codebook)
    options = GenerationOptions(codes=8, width=16, layers=1, epochs=8, batch_size=8)
    options.device = CPU
    torch.manual_seed(0)
    model = build(options, shuffled)
    train(model, shuffled, truths, options)
    words, targets = truths.__getitems__(list(range(200)))
    with torch.inference_mode():
        first = F.cross_entropy(model.eval()(words)[:, 0], targets[:, 0]).item() / math.log(2)
    assert first > 0.8  # the first code, a bit at least, stays a guess


def test_a_width_that_heads_do_not_share_is_one_line(few: SpokenCodes) -> None:
    with pytest.raises(InputError, match="option width: expected a multiple of twice 4 heads, got 12"):
        build(GenerationOptions(width=12), few)
