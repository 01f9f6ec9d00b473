"""Recipes for pictures and video."""

from recipes.catalog import submodules

__getattr__ = submodules(__name__)
