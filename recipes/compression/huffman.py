"""Huffman codes: short words of bits for common symbols, long ones for rare; and files of weights made of them."""

import heapq
import itertools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from recipes.compression.files import load_tensors, own_tensors, read_tensors, require_row, write_tensors
from recipes.core.errors import InputError


def code_lengths(counts: Tensor) -> Tensor:
    """Bits of each symbol's word, 0 for one that never occurs: uint8 (symbols,).

    The two rarest groups of symbols are put together, which makes each of their words a bit longer, until
    one group is left.

    Args:
        counts: how often each symbol occurs (symbols,).
    """
    lengths = [0] * len(counts)
    order = itertools.count()  # decides between equal counts, the same way each time
    heap = [(count, next(order), [symbol]) for symbol, count in enumerate(counts.tolist()) if count]
    if len(heap) == 1:
        lengths[heap[0][2][0]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in first[2] + second[2]:
            lengths[symbol] += 1
        heapq.heappush(heap, (first[0] + second[0], next(order), first[2] + second[2]))
    return torch.tensor(lengths, dtype=torch.uint8)


def canonical_codes(lengths: Tensor) -> list[int]:
    """The words that these lengths stand for, so that a file need hold no more than the lengths.

    Shorter words come first, and words of one length in the order of the symbols; each is the one before
    plus one, with zeros added where words get longer: 0, 10, 110, 111.
    """
    codes, code, before = [0] * len(lengths), 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths.tolist()) if length):
        code <<= length - before
        codes[symbol], before, code = code, length, code + 1
    return codes


def huffman_encode(symbols: Tensor, lengths: Tensor) -> Tensor:
    """The symbols' words one after the other, eight bits to a byte: uint8 (bits / 8, rounded up)."""
    words, sizes = np.array(canonical_codes(lengths))[symbols.numpy()], lengths.numpy()[symbols.numpy()].astype(int)
    starts = sizes.cumsum() - sizes
    bits = np.zeros(sizes.sum(), dtype=np.uint8)
    for place in range(int(sizes.max(initial=0))):
        long = sizes > place
        bits[starts[long] + place] = words[long] >> (sizes[long] - 1 - place) & 1
    return torch.from_numpy(np.packbits(bits))


def huffman_decode(payload: Tensor, lengths: Tensor, count: int) -> Tensor:
    """The symbols that `huffman_encode` was given: int64 (count,).

    Which word would start there is found for every bit at once; the true starts follow from one another.

    Raises:
        InputError: the bits are no such words, or too few.
    """
    bits = np.unpackbits(payload.numpy()).astype(np.int64)
    sizes, codes = lengths.tolist(), canonical_codes(lengths)
    longest = max(sizes, default=0)
    padded = np.concatenate([bits, np.zeros(longest, dtype=np.int64)])
    found, word = np.full(len(bits), -1), np.zeros(len(bits), dtype=np.int64)
    for size in range(1, longest + 1):
        word = word << 1 | padded[size - 1 : size - 1 + len(bits)]
        symbols = [symbol for symbol, length in enumerate(sizes) if length == size]
        if symbols:  # in order, their words are consecutive numbers
            place = word - codes[symbols[0]]
            here = (found < 0) & (place >= 0) & (place < len(symbols))
            found[here] = np.array(symbols)[place[here]]
    answers: list[int] = []
    start, at = 0, found.tolist()
    for _ in range(count):
        if start >= len(at) or at[start] < 0:
            raise InputError(f"coded weights: expected words for {count} symbols, found {len(answers)}")
        answers.append(at[start])
        start += sizes[at[start]]
    return torch.tensor(answers, dtype=torch.long)


def save_shared(model: nn.Module, path: str | Path) -> None:
    """Writes a safetensors file of the model, with tensors of at most 256 values as these and Huffman words.

    A tensor for which that would take more bytes is written in full; tied tensors are written once.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in own_tensors(model).items():
        tensors[name] = tensor
        if tensor.dtype != torch.float32 or tensor.numel() < 64:
            continue
        values, indices = tensor.view(torch.int32).flatten().unique(return_inverse=True)  # bit patterns: -0 is not 0
        if len(values) <= 256:
            lengths = code_lengths(indices.bincount(minlength=len(values)))
            words = huffman_encode(indices, lengths)
            if words.nbytes + 5 * len(values) < tensor.nbytes:
                del tensors[name]
                tensors |= {f"{name}.values": values, f"{name}.lengths": lengths, f"{name}.words": words}
    write_tensors(tensors, path)


def load_shared(model: nn.Module, path: str | Path) -> None:
    """Reads a file of `save_shared` into a model of the same shape; what was tied in it stays tied.

    Raises:
        InputError: the file is not one, or is another network's.
    """
    stored = read_tensors(path)
    tensors: dict[str, Tensor] = {}
    try:
        for name, tensor in own_tensors(model).items():
            if name in stored:
                tensors[name] = stored.pop(name)
                continue
            values, lengths, words = (stored.pop(f"{name}.{part}") for part in ("values", "lengths", "words"))
            for row, dtype in ((values, torch.int32), (lengths, torch.uint8), (words, torch.uint8)):
                require_row(row, dtype)
            if not len(values) or len(values) != len(lengths) or lengths.max() > 62:  # bits of a word
                raise ValueError(f"{len(lengths)} lengths for {len(values)} values of {name}")
            indices = huffman_decode(words, lengths, tensor.numel())
            tensors[name] = values[indices].view(torch.float32).view(tensor.shape)
        load_tensors(model, tensors, stored)
    except (KeyError, RuntimeError, IndexError, ValueError, OverflowError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{path}: expected a file of this network with shared weights ({reason})") from None
