"""From text to batches by torchtext, beside today's torch, and by tokenizers.

torchtext ended with version 0.18. Its tokenizer and its vocabulary still serve, and much code stands on them, but
its compiled half stops any torch after 2.3 at the import; `load_torchtext` mends that. The run trains a classifier on
their numbers, and the same one on those of the library `tokenizers`, which is what to move to: the numbers are the
same, and so is all that follows.

The API before 0.9 is gone for good. What was called
- `Field(tokenize, lower, …)` is a tokenizer, a vocabulary and a `collate_fn` that pads;
- `field.build_vocab(train, min_freq, vectors)` is `build_vocab_from_iterator`, and rows copied into an embedding;
- `LabelField` is a dictionary from a label to its number, `TabularDataset` is `csv` and any list of samples;
- `BucketIterator` is a `DataLoader` with a sampler that puts texts of similar length into a batch.

Notes: 43
Paper: PyTorch (2024), "torchtext 0.18", its last release, https://github.com/pytorch/text/releases/tag/v0.18.0
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.figures import draw_curves, new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.texts import Texts, open_texts
from recipes.nlp.text_classification.encoding import PAD, batches_by_length
from recipes.nlp.text_classification.scoring import accuracy_on, majority
from recipes.nlp.text_classification.text_cnn import TextCNN
from recipes.nlp.torchtext_stand_in import load_torchtext, missing_for_torchtext

SPECIALS = ["<pad>", "<unk>"]
Encoder = Callable[[str], list[int]]


def by_torchtext(texts: Sequence[str], min_freq: int) -> tuple[Encoder, list[str]]:
    """A function from a text to the numbers of its tokens, and all tokens in their order."""
    load_torchtext()  # from here on its Python half can be imported
    from torchtext.data import get_tokenizer
    from torchtext.vocab import build_vocab_from_iterator

    tokenizer = get_tokenizer("basic_english")
    vocab = build_vocab_from_iterator(map(tokenizer, texts), min_freq=min_freq, specials=SPECIALS)
    vocab.set_default_index(vocab["<unk>"])  # what is not known is that, instead of an error
    return lambda text: vocab(tokenizer(text)), vocab.get_itos()


def by_tokenizers(texts: Sequence[str], min_freq: int) -> tuple[Encoder, list[str]]:
    """The same by the library `tokenizers`: a normalizer, a pre-tokenizer, a model and its trainer."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    # What "basic_english" does: quotes and breaks go, other marks stand alone, ";" and ":" are spaces.
    apart = [normalizers.Replace(mark, f" {mark} ") for mark in "'.,()!?"]
    gone = [normalizers.Replace('"', ""), normalizers.Replace("<br />", " "), normalizers.Replace(Regex("[;:]"), " ")]
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *gone, *apart])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(min_frequency=min_freq, special_tokens=SPECIALS, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    return lambda text: tokenizer.encode(text).ids, sorted(ids, key=ids.__getitem__)


@dataclass
class NumberedTexts:
    """Texts as numbers; asked for many at a time, it pads them to the longest, as a collate function would.

    Attributes:
        ids: N tensors (tokens,).
        labels: (N,).
    """

    ids: list[Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        ids = pad_sequence([self.ids[index] for index in indices], batch_first=True, padding_value=PAD)
        return ids, self.labels[list(indices)]  # (batch, tokens), (batch,)


def numbered(texts: Texts, encode: Encoder) -> NumberedTexts:
    unknown = [SPECIALS.index("<unk>")]
    return NumberedTexts([torch.tensor(encode(text) or unknown) for text in texts.texts], texts.labels)


def train(
    model: nn.Module,
    train_set: NumberedTexts,
    test_set: NumberedTexts,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    name: str = "model",
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises the cross-entropy with AdamW; gives the loop, whose history follows the test part."""
    loop = OldLoop(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr),
        batches_by_length(train_set, batch_size, seed=seed),  # what `BucketIterator` gave
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        evaluate=lambda: {"accuracy": accuracy_on(model, test_set, device)},
        name=name,
        **engine,
    )
    for ids, labels in loop:
        loss = F.cross_entropy(loop.model(ids), labels)
        loop.step(loss)
    return loop


def padding(old_batches: DataLoader) -> float:
    """The share of padding in all that the batches hold."""
    ids = [batch[0] for batch in old_batches]
    return sum(int((one == PAD).sum()) for one in ids) / sum(one.numel() for one in ids)


def draw(history: list[dict[str, float]], dataset: NumberedTexts, shares: dict[str, float]) -> Any:
    """The curve, how long the texts are, and how much of the batches is padding in either order."""
    figure, axes = new_figure(1, 3, width=3.8, height=3.2)
    draw_curves(axes[0, 0], history, ["loss", "accuracy"])
    lengths = [len(ids) for ids in dataset.ids]
    axes[0, 1].hist(lengths, bins=range(max(lengths) + 2), color="tab:blue")
    axes[0, 1].set(xlabel="tokens of a text", ylabel="texts")
    bars = axes[0, 2].bar(list(shares), list(shares.values()), color="tab:blue", width=0.5)
    axes[0, 2].bar_label(bars, fmt="%.3f", padding=2)
    axes[0, 2].set(ylabel="share of padding in the batches")
    for place in axes[0]:
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str = "utf-8",
    min_freq: int = 2,
    width: int = 32,
    filters: int = 96,
    epochs: int = 4,
    batch_size: int = 50,
    lr: float = 6e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains one classifier on torchtext's numbers and one on those of tokenizers, and compares all they give.

    Args:
        data: folder or file of your texts, or hf:NAME; the bundled reviews if not given.
        text_column: name of the column of texts, if it is not a usual one.
        label_column: name of the column of labels, if it is not a usual one.
        encoding: of the files of texts, such as latin-1.
        min_freq: times a token must occur in the train texts to be known.
        width: numbers in a token's vector.
        filters: of the convolutions over two, three and four tokens, in all.
        epochs: passes over the train texts.
        batch_size: texts in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the texts, and of the split of a single file.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    columns = {"text_column": text_column, "label_column": label_column}
    train_texts, test_texts = open_texts(data, **columns, encoding=encoding, seed=seed)
    ways = {"torchtext": by_torchtext, "tokenizers": by_tokenizers}
    lacking = missing_for_torchtext()
    rows: list[dict[str, Any]] = []
    found: dict[str, list[Any]] = {}
    for name, way in ways.items():
        if name == "torchtext" and lacking:
            rows.append({"numbers by": f"torchtext: {lacking}", "tokens known": None, "accuracy": None})
            continue
        encode, tokens = way(train_texts.texts, min_freq)
        train_set, test_set = numbered(train_texts, encode), numbered(test_texts, encode)
        torch.manual_seed(seed)
        shape: dict[str, Any] = {"embedding_size": width, "windows": (2, 3, 4), "filters": filters}
        model = TextCNN(len(tokens), len(train_texts.classes), **shape).to(place)
        shared: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "device": place, "seed": seed}
        loop = train(model, train_set, test_set, **shared, name=name, **engine)
        accuracy = accuracy_on(model, test_set, place)
        rows.append({"numbers by": name, "tokens known": len(tokens), "accuracy": accuracy})
        found[name] = [tokens, [ids.tolist() for ids in (*train_set.ids, *test_set.ids)], accuracy]
    shares = {
        "as it comes": padding(old_batches(train_set, batch_size, seed=seed)),
        "similar length": padding(batches_by_length(train_set, batch_size, seed=seed)),
    }
    claims = [
        claim("batches of similar length hold less padding", shares["similar length"], "<", shares["as it comes"])
    ]
    if not lacking:
        theirs, ours = found.values()
        tokens_differ = sum(one != other for one, other in zip_longest(theirs[0], ours[0]))
        texts_differ = sum(one != other for one, other in zip(theirs[1], ours[1], strict=True))
        claims += [
            claim("tokens that have another number by tokenizers than by torchtext", tokens_differ, "<=", 0),
            claim("texts, of train and of test, whose numbers differ", texts_differ, "<=", 0),
            claim("difference of the two classifiers' accuracies", abs(theirs[2] - ours[2]), "<=", 0),
        ]
    return Result(
        metrics={"accuracy": accuracy},
        baseline=majority(train_texts, test_texts),
        baseline_name="majority class",
        bars={"accuracy": 0.9},
        claims=claims,
        rows=rows,
        history=loop.history,
        model=model,
        draw=lambda: draw(loop.history, train_set, shares),
    )


if __name__ == "__main__":
    main(run)
