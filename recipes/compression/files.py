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

    Such a tensor is stored as its other values in order, and where they belong: as a bit for every position, or, where
    few are left, as the number of zeros before each of them, a byte. The first takes 1/32 of what the numbers took,
    the second a quarter of what the numbers left take.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in own_tensors(model).items():
        values = tensor[tensor != 0]
        bits = torch.from_numpy(np.packbits((tensor != 0).flatten().numpy()))  # uint8 (numbers / 8, rounded up)
        padded, gaps = with_gaps(tensor)
        forms: list[dict[str, Tensor]] = [{name: tensor}, {f"{name}.values": values, f"{name}.bits": bits}]
        forms += [{f"{name}.values": padded, f"{name}.gaps": gaps}]
        smallest = min(forms, key=stored_bytes)
        tensors |= smallest
    write_tensors(tensors, path)


def stored_bytes(tensors: dict[str, Tensor]) -> int:
    """What they take in a file, of which a name and a shape are about 80 bytes."""
    return sum(tensor.nbytes + 80 for tensor in tensors.values())


def with_gaps(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers that are not zero, and the zeros before each, uint8. Of 256 zeros the last is stored as a number."""
    places = tensor.flatten().nonzero().flatten()
    gaps = places.diff(prepend=places.new_tensor([-1])) - 1
    ends = (gaps // 256 + 1).cumsum(0) - 1  # of each number, after the zeros stored before it
    count = int(ends[-1]) + 1 if len(ends) else 0
    values, stored = tensor.new_zeros(count), torch.full((count,), 255, dtype=torch.uint8)
    values[ends], stored[ends] = tensor.flatten()[places], (gaps % 256).to(torch.uint8)
    return values, stored


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
            values, by_gaps = stored.pop(f"{name}.values"), f"{name}.gaps" in stored
            positions = stored.pop(f"{name}.gaps" if by_gaps else f"{name}.bits")
            require_row(values, tensor.dtype)
            require_row(positions, torch.uint8)
            if by_gaps:
                places = (positions.long() + 1).cumsum(0) - 1
            else:
                places = torch.from_numpy(np.unpackbits(positions.numpy())[: tensor.numel()]).nonzero().flatten()
            if len(values) != len(places) or (len(places) and int(places[-1]) >= tensor.numel()):
                raise ValueError(f"{len(values)} numbers for {len(places)} positions in {name}")
            flat = torch.zeros(tensor.numel(), dtype=values.dtype)
            flat[places] = values
            tensors[name] = flat.view(tensor.shape)
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
