"""Text classification: the task with the mean of word vectors, and one module an architecture."""

from recipes.catalog import submodules
from recipes.nlp.text_classification.encoding import EncodedTexts, Vocabulary, open_encoded, shuffled, tokenise
from recipes.nlp.text_classification.task import MeanOfWords, draw, evaluate, linear_svm, majority, run, train

__getattr__ = submodules(__name__)
