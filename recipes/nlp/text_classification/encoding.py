"""From labeled texts to batches of numbers: words, their vocabulary, and padding."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from recipes.core.errors import InputError, tell
from recipes.core.options import Options, option
from recipes.datasets.texts import Texts, open_texts
from recipes.datasets.word_vectors import WordVectors, read_vectors
from recipes.nlp.words import Rows, counted, numbered, renumber_

PAD, UNKNOWN = 0, 1

# Scripts written without spaces (Thai and Lao, Burmese, Khmer, kana, Chinese characters), and emoji.
SINGLE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U0001f300-\U0003ffff"
# Accents and vowel signs (Hebrew, Arabic, scripts of India), which \w leaves out.
MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u065f\u0900-\u0963\u0966-\u0dff"
LETTER = rf"(?![{SINGLE}])[\w{MARKS}]"
TOKEN = re.compile(rf"[{SINGLE}]|(?:{LETTER})+(?:'(?:{LETTER})+)*")
# Small letters, and blanks for all that is in no word: the way of most texts in English, four times as fast.
ASCII = str.maketrans({chr(code): chr(code).lower() if re.match(r"\w", chr(code)) else " " for code in range(128)})


def tokenize(text: str) -> list[str]:
    """The words in lower case, without punctuation: "Don't go!" gives ["don't", "go"].

    What is written without spaces (Chinese, Japanese, Thai …) falls into single characters.
    """
    if text.isascii() and "'" not in text:
        return text.translate(ASCII).split()
    return TOKEN.findall(unicodedata.normalize("NFKC", text).lower().replace("’", "'"))


class Vocabulary:
    """The words of the train texts, commonest first, after padding (0) and the unknown word (1).

    Args:
        texts: to count words in, or the counts.
        min_freq: times a word must occur to be known.

    Raises:
        InputError: no word occurs that often.
    """

    def __init__(self, texts: Sequence[str] | Counter[str], *, min_freq: int = 2) -> None:
        counts = texts if isinstance(texts, Counter) else Counter(word for text in texts for word in tokenize(text))
        known = sorted((-count, word) for word, count in counts.items() if count >= min_freq)
        if not known:
            raise InputError(f"option min_freq: no word of the train texts occurs {min_freq} times")
        self.words = ["<pad>", "<unk>", *(word for _, word in known)]
        self.number = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str, max_words: int = 256) -> Tensor:
        """The numbers of the text's first `max_words` words: (words,), at least one."""
        return torch.tensor([self.number.get(word, UNKNOWN) for word in tokenize(text)[:max_words]] or [UNKNOWN])


def word_vectors(vocabulary_size: int, size: int) -> nn.Embedding:
    """Random vectors to start from; that of the padding is zero and stays so.

    They start ten times smaller than `nn.Embedding` makes them: the vector of a rare word stays close to where it
    started, and a large one would be noise that drowns what was learned.
    """
    embedding = nn.Embedding(vocabulary_size, size, padding_idx=PAD)
    with torch.no_grad():
        embedding.weight *= 0.1
    return embedding


@dataclass(kw_only=True)
class TextOptions(Options):
    """Which texts are read, and what of them."""

    text_column: str | None = option(None, "name of the column of texts, if it is not a usual one")
    label_column: str | None = option(None, "name of the column of labels, if it is not a usual one")
    encoding: str = option("utf-8", "of the files of texts, such as latin-1")
    vectors: str | None = option(None, "text file of word vectors (GloVe's format) for the words to start from")
    min_freq: int = option(2, "times a word must occur in the train texts to be known", least=1)
    max_words: int = option(256, "words of a text that are read; the rest is left out", least=1)


@dataclass
class EncodedTexts:
    """Texts as numbers, held in memory; a batch is padded to its longest.

    Attributes:
        texts: N strings.
        ids: N tensors (words,), indices into `vocabulary.words`.
        labels: (N,) indices into `classes`, or (N, classes) of 0 and 1 where a text may have several.
        classes: names, sorted.
        vocabulary: of the train texts, shared by both parts.
        vectors: pretrained ones of words in the vocabulary, if there are any.
    """

    texts: list[str]
    ids: Sequence[Tensor]
    labels: Tensor
    classes: list[str]
    vocabulary: Vocabulary
    vectors: WordVectors | None = field(default=None, kw_only=True)

    @property
    def vector_size(self) -> int | None:
        """Numbers in a pretrained vector, or None."""
        return None if self.vectors is None else self.vectors.table.shape[1]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        ids = pad_sequence([self.ids[index] for index in indices], batch_first=True, padding_value=PAD)
        return ids, self.labels[list(indices)]  # (batch, words), (batch,)

    def subset(self, indices: Sequence[int] | Tensor) -> "EncodedTexts":
        """These texts alone, with the same vocabulary."""
        chosen = torch.as_tensor(indices).tolist()
        texts, ids = [self.texts[one] for one in chosen], [self.ids[one] for one in chosen]
        return replace(self, texts=texts, ids=ids, labels=self.labels[chosen])


def open_words(options: TextOptions) -> tuple[EncodedTexts, EncodedTexts]:
    """Opens labeled texts as numbers: the train and the test part, with the vocabulary of train.

    Raises:
        InputError: see `open_texts` and `read_vectors`; or no word occurs `min_freq` times.
    """
    parts = open_texts(
        options.data,
        text_column=options.text_column,
        label_column=options.label_column,
        encoding=options.encoding,
        seed=options.seed,
    )
    return as_numbers(parts, options)


def as_numbers(parts: tuple[Texts, Texts], options: TextOptions) -> tuple[EncodedTexts, EncodedTexts]:
    """The train and the test part as numbers, with the vocabulary of train.

    Raises:
        InputError: see `read_vectors`; or no word occurs `min_freq` times.
    """
    words, numbers, lengths = numbered((text for part in parts for text in part.texts), tokenize)
    longer = int((lengths > options.max_words).sum())
    if longer:
        tell(f"{longer} of {len(lengths)} texts are longer than {options.max_words} words: the rest is not read")
    of_train, of_test = lengths.split([len(part) for part in parts])
    cut = int(of_train.sum())
    counts = counted(numbers[:cut], len(words))
    vocabulary = Vocabulary(Counter(dict(zip(words, counts.tolist(), strict=True))), min_freq=options.min_freq)
    renumber_(numbers, torch.tensor([vocabulary.number.get(word, UNKNOWN) for word in words], dtype=torch.int32))
    vectors = None if options.vectors is None else read_vectors(options.vectors, vocabulary.words)

    def encoded(part: Texts, numbers: Tensor, lengths: Tensor) -> EncodedTexts:
        ids = Rows(numbers, lengths, longest=options.max_words, empty=UNKNOWN)
        return EncodedTexts(part.texts, ids, part.labels, part.classes, vocabulary, vectors=vectors)

    return encoded(parts[0], numbers[:cut], of_train), encoded(parts[1], numbers[cut:], of_test)


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
