"""Image classification: the task with a small network, and one module an architecture."""

from recipes.catalog import submodules
from recipes.vision.classification.models import named_model
from recipes.vision.classification.scoring import draw, evaluate, linear_classifier, majority
from recipes.vision.classification.task import SmallCNN, build, run, train

__getattr__ = submodules(__name__)
