"""Runnable PyTorch recipes: each small, offline, and measured.

`names()` lists the recipes, `load(name)` imports one, `run(name, **options)` runs it, `trained(folder)` opens a
model that one has written. Importing this package imports no torch.
"""

import logging
from typing import TYPE_CHECKING, Any

from recipes.catalog import load, names

if TYPE_CHECKING:
    from recipes.using import Trained

# transformers imports torchao where it is installed, and that makes torch warn of what no user can mend.
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)

__version__ = "0.2.0"
__all__ = ["load", "names", "run", "trained"]


def run(name: str, **options: Any) -> Any:
    """Runs the recipe of that name, such as "vision.classification", and returns its `Result`."""
    return load(name).run(**options)


def trained(folder: Any, **options: Any) -> "Trained":
    """Opens the model that a recipe has written to `folder`; see `recipes.using.trained`."""
    from recipes import using

    return using.trained(folder, **options)
