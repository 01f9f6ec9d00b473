"""How trained recognizers of sound are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from recipes.audio.decoding import beam_search
from recipes.audio.features import HOP, MELS, log_mel, normalized
from recipes.core.figures import new_figure
from recipes.core.result import Result
from recipes.core.task import Task, class_answers
from recipes.datasets.speech import load_recording


@dataclass(kw_only=True)
class Listening(Task):
    """What tasks that take recordings share: WAV files, or waves (samples,), float32 in -1 to 1, at the task's rate.

    Attributes:
        classes: the words.
        rate: samples a second.
    """

    takes: ClassVar[str] = "recordings"

    classes: list[str]
    rate: int

    def load(self, item: Any) -> Any:
        """The name of a file, or None, and its wave."""
        return str(item) if isinstance(item, (str, PathLike)) else None, load_recording(item, self.rate)

    def draw(self, item: Any, answer: dict[str, Any]) -> Any:
        """The spectrogram, with the answer above it."""
        figure, axes = new_figure(1, 1, width=5.0, height=2.6)
        spectrum = log_mel(item[1].unsqueeze(0), self.rate)[0]
        extent = (0, spectrum.shape[1] * HOP, 0, MELS)
        axes[0, 0].imshow(spectrum, origin="lower", aspect="auto", cmap="magma", extent=extent)
        title = answer.get("text") or f"{answer['class']} {answer['probability']:.2f}"
        axes[0, 0].set(title=title, xlabel="seconds", ylabel="mel band")
        return figure


@dataclass(kw_only=True)
class WordClassification(Listening):
    """Recordings of one word each to classes.

    Attributes:
        samples: that a recording is brought to, by cutting its end or by silence behind it.
    """

    samples: int

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        test_set = result.test_set
        waves, _ = test_set.__getitems__([0, len(test_set) - 1])
        example = (log_mel(waves, test_set.rate),)
        return cls(classes=list(test_set.classes), rate=test_set.rate, samples=test_set.longest, example=example)

    def batch(self, items: Sequence[Any]) -> tuple[Tensor, ...]:
        waves = torch.zeros(len(items), self.samples)
        for row, (_, samples) in zip(waves, items, strict=True):
            row[: len(samples)] = samples[: self.samples]
        return (log_mel(waves, self.rate),)  # (N, mels, frames)

    def answers(self, outputs: Tensor, items: Sequence[Any]) -> list[dict[str, Any]]:
        given = [{"file": name} if name is not None else {} for name, _ in items]
        return class_answers(outputs, self.classes, given)


@dataclass(kw_only=True)
class SpeechRecognition(Listening):
    """Recordings of any length to the words that are said.

    Attributes:
        beam: beginnings that beam search keeps.
    """

    beam: int

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        strings, known = result.test_set, result.train_set
        example = (strings.spectra[[0, len(strings) - 1]],)
        return cls(classes=list(known.classes), rate=known.rate, beam=options.beam, example=example)

    def batch(self, items: Sequence[Any]) -> tuple[Tensor, ...]:
        waves = nn.utils.rnn.pad_sequence([wave for _, wave in items], batch_first=True)
        return (log_mel(normalized(waves), self.rate),)  # (N, mels, frames)

    def predict(self, model: nn.Module, items: Sequence[Any], device: torch.device) -> list[dict[str, Any]]:
        """One recording at a time: what is said in it depends on no other's length."""
        found = []
        for item in items:
            found += super().predict(model, [item], device)
        return found

    def answers(self, outputs: Tensor, items: Sequence[Any]) -> list[dict[str, Any]]:
        found = []
        for (name, _), log_probs in zip(items, outputs, strict=True):
            words = [self.classes[word - 1] for word in beam_search(log_probs, self.beam)]
            found.append(({"file": name} if name is not None else {}) | {"text": " ".join(words)})
        return found

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        return ({0: "batch", 2: torch.export.Dim("frames", min=5)},)
