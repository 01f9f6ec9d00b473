"""Image classification: the task with a small network, and one module an architecture."""

from recipes.catalog import submodules
from recipes.vision.classification.scoring import draw, evaluate, majority
from recipes.vision.classification.task import SmallCNN, build, run, train
from recipes.vision.networks import named_model
from recipes.vision.pixels import linear_classifier, nearest_neighbor

__getattr__ = submodules(__name__)
