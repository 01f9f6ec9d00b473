"""Runnable PyTorch recipes: each small, offline, and measured.

`names()` lists the recipes, `load(name)` imports one, `run(name, **options)` runs it. Importing this
package imports no torch.
"""

from typing import Any

from recipes.catalog import load, names

__all__ = ["load", "names", "run"]


def run(name: str, **options: Any) -> Any:
    """Runs the recipe of that name, such as "vision.classification", and gives its `Result`."""
    return load(name).run(**options)
