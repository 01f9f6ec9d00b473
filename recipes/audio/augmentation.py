"""Augmentation of speech: more voices, rooms and microphones out of a few recordings.

A network that has four recordings of a word learns those four by heart: their voices, how loud they are, the
silence behind them. What a listener pays no attention to is therefore changed at random at each step: how fast and
how high a word is spoken, what noise lies under it, how loud it is, when it begins. SpecAugment works on the log-mel
spectrogram instead: it masks some bands of pitch and some stretches of time, so that no single one of them can
decide. Each is a few lines for a whole batch, on its device.

The network is tested on voices it has not heard: in noise as loud as they are, without it, among other voices, and
thirty times softer. Each change helps where the test differs from the training in just that way, so it takes several to
help everywhere. Clean recordings are recognized as well or better by the nearest training recording, without any
training; in noise, that fails. Which changes help with your recordings has to be tried on voices held out.

Notes: 90
Paper: Park, Chan, Zhang, Chiu, Zoph, Cubuk, Le (2019), "SpecAugment: A Simple Data Augmentation Method for
    Automatic Speech Recognition", https://arxiv.org/abs/1904.08779;
    Ko, Peddinti, Povey, Khudanpur (2015), "Audio Augmentation for Speech Recognition",
    https://www.danielpovey.com/files/2015_interspeech_augmentation.pdf, for speed
Data: four recordings of each English digit by a speech synthesizer; yours as WAV files in a folder for each class
    or named CLASS_SPEAKER_NUMBER.wav.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.audio.features import HOP, MELS, log_mel
from recipes.audio.templates import Templates, without_silence
from recipes.audio.transforms import drawn, loudness, noise, speed
from recipes.audio.using import WordClassification
from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, main, one_cycle, option, recipe
from recipes.datasets.loading import few_of_each
from recipes.datasets.speech import Recordings, open_speech


@dataclass(kw_only=True)
class AugmentationOptions(Options):
    rate: int = option(8000, "samples a second that recordings are brought to")
    seconds: float = option(0.6, "what is longer is cut", above=0)
    samples: int = option(4, "training recordings of each class", least=1)
    changes: str = option("speed+noise+gain", "of speed, shift, noise, gain and spec_augment, joined by +; or none")
    epochs: int = 100
    batch_size: int = 10
    lr: float = 5e-3


def gain(waves: Tensor, generator: torch.Generator | None = None, amount: float = 30) -> Tensor:
    """Waves (batch, samples) made softer or louder by up to `amount` decibels, of which 20 are a factor of ten."""
    return waves * 10 ** (drawn(waves, -amount, amount, generator) / 20)


def shift(waves: Tensor, generator: torch.Generator | None = None, amount: int = 800) -> Tensor:
    """Waves (batch, samples) that begin up to `amount` samples later: (batch, samples + amount)."""
    longer = F.pad(waves, (0, amount))
    later = drawn(waves, 0, amount, generator).long()  # (batch, 1)
    source = torch.arange(longer.shape[1], device=waves.device) - later  # (batch, longer)
    return longer.gather(1, source.clamp(min=0)) * (source >= 0)


def spec_augment(spectra: Tensor, generator: torch.Generator | None = None, bands: int = 8, frames: int = 8) -> Tensor:
    """Spectra (batch, mels, frames) with two stripes at their mean: up to `bands` mels and up to `frames` frames."""
    mean = spectra.mean(dim=(1, 2), keepdim=True)
    for axis, widest in ((1, bands), (2, frames)):
        position = torch.arange(spectra.shape[axis], device=spectra.device)  # (mels,) or (frames,)
        width = drawn(spectra, 0, widest + 1, generator).floor()  # (batch, 1)
        start = (drawn(spectra, 0, 1, generator) * (spectra.shape[axis] - width + 1)).floor()
        masked = (position >= start) & (position < start + width)  # (batch, mels or frames)
        spectra = torch.where(masked.unsqueeze(3 - axis), mean, spectra)
    return spectra


WAVE_CHANGES: dict[str, Callable[[Tensor], Tensor]] = {"speed": speed, "shift": shift, "noise": noise, "gain": gain}


def augment(waves: Tensor, rate: int, changes: Sequence[str]) -> Tensor:
    """Log-mel spectra (batch, mels, frames) of waves (batch, samples) that met these changes, one after the other."""
    for name, change in WAVE_CHANGES.items():
        waves = change(waves) if name in changes else waves
    spectra = log_mel(waves, rate)
    return spec_augment(spectra) if "spec_augment" in changes else spectra


class SpeechCNN(nn.Module):
    """Two convolutions over time, with the mel bands as channels; of each feature, the maximum over all frames.

    GroupNorm normalizes each recording by itself: in a batch the noisy ones must not set the scale of the clean ones.
    """

    def __init__(self, num_classes: int, *, width: int = 48) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(MELS, width, 5, stride=2, padding=2),
            nn.GroupNorm(8, width),
            nn.ReLU(),
            nn.Conv1d(width, 2 * width, 5, stride=2, padding=2),
            nn.GroupNorm(8, 2 * width),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(2 * width, num_classes))

    def forward(self, spectra: Tensor) -> Tensor:  # (batch, mels, frames)
        features = self.features(spectra / 2 + 1)  # (batch, 2 * width, frames / 4); a silent frame is about -1
        return self.head(features.amax(dim=2))  # (batch, classes)


def build(options: AugmentationOptions, data: Recordings) -> SpeechCNN:
    """The network for classes like these."""
    return SpeechCNN(len(data.classes))


def train(model: nn.Module, train_set: Recordings, options: AugmentationOptions) -> Loop:
    """Minimizes the cross-entropy on recordings that are changed anew in each batch."""
    changes = [] if options.changes == "none" else options.changes.split("+")
    if unknown := set(changes) - {*WAVE_CHANGES, "spec_augment"}:
        known = ", ".join([*WAVE_CHANGES, "spec_augment"])
        raise InputError(f"option changes: expected {known}, joined by +, or none, got {min(unknown)!r}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05)
    loop = Loop(model, optimizer, batches(train_set, options), options, schedule=one_cycle)
    for waves, labels in loop:
        spectra = augment(waves, train_set.rate, changes)
        loop.step(F.cross_entropy(loop.model(spectra), labels))
    return loop


def babble(waves: Tensor, generator: torch.Generator) -> Tensor:
    """Four other recordings at once under each one, 10 decibels softer than it is."""
    voices = torch.stack([waves[torch.randperm(len(waves), generator=generator)] for _ in range(4)]).sum(dim=0)
    return waves + voices * loudness(waves) / loudness(voices) * 10 ** (-10 / 20)


CONDITIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "noisy_accuracy": lambda waves, generator: noise(waves, generator, 0, 0),
    "accuracy": lambda waves, generator: waves,
    "babble_accuracy": babble,
    "quiet_accuracy": lambda waves, generator: waves / 30,
}


def evaluate(classify: Callable[[Tensor, Tensor], Tensor], test_set: Recordings) -> dict[str, float]:
    """Accuracy under each condition; `classify` takes spectra (batch, mels, frames) and lengths (batch,) in samples."""
    generator, right = torch.Generator().manual_seed(0), dict.fromkeys(CONDITIONS, 0)
    for rows in torch.arange(len(test_set)).split(256):
        waves, labels = test_set.__getitems__(rows)
        for name, change in CONDITIONS.items():
            spectra = log_mel(change(waves, generator), test_set.rate)
            right[name] += int((classify(spectra, test_set.lengths[rows]) == labels).sum())
    return {name: count / len(test_set) for name, count in right.items()}


@recipe(AugmentationOptions)
def run(options: AugmentationOptions) -> Result:
    """Trains on a few recordings, changed at random, and measures on new voices, in noise and softer too."""
    recordings, test_set = open_speech(options.data, rate=options.rate, seconds=options.seconds, seed=options.seed)
    train_set = recordings.subset(few_of_each(recordings.labels, options.samples, options.seed))
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, options)
    model.eval()
    nearest = Templates(train_set)
    with torch.inference_mode():
        metrics = evaluate(lambda spectra, _: model(spectra.to(options.device)).argmax(dim=1).cpu(), test_set)
    baseline = evaluate(lambda spectra, lengths: nearest(without_silence(spectra, lengths, options.rate)), test_set)
    return Result(
        metrics=metrics,
        baseline=baseline,
        baseline_name="nearest recording",
        bars={"noisy_accuracy": 0.7, "accuracy": 0.8},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


TRAININGS = 5  # of each kind, whose mean accuracies the claims compare


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    given = run().options

    def means(changes: str) -> dict[str, float]:
        """Accuracies with these changes: means over trainings, each on other recordings."""
        found = []
        for number in range(TRAININGS):
            wanted = {"changes": changes, "seed": (given["seed"] + 1000 * number) % 2**32}
            found.append(run(**{name: value for name, value in wanted.items() if value != given[name]}).metrics)
        return {name: fmean(metrics[name] for metrics in found) for name in CONDITIONS}

    kinds = {changes: means(changes) for changes in ("none", "speed", "noise", "gain", given["changes"])}
    run().rows = [{f"changes, {TRAININGS} trainings": name} | scores for name, scores in kinds.items()]
    plain, several = kinds["none"], kinds[given["changes"]]
    for name, margin in {"noisy_accuracy": 0.3, "babble_accuracy": 0.03, "quiet_accuracy": 0.15}.items():
        yield Claim(f"changed recordings improve {name}", several[name], ">", plain[name], margin=margin)
    text = "speed stands in for other voices"
    yield Claim(text, kinds["speed"]["accuracy"], ">", plain["accuracy"], margin=0.02)
    text = "noise prepares for noise"
    yield Claim(text, kinds["noise"]["noisy_accuracy"], ">", plain["noisy_accuracy"], margin=0.3)
    text = "gain prepares for soft voices"
    yield Claim(text, kinds["gain"]["quiet_accuracy"], ">", plain["quiet_accuracy"], margin=0.1)
    gained = {name: several[name] - plain[name] for name in CONDITIONS}
    text = "other voices, which no change imitates, are prepared for less than noise is"
    yield Claim(text, gained["babble_accuracy"], "<", gained["noisy_accuracy"], margin=0.2)


@run.figure
def figure(result: Result) -> Any:
    """A test recording under each change, its wave and its spectrogram, and the accuracies."""
    rate, wave = result.test_set.rate, result.test_set.wave(0).unsqueeze(0)
    generator = torch.Generator().manual_seed(5)
    played = speed(wave.expand(9, -1), generator)
    slowest = played[(played != 0).sum(dim=1).argmax()].unsqueeze(0)
    shown = {"as it is": wave, "speed": slowest, "shift": shift(wave, generator), "noise": noise(wave, generator, 5, 5)}
    shown |= {"gain": wave / 5, "spec_augment": wave}
    rows = result.rows or [{"": "this recipe"} | result.metrics, {"": result.baseline_name} | result.baseline]
    drawing, axes = new_figure(3, len(shown), width=2.0, height=1.8)
    for (top, below, last), (name, sound) in zip(axes.T, shown.items(), strict=True):
        seconds = 1.2 * wave.shape[1] / rate
        top.plot(torch.arange(sound.shape[1]) / rate, sound[0], linewidth=0.4)
        top.set(title=name, xlim=(0, seconds), ylim=(-1, 1), xticks=[], yticks=[])
        spectrum = spec_augment(log_mel(sound, rate), generator) if name == "spec_augment" else log_mel(sound, rate)
        extent = (0, spectrum.shape[2] * HOP, 0, MELS)
        below.imshow(spectrum[0], origin="lower", aspect="auto", cmap="magma", vmin=-4, vmax=2, extent=extent)
        below.set(xlim=(0, seconds), yticks=[], xlabel="seconds", facecolor="black")
        last.remove()
    bars = drawing.add_subplot(axes[0, 0].get_gridspec()[2, :])
    for number, row in enumerate(rows):
        positions = [column + 0.15 * number for column in range(len(CONDITIONS))]
        bars.bar(positions, [row[name] for name in CONDITIONS], 0.14, label=next(iter(row.values())))
    bars.set_xticks([column + 0.3 for column in range(len(CONDITIONS))], list(CONDITIONS))
    bars.set(ylim=(0, 1))
    bars.legend(frameon=False, ncols=len(rows), loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=8)
    return drawing


run.predicts(WordClassification, build)


if __name__ == "__main__":
    main(run)
