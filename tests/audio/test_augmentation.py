from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import recipes
from recipes.audio.augmentation import (
    CONDITIONS,
    AugmentationOptions,
    SpeechCNN,
    augment,
    babble,
    evaluate,
    gain,
    shift,
    spec_augment,
    train,
)
from recipes.audio.features import MELS, log_mel
from recipes.audio.transforms import loudness, noise, speed
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.bundled import bundled
from recipes.datasets.loading import few_of_each
from recipes.datasets.speech import open_speech
from recipes.using import run_onnx

NAME = "audio.augmentation"
CHANGES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "speed": speed,
    "shift": shift,
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
    moved = shift(sounds, generator(), amount=1600)
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


def test_babble_is_ten_decibels_softer() -> None:
    added = babble(waves(), generator()) - waves()
    torch.testing.assert_close(20 * (loudness(waves()) / loudness(added)).log10(), torch.full((50, 1), 10.0))


def test_spec_augment_hides_stripes_and_leaves_the_rest() -> None:
    spectra = torch.randn(200, MELS, 60, generator=generator())
    changed = spec_augment(spectra, generator(), bands=8, frames=10)
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


def test_every_parameter_gets_a_gradient_and_answers_depend_on_the_sound() -> None:
    torch.manual_seed(0)
    model = SpeechCNN(10)
    for changes in ([], ["speed"], ["shift"], ["noise"], ["gain"], ["spec_augment"], ["speed", "noise", "gain"]):
        model.zero_grad()
        F.cross_entropy(model(augment(waves(), 8000, changes)), torch.arange(50) % 10).backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    model.eval()
    answers = model(augment(waves(), 8000, []))
    assert answers.shape == (50, 10)
    assert (answers[0] - answers[40]).abs().max() > 0.01


def test_shuffled_labels_cannot_be_learned() -> None:
    train_set, test_set = open_speech(seconds=0.6)
    few = train_set.subset(few_of_each(train_set.labels, 4, 0))
    wrong = replace(few, labels=few.labels[torch.randperm(len(few), generator=generator())])
    torch.manual_seed(0)
    model = SpeechCNN(10)
    train(model, wrong, AugmentationOptions(epochs=20, device="cpu"))
    scores = evaluate(lambda spectra, _: model.eval()(spectra).argmax(dim=1), test_set)
    assert scores["accuracy"] < 0.3


def test_evaluation_is_the_same_at_every_call_and_its_conditions_differ() -> None:
    _, test_set = open_speech(seconds=0.6)
    seen: list[Tensor] = []

    def constant(spectra: Tensor, lengths: Tensor) -> Tensor:
        seen.append(spectra)
        assert torch.equal(lengths, test_set.lengths)
        return torch.full((len(spectra),), 3)

    assert evaluate(constant, test_set) == dict.fromkeys(CONDITIONS, 0.1)
    evaluate(constant, test_set)
    count = len(CONDITIONS)
    assert all(torch.equal(*pair) for pair in zip(seen[:count], seen[count:], strict=True))
    assert not any(torch.equal(seen[i], seen[j]) for i in range(count) for j in range(i))


@pytest.mark.xdist_group(NAME)
def test_answers_belong_to_their_own_recording(default_run: Callable[[str], Result]) -> None:
    result = default_run(NAME)
    model, test_set = result.model, result.test_set
    scores = evaluate(lambda spectra, _: model(spectra).argmax(dim=1), test_set)
    assert scores == result.metrics
    others = evaluate(lambda spectra, _: model(spectra).argmax(dim=1).roll(30), test_set)
    assert others["accuracy"] < 0.3


@pytest.mark.xdist_group(NAME)
def test_answers_of_the_saved_model_are_those_in_memory(default_run: Callable[[str], Result], tmp_path: Path) -> None:
    result = default_run(NAME)
    result.save(tmp_path / "out")
    trained = recipes.trained(tmp_path / "out", device="cpu")
    files = sorted((bundled("speech") / "test").glob("*.wav"))
    answers = trained(files, batch_size=7)
    waves, labels = result.test_set.__getitems__(range(len(result.test_set)))
    with torch.inference_mode():
        expected = result.model(log_mel(waves, 8000)).softmax(dim=1)
    found = torch.tensor([list(answer["classes"].values()) for answer in answers])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    right = [answer["class"] == result.test_set.classes[label] for answer, label in zip(answers, labels, strict=True)]
    assert sum(right) / len(right) == result["accuracy"]
    assert answers[0]["file"] == str(files[0])
    (alone,) = trained([result.test_set.wave(0)])
    assert "file" not in alone
    assert alone["classes"] == pytest.approx(answers[0]["classes"], abs=1e-5)
    assert trained.task.draw((None, result.test_set.wave(0)), alone).axes
    with pytest.raises(InputError, match="wave"):
        trained([torch.zeros(2, 3, 4)])
    trained.export(tmp_path / "model.onnx")
    (logits,) = run_onnx(tmp_path / "model.onnx", [log_mel(waves[:5], 8000)])
    torch.testing.assert_close(logits.softmax(dim=1), expected[:5], rtol=0, atol=1e-4)


def test_options_that_cannot_be_are_named() -> None:
    with pytest.raises(InputError, match="samples"):
        recipes.run(NAME, samples=0)
    for changes in ("noise+echo", "", "none+speed"):
        with pytest.raises(InputError, match="option changes: expected speed"):
            recipes.run(NAME, changes=changes)
