"""Files of pruned weights that share few values: the zeros between them and the values, both in Huffman's words."""

from functools import reduce
from pathlib import Path

import torch
from torch import nn

from recipes.compression.files import load_tensors, own_tensors, read_tensors, with_gaps, write_tensors
from recipes.compression.huffman import code_lengths, huffman_decode, huffman_encode
from recipes.compression.weight_pruning import prunable
from recipes.core.errors import InputError


def save_coded(model: nn.Module, path: str | Path) -> None:
    """Writes a safetensors file of a model whose layers have few different weights, most of them zero.

    Each weight that is not zero is two symbols: the number of zeros before it, and the rank of its value among those of
    its layer. One code serves for all layers. Other tensors are written in full.

    Raises:
        InputError: a layer has more than 256 different weights.
    """
    weights = {name: weight.detach().cpu() for name, weight in prunable(model).items()}
    dtype = reduce(torch.promote_types, (weight.dtype for weight in weights.values()))
    tables = [weight.unique().to(dtype) for weight in weights.values()]
    if max(len(table) for table in tables) > 256:
        raise InputError("model: expected at most 256 different weights in each layer; share_weights sees to it")
    values = nn.utils.rnn.pad_sequence(tables, batch_first=True, padding_value=torch.inf)  # (layers, values)
    kept, gaps = with_gaps(torch.cat([weight.flatten() for weight in weights.values()]))
    positions = (gaps.long() + 1).cumsum(0) - 1
    ends = torch.tensor([weight.numel() for weight in weights.values()]).cumsum(0)  # of each layer's weights
    layers = torch.bucketize(positions, ends, right=True)
    ranks = (values[layers] < kept[:, None]).sum(dim=1)
    tensors = {name: tensor for name, tensor in own_tensors(model).items() if name not in weights}
    for name, symbols in (("gaps", gaps.long()), ("ranks", ranks)):
        lengths = code_lengths(symbols.bincount())
        tensors |= {f"{name}.lengths": lengths, f"{name}.words": huffman_encode(symbols, lengths)}
    write_tensors(tensors | {"values": values, "counts": torch.tensor([len(gaps), int(ends[-1])])}, path)


def load_coded(model: nn.Module, path: str | Path) -> None:
    """Reads a file of `save_coded` into a model of the same shape.

    Raises:
        InputError: the file is not one, or is another network's.
    """
    stored = read_tensors(path)
    weights = prunable(model)
    try:
        values, (count, size) = stored.pop("values"), stored.pop("counts").tolist()
        words = [(stored.pop(f"{name}.words"), stored.pop(f"{name}.lengths")) for name in ("gaps", "ranks")]
        gaps, ranks = (huffman_decode(payload, lengths, count) for payload, lengths in words)
        positions = (gaps + 1).cumsum(0) - 1
        ends = torch.tensor([weight.numel() for weight in weights.values()]).cumsum(0)
        if size != int(ends[-1]):
            raise ValueError(f"{size} weights, expected {int(ends[-1])}")
        dtype = reduce(torch.promote_types, (weight.dtype for weight in weights.values()))
        flat = torch.zeros(size, dtype=dtype)
        flat[positions] = values[torch.bucketize(positions, ends, right=True), ranks]
        parts = flat.split([weight.numel() for weight in weights.values()])
        named = zip(weights.items(), parts, strict=True)
        shaped = {name: part.view(weight.shape).to(weight.dtype) for (name, weight), part in named}
        left = {name: tensor for name, tensor in stored.items() if name not in own_tensors(model)}
        load_tensors(model, stored | shaped, left)
    except (KeyError, RuntimeError, IndexError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{path}: expected a coded file of this network ({reason})") from None
