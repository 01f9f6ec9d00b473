"""Speech recognition with a Transformer and CTC.

Somebody says "four, nine, nine, one"; the network is told what was said, but not when. Each frame of the log-mel
spectrogram, after two strided convolutions over pitch and time and a Transformer encoder, gives a probability to
every word and to a blank, "nothing new here". A string of frames stands for the words that remain once repeats are
merged and blanks dropped: `- 4 4 - 9 - 9 1 1` is 4 9 9 1. The CTC loss is the negative logarithm of the summed
probability of all strings of frames that stand for the right words, so no alignment is needed.

To read the answer, greedy decoding takes each frame's likeliest entry. Beam search keeps the likeliest beginnings
instead, adding up all frames' strings that stand for the same words. Both are judged by the word error rate: words
to insert, drop or exchange, as a share of the words said. The test strings, and the voices that say them, are new
to the network; lest it learn a few voices and microphones by heart, each training string is heard a little faster
or slower, in noise, through a random filter. The baseline cuts at the pauses and asks for the nearest recording.

Notes: 43
Paper: Graves, Fernández, Gomez, Schmidhuber (2006), "Connectionist Temporal Classification",
    https://www.cs.toronto.edu/~graves/icml_2006.pdf;
    Dong, Xu, Xu (2018), "Speech-Transformer", https://doi.org/10.1109/ICASSP.2018.8462506, for the convolutions;
    Vaswani et al. (2017), "Attention Is All You Need", https://arxiv.org/abs/1706.03762
Data: English digits by a speech synthesizer, joined to strings as they are needed; yours as WAV files in a
    folder for each class or named CLASS_SPEAKER_NUMBER.wav.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from recipes.audio.decoding import BLANK, beam_search, greedy, rates
from recipes.audio.features import HOP, MELS, log_mel, normalized
from recipes.audio.templates import Templates, cut_at_pauses
from recipes.audio.transforms import heard_elsewhere
from recipes.audio.using import SpeechRecognition
from recipes.core.figures import draw_curves, new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, main, option, predict, recipe
from recipes.datasets.speech import Recordings, open_speech


@dataclass(kw_only=True)
class SpeechRecognitionOptions(Options):
    rate: int = option(8000, "samples a second that recordings are brought to")
    strings: int | None = option(None, "new strings in an epoch; 320, for your data 800", least=1)
    pause: float = option(0.3, "longest pause between words in seconds, in training and test", least=0, most=60)
    beam: int = option(8, "beginnings that beam search keeps", least=1)
    hidden: int = option(64, "numbers in a frame's vector, for four heads", least=4)
    layers: int = option(2, "of the Transformer encoder", least=1)
    dropout: float = option(0.1, "share of the encoder's numbers that training leaves out at random", least=0, below=1)
    epochs: int = option(16, "the first has single words, each one after it a word more, up to six", least=1)
    batch_size: int = 8
    lr: float = 3e-3
    clip: float | None = 1.0


class SpeechTransformer(nn.Module):
    """A log-mel spectrogram, made four times smaller each way by convolutions, then a Transformer encoder."""

    def __init__(self, num_words: int, *, hidden: int = 64, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.downsample = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(1, 2),  # (batch, 32 * mels / 4, frames / 4)
            nn.Conv1d(8 * MELS, hidden, 3, padding=1),
            nn.GELU(),
        )
        layer = nn.TransformerEncoderLayer(
            hidden, 4, 4 * hidden, dropout=dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(hidden), enable_nested_tensor=False)
        self.head = nn.Linear(hidden, num_words + 1)

    def forward(self, spectra: Tensor) -> Tensor:  # (batch, mels, frames)
        spectra = 1 + (spectra - spectra.amax(dim=(1, 2), keepdim=True)) / 3  # the loudest is 1, silence about -1
        frames = self.downsample(spectra.unsqueeze(1)).transpose(1, 2).contiguous()  # (batch, frames / 4, hidden)
        frames = self.encoder(frames + positions(frames))
        return self.head(frames).log_softmax(dim=2)  # (batch, frames / 4, words + 1)


def positions(frames: Tensor) -> Tensor:
    """The position of each frame, as sines and cosines of many wavelengths: (frames, hidden)."""
    _, count, hidden = frames.shape
    rates = torch.exp(torch.arange(0, hidden, 2, device=frames.device) * (-math.log(10_000) / hidden))
    angles = torch.arange(count, device=frames.device)[:, None] * rates  # (frames, hidden / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def ctc_loss(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Mean CTC loss a word; log_probs (batch, frames, words + 1), targets (batch, longest), padded with `BLANK`.

    The silence behind short strings is read, too: as blanks.
    """
    frames = torch.full((len(log_probs),), log_probs.shape[1], device=log_probs.device)
    lengths = (targets != BLANK).sum(dim=1)
    return nn.CTCLoss(blank=BLANK, zero_infinity=True)(log_probs.transpose(0, 1), targets, frames, lengths)


class StringMaker:
    """Joins recordings of one voice to strings of words, with pauses of random length, up to `pause` seconds.

    Strings of three to six words whose classes add up to a multiple of five are for testing alone.
    """

    def __init__(self, recordings: Recordings, count: int, *, pause: float, testing: bool = False) -> None:
        self.recordings, self.count, self.testing = recordings, count, testing
        self.silence = max(1, round(pause * recordings.rate))  # samples
        self.shortest, self.longest = (3 if testing else 1), 6  # words
        self.voices: dict[str, list[int]] = defaultdict(list)
        for row, speaker in enumerate(recordings.speakers):
            self.voices[speaker].append(row)

    def __len__(self) -> int:
        return self.count

    def draw(self, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """A string: its samples, and its word numbers."""
        below = lambda limit: int(torch.randint(limit, (), generator=generator))  # noqa: E731
        rows = list(self.voices.values())[below(len(self.voices))]
        while True:
            words = self.shortest + below(self.longest - self.shortest + 1)
            chosen = [rows[below(len(rows))] for _ in range(words)]
            labels = self.recordings.labels[chosen]
            if (words > 2 and int(labels.sum()) % 5 == 0) == self.testing:
                break
        pieces = [torch.zeros(below(self.silence))]
        for row in chosen:
            pieces += [self.recordings.wave(row), torch.zeros(below(self.silence))]
        return torch.cat(pieces), labels + 1

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """As many new strings: waves (B, samples) and word numbers (B, words), padded with zeros."""
        waves, targets = zip(*(self.draw() for _ in indices), strict=True)
        return pad_sequence(list(waves), batch_first=True), pad_sequence(list(targets), batch_first=True)


@dataclass
class Strings:
    """Strings to test on: spectra (N, mels, frames), with silence behind the shorter ones, and what is said."""

    spectra: Tensor
    said: list[list[int]]
    recordings: Recordings  # that they are made of

    def __len__(self) -> int:
        return len(self.said)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Sequence[int]]:
        return self.spectra[indices], indices


def strings_to_test(recordings: Recordings, pause: float, seed: int = 0, count: int = 200) -> Strings:
    """Strings of words that training never joins, the same for the same seed."""
    maker, generator = StringMaker(recordings, count, pause=pause, testing=True), torch.Generator().manual_seed(seed)
    waves, targets = zip(*(maker.draw(generator) for _ in range(count)), strict=True)
    spectra = log_mel(normalized(pad_sequence(list(waves), batch_first=True)), recordings.rate)
    return Strings(spectra, [words.tolist() for words in targets], recordings)


def build(options: SpeechRecognitionOptions, data: Any) -> SpeechTransformer:
    """The network for words like these."""
    if options.hidden % 4:
        raise InputError(f"option hidden: expected a multiple of the 4 heads, got {options.hidden}")
    return SpeechTransformer(len(data.classes), hidden=options.hidden, layers=options.layers, dropout=options.dropout)


def train(model: nn.Module, train_set: Recordings, options: SpeechRecognitionOptions) -> Loop:
    """Minimizes the CTC loss with AdamW on strings that are new in each batch.

    The first epoch has single words, and each one after it a word more: on long strings alone, CTC spends
    hundreds of steps on giving nothing but blanks.
    """
    count = options.strings or (320 if options.data is None else 800)  # people's voices differ more
    strings = StringMaker(train_set, count, pause=options.pause)
    strings.longest = 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.01)
    loop = Loop(model, optimizer, batches(strings, options), options)
    for waves, targets in loop:
        strings.longest = min(6, 1 + len(loop.history))
        loop.step(ctc_loss(loop.model(heard_elsewhere(normalized(waves), train_set.rate)), targets))
    return loop


def recognize(model: nn.Module, strings: Strings, device: torch.device, beam: int = 0) -> dict[str, float]:
    """Word error rate and share of strings without an error; `beam` 0 decodes greedily."""
    found = predict(model, strings, device)
    return rates(strings.said, [beam_search(one, beam) if beam else greedy(one) for one in found])


def nearest_recordings(train_set: Recordings, strings: Strings) -> dict[str, float]:
    """The baseline: cuts a string at its pauses, and takes each piece for the train recording most like it."""
    nearest = Templates(train_set)
    return rates(strings.said, [(nearest(cut_at_pauses(spectrum)) + 1).tolist() for spectrum in strings.spectra])


@recipe(SpeechRecognitionOptions)
def run(options: SpeechRecognitionOptions) -> Result:
    """Trains a recognizer on strings of spoken words, and measures it on new strings by new voices."""
    train_set, test_set = open_speech(options.data, rate=options.rate, seed=options.seed)
    strings = strings_to_test(test_set, options.pause, options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, options)
    return Result(
        metrics=recognize(model, strings, options.device, options.beam),
        baseline=nearest_recordings(train_set, strings),
        baseline_name="cut, then nearest recording",
        bars={"word_error_rate": 0.18},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=strings,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    device, strings = next(result.model.parameters()).device, result.test_set
    joined = strings_to_test(strings.recordings, 0, result.options["seed"])
    by_network, by_cutting = recognize(result.model, joined, device, 8), nearest_recordings(result.train_set, joined)
    readings = {"beam search": (result.metrics, by_network), result.baseline_name: (result.baseline, by_cutting)}
    readings["greedy"] = (recognize(result.model, strings, device), recognize(result.model, joined, device))
    result.rows = [
        {
            "reading": name,
            "word_error_rate": with_pauses["word_error_rate"],
            "without_pauses": without["word_error_rate"],
        }
        for name, (with_pauses, without) in readings.items()
    ]
    text = "it needs no pauses: without them, its errors are less than half of the baseline's"
    half = by_cutting["word_error_rate"] / 2
    yield Claim(text, by_network["word_error_rate"], "<", half, margin=0.05)


@run.figure
def figure(result: Result) -> Any:
    """A test string and what each frame says of it, and the loss."""
    strings, device = result.test_set, next(result.model.parameters()).device
    spectrum, said, classes = strings.spectra[0], strings.said[0], strings.recordings.classes
    log_probs = predict(result.model, strings, device)[0]
    drawing, axes = new_figure(3, 1, width=6.0, height=2.4)
    top, below, last = axes[:, 0]
    seconds, probabilities = spectrum.shape[1] * HOP, log_probs.exp()  # (frames, words + 1)
    top.imshow(spectrum, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, MELS))
    top.set(ylabel="mel band", title="said: " + " ".join(classes[word - 1] for word in said))
    times = (torch.arange(len(log_probs)) + 0.5) * seconds / len(log_probs)
    below.plot(times, probabilities[:, BLANK], color="lightgrey", label="blank")
    for word in sorted(set(said)):
        below.plot(times, probabilities[:, word], marker=".", label=classes[word - 1])
    below.set(xlim=(0, seconds), xlabel="seconds", ylabel="probability")
    below.legend(frameon=False, ncols=7, loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=8, handlelength=1)
    draw_curves(last, result.history)
    return drawing


run.predicts(SpeechRecognition, build)


if __name__ == "__main__":
    main(run)
