"""From text to batches by torchtext, beside today's torch, and by tokenizers.

torchtext ended with version 0.18. Its tokenizer and its vocabulary still work, and much code stands on them, but
since torch 2.4 importing it fails at its compiled half; `load_torchtext` mends that. A classifier is trained on its
numbers; on those of the library `tokenizers`, which is what to move to, all is the same to the bit.

The API before 0.9 is gone for good (the table shows how each name fails). What was called
- `Field(tokenize, lower, …)` is a tokenizer, a vocabulary and a `collate_fn` that pads;
- `field.build_vocab(train, min_freq, vectors)` is `build_vocab_from_iterator`, and rows copied into an embedding;
- `LabelField` is a dictionary from a label to its number, `TabularDataset` is `csv` and any list of samples;
- `BucketIterator` is a `DataLoader` with a sampler that puts texts of similar length into a batch.

Notes: 43
Paper: PyTorch (2024), "torchtext 0.18", its last release, https://github.com/pytorch/text/releases/tag/v0.18.0
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from recipes.core.figures import draw_curves, new_figure
from recipes.core.frame import Claim, Loop, Result, batches, batches_by_length, main, option, recipe
from recipes.core.task import first_inputs
from recipes.datasets.texts import Texts, open_texts
from recipes.datasets.word_vectors import WordVectors, read_vectors, start_from
from recipes.nlp.text_classification.encoding import PAD, UNKNOWN, TextOptions
from recipes.nlp.text_classification.scoring import accuracy_in_disorder, accuracy_on, linear_svm
from recipes.nlp.text_classification.text_cnn import TextCNN
from recipes.nlp.text_classification.using import TextClassification
from recipes.nlp.torchtext_stand_in import load_torchtext, missing_for_torchtext

SPECIALS = ["<pad>", "<unk>"]
Encoder = Callable[[str], list[int]]


@dataclass(kw_only=True)
class TorchtextPipelineOptions(TextOptions):
    library: Literal["auto", "torchtext", "tokenizers"] = option(
        "auto", "what makes numbers of the texts: torchtext, tokenizers, or auto, torchtext if it is installed"
    )
    by_length: bool = option(True, "batches of texts of similar length, as BucketIterator made them")
    embedding_size: int = option(32, "numbers in a token's vector, if no file of vectors is given", least=1)
    filters: int = option(96, "of the convolutions over two, three and four tokens, in all", least=3)
    epochs: int = 4
    batch_size: int = 50
    lr: float = 6e-3


def by_torchtext(texts: Sequence[str], min_freq: int) -> tuple[Encoder, list[str]]:
    """A function from a text to the numbers of its tokens, and all tokens in their order."""
    load_torchtext()  # from here on its Python half can be imported
    from torchtext.data import get_tokenizer
    from torchtext.vocab import build_vocab_from_iterator

    tokenizer = get_tokenizer("basic_english")
    vocab = build_vocab_from_iterator(map(tokenizer, texts), min_freq=min_freq, specials=SPECIALS)
    vocab.set_default_index(vocab["<unk>"])  # what is not known becomes that, instead of an error
    return lambda text: vocab(tokenizer(text)), vocab.get_itos()


def by_tokenizers(texts: Sequence[str], min_freq: int) -> tuple[Encoder, list[str]]:
    """The same by the library `tokenizers`: a normalizer, a pre-tokenizer, a model and its trainer."""
    from tokenizers import trainers

    tokenizer = basic_english({})
    trainer = trainers.WordLevelTrainer(min_frequency=min_freq, special_tokens=SPECIALS, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    return lambda text: tokenizer.encode(text).ids, sorted(ids, key=ids.__getitem__)


def basic_english(vocabulary: dict[str, int]) -> Any:
    """torchtext's tokenizer of that name, as one of `tokenizers`: lower case, no quotes, other marks by themselves."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    apart = [normalizers.Replace(mark, f" {mark} ") for mark in "'.,()!?"]
    gone = [normalizers.Replace('"', ""), normalizers.Replace("<br />", " "), normalizers.Replace(Regex("[;:]"), " ")]
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *gone, *apart])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


@dataclass
class NumberedTexts:
    """Texts as numbers; a batch is padded to its longest, as a collate function would.

    Attributes:
        texts: N strings.
        ids: N tensors (tokens,).
        labels: (N,) indices into `classes`.
        classes: names.
        vocabulary: the known tokens.
        vectors: pretrained ones of tokens in the vocabulary, if there are any.
    """

    texts: list[str]
    ids: list[Tensor]
    labels: Tensor
    classes: list[str]
    vocabulary: list[str]
    vectors: WordVectors | None = None

    @property
    def vector_size(self) -> int | None:
        return None if self.vectors is None else self.vectors.table.shape[1]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        ids = pad_sequence([self.ids[index] for index in indices], batch_first=True, padding_value=PAD)
        return ids, self.labels[list(indices)]  # (batch, tokens), (batch,)


def open_numbered(options: TorchtextPipelineOptions) -> list[NumberedTexts]:
    """The train and the test part as numbers, by the tokens of the train part."""
    columns: dict[str, Any] = {"text_column": options.text_column, "label_column": options.label_column}
    parts = open_texts(options.data, **columns, encoding=options.encoding, seed=options.seed)
    library = options.library
    if library == "auto":
        library = "tokenizers" if missing_for_torchtext() else "torchtext"
    ways = {"torchtext": by_torchtext, "tokenizers": by_tokenizers}
    encode, tokens = ways[library](parts[0].texts, options.min_freq)
    vectors = read_vectors(options.vectors, tokens) if options.vectors else None
    return [numbered(part, encode, tokens, options.max_words, vectors) for part in parts]


def numbered(
    part: Texts, encode: Encoder, tokens: list[str], most: int = 256, vectors: WordVectors | None = None
) -> NumberedTexts:
    ids = [torch.tensor(encode(text)[:most] or [UNKNOWN]) for text in part.texts]
    return NumberedTexts(part.texts, ids, part.labels, part.classes, tokens, vectors)


def build(options: TorchtextPipelineOptions, data: Any) -> TextCNN:
    """The network for these tokens and classes."""
    size = data.vector_size or options.embedding_size
    sizes: dict[str, Any] = {"embedding_size": size, "windows": (2, 3, 4), "filters": options.filters}
    return TextCNN(len(data.vocabulary), len(data.classes), **sizes)


def train(
    model: nn.Module, train_set: NumberedTexts, test_set: NumberedTexts, options: TorchtextPipelineOptions
) -> Loop:
    """Minimizes the cross-entropy with AdamW."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=options.lr),
        batches_by_length(train_set, options) if options.by_length else batches(train_set, options),
        options,
        evaluate=lambda: {"accuracy": accuracy_on(model, test_set, options.device)},
    )
    for ids, labels in loop:
        loop.step(F.cross_entropy(loop.model(ids), labels))
    return loop


@recipe(TorchtextPipelineOptions)
def run(options: TorchtextPipelineOptions) -> Result:
    """Trains a classifier on the numbers of one library and measures it on held-out texts."""
    train_set, test_set = open_numbered(options)
    model = build(options, train_set)
    if train_set.vectors is not None:
        start_from(model.embedding, train_set.vocabulary, train_set.vectors)
    loop = train(model.to(options.device), train_set, test_set, options)
    return Result(
        metrics={"accuracy": accuracy_on(model, test_set, options.device)},
        baseline=linear_svm(train_set, test_set, longest=3),
        baseline_name="linear SVM on runs of 1 to 3 words",
        bars={"accuracy": 0.92},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


OLD_NAMES = {
    "Field": "a tokenizer, a vocabulary and a collate_fn",
    "LabelField": "a dictionary",
    "TabularDataset": "csv and a list",
    "BucketIterator": "a DataLoader with a sampler by length",
}


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    accuracy, counted = result["accuracy"], result.baseline["accuracy"]
    yield Claim("it beats counted words, pairs and triples", accuracy, ">", counted, margin=0.05)
    disorder = accuracy_in_disorder(result)
    yield Claim("it reads the order: shuffling each test text's tokens hurts it", disorder, "<", accuracy, margin=0.1)
    options = TorchtextPipelineOptions(**result.options | {"device": "cpu", "out": None, "checkpoint": None})
    for by_length, name in ((True, "texts of similar length"), (False, "any texts")):
        loader = (batches_by_length if by_length else batches)(result.train_set, options)
        result.rows.append({"batches of": name, "share of padding": padding(loader)})
    if not missing_for_torchtext():
        old, new = (open_numbered(replace(options, library=name)) for name in ("torchtext", "tokenizers"))
        differ = sum(a != b for a, b in zip(old[0].vocabulary, new[0].vocabulary, strict=False))
        for one, other in zip(old, new, strict=True):
            differ += sum(not torch.equal(a, b) for a, b in zip(one.ids, other.ids, strict=True))
        yield Claim("tokens and texts whose numbers differ by the two libraries", differ, "<=", 0, kind="fact")
        data = load_torchtext().data
        for name, today in OLD_NAMES.items():
            result.rows.append({"before 0.9": f"torchtext.data.{name}", "in 0.18": outcome(data, name), "today": today})
        left = sum(hasattr(data, name) for name in OLD_NAMES)
        yield Claim("of the API before 0.9, nothing is left", left, "<=", 0, kind="fact")


def outcome(module: Any, name: str) -> str:
    """What comes of asking the module for this name."""
    try:
        getattr(module, name)
    except AttributeError as error:
        return type(error).__name__
    return "there"


def padding(loader: Any) -> float:
    """The share of padding in all that the batches hold."""
    ids = [batch[0] for batch in loader]
    return sum(int((one == PAD).sum()) for one in ids) / sum(one.numel() for one in ids)


@run.figure
def figure(result: Result) -> Any:
    """The curve, how long the texts are, and how much of the batches is padding in either order."""
    figure, axes = new_figure(1, 3, width=3.8, height=3.2)
    draw_curves(axes[0, 0], result.history, ["loss", "accuracy"])
    lengths = [len(ids) for ids in result.train_set.ids]
    axes[0, 1].hist(lengths, bins=range(max(lengths) + 2), color="tab:blue")
    axes[0, 1].set(xlabel="tokens of a text", ylabel="texts")
    shares = {row["batches of"]: row["share of padding"] for row in result.rows if "batches of" in row}
    bars = axes[0, 2].bar(list(shares), list(shares.values()), color="tab:blue", width=0.5)
    axes[0, 2].bar_label(bars, fmt="%.3f", padding=2)
    axes[0, 2].set(ylabel="share of padding in the batches")
    for one in axes[0]:
        one.spines[["top", "right"]].set_visible(False)
    return figure


class TokenClassification(TextClassification):
    """Texts to classes by their tokens, which `tokenizers` finds whichever library found them in training."""

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        known, example = result.train_set, first_inputs(result.test_set)
        names = {"classes": list(known.classes), "vocabulary": list(known.vocabulary)}
        return cls(**names, max_words=options.max_words, vector_size=known.vector_size, example=example)

    @cached_property
    def tokenizer(self) -> Any:
        return basic_english({token: number for number, token in enumerate(self.vocabulary)})

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        ids = [torch.tensor(self.tokenizer.encode(text).ids[: self.max_words] or [UNKNOWN]) for text in items]
        return (pad_sequence(ids, batch_first=True, padding_value=PAD),)


run.predicts(TokenClassification, build)


if __name__ == "__main__":
    main(run)
