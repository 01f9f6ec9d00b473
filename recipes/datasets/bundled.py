"""Finds the small data sets that come with this library."""

from pathlib import Path

from recipes.core.errors import InputError


def bundled(name: str) -> Path:
    """Path of the bundled data set `name`.

    It is looked for in a folder `data` beside this file or above it: that is where a checkout, an
    installed package and a copied recipe each keep it.
    """
    for folder in list(Path(__file__).resolve().parents)[:3]:
        if (folder / "data" / name).exists():
            return folder / "data" / name
    raise InputError(f"the bundled data set {name!r} is missing: expected it in {Path(__file__).parent / 'data'}")
