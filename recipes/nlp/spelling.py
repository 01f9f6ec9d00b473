"""Words read by their letters: what they share with words spelled alike."""

import functools
import zlib

import torch
from torch import Tensor

BUCKETS = 4096


@functools.cache
def pieces(word: str) -> Tensor:
    """Numbers of the word's runs of three letters and of itself, (pieces,), as fastText has them.

    "good" falls into <go, goo, ood, od> and <good>; a slip of a key changes some of them and leaves the others.
    """
    marked = f"<{word}>"
    parts = [marked, *(marked[start : start + 3] for start in range(len(marked) - 2))]
    return torch.tensor([1 + zlib.crc32(part.encode()) % (BUCKETS - 1) for part in parts])  # 0 is for padding
