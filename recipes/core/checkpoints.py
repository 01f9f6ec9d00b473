"""A training saved whole, and resumed to the bit."""

import pickle
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from recipes.core.device import rank_and_world
from recipes.core.errors import InputError
from recipes.core.files import remove_unfinished, write_whole
from recipes.core.options import differences
from recipes.core.processes import mean_over_processes

if TYPE_CHECKING:
    from recipes.core.loop import Loop


def checkpoint_file(folder: str | None, variant: str, name: str) -> Path | None:
    """Where a training of a run is saved: its own name, after what the run's variant changed."""
    return None if folder is None else Path(folder) / f"{'-'.join(filter(None, (variant, name)))}.pt"


def save_checkpoint(loop: "Loop") -> None:
    """Writes the loop's whole state; every process takes part, and the main one writes."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    assert loop.file is not None
    require_finite(loop.module)
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights, optimizer = get_state_dict(loop.module, loop.optimizer, options=whole)
    losses = mean_over_processes(loop._sum, loop.device)
    state = {
        "model": weights,
        "optimizer": optimizer,
        "schedule": loop.schedule.state_dict(),
        "scaler": loop.scaler.state_dict(),
        "place": (loop.epoch, loop.batch, loop.steps, losses, loop._count),
        "batches": loop.batches.state_dict() if loop.goes_on else {},
        "history": loop.history,
        "random": random_state(loop.device),
        "epoch_random": loop._epoch_random,
        "options": loop.options.to_dict(),
    }
    if rank_and_world()[0] == 0:
        write_whole(loop.file, lambda path: torch.save(state, path))


def load_checkpoint(loop: "Loop") -> list[Tensor] | None:
    """Takes up the saved training, if there is one; returns the random state in the middle of an epoch.

    Raises:
        InputError: the file is no checkpoint of this training, or was made with other options.
    """
    if loop.file is None:
        return None
    remove_unfinished(loop.file)
    if not loop.file.exists():
        return None
    from torch.distributed.checkpoint import state_dict as whole

    try:
        with warnings.catch_warnings(action="ignore"):  # of what a foreign file may hold: the error says it
            state = torch.load(loop.file, map_location="cpu", weights_only=True)
    except Exception as error:
        foreign = isinstance(error, pickle.UnpicklingError)  # code in it is never run
        raise unusable(loop.file, "not one of tensors alone" if foreign else str(error)) from None
    saved = state.get("options", {}) if isinstance(state, dict) else {}
    other = differences(saved if isinstance(saved, dict) else {}, loop.options)
    if other and not loop.options.override:
        raise InputError(
            f"{loop.file}: was started with other options ({'; '.join(other)}): expected the same ones, "
            "another checkpoint folder, or override"
        )
    options = whole.StateDictOptions(full_state_dict=True)
    try:
        whole.set_model_state_dict(loop.module, state["model"], options=options)
        if state["optimizer"]["state"]:  # plain SGD has none
            whole.set_optimizer_state_dict(loop.module, loop.optimizer, state["optimizer"], options=options)
        loop.schedule.load_state_dict(state["schedule"])
        loop.scaler.load_state_dict(state["scaler"])
        loop.epoch, loop.batch, loop.steps, loop._sum, loop._count = state["place"]
        loop.history, loop._epoch_random = state["history"], state["epoch_random"]
        if loop.goes_on and loop.batch:
            loop.batches.load_state_dict(state["batches"])
        for group, lr in zip(loop.optimizer.param_groups, loop.schedule.get_last_lr(), strict=True):
            group["lr"] = lr
        # In the middle of an epoch the loader starts with the random state that the epoch started with.
        set_random_state(loop._epoch_random if loop.batch else state["random"], loop.device)
    except Exception as error:
        raise unusable(loop.file, str(error)) from None
    return state["random"] if loop.batch else None


def unusable(file: Path, reason: str) -> InputError:
    return InputError(f"{file}: expected a checkpoint of this training ({reason.strip().partition(chr(10))[0][:200]})")


def require_finite(model: nn.Module) -> None:
    """Weights that are not finite are never saved.

    Raises:
        FloatingPointError: naming the first such weight.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise FloatingPointError(f"the weight {name} is not finite: it is not saved; a lower lr or clip may help")


def random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return states


def set_random_state(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1 and device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
    elif len(states) > 1 and device.type == "mps":
        torch.mps.set_rng_state(states[1])
