"""Image classification: the task with a small network, and one module an architecture."""

from recipes.catalog import submodules
from recipes.vision.classification.task import SmallCNN, build_model, draw, evaluate, majority, run, train

__getattr__ = submodules(__name__)
