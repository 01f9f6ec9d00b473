"""Speech recognition with a Transformer and CTC.

Somebody says "four, nine, nine, one"; the network is told what was said, but not when. Each frame of the
log-mel spectrogram, after two strided convolutions and a Transformer encoder, gives a probability to every
word and to a blank, "nothing new here". A string of frames stands for the words that remain once repeats are
merged and blanks dropped: `- 4 4 - 9 - 9 1 1` is 4 9 9 1. The CTC loss is the negative logarithm of the
summed probability of all strings of frames that stand for the right words, so no word need be placed in time.

To read the answer, greedy decoding takes each frame's likeliest entry. Beam search keeps the likeliest
beginnings instead, adding up all frames' strings that stand for the same words. Both are judged by the word
error rate: words to insert, drop or exchange, as a share of the words said. The test strings, and the voices
that say them, are new to the network; the baseline cuts at the pauses and asks for the nearest known recording.

Notes: 43
Paper: Graves, Fernández, Gomez, Schmidhuber (2006), "Connectionist Temporal Classification",
    https://www.cs.toronto.edu/~graves/icml_2006.pdf;
    Vaswani et al. (2017), "Attention Is All You Need", https://arxiv.org/abs/1706.03762
Data: English digits by a speech synthesiser, joined to strings as they are needed; yours as WAV files in a
    folder for each class or named CLASS_SPEAKER_NUMBER.wav.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from recipes.audio.features import HOP, MELS, log_mel
from recipes.audio.strings import BLANK, StringMaker, Strings, nearest_recordings, rates, strings_to_test
from recipes.audio.transforms import speed
from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.speech import open_speech


class SpeechTransformer(nn.Module):
    """Log-mel frames, made four times fewer by convolutions, then a Transformer encoder."""

    def __init__(self, num_words: int, *, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.downsample = nn.Sequential(
            nn.Conv1d(MELS, width, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv1d(width, width, 5, stride=2, padding=2),
            nn.GELU(),
        )
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, num_words + 1)

    def forward(self, spectra: Tensor) -> Tensor:  # (batch, mels, frames)
        spectra = 1 + (spectra - spectra.amax(dim=(1, 2), keepdim=True)) / 3  # loud or soft, the peak is 1
        frames = self.downsample(spectra).transpose(1, 2)  # (batch, frames / 4, width)
        frames = self.encoder(frames + positions(frames))
        return self.head(frames).log_softmax(dim=2)  # (batch, frames / 4, words + 1)


def positions(frames: Tensor) -> Tensor:
    """Where each frame stands, as sines and cosines of many wavelengths: (frames, width)."""
    _, count, width = frames.shape
    rates = torch.exp(torch.arange(0, width, 2, device=frames.device) * (-math.log(10_000) / width))
    angles = torch.arange(count, device=frames.device)[:, None] * rates  # (frames, width / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def ctc_loss(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of the CTC loss a word. The silence behind short strings is read, too: as blanks.

    Args:
        log_probs: (batch, frames, words + 1).
        targets: word numbers, (batch, longest), filled up with `BLANK`.
    """
    frames = torch.full((len(log_probs),), log_probs.shape[1], device=log_probs.device)
    lengths = (targets != BLANK).sum(dim=1)
    return nn.CTCLoss(blank=BLANK, zero_infinity=True)(log_probs.transpose(0, 1), targets, frames, lengths)


def greedy(log_probs: Tensor) -> list[int]:
    """The likeliest entry of each frame (frames, words + 1), repeats merged and blanks dropped."""
    merged = log_probs.argmax(dim=1).unique_consecutive()
    return merged[merged != BLANK].tolist()


def beam_search(log_probs: Tensor, beam: int = 8, unlikely: float = 1e-4) -> list[int]:
    """The words that the likeliest `beam` beginnings end in, each the sum of all frames that stand for it.

    A beginning has two probabilities, since a repeated word counts anew only after a blank: that its frames
    end in a blank, and that they end in its last word. Entries below `unlikely` are passed over.
    """
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (1.0, 0.0)}
    for frame in log_probs.exp().tolist():
        grown: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for words, (blank_last, word_last) in beams.items():
            grown[words][0] += (blank_last + word_last) * frame[BLANK]
            if words:
                grown[words][1] += word_last * frame[words[-1]]
            for word, probability in enumerate(frame):
                if word == BLANK or probability < unlikely:
                    continue
                repeated = bool(words) and word == words[-1]
                grown[*words, word][1] += (blank_last if repeated else blank_last + word_last) * probability
        best = sorted(grown.items(), key=lambda entry: sum(entry[1]), reverse=True)[:beam]
        total = sum(sum(pair) for _, pair in best)  # held at 1, lest hundreds of factors come to zero
        beams = {words: (blank / total, word / total) for words, (blank, word) in best}
    return list(max(beams.items(), key=lambda entry: sum(entry[1]))[0])


def train(
    model: nn.Module,
    strings: StringMaker,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    augment: bool = True,
    seed: int = 0,
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises the CTC loss with AdamW on strings that are new in each batch.

    The first epoch has single words, and each one after it a word more: on long strings alone, CTC spends
    hundreds of steps on giving nothing but blanks.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    loader = old_batches(strings, batch_size, seed=seed)
    options: Engine = {"clip": 1.0, **engine}
    strings.longest = 1
    loop = OldLoop(model, optimizer, loader, epochs=epochs, device=device, schedule=one_cycle, **options)
    for waves, targets in loop:
        strings.longest = min(6, 1 + loop.epoch)
        if augment:
            waves = speed(waves, amount=0.2)
        spectra = log_mel(waves, strings.recordings.rate)
        loss = ctc_loss(loop.model(spectra), targets)
        loop.step(loss)
    return loop


def recognise(log_probs: Sequence[Tensor], strings: Strings, beam: int) -> dict[str, float]:
    """Word error rate and share of strings without an error; `beam` 0 decodes greedily."""
    return rates(strings, [beam_search(one, beam) if beam else greedy(one) for one in log_probs])


def draw(
    log_probs: Tensor,
    spectrum: Tensor,
    said: list[int],
    classes: list[str],
    rows: list[dict[str, Any]],
    history: list[dict[str, float]],
) -> Any:
    """A test string and what each frame says of it, the loss, and the word error rates."""
    figure, axes = new_figure(2, 2, width=4.8, height=2.9)
    seconds = spectrum.shape[1] * HOP
    top, below = axes[:, 0]
    top.imshow(spectrum, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, MELS))
    top.set(ylabel="mel band", title="said: " + " ".join(classes[word - 1] for word in said))
    probabilities = log_probs.exp()  # (frames, words + 1)
    times = (torch.arange(len(log_probs)) + 0.5) * seconds / len(log_probs)
    below.plot(times, probabilities[:, BLANK], color="lightgrey", label="blank")
    for word in sorted(set(said)):
        below.plot(times, probabilities[:, word], marker=".", label=classes[word - 1])
    below.set(xlim=(0, seconds), xlabel="seconds", ylabel="probability in each frame")
    below.legend(frameon=False, ncols=7, loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=8, handlelength=1)
    draw_curves(axes[0, 1], history)
    for number, row in enumerate(rows):
        at = [column + 0.25 * number for column in range(2)]
        bars = axes[1, 1].bar(at, [row["with_pauses"], row["without_pauses"]], 0.23, label=row["reading"])
        axes[1, 1].bar_label(bars, fmt="%.3f", fontsize=7)
    axes[1, 1].set_xticks([0.25, 1.25], ["with pauses", "without pauses"])
    axes[1, 1].set(ylabel="word error rate")
    axes[1, 1].legend(frameon=False, fontsize=8)
    for place in (below, axes[1, 1]):
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    rate: int = 8000,
    strings: int = 400,
    augment: bool = True,
    beam: int = 8,
    width: int = 64,
    epochs: int = 10,
    batch_size: int = 8,
    lr: float = 3e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a recogniser on strings of spoken words, and measures it on new strings by new voices.

    Args:
        data: folder of your recordings, a word each; the bundled digits if not given.
        rate: samples a second that your recordings are brought to.
        strings: new strings in an epoch.
        augment: play the training strings faster and slower, by up to a fifth: voices it has not heard.
        beam: beginnings that beam search keeps.
        width: numbers in a frame's vector.
        epochs: the first has single words, each one after it a word more, up to six.
        batch_size: strings in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the strings, the weights, and of the speakers held out where there is no test part.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if min(strings, beam) < 1:
        raise InputError(f"options strings and beam: expected at least 1, got {strings} and {beam}")
    if width < 4 or width % 4:
        raise InputError(f"option width: expected a multiple of 4, got {width}")
    place = setup(device, seed)
    train_set, test_set = open_speech(data, rate=rate, seed=seed)
    model = SpeechTransformer(len(train_set.classes), width=width).to(place)
    loop = train(
        model,
        StringMaker(train_set, strings),
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        device=place,
        augment=augment,
        seed=seed,
        **engine,
    )
    paused, joined = strings_to_test(test_set, seed=seed), strings_to_test(test_set, pause=0, seed=seed)
    answers = {"with_pauses": predict(model, paused, place), "without_pauses": predict(model, joined, place)}
    tests = {"with_pauses": paused, "without_pauses": joined}
    searched, read, cut = (
        {name: recognise(answers[name], tests[name], beam) for name in tests},
        {name: recognise(answers[name], tests[name], 0) for name in tests},
        {name: nearest_recordings(train_set, tests[name]) for name in tests},
    )
    named = {"beam search": searched, "greedy": read, "cut, then nearest": cut}
    rows: list[dict[str, Any]] = [
        {"reading": reading} | {name: one["word_error_rate"] for name, one in scores.items()}
        for reading, scores in named.items()
    ]
    first = answers["with_pauses"]
    blanks = (torch.stack(first).argmax(dim=2) == BLANK).double().mean().item()
    return Result(
        metrics=searched["with_pauses"],
        baseline=cut["with_pauses"],
        baseline_name="cut, then nearest recording",
        bars={"word_error_rate": 0.1},
        claims=[
            claim(
                "beam search makes no more errors than greedy decoding",
                rows[0]["with_pauses"],
                "<=",
                rows[1]["with_pauses"],
            ),
            claim("most frames say nothing new: the share of blanks", blanks, ">", 0.5),
            claim(
                "it needs no pauses: without them, its errors are less than half of the baseline's",
                rows[0]["without_pauses"],
                "<",
                rows[2]["without_pauses"] / 2,
            ),
        ],
        rows=rows,
        history=loop.history,
        model=model,
        draw=lambda: draw(first[0], paused.spectra[0], paused.said[0], test_set.classes, rows, loop.history),
    )


if __name__ == "__main__":
    main(run)
