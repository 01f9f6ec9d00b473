"""Few labeled passages: classifiers that learn which topic each is from."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.core.frame import Loop, Options, batches_by_length
from recipes.datasets.loading import few_of_each
from recipes.datasets.texts import Texts
from recipes.datasets.word_vectors import WordVectors, start_from
from recipes.nlp.near_words import known_words
from recipes.nlp.text_classification.encoding import EncodedTexts, Vocabulary
from recipes.nlp.text_classification.scoring import accuracy_on, linear_svm
from recipes.nlp.text_classification.task import MeanOfWords


def few_texts(texts: Texts, samples: int, seed: int) -> Texts:
    """So many texts of each class, drawn with the seed."""
    return texts.subset(few_of_each(texts.labels, samples, seed))


def accuracy_from_few(
    table: Tensor, vocabulary: Vocabulary, train_set: Texts, test_set: Texts, samples: int, seed: int, times: int = 20
) -> float:
    """The mean over so many linear classifiers on the mean vector of a text, each from a few texts of its own.

    Args:
        table: a vector of each word, (words, size).
        vocabulary: of the words.
        train_set: what the texts are drawn from.
        test_set: to measure on.
        samples: texts of each class.
        seed: of the first draw; the others count up.
        times: classifiers.
    """
    ids = [known_words(part.texts, vocabulary) for part in (train_set, test_set)]
    starts = [torch.tensor([0, *map(len, part)]).cumsum(dim=0)[:-1] for part in ids]
    table = table - table.mean(dim=0)  # what all words share tells nothing
    known, unseen = (F.embedding_bag(torch.cat(a), table, b, mode="mean") for a, b in zip(ids, starts, strict=True))
    known, unseen = F.normalize(known, dim=1), F.normalize(unseen, dim=1)  # (texts, size) each
    right = 0.0
    for number in range(seed, seed + times):
        chosen = few_of_each(train_set.labels, samples, number)
        x, y = known[chosen], F.one_hot(train_set.labels[chosen], len(train_set.classes)).float()
        # ridge regression in closed form: W = Xᵀ (X Xᵀ + I)⁻¹ (Y - its mean)
        weights = x.T @ torch.linalg.solve(x @ x.T + torch.eye(len(x)), y - y.mean(dim=0))
        right += ((unseen @ weights).argmax(dim=1) == test_set.labels).double().mean().item()
    return right / times


def svm_from_few(train_set: Texts, test_set: Texts, samples: int, seed: int, *, times: int = 20) -> float:
    """The mean accuracy of so many linear SVMs on words, each from a few texts of its own: seeds count up."""
    found = [linear_svm(few_texts(train_set, samples, one), test_set, longest=1) for one in range(seed, seed + times)]
    return sum(one["accuracy"] for one in found) / times


def svm_by_letters(train_set: Texts, test_set: Texts) -> float:
    """Accuracy of TF-IDF on runs of two to four letters, and a linear SVM."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4))
    classifier = LinearSVC(random_state=0).fit(vectorizer.fit_transform(train_set.texts), train_set.labels.numpy())
    answers = torch.from_numpy(classifier.predict(vectorizer.transform(test_set.texts)))
    return (answers == test_set.labels).double().mean().item()


def classifiers_from_few(
    table: Tensor, vocabulary: Vocabulary, train_set: Texts, test_set: Texts, samples: int, seed: int, *, times: int = 8
) -> dict[str, float]:
    """The mean accuracy of networks (see `MeanOfWords`) that learn from a few texts, by what their vectors start from.

    The same vectors given to the wrong words are the control: they have the right size and mean nothing.

    Args:
        table: a vector of each word, (words, size).
        vocabulary: of the words.
        train_set: what the texts are drawn from.
        test_set: to measure on.
        samples: texts of each class.
        seed: of the first draw; the others count up.
        times: networks for each start.
    """

    def encoded(part: Texts) -> EncodedTexts:
        return EncodedTexts(
            part.texts, [vocabulary.encode(text) for text in part.texts], part.labels, part.classes, vocabulary
        )

    table = table[2:] - table[2:].mean(dim=0)  # what all words share tells nothing
    table = 0.3 * table / table.std()
    dealt = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
    words = vocabulary.words[2:]
    starts: dict[str, WordVectors | None] = {
        "random start": None,
        "wrong words' vectors": WordVectors(words, table[dealt]),
    }
    starts["the vectors"] = WordVectors(words, table)
    accuracies: dict[str, Sequence[float]] = {name: [] for name in starts}
    asked, device = encoded(test_set), torch.device("cpu")
    for number in range(seed, seed + times):
        few = encoded(few_texts(train_set, samples, number))
        options = Options(epochs=40, batch_size=20, lr=1e-2, device=device, seed=number)
        for name, start in starts.items():
            torch.manual_seed(number)
            model = MeanOfWords(len(vocabulary), len(few.classes), embedding_size=table.shape[1])
            if start is not None:
                start_from(model.embedding, vocabulary.words, start)
            optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, fused=True)
            loop = Loop(model, optimizer, batches_by_length(few, options), options)
            for ids, labels in loop:
                loop.step(F.cross_entropy(loop.model(ids), labels))
            accuracies[name] = [*accuracies[name], accuracy_on(model, asked, device)]
    return {name: sum(found) / times for name, found in accuracies.items()}
