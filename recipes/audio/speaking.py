"""How trained networks that speak are used: from a word to its sound."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import quote

import torch
from torch import Tensor

from recipes.audio.features import HOP, MELS, log_mel
from recipes.audio.synthesis import write_wav
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.result import Result
from recipes.core.task import Task, first_inputs


@dataclass(kw_only=True)
class WordSpeaking(Task):
    """Words to waves, the same ones with the same seed; `out` has a WAV file of each word, and so has --draw.

    Attributes:
        classes: the words.
        rate: samples a second.
        codes: frames in the codebook.
        longest: frames of a word at most.
        temperature: below 1, likely codes become likelier still; at 0 the likeliest is taken.
        seed: of the draw; a word's own draw, so that it sounds the same whatever it is asked for with.
    """

    takes: ClassVar[str] = "texts"

    classes: list[str]
    rate: int
    codes: int
    longest: int
    temperature: float = 0.8
    seed: int = 0

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        test_set, how = result.test_set, {"temperature": options.temperature, "seed": options.seed}
        sizes = {"rate": test_set.rate, "codes": options.codes, "longest": result.train_set.longest}
        return cls(classes=list(test_set.classes), example=first_inputs(test_set), **sizes, **how)

    def load(self, item: str) -> str:
        if item.strip() not in self.classes:
            raise InputError(f"{item!r}: expected a word it knows, one of {', '.join(self.classes)}")
        return item.strip()

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        """What each sound starts with, (N, 1)."""
        return (self.codes + 1 + torch.tensor([[self.classes.index(item)] for item in items]),)

    def predict(self, model: Any, items: Sequence[str], device: torch.device) -> list[dict[str, Any]]:
        labels = self.batch(items)[0][:, 0] - self.codes - 1
        how: dict[str, Any] = {"temperature": max(self.temperature, 1e-4), "seed": self.seed}
        waves = [model.say(label, self.rate, longest=self.longest, **how)[0] for label in labels.split(1)]
        return [
            {"class": item, "seconds": len(wave) / self.rate, "rate": self.rate, "wave": wave.tolist()}
            for item, wave in zip(items, waves, strict=True)
        ]

    def draw(self, item: str, answer: dict[str, Any]) -> Any:
        """The spectrogram of what it says."""
        figure, axes = new_figure(1, 1, width=3.0, height=3.2)
        spectrum = log_mel(torch.tensor([answer["wave"]]), self.rate)[0]
        extent = (0, spectrum.shape[1] * HOP, 0, MELS)
        axes[0, 0].imshow(spectrum, origin="lower", aspect="auto", cmap="magma", extent=extent)
        axes[0, 0].set(title=item, xlabel="seconds", ylabel="mel band")
        return figure

    def beside(self, answer: dict[str, Any]) -> dict[str, Callable[[Path], object]]:
        return {".wav": partial(write_wav, sound=torch.tensor(answer["wave"]), rate=self.rate)}

    def files(self, result: Result) -> dict[str, Callable[[Path], object]]:
        """A WAV file of each word."""
        said = self.predict(result.model, self.classes, torch.device("cpu"))
        return {f"says_{quote(one['class'], safe=' ')}.wav": self.beside(one)[".wav"] for one in said}

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        return ({0: "batch", 1: "time"},)
