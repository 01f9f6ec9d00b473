"""Recipes for what all training stands on."""

from recipes.catalog import submodules

__getattr__ = submodules(__name__)
