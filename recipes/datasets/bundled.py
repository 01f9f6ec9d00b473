"""Finds the small data sets that come with this library."""

import os
from pathlib import Path

from recipes.core.errors import InputError

INSTEAD = "RECIPES_DATA"  # this variable of the environment names a folder of others, also for started processes


def bundled(name: str) -> Path:
    """Path of the bundled data set `name`.

    It is looked for in the folder that `RECIPES_DATA` names, if it is set, or else in a folder `data` beside this
    file or above it: that is where a checkout, an installed package and a copied recipe each keep it.
    """
    folders = [parent / "data" for parent in list(Path(__file__).resolve().parents)[:3]]
    if INSTEAD in os.environ:
        folders = [Path(os.environ[INSTEAD])]
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    raise InputError(f"the bundled data set {name!r} is missing: expected it in {folders[0]}")
