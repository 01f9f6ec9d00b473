"""Where a copy keeps its data."""

from pathlib import Path


def bundled(name: str) -> Path:
    """The folder of that data set, in the folder `data` beside this file."""
    return Path(__file__).parent / "data" / name
