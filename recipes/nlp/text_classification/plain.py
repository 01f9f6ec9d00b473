"""What copies get in place of longer parts of this task."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from recipes.core.frame import Options, option, predict
from recipes.datasets.texts import open_texts
from recipes.datasets.word_vectors import WordVectors, read_vectors

PAD, UNKNOWN = 0, 1


def tokenize(text: str) -> list[str]:
    """The words in lower case, without punctuation; Chinese and Japanese falls into single characters."""
    single = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    return re.findall(rf"[{single}]|[^\W{single}]+(?:'[^\W{single}]+)*", text.lower().replace("’", "'"))


class Vocabulary:
    """The words of the train texts, commonest first, after padding (0) and the unknown word (1)."""

    def __init__(self, texts: Sequence[str], *, min_freq: int = 2) -> None:
        counts = Counter(word for text in texts for word in tokenize(text))
        known = sorted((-count, word) for word, count in counts.items() if count >= min_freq)
        self.words = ["<pad>", "<unk>", *(word for _, word in known)]
        self.number = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str, max_words: int = 256) -> Tensor:
        return torch.tensor([self.number.get(word, UNKNOWN) for word in tokenize(text)[:max_words]] or [UNKNOWN])


def word_vectors(vocabulary_size: int, size: int) -> nn.Embedding:
    """Random vectors to start from, small ones; that of the padding is zero and stays so."""
    embedding = nn.Embedding(vocabulary_size, size, padding_idx=PAD)
    with torch.no_grad():
        embedding.weight *= 0.1
    return embedding


@dataclass(kw_only=True)
class TextOptions(Options):
    text_column: str | None = option(None, "name of the column of texts, if it is not text")
    label_column: str | None = option(None, "name of the column of labels, if it is not label")
    encoding: str = option("utf-8-sig", "of the files of texts, such as latin-1")
    vectors: str | None = option(None, "text file of word vectors (GloVe's format) for the words to start from")
    min_freq: int = option(2, "times a word must occur in the train texts to be known")
    max_words: int = option(256, "words of a text that are read; the rest is left out")


class EncodedTexts:
    """Texts as numbers, and their labels (N,); a batch is padded to its longest."""

    def __init__(self, part: Any, options: TextOptions, vocabulary: Vocabulary, vectors: WordVectors | None) -> None:
        self.texts, self.labels, self.classes = part.texts, part.labels, part.classes
        self.ids = [vocabulary.encode(text, options.max_words) for text in part.texts]
        self.vocabulary, self.vectors = vocabulary, vectors
        self.vector_size = vectors.table.shape[1] if vectors else None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        ids = pad_sequence([self.ids[index] for index in indices], batch_first=True, padding_value=PAD)
        return ids, self.labels[list(indices)]  # (batch, words), (batch,)


def open_words(options: TextOptions) -> list[EncodedTexts]:
    """The train and the test part as numbers, with the vocabulary of train."""
    columns: dict[str, Any] = {"text_column": options.text_column, "label_column": options.label_column}
    return as_numbers(open_texts(options.data, **columns, encoding=options.encoding), options)


def as_numbers(parts: Sequence[Any], options: TextOptions) -> list[EncodedTexts]:
    """The train and the test part as numbers, with the vocabulary of train."""
    vocabulary = Vocabulary(parts[0].texts, min_freq=options.min_freq)
    vectors = read_vectors(options.vectors, vocabulary.words) if options.vectors else None
    return [EncodedTexts(part, options, vocabulary, vectors) for part in parts]


def evaluate(model: nn.Module, dataset: Any, device: Any) -> dict[str, float]:
    """Accuracy and mean cross-entropy (nats) over the whole set."""
    logits = torch.stack(predict(model, dataset, device))  # (N, num_classes)
    accuracy = (logits.argmax(dim=1) == dataset.labels).double().mean().item()
    return {"accuracy": accuracy, "loss": F.cross_entropy(logits, dataset.labels).item()}
