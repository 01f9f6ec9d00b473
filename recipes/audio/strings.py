"""Strings of spoken words: made of single recordings, judged by the word error rate, read by a plain baseline."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from recipes.audio.features import HOP, log_mel
from recipes.datasets.speech import Recordings

BLANK = 0  # class k is word number k + 1; zeros fill up
TESTED = 200  # strings to test on


class StringMaker:
    """Joins recordings of one voice to strings of words, with pauses of random length, up to `pause` seconds.

    Strings of three to six words whose classes add up to a multiple of five are for testing alone.
    """

    def __init__(self, recordings: Recordings, count: int, *, pause: float = 0.3, testing: bool = False) -> None:
        self.recordings, self.count, self.pause, self.testing = recordings, count, pause, testing
        self.shortest, self.longest = (3 if testing else 1), 6
        self.voices: dict[str, list[int]] = defaultdict(list)
        for row, speaker in enumerate(recordings.speakers):
            self.voices[speaker].append(row)

    def __len__(self) -> int:
        return self.count

    def draw(self, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """A string: its samples, and its word numbers."""

        def below(limit: int) -> int:
            return int(torch.randint(limit, (), generator=generator))

        rows = list(self.voices.values())[below(len(self.voices))]
        while True:
            words = self.shortest + below(self.longest - self.shortest + 1)
            chosen = [rows[below(len(rows))] for _ in range(words)]
            labels = self.recordings.labels[chosen]
            if (words > 2 and int(labels.sum()) % 5 == 0) == self.testing:
                break
        silence = max(1, round(self.pause * self.recordings.rate))
        pieces = [torch.zeros(below(silence))]
        for row in chosen:
            pieces += [self.recordings.wave(row), torch.zeros(below(silence))]
        return torch.cat(pieces), labels + 1

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """As many new strings: waves (B, samples) and word numbers (B, words), filled up with zeros."""
        waves, targets = zip(*(self.draw() for _ in indices), strict=True)
        return padded(waves), padded(targets)


@dataclass
class Strings:
    """Strings that are the same whenever they are asked for.

    Attributes:
        spectra: log-mel spectrograms (N, mels, frames), with silence behind the shorter ones.
        targets: word numbers (N, words), filled up with `BLANK`.
        said: the word numbers as lists.
    """

    spectra: Tensor
    targets: Tensor
    said: list[list[int]]

    def __len__(self) -> int:
        return len(self.said)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.spectra[indices], self.targets[indices]


def strings_to_test(recordings: Recordings, *, pause: float = 0.3, seed: int = 0) -> Strings:
    """Strings by the voices of the test part, drawn with the seed."""
    maker, generator = StringMaker(recordings, TESTED, pause=pause, testing=True), torch.Generator().manual_seed(seed)
    waves, targets = zip(*(maker.draw(generator) for _ in range(TESTED)), strict=True)
    return Strings(log_mel(padded(waves), recordings.rate), padded(targets), [words.tolist() for words in targets])


def padded(rows: Sequence[Tensor]) -> Tensor:
    """Rows of unequal length as one tensor, with zeros behind the shorter ones."""
    return pad_sequence(list(rows), batch_first=True)


def edit_distance(said: Sequence[int], heard: Sequence[int]) -> int:
    """The fewest words to insert, drop or exchange that make one string into the other."""
    row = list(range(len(heard) + 1))  # from none of `said` to each beginning of `heard`
    for i, word in enumerate(said, start=1):
        above, row = row, [i]
        for j, other in enumerate(heard, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != other)))
    return row[-1]


def word_error_rate(said: Sequence[Sequence[int]], heard: Sequence[Sequence[int]]) -> float:
    """Edit distances summed over all strings, as a share of the words said."""
    return sum(map(edit_distance, said, heard)) / sum(map(len, said))


def rates(strings: Strings, heard: list[list[int]]) -> dict[str, float]:
    exact = sum(map(list.__eq__, strings.said, heard)) / len(heard)
    return {"word_error_rate": word_error_rate(strings.said, heard), "exact_match": exact}


def nearest_recordings(train_set: Recordings, strings: Strings) -> dict[str, float]:
    """The baseline: cuts a string at its pauses, and takes each piece for the train recording most like it."""
    known = [log_mel(train_set.wave(row).unsqueeze(0), train_set.rate)[0] for row in range(len(train_set))]
    templates = torch.stack([same_size(spectrum) for spectrum in known])  # (N, mels * 16)
    heard = []
    for spectrum in strings.spectra:
        pieces = [same_size(piece) for piece in cut_at_pauses(spectrum)]
        nearest = torch.cdist(torch.stack(pieces), templates).argmin(dim=1)
        heard.append((train_set.labels[nearest] + 1).tolist())
    return rates(strings, heard)


def cut_at_pauses(spectrum: Tensor, quiet: float = 3, shortest: float = 0.06) -> list[Tensor]:
    """The stretches (mels, frames) of a spectrogram between pauses: frames `quiet` powers of ten below the peak.

    Pauses and stretches shorter than `shortest` seconds count for nothing.
    """
    loud = (spectrum.amax(dim=0) > spectrum.max() - quiet).nonzero().flatten()
    least = round(shortest / HOP)
    ends = (loud.diff() > least).nonzero().flatten() + 1
    stretches = [piece for piece in loud.tensor_split(ends.tolist()) if len(piece) > least] or [loud]
    return [spectrum[:, int(piece[0]) : int(piece[-1]) + 1] for piece in stretches]


def same_size(spectrum: Tensor, frames: int = 16) -> Tensor:
    """A spectrogram (mels, any) stretched to so many frames, its mean 0: (mels * frames,)."""
    stretched = F.interpolate(spectrum.unsqueeze(0), frames, mode="linear").flatten()
    return stretched - stretched.mean()
