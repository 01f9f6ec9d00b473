"""Text classification by the mean of word vectors.

A text becomes words, words become numbers, and each number looks up a vector that is learned. The mean
of a text's vectors goes through one linear layer (fastText). It is the plainest neural classifier, quick
and hard to beat on long texts, but a mean knows nothing of order: "good, not bad" is "bad, not good" to
it. The run measures what that costs.

Notes: 85
Paper: Joulin, Grave, Bojanowski, Mikolov (2016), "Bag of Tricks for Efficient Text Classification",
    https://arxiv.org/abs/1607.01759
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

from recipes.core.device import rank_and_world, setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, new_figure
from recipes.core.loop import Engine, Loop, one_cycle
from recipes.core.result import Claim, Result, recipe
from recipes.datasets.loading import as_is
from recipes.datasets.texts import Texts, open_texts
from recipes.options import main

PAD, UNKNOWN = 0, 1

# Scripts written without spaces (Thai and Lao, Burmese, Khmer, kana, Chinese characters), and emoji.
SINGLE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U0001f300-\U0003ffff"
# Accents and vowel signs (Hebrew, Arabic, scripts of India), which \w leaves out.
MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u065f\u0900-\u0963\u0966-\u0dff"
LETTER = rf"(?![{SINGLE}])[\w{MARKS}]"
TOKEN = re.compile(rf"[{SINGLE}]|(?:{LETTER})+(?:['’](?:{LETTER})+)*")


class MeanOfWords(nn.Module):
    """The mean of the words' vectors, then a linear layer."""

    def __init__(self, vocabulary_size: int, num_classes: int, *, width: int = 64) -> None:
        super().__init__()
        self.embedding = word_vectors(vocabulary_size, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        vectors = self.embedding(ids)  # (batch, words, width)
        lengths = (ids != PAD).sum(dim=1, keepdim=True)  # (batch, 1)
        return self.head(vectors.sum(dim=1) / lengths)  # (batch, num_classes)


def word_vectors(vocabulary_size: int, width: int) -> nn.Embedding:
    """Random vectors to start from; that of the padding is zero and stays so.

    They start ten times smaller than `nn.Embedding` makes them: a word seen twice keeps about the vector
    it had at first, and large ones would be noise that drowns what was learned.
    """
    embedding = nn.Embedding(vocabulary_size, width, padding_idx=PAD)
    with torch.no_grad():
        embedding.weight *= 0.1
    return embedding


def tokenise(text: str) -> list[str]:
    """The words in lower case, without punctuation: "Don't go!" gives ["don't", "go"].

    What is written without spaces (Chinese, Japanese, Thai …) falls into single characters.
    """
    return TOKEN.findall(unicodedata.normalize("NFKC", text).lower())


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
            raise InputError(f"option min_freq: no word occurs {min_freq} times, expected a smaller number")
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
        self.batches = len(lengths) // (self.share * self.world)  # the few that are left wait for another epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches * self.share

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        whole = self.share * self.world
        order = torch.randperm(len(self.lengths), generator=generator)[: self.batches * whole]
        pools = [pool[self.lengths[pool].argsort(stable=True)] for pool in order.split(50 * whole)]
        batches = torch.cat(pools).view(self.batches, whole)
        batches = batches[torch.randperm(self.batches, generator=generator)]
        return iter(batches[:, self.rank :: self.world].flatten().tolist())


def batches_by_length(dataset: EncodedTexts, batch_size: int, *, seed: int = 0) -> DataLoader:
    """Shuffled batches of texts of similar length; see `ByLength`."""
    sampler = ByLength(torch.tensor([len(ids) for ids in dataset.ids]), batch_size, seed=seed)
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=sampler.share,
        sampler=sampler,
        pin_memory=torch.cuda.is_available(),
        collate_fn=as_is,
    )


def train(
    model: nn.Module,
    train_set: EncodedTexts,
    test_set: EncodedTexts,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    **engine: Unpack[Engine],
) -> Loop:
    """Minimises the cross-entropy with AdamW; gives the loop, whose history follows the test part."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr),
        batches_by_length(train_set, batch_size, seed=seed),
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        evaluate=lambda: evaluate(model, test_set, device),
        **engine,
    )
    for ids, labels in loop:
        loss = F.cross_entropy(loop.model(ids), labels)
        loop.step(loss)
    return loop


def evaluate(model: nn.Module, dataset: EncodedTexts, device: torch.device) -> dict[str, float]:
    """Accuracy, F1 (see `f1_score`) and mean cross-entropy (nats) over the whole set."""
    logits = torch.stack(predict(model, dataset, device))  # (N, num_classes)
    loss = F.cross_entropy(logits, dataset.labels).item()
    return scores(logits.argmax(dim=1), dataset.labels, len(dataset.classes)) | {"loss": loss}


def scores(predicted: Tensor, labels: Tensor, num_classes: int) -> dict[str, float]:
    """Accuracy and F1 of predicted classes (N,) against labels (N,)."""
    accuracy = (predicted == labels).double().mean().item()
    return {"accuracy": accuracy, "f1": f1_score(predicted, labels, num_classes)}


def f1_score(predicted: Tensor, labels: Tensor, num_classes: int) -> float:
    """The harmonic mean of precision and recall: of the rarer of two classes, else the mean over all."""
    said = torch.bincount(predicted, minlength=num_classes)
    true = torch.bincount(labels, minlength=num_classes)
    hits = torch.bincount(labels[predicted == labels], minlength=num_classes)
    f1 = 2 * hits / (said + true).clamp(min=1)  # = 2 / (1 / precision + 1 / recall)
    if num_classes == 2:
        return f1[int(true[1] <= true[0])].item()
    return f1[said + true > 0].mean().item()


def majority(train_set: EncodedTexts, test_set: EncodedTexts) -> dict[str, float]:
    """The baseline that reads nothing: the commonest class, and the loss of the classes' shares."""
    shares = torch.bincount(train_set.labels, minlength=len(train_set.classes)) / len(train_set)
    labels = test_set.labels
    loss = -shares.clamp(min=1e-9).log()[labels].mean().item()
    return scores(shares.argmax().expand(len(labels)), labels, len(shares)) | {"loss": loss}


def linear_svm(train_set: EncodedTexts, test_set: EncodedTexts, *, longest: int = 2) -> dict[str, float]:
    """The baseline without a network: TF-IDF of all runs of up to `longest` words, and a linear SVM."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    vectorizer = TfidfVectorizer(tokenizer=tokenise, token_pattern=None, lowercase=False, ngram_range=(1, longest))
    classifier = LinearSVC(random_state=0).fit(vectorizer.fit_transform(train_set.texts), train_set.labels.numpy())
    predicted = torch.from_numpy(classifier.predict(vectorizer.transform(test_set.texts)))
    return scores(predicted, test_set.labels, len(test_set.classes))


def shuffled(dataset: EncodedTexts, *, seed: int = 0) -> EncodedTexts:
    """The same texts, the words of each in random order."""
    generator = torch.Generator().manual_seed(seed)
    return replace(dataset, ids=[ids[torch.randperm(len(ids), generator=generator)] for ids in dataset.ids])


def draw_confusion(axes: Any, predicted: Tensor, labels: Tensor, classes: list[str]) -> None:
    """How often each true class (a row) was taken for each class, as shares of the row."""
    count = len(classes)
    table = torch.bincount(labels * count + predicted, minlength=count * count).view(count, count).double()
    shares = table / table.sum(dim=1, keepdim=True).clamp(min=1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if count <= 10:
        axes.set_xticks(range(count), classes, rotation=30 if count > 3 else 0)
        axes.set_yticks(range(count), classes)
        for row, column in torch.cartesian_prod(torch.arange(count), torch.arange(count)).tolist():
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", color=colour)


def draw_evidence(axes: Any, names: Sequence[str], evidence: Tensor, title: str, count: int = 14) -> None:
    """Bars of the `count` names with the most evidence, (names,) numbers, for and against a class."""
    order = evidence.argsort()
    ends = torch.cat([order[: count // 2], order[-(count // 2) :]])
    values = evidence[ends]
    axes.barh(range(len(ends)), values.numpy(), color=["tab:blue" if value > 0 else "tab:orange" for value in values])
    axes.set_yticks(range(len(ends)), [names[index] for index in ends.tolist()])
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


@torch.no_grad()
def draw(model: MeanOfWords, dataset: EncodedTexts, device: torch.device, history: list[dict[str, float]]) -> Any:
    """The curve, the confusion matrix, and the words that speak loudest for and against a class."""
    predicted = torch.stack(predict(model, dataset, device)).argmax(dim=1)
    figure, axes = new_figure(1, 3, width=3.6, height=3.4)
    draw_curves(axes[0, 0], history, ["loss", "accuracy"])
    draw_confusion(axes[0, 1], predicted, dataset.labels, dataset.classes)
    # The head is linear, so each word adds its own share to the logits, whatever stands around it.
    evidence = (model.embedding.weight @ model.head.weight.T).cpu()  # (vocabulary, num_classes)
    evidence = evidence[:, -1] - evidence.mean(dim=1)
    draw_evidence(axes[0, 2], dataset.vocabulary.words, evidence, f"words for and against {dataset.classes[-1]!r}")
    return figure


@recipe
def run(
    *,
    data: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    min_freq: int = 2,
    max_words: int = 256,
    width: int = 64,
    epochs: int = 8,
    batch_size: int = 50,
    lr: float = 4e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a classifier and measures it on held-out texts.

    Args:
        data: folder or file of your texts, or hf:NAME; the bundled reviews if not given.
        text_column: name of the column of texts, if it is not a usual one.
        label_column: name of the column of labels, if it is not a usual one.
        min_freq: times a word must occur in the train texts to be known.
        max_words: words of a text that are read; the rest is left out.
        width: numbers in a word's vector.
        epochs: passes over the train texts.
        batch_size: texts in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the texts, and of the split of a single file.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    train_set, test_set = open_encoded(
        data, text_column=text_column, label_column=label_column, min_freq=min_freq, max_words=max_words, seed=seed
    )
    model = MeanOfWords(len(train_set.vocabulary), len(train_set.classes), width=width).to(place)
    loop = train(
        model, train_set, test_set, epochs=epochs, batch_size=batch_size, lr=lr, device=place, seed=seed, **engine
    )
    metrics = evaluate(model, test_set, place)
    disordered = evaluate(model, shuffled(test_set, seed=seed), place)["accuracy"]
    print(evaluate(model, train_set, place), linear_svm(train_set, test_set, longest=1), linear_svm(train_set, test_set, longest=2))
    return Result(
        metrics=metrics,
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.6},
        claims=[
            Claim("shuffled words", abs(disordered - metrics["accuracy"]), "<=", 0.002),
        ],
        history=loop.history,
        model=model,
        draw=lambda: draw(model, test_set, place, loop.history),
    )


if __name__ == "__main__":
    main(run)
