"""Word vectors: a word is known by the company it keeps.

Words that stand among the same words mean similar things, so their neighbours alone can place them. Skip-gram
(word2vec) learns to tell the words that did stand near a word from words drawn at random: a classifier, whose
weights are the vectors. GloVe counts first how often each two words stand near each other, and fits vectors whose
products are the logarithms of these counts. Neither needs labels, only text. A classifier with few labelled texts
then starts from what the rest has told already: which words are alike. To ask the vectors, words and their forms in
-s serve ("value" and "values"), whose kinship no one has told them.

Notes: 85
Paper: Mikolov, Sutskever, Chen, Corrado, Dean (2013), "Distributed Representations of Words and Phrases and their
    Compositionality", https://arxiv.org/abs/1310.4546; Pennington, Socher, Manning (2014), "GloVe: Global Vectors
    for Word Representation", https://aclanthology.org/D14-1162
Data: the language reference that every Python carries; yours as a folder with a text file for each topic.
"""

from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import rank_and_world, setup
from recipes.core.errors import InputError
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.passages import open_passages
from recipes.datasets.word_vectors import WordVectors, read_vectors, write_vectors
from recipes.nlp.few_labels import encoded_passages, held_out_passages, with_few_labels
from recipes.nlp.near_words import (
    CountedPairs,
    NeighbourPairs,
    common_words,
    counted,
    known_words,
    near_pairs,
    noise,
    thinned,
)
from recipes.nlp.related_words import (
    analogy_rank,
    draw_words,
    likeness,
    mutual_information,
    nearest,
    neighbour_rank,
    pairs_in_s,
)


class SkipGram(nn.Module):
    """Two vectors for each word: as the word in the middle, and as a neighbour.

    Args:
        vocabulary_size: words that are known.
        width: numbers in a vector.
    """

    def __init__(self, vocabulary_size: int, width: int) -> None:
        super().__init__()
        self.middle = nn.Embedding(vocabulary_size, width)
        self.near = nn.Embedding(vocabulary_size, width)
        nn.init.normal_(self.middle.weight, std=0.1)
        nn.init.zeros_(self.near.weight)

    def forward(self, words: Tensor, neighbours: Tensor) -> Tensor:
        """Log-odds that each of the neighbours (batch, k) did stand near its word (batch,): (batch, k)."""
        return (self.near(neighbours) @ self.middle(words)[:, :, None])[:, :, 0]

    def vectors(self) -> Tensor:
        return self.middle.weight.detach()


def negative_sampling(scores: Tensor) -> Tensor:
    """The mean loss of scores (batch, 1 + drawn): the true neighbour's first, those of words drawn at random after."""
    # -log σ(u_o · v) - Σ_k log σ(-u_k · v)
    return -(F.logsigmoid(scores[:, 0]) + F.logsigmoid(-scores[:, 1:]).sum(dim=1)).mean()


class GloVe(nn.Module):
    """Two vectors and two biases for each word, whose sum is to be the logarithm of a count."""

    def __init__(self, vocabulary_size: int, width: int) -> None:
        super().__init__()
        self.middle, self.near = (nn.Embedding(vocabulary_size, width) for _ in range(2))
        self.middle_bias, self.near_bias = (nn.Embedding(vocabulary_size, 1) for _ in range(2))
        for table in (self.middle, self.near, self.middle_bias, self.near_bias):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, pairs: Tensor) -> Tensor:
        """The logarithm of each pair's count, as far as the vectors tell it: (batch, 2) to (batch,)."""
        words, neighbours = pairs.unbind(1)
        products = (self.middle(words) * self.near(neighbours)).sum(dim=1)
        return products + self.middle_bias(words)[:, 0] + self.near_bias(neighbours)[:, 0]

    def vectors(self) -> Tensor:
        return (self.middle.weight + self.near.weight).detach()


def weighted_least_squares(expected: Tensor, counts: Tensor, *, enough: float = 10.0) -> Tensor:
    """The mean of f(X) (w · u + b + c - log X)²: rare pairs count less, and none more than one met `enough` times."""
    weights = (counts / enough).clamp(max=1) ** 0.75
    return (weights * (expected - counts.log()) ** 2).mean()


def train_skip_gram(
    model: SkipGram,
    pairs: NeighbourPairs,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    **engine: Unpack[Engine],
) -> OldLoop:
    """Tells true neighbours from drawn ones, with Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    loader = old_batches(pairs, batch_size, seed=seed)
    loop = OldLoop(
        model, optimizer, loader, epochs=epochs, device=device, schedule=one_cycle, name="skip_gram", **engine
    )
    for words, neighbours in loop:
        loss = negative_sampling(loop.model(words, neighbours))
        loop.step(loss)
    return loop


def train_glove(
    model: GloVe,
    pairs: CountedPairs,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    **engine: Unpack[Engine],
) -> OldLoop:
    """Fits the logarithms of the counts, with AdaGrad, as the paper does."""
    optimizer = torch.optim.Adagrad(model.parameters(), lr=lr)
    loader = old_batches(pairs, batch_size, seed=seed)
    loop = OldLoop(model, optimizer, loader, epochs=epochs, device=device, name="glove", **engine)
    for words, counts in loop:
        loss = weighted_least_squares(loop.model(words), counts)
        loop.step(loss)
    return loop


@old_recipe
def run(
    *,
    data: str | None = None,
    vectors: str | None = None,
    min_freq: int = 5,
    width: int = 64,
    window: int = 5,
    drawn: int = 5,
    labels: int = 3,
    trainings: int = 8,
    epochs: int = 8,
    batch_size: int = 1024,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains word vectors in two ways, asks which words they hold for alike, and starts classifiers from them.

    Args:
        data: folder of your texts in English, a file *.txt for each topic; the reference of Python if not given.
        vectors: text file of vectors (GloVe's format) for the classifiers to start from, instead of those learned here.
        min_freq: times a word must occur to get a vector; the 8,000 commonest get one at most.
        width: numbers in a vector.
        window: how many places apart two words count as near.
        drawn: words drawn at random for each true neighbour.
        labels: passages of each topic that the classifiers see.
        trainings: classifiers that every accuracy is the mean of.
        epochs: passes over the pairs of near words; the classifiers make five times as many over their few passages.
        batch_size: pairs in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule; GloVe's AdaGrad takes ten times as much.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the words drawn, and of the first choice of labelled passages; the others count up.
        out: folder for result.json, figure.png, model.safetensors, and vectors.txt in GloVe's format.
    """
    if min(width, window, drawn, labels, trainings) < 1:
        raise InputError(
            "options width, window, drawn, labels and trainings: expected whole numbers of at least 1, "
            f"got {width}, {window}, {drawn}, {labels} and {trainings}"
        )
    place = setup(device, seed)
    topics = open_passages(data)
    labelled, asked, names = held_out_passages(topics, seed=seed)
    hidden = {text for text, _ in asked}
    passages = [text for texts in topics.values() for text in texts if text not in hidden]
    vocabulary = common_words(passages, min_freq)
    given = read_vectors(vectors, vocabulary.words) if vectors is not None else None
    words, forms = vocabulary.words[2:], pairs_in_s(vocabulary.words[2:])  # without padding and the unknown word
    ids = known_words(passages, vocabulary)
    pairs, distances = near_pairs(ids, window)
    often = torch.bincount(torch.cat(ids), minlength=len(vocabulary))
    near = counted(pairs, distances, len(vocabulary))

    shared: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "device": place, "seed": seed}
    learned = NeighbourPairs(thinned(pairs, distances, often, window=window), noise(often), drawn)
    skip_gram, glove = SkipGram(len(vocabulary), width), GloVe(len(vocabulary), width)
    loop = train_skip_gram(skip_gram, learned, lr=lr, **shared, **engine)
    train_glove(glove, CountedPairs(near.nonzero(), near[near > 0]), lr=10 * lr, **shared, **engine)

    tables = {
        "random": torch.randn(len(words), width),
        "counts": near[2:, 2:],
        "mutual information": mutual_information(near[2:, 2:]),
        "GloVe": glove.vectors()[2:].cpu(),
        "skip-gram": skip_gram.vectors()[2:].cpu(),
    }
    rows: list[dict[str, Any]] = []
    example = words[int(forms[0, 0])]
    for name, table in tables.items():
        alike = likeness(table)
        found = {"neighbours": neighbour_rank(alike, forms), "analogies": analogy_rank(alike, forms)}
        rows.append({"vectors": name, **found, f"most like “{example}”": nearest(alike, words, example)})
    blind = analogy_rank(alike, forms, offset=False)  # of skip-gram, the last one
    chance, counts, information, by_glove, by_skip_gram = (row["neighbours"] for row in rows)
    start = WordVectors(words, tables["skip-gram"])
    if out is not None and rank_and_world()[0] == 0:
        write_vectors(Path(out) / "vectors.txt", start)
    train_set, test_set = (encoded_passages(part, names, vocabulary) for part in (labelled, asked))
    times: dict[str, Any] = {"labels": labels, "trainings": trainings, "epochs": 5 * epochs}
    few = with_few_labels(given or start, train_set, test_set, **times, device=place, seed=seed)
    at_random, of_wrong_words, tuned, kept = (sum(accuracies) / trainings for accuracies in few.values())
    return Result(
        metrics={"neighbours": by_skip_gram, "accuracy": kept},
        baseline={"neighbours": counts, "accuracy": at_random},
        baseline_name="counts; random start",
        bars={"neighbours": 0.07, "accuracy": 0.38},
        claims=[
            claim(
                "skip-gram puts a form in -s near its word: mean of 1 / rank, beside chance", by_skip_gram, ">", chance
            ),
            claim("better than the counts of near words do", by_skip_gram, ">", counts),
            claim("GloVe puts it near, too", by_glove, ">", chance),
            claim("skip-gram, which also learns which words never met, does better", by_skip_gram, ">", by_glove),
            claim("with so little text, a plain table of mutual information is ahead", information, ">", by_skip_gram),
            claim(
                "analogies: adding a difference finds more than asking for neighbours",
                rows[-1]["analogies"],
                ">",
                blind,
            ),
            claim(f"with {labels} labels a topic, starting from vectors beats a random start", tuned, ">", at_random),
            claim("keeping them as they are does so, too", kept, ">", at_random),
            claim("since they are the words' own: the same vectors on wrong words do worse", of_wrong_words, "<", kept),
        ],
        history=loop.history,
        rows=rows,
        model=skip_gram,
        draw=lambda: draw_words(rows, tables["skip-gram"], words, forms, few),
    )


if __name__ == "__main__":
    main(run)
