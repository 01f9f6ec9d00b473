"""How classifiers of texts are measured, and the baselines without a network."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.evaluation import predict
from recipes.core.result import Result
from recipes.datasets.texts import Texts
from recipes.nlp.text_classification.encoding import EncodedTexts, shuffled, tokenize


def evaluate(model: nn.Module, dataset: EncodedTexts, device: torch.device) -> dict[str, float]:
    """Accuracy, F1 (see `f1_score`) and mean cross-entropy (nats) over the whole set."""
    logits = torch.stack(predict(model, dataset, device))  # (N, num_classes)
    loss = F.cross_entropy(logits, dataset.labels).item()
    return scores(logits.argmax(dim=1), dataset.labels, len(dataset.classes)) | {"loss": loss}


def accuracy_in_disorder(result: Result) -> float:
    """Accuracy of a result's model on its test texts with the words of each in random order."""
    device = next(result.model.parameters()).device
    return accuracy_on(result.model, shuffled(result.test_set), device)


def accuracy_on(model: nn.Module, dataset: Any, device: torch.device) -> float:
    """The share of a set's texts whose label is the model's first choice; the set has `labels` (N,)."""
    predicted = torch.stack(predict(model, dataset, device)).argmax(dim=1)
    return (predicted == dataset.labels).double().mean().item()


def scores(predicted: Tensor, labels: Tensor, num_classes: int) -> dict[str, float]:
    """Accuracy and F1 of predicted classes (N,) against labels (N,)."""
    accuracy = (predicted == labels).double().mean().item()
    return {"accuracy": accuracy, "f1": f1_score(predicted, labels, num_classes)}


def f1_score(predicted: Tensor, labels: Tensor, num_classes: int) -> float:
    """The harmonic mean of precision and recall: of the rarer of two classes, else the mean over all."""
    said = torch.bincount(predicted, minlength=num_classes)
    true = torch.bincount(labels, minlength=num_classes)
    hits = torch.bincount(labels[predicted == labels], minlength=num_classes)
    f1 = 2 * hits.double() / (said + true).clamp(min=1)  # = 2 / (1 / precision + 1 / recall)
    if num_classes == 2:
        return f1[int(true[1] <= true[0])].item()
    return f1[said + true > 0].mean().item()


def majority(train_set: EncodedTexts | Texts, test_set: EncodedTexts | Texts) -> dict[str, float]:
    """The baseline that reads nothing: the commonest class, and the loss of the classes' shares."""
    shares = torch.bincount(train_set.labels, minlength=len(train_set.classes)) / len(train_set)
    labels = test_set.labels
    loss = -shares.clamp(min=1e-9).log()[labels].mean().item()
    return scores(shares.argmax().expand(len(labels)), labels, len(shares)) | {"loss": loss}


def linear_svm(train_set: Any, test_set: Any, *, longest: int = 2) -> dict[str, float]:
    """The baseline without a network: how often `svm_answers` are right."""
    return scores(svm_answers(train_set, test_set, longest=longest), test_set.labels, len(test_set.classes))


def svm_answers(train_set: Any, test_set: Any, *, longest: int = 2) -> Tensor:
    """Classes (N,) by TF-IDF of all runs of up to `longest` words, and a linear SVM."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    vectorizer = TfidfVectorizer(tokenizer=tokenize, token_pattern=None, lowercase=False, ngram_range=(1, longest))
    classifier = LinearSVC(random_state=0).fit(vectorizer.fit_transform(train_set.texts), train_set.labels.numpy())
    return torch.from_numpy(classifier.predict(vectorizer.transform(test_set.texts)))
