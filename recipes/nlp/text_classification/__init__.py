"""Text classification: the task with the mean of word vectors, and one module an architecture."""

from recipes.catalog import submodules

__getattr__ = submodules(__name__)
