"""Makes `data/digits`: scikit-learn's copy of the UCI handwritten digits, as IDX files like MNIST's.

    python data/make_digits.py

The files hold no date and are not compressed, so that they come out the same, byte by byte, on any machine.
"""

import struct
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TEST = 360  # a fifth, drawn at random with as many of each digit as in the whole


def write_idx(path: Path, values: np.ndarray) -> None:
    """Writes an array of uint8 as an IDX file: type and number of dimensions, the sizes, the bytes."""
    path.write_bytes(struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes())


def make(folder: Path) -> None:
    """Writes the four files into `folder`: images (N, 8, 8) and labels (N,) of both parts."""
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)  # counts 0..16 of inked dots to 0..255
    labels = digits.target.astype(np.uint8)
    train, test = train_test_split(np.arange(len(labels)), test_size=TEST, stratify=labels, random_state=0)
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", train), ("t10k", test)):
        write_idx(folder / f"{part}-images-idx3-ubyte", images[rows])
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels[rows])


if __name__ == "__main__":
    make(Path(__file__).resolve().parent / "digits")
