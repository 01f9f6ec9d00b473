"""Speech generation: a Transformer that says words.

A sound can be written as a text is. Its log-mel spectrogram has a frame every 16 ms; k-means finds a codebook of
frames that stand for all others; so a spoken word becomes a string of some twenty codes and an end. The blocks are
those of the language model, unchanged: each code is predicted from the word that is to be said and from the codes
before it. To speak is to draw a code at random, as likely as the network says, until the end is drawn, and to go
back from there: codes to a mel spectrum, by the filters' pseudo-inverse to a spectrum, and by Griffin-Lim to a wave.

A few hundred recordings are few, so each is also heard faster and slower, as by other voices. How good it is, is
measured three ways: held-out recordings have a probability, told as bits a frame, which counts of codes have too,
from the same recordings; a recognizer that was trained on real recordings is asked what it hears; and beside each
sound stands the nearest train recording, so that copying would be seen.

Notes: 43
Paper: van den Oord, Vinyals, Kavukcuoglu (2017), "Neural Discrete Representation Learning",
    https://arxiv.org/abs/1711.00937, for sound as codes; Griffin, Lim (1984), "Signal Estimation from Modified
    Short-Time Fourier Transform", https://doi.org/10.1109/TASSP.1984.1164317
Data: English digits by a speech synthesizer; yours as WAV files in a folder for each class or named
    CLASS_SPEAKER_NUMBER.wav.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from recipes.audio.code_counts import bits_by_counts
from recipes.audio.codes import SpokenCodes, frames_of, learn_codebook
from recipes.audio.features import MELS
from recipes.audio.speaking import WordSpeaking
from recipes.audio.synthesis import mel_to_wave
from recipes.audio.templates import same_size
from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, main, option, recipe
from recipes.datasets.speech import open_speech
from recipes.nlp.language_model import Block


@dataclass(kw_only=True)
class GenerationOptions(Options):
    rate: int = option(8000, "samples a second that recordings are brought to")
    codes: int = option(128, "frames in the codebook", least=2, most=1000)
    copies: int = option(10, "times that each train recording is also heard faster or slower", least=0)
    width: int = option(64, "size of a code's embedding, a multiple of twice the heads", least=4)
    layers: int = option(2, "Transformer blocks", least=1)
    heads: int = option(4, "attention heads in each block", least=1)
    dropout: float = option(0.1, "share of the embeddings' numbers that training leaves out", least=0, below=1)
    temperature: float = option(0.8, "of what is said: below 1, likely codes become likelier still", above=0)
    epochs: int = 5
    lr: float = 4e-3


class SpeakingTransformer(nn.Module):
    """Words (batch, time), the class first, to logits of the code that follows each, (batch, time, codes + 1)."""

    def __init__(self, num_classes: int, options: GenerationOptions) -> None:
        super().__init__()
        width, pairs = options.width, options.width // options.heads // 2
        self.end = options.codes
        self.codebook = nn.Buffer(torch.zeros(options.codes, MELS))
        self.words = nn.Embedding(options.codes + 1 + num_classes, width)
        nn.init.normal_(self.words.weight, std=0.1)
        self.dropout = nn.Dropout(options.dropout)
        self.blocks = nn.ModuleList(Block(width, options.heads) for _ in range(options.layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, options.codes + 1)
        self.speeds = nn.Buffer(10_000 ** -(torch.arange(pairs) / pairs), persistent=False)  # (pairs,)

    def forward(self, words: Tensor, cache: list[list[Tensor]] | None = None) -> Tensor:
        """With a cache, an empty list for each block at first, only what it does not know yet is computed."""
        known = cache[0][0].shape[2] if cache and cache[0] else 0
        angles = torch.arange(words.shape[1], device=words.device)[known:, None] * self.speeds  # (time, pairs)
        rotation = torch.stack([angles.cos(), angles.sin()])
        x = self.dropout(self.words(words[:, known:]))
        for number, block in enumerate(self.blocks):
            x = block(x, rotation, True, None if cache is None else cache[number])
        return self.head(self.norm(x))

    @torch.inference_mode()
    def generate(self, labels: Tensor, *, temperature: float = 0.8, seed: int = 0, longest: int = 100) -> list[Tensor]:
        """Spectrograms (frames, mels) of these words, (N,).

        Args:
            labels: classes to say, (N,).
            temperature: below 1, likely codes become likelier still.
            seed: of the draws, on the CPU.
            longest: frames, if no end is drawn before.
        """
        device, generator = self.head.weight.device, torch.Generator().manual_seed(seed)
        words = (self.end + 1 + labels)[:, None].to(device)
        cache: list[list[Tensor]] = [[] for _ in self.blocks]
        self.eval()
        for _ in range(longest):
            chances = (self(words, cache)[:, -1].float().cpu() / temperature).softmax(dim=1)
            chances[:, self.end] *= words.shape[1] > 1  # it says something
            words = torch.cat([words, chances.multinomial(1, generator=generator).to(device)], dim=1)
            if (words == self.end).any(dim=1).all():
                break
        said, lengths = words[:, 1:].cpu(), ((words[:, 1:] == self.end).cumsum(dim=1) == 0).sum(dim=1)
        return [self.codebook.cpu()[codes[:length]] for codes, length in zip(said, lengths.tolist(), strict=True)]

    def say(self, labels: Tensor, rate: int, **how: Any) -> list[Tensor]:
        """Waves (samples,) of these words, (N,), at `rate` samples a second; `how` as `generate` has it."""
        return [mel_to_wave(spectrum, rate) for spectrum in self.generate(labels, **how)]


def build(options: GenerationOptions, data: Any) -> SpeakingTransformer:
    """The network for words like these."""
    if options.width % (2 * options.heads):
        raise InputError(f"option width: expected a multiple of twice {options.heads} heads, got {options.width}")
    return SpeakingTransformer(len(data.classes), options)


def train(model: nn.Module, train_set: SpokenCodes, test_set: SpokenCodes, options: GenerationOptions) -> Loop:
    """Minimizes the cross-entropy of all codes at once with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.1, fused=True)
    measure = functools.partial(evaluate, model, test_set, options.device)
    loop = Loop(model, optimizer, batches(train_set, options), options, evaluate=measure)
    for words, targets in loop:
        loop.step(F.cross_entropy(loop.model(words).flatten(0, 1), targets.flatten()))
    return loop


@torch.inference_mode()
def evaluate(model: nn.Module, dataset: SpokenCodes, device: Any) -> dict[str, float]:
    """Bits a frame of held-out recordings, ends counted as frames: the mean of -log2 of each code's probability."""
    was_training = model.training
    model.eval()
    nats = 0.0
    for indices in torch.arange(len(dataset)).split(256):
        words, targets = (tensor.to(device) for tensor in dataset.__getitems__(indices.tolist()))
        nats += F.cross_entropy(model(words).flatten(0, 1).float(), targets.flatten(), reduction="sum").item()
    model.train(was_training)
    return {"bits_per_frame": nats / math.log(2) / sum(map(len, dataset.codes))}


@recipe(GenerationOptions)
def run(options: GenerationOptions) -> Result:
    """Trains a Transformer on recordings of words, and measures how likely those of new voices are."""
    known, asked = open_speech(options.data, rate=options.rate, seed=options.seed)
    codebook = learn_codebook(known, options.codes, options.seed)
    train_set = SpokenCodes(known, codebook, copies=options.copies, seed=options.seed)
    test_set = SpokenCodes(asked, codebook)
    model = build(options, train_set).to(options.device)
    model.codebook.copy_(codebook)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline={"bits_per_frame": bits_by_counts(train_set, test_set, options.seed)},
        baseline_name="counts of codes by word and codes before",
        bars={"bits_per_frame": 2.1},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    bits, given = result["bits_per_frame"], result.options
    yield Claim("it beats counts", bits, "<", result.baseline["bits_per_frame"], margin=0.1)
    if given["copies"]:
        alone = run(copies=0, epochs=given["epochs"] * (given["copies"] + 1))
        text = "with each recording heard at its own speed alone, in as many steps, it needs more bits"
        yield Claim(text, alone["bits_per_frame"], ">", bits, margin=0.1)
    said, labels = spoken(result, 20)
    test_set, rate = result.test_set, result.test_set.rate
    held_out = [test_set.spectrum(index) for index in range(len(test_set))]
    words = {
        "said by the Transformer": (said, labels, [mel_to_wave(one, rate) for one in said]),
        "held-out recordings": (held_out, test_set.labels, list(map(test_set.recordings.wave, range(len(test_set))))),
        "the same, from their codes": (held_out, test_set.labels, [mel_to_wave(one, rate) for one in held_out]),
    }
    understood = {name: heard(result, waves, classes) for name, (_, classes, waves) in words.items()}
    off = {name: nearest(result, spectra)[1] for name, (spectra, _, _) in words.items()}
    result.rows = [
        {
            "words": name,
            "understood": right.float().mean().item(),
            "off the nearest train sample": off[name].mean().item(),
        }
        for name, right in understood.items()
    ]
    new = off["said by the Transformer"] > off["held-out recordings"].quantile(0.05)
    share = (understood["said by the Transformer"] & new).float().mean().item()
    text = "it says what it was asked for, as a recognizer of recordings hears, and copies none: share of the words"
    yield Claim(text, share, ">", 0.7, margin=0.03)


def spoken(result: Result, count: int) -> tuple[list[Tensor], Tensor]:
    """So many spectrograms of each word, one word after the other, and their classes, (N,)."""
    labels = torch.arange(len(result.test_set.classes)).repeat_interleave(count)
    how = {"temperature": result.options["temperature"], "seed": result.seed}
    return result.model.generate(labels, longest=result.train_set.longest, **how), labels


def heard(result: Result, waves: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Whether a recognizer of the train recordings hears these words in these waves, (N,)."""
    from sklearn.svm import SVC

    train, rate = result.train_set.recordings, result.train_set.rate
    sizes = [
        torch.stack([same_size(frames_of(wave.unsqueeze(0), rate)[0].T) for wave in part])
        for part in ([train.wave(index) for index in range(len(train))], waves)
    ]
    return torch.from_numpy(SVC(C=10).fit(sizes[0], train.labels).predict(sizes[1])) == labels


def nearest(result: Result, spectra: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The train sample nearest to each of these words from codes, (N,), and how far it is, (N,)."""
    train = result.train_set
    known = torch.stack([same_size(train.spectrum(index).T) for index in range(len(train))])
    least, index = torch.cdist(torch.stack([same_size(one.T) for one in spectra]), known).min(dim=1)
    return index, least


@run.figure
def figure(result: Result) -> Any:
    """Words that it says, each beside its nearest train sample, and the bits of each epoch."""
    drawing, axes = new_figure(1, 2, width=5.0, height=4.4)
    spectra = spoken(result, 2)[0][:20]
    twins = map(result.train_set.spectrum, nearest(result, spectra)[0].tolist())
    pairs = [one for pair in zip(spectra, twins, strict=True) for one in pair]
    padded = F.pad(pad_sequence(pairs, batch_first=True, padding_value=-4.0), (0, 2, 0, 2), value=1)
    rows = padded.unflatten(0, (-1, 4)).transpose(2, 3)  # (classes, 4, mels, frames)
    sheet = rows.flip(2).transpose(1, 2).flatten(2).flatten(0, 1)  # low pitch below
    axes[0, 0].imshow(sheet, aspect="auto", cmap="magma", interpolation="nearest")
    axes[0, 0].set(xticks=[], ylabel="word")
    axes[0, 0].set_yticks(rows.shape[2] * (torch.arange(len(rows)) + 0.5), result.test_set.classes[: len(rows)])
    axes[0, 0].set_title("it says each word twice: beside each, the nearest train sample", fontsize=9)
    epochs = [row["epoch"] for row in result.history]
    axes[0, 1].plot(epochs, [row["bits_per_frame"] for row in result.history], marker=".", label="Transformer")
    axes[0, 1].axhline(result.baseline["bits_per_frame"], color="gray", linestyle="--", label="counts")
    axes[0, 1].set(xlabel="epoch", ylabel="bits a held-out frame")
    axes[0, 1].legend(frameon=False)
    return drawing


run.predicts(WordSpeaking, build)


if __name__ == "__main__":
    main(run)
