"""The weights of a sharded training, each process writing and reading its own part.

torch.distributed.checkpoint writes them as safetensors, whose headers say which part of a tensor lies where, so that
another number of processes reads them too. Its own format keeps that in a pickle, which a foreign file could abuse.
"""

import contextlib
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.tensor import DTensor
from torch.nn import Module
from torch.optim import Optimizer

from recipes.core.device import rank_and_world
from recipes.core.files import unwritable

NAMES = ("shards-a", "shards-b")  # in turn, so that the one in use is whole while the other is written


def save_shards(file: Path, used: str, model: Module, optimizer: Optimizer) -> tuple[dict[str, Any], str]:
    """Writes what is sharded beside the checkpoint file; every process takes part.

    Args:
        file: the checkpoint, which is to be written after this.
        used: the name that the checkpoint standing there uses, or "".

    Returns:
        What is not sharded, by name, for the checkpoint itself; and the name used now, for it too.

    Raises:
        InputError: the folder cannot be written.
    """
    name = next(one for one in NAMES if one != used)
    folder = shards_folder(file, name)
    tensors = flatten(*get_state_dict(model, optimizer))
    sharded = {key: tensor for key, tensor in tensors.items() if isinstance(tensor, DTensor)}
    if rank_and_world()[0] == 0:
        shutil.rmtree(folder, ignore_errors=True)  # of a training killed while writing
    dist.barrier()
    try:
        dcp.save(sharded, storage_writer=dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except dcp.api.CheckpointException as error:
        raise unwritable(folder, first_failure(error)) from None
    return {key: tensor for key, tensor in tensors.items() if key not in sharded}, name


def load_shards(file: Path, used: str, rest: dict[str, Any], model: Module, optimizer: Optimizer) -> None:
    """Reads what `save_shards` wrote into a model and an optimizer, sharded or not.

    Raises:
        ValueError: it is damaged, or of another model.
    """
    states = get_state_dict(model, optimizer)
    tensors = flatten(*states)
    sharded = {key: tensor for key, tensor in tensors.items() if key not in rest}
    reader = dcp.HuggingFaceStorageReader(str(shards_folder(file, used)))
    try:
        with warnings.catch_warnings(action="ignore"):  # of one process alone, where there is one
            dcp.load(sharded, storage_reader=reader)
    except dcp.api.CheckpointException as error:  # no Exception, so none who asks for those would see it
        raise ValueError(str(first_failure(error))) from None
    for key, tensor in rest.items():
        tensors[key].copy_(tensor)
    set_state_dict(model, optimizer, model_state_dict=states[0], optim_state_dict=states[1])


def remove_unused(file: Path, used: str) -> None:
    """Removes the shards that the checkpoint does not use; one process does."""
    for name in NAMES:
        if name != used:
            with contextlib.suppress(OSError):
                shutil.rmtree(shards_folder(file, name))


def first_failure(error: Any) -> Exception:
    return next(iter(error.failures.values()))[0]


def shards_folder(file: Path, name: str) -> Path:
    return file.with_name(f"{file.stem}.{name}")


def flatten(weights: dict[str, Any], states: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a model's and of an optimizer's state by one name each."""
    tensors = {f"model.{key}": tensor for key, tensor in weights.items()}
    for parameter, state in states["state"].items():
        tensors |= {f"optimizer.{parameter}.{key}": one for key, one in state.items() if isinstance(one, Tensor)}
    return tensors
