"""Word vectors: a word is known by the company it keeps.

Words that appear among the same words mean similar things, so a word's neighbors alone can tell its meaning. Skip-gram
(word2vec) learns to tell the words that did appear near a word from words drawn at random: a classifier, whose
weights are the vectors. GloVe first counts how often each two words appear near each other, then fits vectors whose
products are the logarithms of these counts. Neither needs labels, only text. A classifier with few labeled texts
then starts from what all the others have told: which words are alike.

From three labeled passages of each topic, a linear classifier on the mean of a passage's vectors beats one on its
words. Words and their forms in -s ("value" and "values"), whose kinship nothing has told them, are near each other;
but on so little text a plain table of mutual information, with a column for each word, does nearly as well and finds
more of these forms, GloVe does badly, and analogies (value is to values as tree is to …) hardly work.

`--out FOLDER` also writes vectors.txt, which the classifiers of texts start from with `--vectors FOLDER/vectors.txt`.

Notes: 85
Paper: Mikolov, Sutskever, Chen, Corrado, Dean (2013), "Distributed Representations of Words and Phrases and their
    Compositionality", https://arxiv.org/abs/1310.4546; Pennington, Socher, Manning (2014), "GloVe: Global Vectors
    for Word Representation", https://aclanthology.org/D14-1162
Data: the bundled reference of the Python language; yours as a folder with a text file for each topic.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import draw_curves, new_figure
from recipes.core.frame import Claim, Loop, Options, Result, batches, main, option, recipe
from recipes.datasets.passages import open_labeled_passages
from recipes.datasets.word_vectors import read_vectors, start_from
from recipes.nlp.few_labels import accuracy_from_few, classifiers_from_few, svm_from_few
from recipes.nlp.near_words import DrawnPairs, NearWords, count_near, likeness, mutual_information
from recipes.nlp.nearest_words import NearestWords


@dataclass(kw_only=True)
class WordVectorsOptions(Options):
    method: Literal["skip_gram", "glove"] = option("skip_gram", "how the vectors are learned: skip_gram or glove")
    size: int = option(128, "numbers in a vector, if no file of vectors is given", least=1)
    vectors: str | None = option(None, "text file of word vectors (GloVe's format) for the words to start from")
    min_freq: int = option(5, "times a word must occur to get a vector; the 8,000 commonest get one at most", least=1)
    window: int = option(5, "how many positions apart two words count as near", least=1)
    negatives: int = option(5, "words drawn at random for each true neighbor", least=1)
    labels: int = option(3, "passages of each topic that the classifiers learn from", least=1)
    epochs: int = 8
    batch_size: int = 1024


class SkipGram(nn.Module):
    """Two vectors for each word: as the word in the middle, and as a neighbor."""

    def __init__(self, vocabulary_size: int, size: int) -> None:
        super().__init__()
        self.middle, self.near = (nn.Embedding(vocabulary_size, size) for _ in range(2))
        nn.init.normal_(self.middle.weight, std=0.1)
        nn.init.zeros_(self.near.weight)

    def forward(self, words: Tensor, neighbors: Tensor) -> Tensor:
        """Log-odds that each of the neighbors (batch, k) did appear near its word (batch,): (batch, k)."""
        return (self.near(neighbors) @ self.middle(words)[:, :, None])[:, :, 0]

    def vectors(self) -> Tensor:
        return self.middle.weight.detach()


def negative_sampling(scores: Tensor) -> Tensor:
    """The mean loss of scores (batch, 1 + drawn): the true neighbor's first, those of words drawn at random after."""
    # -log σ(u_o · v) - Σ_k log σ(-u_k · v)
    return -(F.logsigmoid(scores[:, 0]) + F.logsigmoid(-scores[:, 1:]).sum(dim=1)).mean()


class GloVe(nn.Module):
    """Two vectors and two biases for each word, whose sum is to be the logarithm of a count."""

    def __init__(self, vocabulary_size: int, size: int) -> None:
        super().__init__()
        self.middle, self.near = (nn.Embedding(vocabulary_size, size) for _ in range(2))
        self.middle_bias, self.near_bias = (nn.Embedding(vocabulary_size, 1) for _ in range(2))
        for table in (self.middle, self.near, self.middle_bias, self.near_bias):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, pairs: Tensor) -> Tensor:
        """The logarithm of each pair's count, as far as the vectors tell it: (batch, 2) to (batch,)."""
        words, neighbors = pairs.unbind(1)
        products = (self.middle(words) * self.near(neighbors)).sum(dim=1)
        return products + self.middle_bias(words)[:, 0] + self.near_bias(neighbors)[:, 0]

    def vectors(self) -> Tensor:
        return (self.middle.weight + self.near.weight).detach()


def weighted_least_squares(expected: Tensor, counts: Tensor, *, enough: float = 10.0) -> Tensor:
    """The mean of f(X) (w · u + b + c - log X)²: rare pairs count less, and none more than one met `enough` times."""
    weights = (counts / enough).clamp(max=1) ** 0.75
    return (weights * (expected - counts.log()) ** 2).mean()


def build(options: WordVectorsOptions, data: Any) -> SkipGram | GloVe:
    """The vectors of this vocabulary's words."""
    kind = SkipGram if options.method == "skip_gram" else GloVe
    return kind(len(data.vocabulary), data.vector_size or options.size)


def train(model: nn.Module, train_set: NearWords, options: WordVectorsOptions) -> Loop:
    """Skip-gram tells true neighbors from drawn ones, with Adam; GloVe fits the counts, with AdaGrad."""
    skip_gram = options.method == "skip_gram"
    if skip_gram:
        optimizer: Any = torch.optim.Adam(model.parameters(), lr=options.lr, fused=True)
    else:
        optimizer = torch.optim.Adagrad(model.parameters(), lr=10 * options.lr)
    pairs = DrawnPairs(train_set, options.negatives) if skip_gram else train_set
    loop = Loop(model, optimizer, batches(pairs, options), options, name=options.method)
    for words, others in loop:  # others: the neighbors, or the counts
        outputs = loop.model(words, others) if skip_gram else loop.model(words)
        loop.step(negative_sampling(outputs) if skip_gram else weighted_least_squares(outputs, others))
    return loop


@recipe(WordVectorsOptions)
def run(options: WordVectorsOptions) -> Result:
    """Learns word vectors, and measures what they tell of words and of held-out passages."""
    labeled, test_set, passages = open_labeled_passages(options.data, seed=options.seed)
    train_set = count_near(passages, options.min_freq, options.window)
    if options.vectors is not None:
        train_set.vectors = read_vectors(options.vectors, train_set.vocabulary.words)
    model = build(options, train_set)
    if train_set.vectors is not None:
        start_from(model.middle, train_set.vocabulary.words, train_set.vectors)
    loop = train(model.to(options.device), train_set, options)
    known = model.vectors().cpu(), train_set.vocabulary
    return Result(
        metrics={"accuracy": accuracy_from_few(*known, labeled, test_set, options.labels, options.seed)},
        baseline={"accuracy": svm_from_few(labeled, test_set, options.labels, options.seed)},
        baseline_name="linear SVM on words",
        bars={"accuracy": 0.45},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result, glove = run(), run(method="glove")
    near, vectors = result.train_set, result.model.vectors().cpu()
    labels, seed = result.options["labels"], result.seed
    labeled, test_set, _ = open_labeled_passages(result.options["data"], seed=seed)
    counts = torch.zeros(len(near.vocabulary), len(near.vocabulary))
    counts[tuple(near.pairs.T)] = near.counts
    tables = {
        "random": torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed)),
        "counts": counts,
        "mutual information": mutual_information(counts),
        "GloVe": glove.model.vectors().cpu(),
        "skip-gram": vectors,
    }
    for name, table in tables.items():
        few = accuracy_from_few(table, near.vocabulary, labeled, test_set, labels, seed)
        result.rows.append({"vectors": name, "accuracy": few} | ranks(table, near.vocabulary.words))
    accuracy = result["accuracy"]
    text = f"from {labels} labels a topic, a linear classifier on vectors beats one on words"
    yield Claim(text, accuracy, ">", result.baseline["accuracy"], margin=0.02)
    text = "and beats one on the vectors of GloVe, which learns from the pairs that are there alone"
    yield Claim(text, accuracy, ">", glove["accuracy"], margin=0.05)
    started = classifiers_from_few(vectors, near.vocabulary, labeled, test_set, labels, seed)
    at_random, of_wrong_words, of_own = started.values()
    result.rows += [{"vectors": f"network: {name}", "accuracy": one} for name, one in started.items()]
    yield Claim("a network that starts from the vectors beats a random start", of_own, ">", at_random, margin=0.03)
    text = "since they are the words' own: the same vectors given to the wrong words do worse"
    yield Claim(text, of_wrong_words, "<", of_own, margin=0.03)
    by_name = {row["vectors"]: row.get("form in -s", 0.0) for row in result.rows}
    if by_name["skip-gram"]:
        text = "a word's form in -s is nearer to it than by the counts themselves: mean of 1 / rank"
        yield Claim(text, by_name["skip-gram"], ">", by_name["counts"], margin=0.01)


def ranks(table: Tensor, words: Sequence[str]) -> dict[str, float]:
    """How well a word's form in -s is found, alone and by analogy, as means of 1 / rank; nothing without such forms."""
    alike, pairs = likeness(table), pairs_in_s(words)
    if len(pairs) < 2:
        return {}
    near = reciprocal_rank(alike[pairs[:, 0]].scatter(1, pairs[:, :1], -torch.inf), pairs[:, 1])  # not its own neighbor
    total = 0.0
    for index, (word, form) in enumerate(pairs.tolist()):  # a is to as what b is to …: nearest to b + as - a
        others = torch.cat([pairs[:index], pairs[index + 1 :]])
        scores = alike[others[:, 0]] + alike[form] - alike[word]  # a cosine with a sum is a sum of cosines
        scores[:, [word, form]] = -torch.inf  # the words of the question are no answers
        total += reciprocal_rank(scores.scatter(1, others[:, :1], -torch.inf), others[:, 1])
    return {"form in -s": near, "by analogy": total / len(pairs)}


def pairs_in_s(words: Sequence[str], most: int = 200) -> Tensor:
    """Numbers of the first `most` words that come with and without an s, such as "value" and "values": (pairs, 2)."""
    number = {word: row for row, word in enumerate(words)}
    stems = [word for word in words if len(word) > 3 and word.isalpha() and f"{word}s" in number]
    return torch.tensor([[number[word], number[f"{word}s"]] for word in stems[:most]]).view(-1, 2)


def reciprocal_rank(scores: Tensor, right: Tensor) -> float:
    """The mean of 1 / r, where the right answer of each row (N,) has the r-th highest of its scores (N, words)."""
    ranks = 1 + (scores > scores.gather(1, right[:, None])).sum(dim=1)
    return (1 / ranks.double()).mean().item()


@run.figure
def figure(result: Result) -> Any:
    """The loss, words and their forms in -s in the plane, and how good each table of vectors is."""
    figure, axes = new_figure(1, 3, width=4.6, height=4.0)
    draw_curves(axes[0, 0], result.history)
    words = result.train_set.vocabulary.words
    pairs = pairs_in_s(words)[:9]
    shown = pairs.flatten() if len(pairs) else torch.arange(2, min(20, len(words)))
    unit = F.normalize(result.model.vectors().cpu(), dim=1)[shown]
    plane = torch.linalg.svd(unit - unit.mean(dim=0), full_matrices=False)
    points = (plane.U[:, :2] * plane.S[:2]).tolist()
    axes[0, 1].scatter(*zip(*points, strict=True), s=6)
    for number, point in zip(shown.tolist(), points, strict=True):
        axes[0, 1].annotate(words[number], point, fontsize=8, ha="center")
    for start, end in zip(points[::2], points[1::2], strict=False):
        if len(pairs):
            axes[0, 1].annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "tab:gray"})
    axes[0, 1].margins(0.15)
    axes[0, 1].set_title("the vectors in the plane", fontsize=10)
    rows = result.rows or [{"vectors": "as given"} | result.metrics]
    for shift, key in ((-0.2, "accuracy"), (0.2, "form in -s")):
        heights = {number + shift: row[key] for number, row in enumerate(rows) if key in row}
        bars = axes[0, 2].barh(list(heights), list(heights.values()), height=0.38, label=key)
        axes[0, 2].bar_label(bars, fmt="%.3f", padding=2, fontsize=7)
    axes[0, 2].set_yticks(range(len(rows)), [row["vectors"] for row in rows], fontsize=8)
    axes[0, 2].margins(x=0.2)
    axes[0, 2].set_ylim(len(rows) - 0.4, -1.2)
    axes[0, 2].legend(frameon=False, loc="upper right", ncols=2, fontsize=8)
    for one in axes[0]:
        one.spines[["top", "right"]].set_visible(False)
    return figure


run.predicts(NearestWords, build)


if __name__ == "__main__":
    main(run)
