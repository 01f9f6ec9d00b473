"""Few labelled passages: which topic each is from, told by classifiers that start from word vectors or do not."""

from collections.abc import Mapping, Sequence

import torch

from recipes.core.errors import InputError
from recipes.core.loading import holdout
from recipes.datasets.loading import few_of_each
from recipes.datasets.word_vectors import WordVectors, start_from
from recipes.nlp.text_classification.encoding import EncodedTexts, Vocabulary, tokenize
from recipes.nlp.text_classification.scoring import evaluate
from recipes.nlp.text_classification.task import MeanOfWords, MeanOfWordsOptions, train


def held_out_passages(
    topics: Mapping[str, Sequence[str]], *, count: int = 8, words: int = 10, seed: int = 0
) -> tuple[list[tuple[str, int]], list[tuple[str, int]], list[str]]:
    """Passages of the largest topics to tell apart: those to train on, a third to test on, and the topics' names.

    Args:
        topics: the passages of each.
        count: of topics, at most.
        words: that a passage must have.
        seed: of the draw.

    Raises:
        InputError: fewer than two topics have three such passages.
    """
    long = {name: [text for text in texts if len(tokenize(text)) >= words] for name, texts in topics.items()}
    names = sorted(sorted((name for name in long if len(long[name]) > 2), key=lambda name: -len(long[name]))[:count])
    if len(names) < 2:
        raise InputError(f"expected two topics or more with three passages of {words} words, found {len(names)}")
    labelled = [(text, label) for label, name in enumerate(names) for text in long[name]]
    parts = holdout(torch.tensor([label for _, label in labelled]), 1 / 3, seed)
    train_part, test_part = ([labelled[index] for index in part.tolist()] for part in parts)
    return train_part, test_part, names


def encoded_passages(passages: Sequence[tuple[str, int]], names: list[str], vocabulary: Vocabulary) -> EncodedTexts:
    texts, labels = zip(*passages, strict=True)
    return EncodedTexts(
        list(texts), [vocabulary.encode(text) for text in texts], torch.tensor(labels), names, vocabulary
    )


def with_few_labels(
    vectors: WordVectors,
    train_set: EncodedTexts,
    test_set: EncodedTexts,
    *,
    labels: int,
    trainings: int,
    epochs: int,
    device: torch.device,
    seed: int,
) -> dict[str, list[float]]:
    """Accuracy of classifiers that see so many passages of each topic, by what their word vectors start from.

    The same vectors given to the wrong words are the control: they have the right size and mean nothing.
    """
    table = vectors.table - vectors.table.mean(dim=0)  # what all words share tells nothing
    table = 0.3 * table / table.std()
    dealt = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
    own, wrong = WordVectors(vectors.words, table), WordVectors(vectors.words, table[dealt])
    starts = {
        "random start": (None, False),
        "wrong words' vectors, kept": (wrong, True),
        "the vectors, tuned": (own, False),
        "the vectors, kept": (own, True),
    }
    accuracies: dict[str, list[float]] = {name: [] for name in starts}
    for number in range(seed, seed + trainings):
        shown = few_of_each(train_set.labels, labels, number).tolist()
        texts, ids = ([part[index] for index in shown] for part in (train_set.texts, train_set.ids))
        few = EncodedTexts(texts, ids, train_set.labels[shown], train_set.classes, train_set.vocabulary)
        for name, (start, kept) in starts.items():
            torch.manual_seed(number)
            model = MeanOfWords(len(few.vocabulary), len(few.classes), embedding_size=table.shape[1])
            if start is not None:
                start_from(model.embedding, few.vocabulary.words, start)
            model.embedding.weight.requires_grad_(not kept)
            lr = 5e-2 if kept else 1e-2
            options = MeanOfWordsOptions(epochs=epochs, batch_size=20, lr=lr, device=device, seed=number)
            train(model.to(device), few, few, options)
            accuracies[name].append(evaluate(model, test_set, device)["accuracy"])
    return accuracies
