"""Recipes for sound."""

from recipes.catalog import submodules

__getattr__ = submodules(__name__)
