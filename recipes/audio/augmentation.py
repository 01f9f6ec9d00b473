"""Augmentation of speech: more voices, rooms and microphones out of a few recordings.

A network that has two recordings of a word learns those two by heart: their voices, how loud they are, the
silence behind them. What a listener takes no notice of is changed anew at each step: where the word begins, how
loud it is, what hums in the background, how fast and how high it is spoken. SpecAugment works on the log-mel
spectrogram instead: it blots out some bands of pitch and some stretches of time, so that no single one of them
can decide. Each is a few lines for a whole batch, on its device.

One network is trained for the same number of steps on the same few spoken digits, with each change by itself and
with all of them, and is tested on voices it has not heard: as they are, in noise, among other voices, and softer.
Each change helps where the test differs from the training in just that way; it takes several to help everywhere.
Which ones help with your own recordings has to be tried on a voice held out: people differ in more than speed.

Notes: 90
Paper: Park, Chan, Zhang, Chiu, Zoph, Cubuk, Le (2019), "SpecAugment: A Simple Data Augmentation Method for
    Automatic Speech Recognition", https://arxiv.org/abs/1904.08779;
    Ko, Peddinti, Povey, Khudanpur (2015), "Audio Augmentation for Speech Recognition",
    https://www.danielpovey.com/files/2015_interspeech_augmentation.pdf, for speed
Data: two recordings of each English digit by a speech synthesiser; yours as WAV files in a folder for each class
    or named CLASS_SPEAKER_NUMBER.wav.
"""

from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.audio.features import HOP, MELS, log_mel
from recipes.audio.transforms import speed
from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.loading import few_of_each
from recipes.datasets.speech import Recordings, open_speech


def drawn(batch: Tensor, low: float, high: float, generator: torch.Generator | None) -> Tensor:
    """A random number from `low` to `high` for each of a batch: (batch, 1)."""
    return low + (high - low) * torch.rand(len(batch), 1, generator=generator, device=batch.device)


def shift(waves: Tensor, rate: int, generator: torch.Generator | None = None, amount: float = 0.1) -> Tensor:
    """Waves (batch, samples) that begin up to `amount` seconds later: (batch, samples + amount * rate)."""
    longer = F.pad(waves, (0, round(amount * rate)))
    later = drawn(waves, 0, amount * rate, generator).long()  # (batch, 1)
    source = torch.arange(longer.shape[1], device=waves.device) - later  # (batch, longer)
    return longer.gather(1, source.clamp(min=0)) * (source >= 0)


def gain(waves: Tensor, generator: torch.Generator | None = None, amount: float = 20.0) -> Tensor:
    """Waves (batch, samples) made softer or louder by up to `amount` decibels, of which 20 are a factor of ten."""
    return waves * 10 ** (drawn(waves, -amount, amount, generator) / 20)


def loudness(waves: Tensor) -> Tensor:
    """Root mean square (batch, 1) over the samples that are not silence."""
    return (waves.square().sum(1, keepdim=True) / (waves != 0).sum(1, keepdim=True).clamp(min=1)).sqrt()


def noise(waves: Tensor, generator: torch.Generator | None = None, low: float = 0.0, high: float = 40.0) -> Tensor:
    """White noise under waves (batch, samples), `low` to `high` decibels softer than they are."""
    hiss = torch.randn(waves.shape, generator=generator, device=waves.device)
    return waves + hiss * loudness(waves) * 10 ** (-drawn(waves, low, high, generator) / 20)


def spec_augment(
    spectra: Tensor, generator: torch.Generator | None = None, masks: int = 1, bands: int = 8, frames: int = 8
) -> Tensor:
    """Spectra (batch, mels, frames) with stripes at their mean, up to `bands` mels and up to `frames` frames wide."""
    mean = spectra.mean(dim=(1, 2), keepdim=True)
    for axis, most in ((1, bands), (2, frames)):
        place = torch.arange(spectra.shape[axis], device=spectra.device)  # (mels,) or (frames,)
        for _ in range(masks):
            width = drawn(spectra, 0, most + 1, generator).floor()  # (batch, 1)
            start = (drawn(spectra, 0, 1, generator) * (spectra.shape[axis] - width + 1)).floor()
            hidden = (place >= start) & (place < start + width)  # (batch, mels or frames)
            spectra = torch.where(hidden.unsqueeze(3 - axis), mean, spectra)
    return spectra


def half(plain: Tensor, changed: Tensor) -> Tensor:
    """One or the other for each of a batch, as a coin says: no change is to become the rule."""
    heads = torch.rand(len(plain), device=plain.device) < 0.5  # (batch,)
    return torch.where(heads.view(-1, *[1] * (plain.ndim - 1)), plain, changed)


def augment(waves: Tensor, rate: int) -> Tensor:
    """Spectra (batch, mels, frames) of waves (batch, samples) that met most of the changes, one after the other."""
    waves = shift(speed(waves), rate)
    waves = half(waves, noise(waves))
    spectra = log_mel(half(waves, gain(waves)), rate)
    return half(spectra, spec_augment(spectra))


METHODS: dict[str, Callable[[Tensor, int], Tensor]] = {  # from waves and their rate to spectra
    "none": lambda waves, rate: log_mel(waves, rate),
    "shift": lambda waves, rate: log_mel(shift(waves, rate), rate),
    "noise": lambda waves, rate: log_mel(noise(waves), rate),
    "gain": lambda waves, rate: log_mel(gain(waves), rate),
    "speed": lambda waves, rate: log_mel(speed(waves), rate),
    "SpecAugment": lambda waves, rate: spec_augment(log_mel(waves, rate)),
    "all": augment,
}


def babble(waves: Tensor, generator: torch.Generator) -> Tensor:
    """Four other recordings at once behind each one, 10 decibels softer than it is."""
    voices = torch.stack([waves[torch.randperm(len(waves), generator=generator)] for _ in range(4)]).sum(dim=0)
    return waves + voices * loudness(waves) / loudness(voices) * 10 ** (-10 / 20)


TESTS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "accuracy": lambda waves, generator: waves,
    "noisy_accuracy": lambda waves, generator: noise(waves, generator, 10, 10),
    "babble_accuracy": babble,
    "quiet_accuracy": lambda waves, generator: waves / 10,
}


class SpeechCNN(nn.Module):
    """Two convolutions over time, with the mel bands as channels, and the strongest answer of all frames.

    Each recording is normalised by itself: in a batch the noisy ones must not set the scale of the clean ones.
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


def train(
    model: nn.Module,
    recordings: Recordings,
    augmentation: Callable[[Tensor, int], Tensor],
    *,
    batch_size: int,
    lr: float,
    seed: int = 0,
    **loop_options: Any,
) -> OldLoop:
    """Minimises the cross-entropy on recordings that are changed anew in each batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    loop = OldLoop(model, optimizer, old_batches(recordings, batch_size, seed=seed), schedule=one_cycle, **loop_options)
    for waves, labels in loop:
        spectra = augmentation(waves, recordings.rate)
        loss = F.cross_entropy(loop.model(spectra), labels)
        loop.step(loss)
    return loop


def heard(recordings: Recordings) -> dict[str, Tensor]:
    """The spectra (N, mels, frames) of all recordings under the condition of each test, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    spectra: dict[str, list[Tensor]] = {name: [] for name in TESTS}
    for rows in torch.arange(len(recordings)).split(256):
        waves, _ = recordings.__getitems__(rows)
        for name, change in TESTS.items():
            spectra[name].append(log_mel(change(waves, generator), recordings.rate))
    return {name: torch.cat(parts) for name, parts in spectra.items()}


@torch.inference_mode()
def evaluate(model: nn.Module, tests: dict[str, Tensor], labels: Tensor, device: torch.device) -> dict[str, float]:
    """Accuracy under each condition."""
    model.eval()
    answers = {
        name: torch.cat([model(part.to(device)).argmax(dim=1) for part in spectra.split(256)])
        for name, spectra in tests.items()
    }
    return {name: (answer.cpu() == labels).double().mean().item() for name, answer in answers.items()}


def draw(wave: Tensor, rate: int, rows: list[dict[str, Any]]) -> Any:
    """A recording (samples,) under each change: its wave, its spectrogram, and what they do for the accuracies."""
    generator = torch.Generator().manual_seed(5)
    waves = wave.unsqueeze(0)
    played = speed(waves.expand(9, -1), generator)
    played = played[(played != 0).sum(dim=1).argmax()].unsqueeze(0)  # the slowest of nine
    changed = {
        "as it is": waves,
        "shift": shift(waves, rate, generator, 0.2),
        "noise": noise(waves, generator, 5, 5),
        "gain": waves / 5,
        "speed": played,
        "SpecAugment": waves,
    }
    figure, axes = new_figure(3, len(changed), width=2.0, height=1.8)
    seconds = 1.2 * len(wave) / rate + 0.1
    for (top, below, _), (name, sound) in zip(axes.T, changed.items(), strict=True):
        top.plot(torch.arange(sound.shape[1]) / rate, sound[0], linewidth=0.4)
        top.set(title=name, xlim=(0, seconds), ylim=(-1, 1), xticks=[], yticks=[])
        spectrum = log_mel(sound, rate)
        spectrum = spec_augment(spectrum, generator) if name == "SpecAugment" else spectrum
        extent = (0, spectrum.shape[2] * HOP, 0, MELS)
        below.imshow(spectrum[0], origin="lower", aspect="auto", cmap="magma", vmin=-4, vmax=2, extent=extent)
        below.set(xlim=(0, seconds), yticks=[], xlabel="seconds", facecolor="black")
    axes[0, 0].set_ylabel("wave")
    axes[1, 0].set_ylabel("log-mel")
    for place in axes[2]:
        place.remove()
    bars = figure.add_subplot(axes[0, 0].get_gridspec()[2, :])
    for number, row in enumerate(rows):
        at = [column + 0.12 * number for column in range(len(TESTS))]
        bars.bar(at, [row[name] for name in TESTS], 0.11, label=row["training"])
    names = ["new voices", "in noise", "among other voices", "ten times softer"]
    bars.set_xticks([column + 0.06 * (len(rows) - 1) for column in range(len(TESTS))], names)
    bars.set(ylabel="accuracy", ylim=(0, 1))
    bars.spines[["top", "right"]].set_visible(False)
    bars.legend(frameon=False, ncols=len(rows), loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=8)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    rate: int = 8000,
    seconds: float = 0.6,
    samples: int = 2,
    repeats: int = 2,
    epochs: int = 100,
    batch_size: int = 10,
    lr: float = 5e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains on few recordings with each augmentation, and measures on new voices, in noise and softer too.

    Args:
        data: folder of your recordings, a word each; the bundled digits if not given.
        rate: samples a second that your recordings are brought to.
        seconds: what is longer is cut; most digits are said in half a second.
        samples: training recordings of each class.
        repeats: trainings of each kind, each on other recordings; the accuracies are their means.
        epochs: passes over the few training recordings.
        batch_size: recordings in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the recordings chosen, the weights, the augmentation, and of the speakers held out where there is
            no test part.
        out: folder for result.json, figure.png and model.safetensors, a network trained with all changes.
    """
    if min(samples, repeats) < 1:
        raise InputError(f"options samples and repeats: expected at least 1, got {samples} and {repeats}")
    place = setup(device, seed)
    train_set, test_set = open_speech(data, rate=rate, seconds=seconds, seed=seed)
    tests = heard(test_set)
    rows: list[dict[str, Any]] = []
    for method, augmentation in METHODS.items():
        scores = []
        for repeat in range(repeats * seed, repeats * seed + repeats):
            torch.manual_seed(repeat)
            few = train_set.subset(few_of_each(train_set.labels, samples, repeat))
            model = SpeechCNN(len(train_set.classes)).to(place)
            shared: dict[str, Any] = {"device": place, "seed": repeat, "name": f"{method}-{repeat}", **engine}
            loop = train(model, few, augmentation, epochs=epochs, batch_size=batch_size, lr=lr, **shared)
            scores.append(evaluate(model, tests, test_set.labels, place))
        rows.append({"training": method} | {test: sum(score[test] for score in scores) / repeats for test in TESTS})
    by = {row["training"]: row for row in rows}
    plain, everything = by["none"], by["all"]
    return Result(
        metrics={name: everything[name] for name in TESTS},
        baseline={name: plain[name] for name in TESTS},
        baseline_name="not augmented",
        bars={"accuracy": 0.65},
        claims=[
            *(claim(f"augmentation improves {name}", everything[name], ">", plain[name]) for name in TESTS),
            claim("speed stands in for other voices", by["speed"]["accuracy"], ">", plain["accuracy"]),
            claim("noise prepares for noise", by["noise"]["noisy_accuracy"], ">", plain["noisy_accuracy"]),
            claim("gain prepares for soft voices", by["gain"]["quiet_accuracy"], ">", plain["quiet_accuracy"]),
        ],
        history=loop.history,
        rows=rows,
        model=model,
        draw=lambda: draw(test_set.wave(0), rate, rows),
    )


if __name__ == "__main__":
    main(run)
