"""Recipes for text."""

from recipes.catalog import submodules

__getattr__ = submodules(__name__)
