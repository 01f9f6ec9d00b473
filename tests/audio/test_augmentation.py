import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import recipes
from recipes.audio.augmentation import (
    METHODS,
    SpeechCNN,
    augment,
    babble,
    evaluate,
    gain,
    half,
    heard,
    loudness,
    noise,
    shift,
    spec_augment,
    train,
)
from recipes.audio.features import MELS
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.loading import few_of_each
from recipes.datasets.speech import open_speech

CPU = torch.device("cpu")
CHANGES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "shift": lambda waves, generator: shift(waves, 8000, generator),
    "gain": gain,
    "noise": noise,
    "babble": babble,
    "spec_augment": lambda waves, generator: spec_augment(waves.view(50, 32, -1), generator),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waves() -> Tensor:
    """Fifty different tones, a third of a second each, with silence behind them."""
    tones = torch.sin(torch.arange(1, 51)[:, None] * torch.arange(3200) / 200)
    return F.pad(tones, (0, 800))


@pytest.mark.parametrize("name", CHANGES)
def test_each_of_a_batch_is_changed_by_itself_and_again_with_the_seed(name: str) -> None:
    change = CHANGES[name]
    same = waves()[:1].expand(50, -1) if name != "babble" else waves()
    changed = change(same, generator())
    assert torch.equal(changed, change(same, generator()))
    assert not torch.equal(changed, change(same, generator(1)))
    assert len(changed.flatten(1).unique(dim=0)) > 40
    assert torch.equal(same[0], waves()[0]), "what was given stays as it was"


def test_shift_moves_without_loss() -> None:
    sounds = waves() + 2 * (waves() != 0)  # nowhere 0 before the silence
    moved = shift(sounds, 8000, generator(), amount=0.2)
    assert moved.shape == (50, 4000 + 1600)
    starts = (moved != 0).long().argmax(dim=1)
    assert starts.min() < 100
    assert 1500 < starts.max() <= 1600
    for before, after, start in zip(sounds, moved, starts.tolist(), strict=True):
        torch.testing.assert_close(after[start : start + 3199], before[1:3200])  # sample 0 of a sine is 0


def test_gain_is_in_decibels() -> None:
    decibels = 20 * (loudness(gain(waves(), generator(), 15)) / loudness(waves())).log10()
    assert -15 <= decibels.min() < -12
    assert 12 < decibels.max() <= 15


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


def test_babble_is_ten_decibels_softer() -> None:
    added = babble(waves(), generator()) - waves()
    torch.testing.assert_close(20 * (loudness(waves()) / loudness(added)).log10(), torch.full((50, 1), 10.0))


def test_spec_augment_hides_stripes_and_leaves_the_rest() -> None:
    spectra = torch.randn(200, MELS, 60, generator=generator())
    changed = spec_augment(spectra, generator(), masks=1, bands=8, frames=10)
    hidden = changed == spectra.mean(dim=(1, 2), keepdim=True)
    assert torch.equal(changed[~hidden], spectra[~hidden])
    bands, frames = hidden.all(dim=2), hidden.all(dim=1)  # (200, mels), (200, frames)
    assert torch.equal(hidden, bands[:, :, None] | frames[:, None, :])
    for stripes, most in ((bands, 8), (frames, 10)):
        widths = stripes.sum(dim=1)
        assert widths.min() == 0
        assert widths.max() == most
        edges = F.pad(stripes.long(), (1, 1)).diff(dim=1).abs().sum(dim=1)
        assert edges.max() == 2, "one stripe, without a gap"
        assert stripes.any(dim=0).all(), "anywhere"


def test_half_takes_the_one_or_the_other() -> None:
    torch.manual_seed(0)
    rows = half(torch.zeros(400, 7), torch.ones(400, 7))
    assert ((rows == 0).all(dim=1) | (rows == 1).all(dim=1)).all()
    assert 150 < rows[:, 0].sum() < 250
    assert half(torch.zeros(4, 2, 3), torch.ones(4, 2, 3)).shape == (4, 2, 3)


def test_every_parameter_gets_a_gradient_and_answers_depend_on_the_sound() -> None:
    torch.manual_seed(0)
    model = SpeechCNN(10)
    for augmentation in METHODS.values():
        model.zero_grad()
        F.cross_entropy(model(augmentation(waves(), 8000)), torch.arange(50) % 10).backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    model.eval()
    answers = model(METHODS["none"](waves(), 8000))
    assert answers.shape == (50, 10)
    assert (answers[0] - answers[40]).abs().max() > 0.01


def test_shuffled_labels_cannot_be_learned() -> None:
    train_set, test_set = open_speech()
    few = train_set.subset(few_of_each(train_set.labels, 4, 0))
    wrong = replace(few, labels=few.labels[torch.randperm(len(few), generator=generator())])
    torch.manual_seed(0)
    model = SpeechCNN(10)
    train(model, wrong, augment, epochs=20, batch_size=10, lr=5e-3, device=CPU)
    assert evaluate(model, heard(test_set), test_set.labels, CPU)["accuracy"] < 0.3


def test_tests_are_the_same_at_every_call_and_each_differs() -> None:
    _, test_set = open_speech()
    spectra, again = heard(test_set), heard(test_set)
    assert all(torch.equal(spectra[name], again[name]) for name in spectra)
    assert len(spectra["accuracy"]) == len(test_set)
    for name in spectra.keys() - {"accuracy"}:
        assert not torch.equal(spectra[name], spectra["accuracy"])


@pytest.mark.xdist_group("audio.augmentation")
def test_a_noisy_recording_is_still_understood(default_run: Callable[[str], Result]) -> None:
    """The network trained with all changes: right answers belong to their own recording, not to another."""
    _, test_set = open_speech()
    tests, model = heard(test_set), default_run("audio.augmentation").model
    scores = evaluate(model, tests, test_set.labels, CPU)
    assert scores["noisy_accuracy"] > 0.5
    assert evaluate(model, tests, test_set.labels.roll(30), CPU)["accuracy"] < 0.3


def test_options_that_cannot_be_are_named() -> None:
    for option in ({"samples": 0}, {"repeats": 0}):
        with pytest.raises(InputError, match=next(iter(option))):
            recipes.run("audio.augmentation", **option)
