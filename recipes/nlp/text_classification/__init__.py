"""Text classification: the task with the mean of word vectors, and one module an architecture."""

from recipes.catalog import submodules
from recipes.nlp.text_classification.encoding import (
    EncodedTexts,
    TextOptions,
    Vocabulary,
    open_words,
    shuffled,
    tokenize,
)
from recipes.nlp.text_classification.scoring import evaluate, linear_svm, majority
from recipes.nlp.text_classification.task import MeanOfWords, run, train

__getattr__ = submodules(__name__)
