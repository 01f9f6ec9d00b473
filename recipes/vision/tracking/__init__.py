"""Tracking: following an object from its box in the first frame."""

from recipes.catalog import submodules
from recipes.vision.tracking.following import follow
from recipes.vision.tracking.task import Siamese, build, run, train

__getattr__ = submodules(__name__)
