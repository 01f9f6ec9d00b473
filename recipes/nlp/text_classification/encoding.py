"""From labelled texts to batches of numbers: words, their vocabulary, and padding."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

from recipes.core.device import rank_and_world
from recipes.core.errors import InputError
from recipes.core.loading import as_is
from recipes.datasets.texts import Texts, open_texts

PAD, UNKNOWN = 0, 1

# Scripts written without spaces (Thai and Lao, Burmese, Khmer, kana, Chinese characters), and emoji.
SINGLE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U0001f300-\U0003ffff"
# Accents and vowel signs (Hebrew, Arabic, scripts of India), which \w leaves out.
MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u065f\u0900-\u0963\u0966-\u0dff"
LETTER = rf"(?![{SINGLE}])[\w{MARKS}]"
TOKEN = re.compile(rf"[{SINGLE}]|(?:{LETTER})+(?:'(?:{LETTER})+)*")


def tokenise(text: str) -> list[str]:
    """The words in lower case, without punctuation: "Don't go!" gives ["don't", "go"].

    What is written without spaces (Chinese, Japanese, Thai …) falls into single characters.
    """
    return TOKEN.findall(unicodedata.normalize("NFKC", text).lower().replace("’", "'"))


class Vocabulary:
    """The words of the train texts, commonest first, after padding (0) and the unknown word (1).

    Args:
        texts: to count words in.
        min_freq: times a word must occur to be known.

    Raises:
        InputError: no word occurs so often.
    """

    def __init__(self, texts: Sequence[str], *, min_freq: int = 2) -> None:
        counts = Counter(word for text in texts for word in tokenise(text))
        known = sorted((-count, word) for word, count in counts.items() if count >= min_freq)
        if not known:
            raise InputError(f"option min_freq: no word of the train texts occurs {min_freq} times")
        self.words = ["<pad>", "<unk>", *(word for _, word in known)]
        self.number = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str, max_words: int = 256) -> Tensor:
        """The numbers of the text's first `max_words` words: (words,), at least one."""
        return torch.tensor([self.number.get(word, UNKNOWN) for word in tokenise(text)[:max_words]] or [UNKNOWN])


@dataclass
class EncodedTexts:
    """Texts as numbers, held in memory; asked for many at a time, it pads them to the longest.

    Attributes:
        texts: N strings.
        ids: N tensors (words,), indices into `vocabulary.words`.
        labels: (N,) indices into `classes`.
        classes: names, sorted.
        vocabulary: of the train texts, shared by both parts.
    """

    texts: list[str]
    ids: list[Tensor]
    labels: Tensor
    classes: list[str]
    vocabulary: Vocabulary

    def __len__(self) -> int:
        return len(self.texts)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        ids = pad_sequence([self.ids[index] for index in indices], batch_first=True, padding_value=PAD)
        return ids, self.labels[list(indices)]  # (batch, words), (batch,)


def open_encoded(
    data: str | None = None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    min_freq: int = 2,
    max_words: int = 256,
    seed: int = 0,
) -> tuple[EncodedTexts, EncodedTexts]:
    """Opens labelled texts as numbers: the train and the test part, with the vocabulary of train.

    Args:
        data: see `open_texts`, as are the columns and the seed.
        min_freq: times a word must occur in train to be known.
        max_words: of a text that are read; the rest is left out.

    Raises:
        InputError: see `open_texts`; or an option that cannot be.
    """
    if max_words < 1:
        raise InputError(f"option max_words: expected a whole number of at least 1, got {max_words}")
    parts = open_texts(data, text_column=text_column, label_column=label_column, seed=seed)
    vocabulary = Vocabulary(parts[0].texts, min_freq=min_freq)

    def encoded(part: Texts) -> EncodedTexts:
        ids = [vocabulary.encode(text, max_words) for text in part.texts]
        return EncodedTexts(part.texts, ids, part.labels, part.classes, vocabulary)

    return encoded(parts[0]), encoded(parts[1])


def shuffled(dataset: EncodedTexts, *, seed: int = 0) -> EncodedTexts:
    """The same texts, the words of each in random order."""
    generator = torch.Generator().manual_seed(seed)
    return replace(dataset, ids=[ids[torch.randperm(len(ids), generator=generator)] for ids in dataset.ids])


def phrases(dataset: EncodedTexts, length: int) -> EncodedTexts:
    """Each run of `length` known words that the texts hold, once, as a text of its own; labels are all 0."""
    found = {tuple(run) for ids in dataset.ids if len(ids) >= length for run in ids.unfold(0, length, 1).tolist()}
    runs = sorted(run for run in found if UNKNOWN not in run)
    texts = [" ".join(dataset.vocabulary.words[number] for number in run) for run in runs]
    return replace(dataset, texts=texts, ids=[torch.tensor(run) for run in runs], labels=torch.zeros(len(runs)).long())


class ByLength(Sampler[int]):
    """An order in which each batch holds texts of similar length, so that little of it is padding.

    The texts are shuffled, those of 50 batches at a time are sorted by length and cut into batches, and
    the batches are shuffled. The order depends on the seed and the epoch alone.

    Args:
        lengths: (N,) words of each text.
        batch_size: texts in a batch, over all processes; each process gets its share of every batch.
        seed: of the order.
    """

    def __init__(self, lengths: Tensor, batch_size: int, *, seed: int = 0) -> None:
        self.lengths, self.seed, self.epoch = lengths, seed, 0
        self.rank, self.world = rank_and_world()
        self.share = max(1, min(batch_size, len(lengths)) // self.world)
        self.count = len(lengths) // (self.share * self.world)  # texts left over wait for another epoch's order

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count * self.share

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        whole = self.share * self.world
        order = torch.randperm(len(self.lengths), generator=generator)[: self.count * whole]
        pools = [pool[self.lengths[pool].argsort(stable=True)] for pool in order.split(50 * whole)]
        rows = torch.cat(pools).view(self.count, whole)  # a batch a row
        rows = rows[torch.randperm(self.count, generator=generator)]
        return iter(rows[:, self.rank :: self.world].flatten().tolist())


def batches_by_length(
    dataset: Any, batch_size: int, *, lengths: Sequence[int] | None = None, seed: int = 0
) -> DataLoader:
    """Shuffled batches of samples of similar length; see `ByLength`.

    Args:
        dataset: its `__getitems__` pads and gives whole batches.
        batch_size: samples in an optimizer step, over all processes.
        lengths: of the samples; if not given, those of the dataset's `ids`.
        seed: of the order.
    """
    lengths = [len(ids) for ids in dataset.ids] if lengths is None else lengths
    sampler = ByLength(torch.tensor(lengths), batch_size, seed=seed)
    return DataLoader(
        dataset,
        batch_size=sampler.share,
        sampler=sampler,
        pin_memory=torch.cuda.is_available(),
        collate_fn=as_is,
    )
