"""Files of networks: every number in full, or without the zeros."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from recipes.core.errors import InputError
from recipes.core.files import write_whole


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a file must hold to bring the model back: its state dict on the CPU, tied tensors once."""
    kept = dict(model.named_parameters()) | dict(model.named_buffers())
    state = model.state_dict()
    return {name_in_file(name): tensor.cpu().contiguous() for name, tensor in state.items() if name in kept}


def name_in_file(name: str) -> str:
    """A tensor's name in a file: what a weight is computed from is called after it, as `head.weight0`."""
    return re.sub(r"(^|\.)parametrizations\.(\w+)\.original(\d*)$", r"\1\2\3", name)


def file_bytes(model: nn.Module, save: Callable[[nn.Module, Path], object]) -> int:
    """Size of the file that `save` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(model, path)
        return path.stat().st_size


def save_dense(model: nn.Module, path: str | Path) -> None:
    """Writes a safetensors file of the model, every number in full."""
    write_tensors(own_tensors(model), path)


def save_sparse(model: nn.Module, path: str | Path) -> None:
    """Writes a safetensors file of the model in which zeros are left out where that makes it smaller.

    Such a tensor is stored as its other values in order, and a bit for every position: 1 where a value
    belongs. That takes 1/32 of what the numbers took, and the numbers that are left.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in own_tensors(model).items():
        values = tensor[tensor != 0]
        bits = torch.from_numpy(np.packbits((tensor != 0).flatten().numpy()))  # uint8 (numbers / 8, rounded up)
        if values.nbytes + bits.nbytes < tensor.nbytes:
            tensors |= {f"{name}.values": values, f"{name}.bits": bits}
        else:
            tensors[name] = tensor
    write_tensors(tensors, path)


def load_sparse(model: nn.Module, path: str | Path) -> None:
    """Reads a file of `save_sparse` into a model of the same shape, whatever that held before.

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
            values, bits = stored.pop(f"{name}.values"), stored.pop(f"{name}.bits")
            require_row(values, tensor.dtype)
            require_row(bits, torch.uint8)
            mask = torch.from_numpy(np.unpackbits(bits.numpy())[: tensor.numel()]).bool().view(tensor.shape)
            if int(mask.sum()) != len(values):
                raise ValueError(f"{len(values)} numbers for {int(mask.sum())} places in {name}")
            tensors[name] = torch.zeros(tensor.shape, dtype=values.dtype).masked_scatter_(mask, values)
        load_tensors(model, tensors, stored)
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{path}: expected a file of this network, saved sparsely ({reason})") from None


def require_row(tensor: Tensor, dtype: torch.dtype) -> None:
    """Raises ValueError unless the tensor is a row of numbers of that type."""
    if tensor.dtype != dtype or tensor.ndim != 1:
        raise ValueError(f"{tensor.dtype} of shape {tuple(tensor.shape)} where a row of {dtype} was expected")


def load_tensors(model: nn.Module, tensors: dict[str, Tensor], left: dict[str, Tensor]) -> None:
    """Loads what a file held, of the model's own types and shapes, with nothing left.

    Raises:
        KeyError, ValueError: a tensor is of another kind, or belongs to no tensor of the model.
    """
    if left:
        raise KeyError(min(left))
    for name, own in own_tensors(model).items():
        if (tensors[name].dtype, tensors[name].shape) != (own.dtype, own.shape):
            found = f"{tensors[name].dtype} of shape {tuple(tensors[name].shape)}"
            raise ValueError(f"{name} is {found}, expected {own.dtype} of {tuple(own.shape)}")
    state = {name: tensors[name_in_file(name)] for name in model.state_dict() if name_in_file(name) in tensors}
    model.load_state_dict(state, strict=False)  # the other names of tied tensors are not in the file


def write_tensors(tensors: dict[str, Tensor], path: str | Path) -> None:
    """Writes a safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    write_whole(Path(path), lambda target: save_file(tensors, target))


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: there is no such file, or it is not whole.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: expected a safetensors file ({error})") from None
