"""Recipes that make models smaller and faster."""

from recipes.catalog import submodules

__getattr__ = submodules(__name__)
