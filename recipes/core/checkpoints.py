"""A training saved whole, and resumed to the bit."""

import math
import pickle
import warnings
from collections.abc import Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recipes.core.device import rank_and_world
from recipes.core.errors import InputError
from recipes.core.files import own_path, remove_unfinished, write_whole
from recipes.core.options import differences
from recipes.core.processes import mean_over_processes

if TYPE_CHECKING:
    from recipes.core.loop import Loop


LIKE_THE_PARAMETER = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "sum"}


def checkpoint_file(folder: str | None, variant: str, name: str) -> Path | None:
    """Where a training of a run is saved: its own name, after what the run's variant changed."""
    return None if folder is None else own_path(folder) / f"{'-'.join(filter(None, (variant, name)))}.pt"


def save_checkpoint(loop: "Loop") -> None:
    """Writes the loop's whole state; every process takes part.

    The main one writes it all, except that each process writes its own shards (see `shards`) before.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    from recipes.core.shards import remove_unused, save_shards

    assert loop.file is not None
    require_finite(loop.module)
    if loop.options.shard:
        rest, loop._shards = save_shards(loop.file, loop._shards, loop.module, loop.optimizer)
        weights: dict[str, Any] = {"rest": rest, "shards": loop._shards}
    else:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        model, optimizer = get_state_dict(loop.module, loop.optimizer, options=options)
        weights, loop._shards = {"model": model, "optimizer": optimizer}, ""
    losses = mean_over_processes(loop._sum, loop.device)
    state = {
        **weights,
        "scaler": loop.scaler.state_dict(),
        "place": (loop.epoch, loop.batch, loop.steps, losses, loop._count),
        "batches": loop.batches.state_dict() if loop.goes_on else {},
        "history": loop.history,
        "random": of_all_processes(random_state(loop.device)),
        "epoch_random": of_all_processes(loop._epoch_random),
        "options": loop.options.to_dict(),
        "samples": sample_count(loop),
    }
    if rank_and_world()[0] == 0:
        write_whole(loop.file, lambda path: torch.save(state, path))
        remove_unused(loop.file, loop._shards)


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
    try:
        with warnings.catch_warnings(action="ignore"):  # of what a foreign file may hold: the error says it
            state = torch.load(loop.file, map_location="cpu", weights_only=True)
    except Exception as error:
        foreign = isinstance(error, pickle.UnpicklingError)  # code in it is never run
        damaged = "cut or damaged: without it the training starts anew"
        found = damaged if not is_zipfile(loop.file) else "not one of tensors alone" if foreign else str(error)
        raise unusable(loop.file, found) from None
    if not isinstance(state, dict) or not holds_values(state.get("options")):
        raise unusable(loop.file, "no options in it")
    other, count = differences(state["options"], loop.options), sample_count(loop)
    if state.get("samples", count) != count:
        other.append(f"{count} samples instead of {state['samples']}")
    if other and not loop.options.override:
        raise InputError(
            f"{loop.file}: was started with other options ({'; '.join(other)}): expected the same ones, "
            "another checkpoint folder, or override"
        )
    settings = [{key: group[key] for key in group if key != "params"} for group in loop.optimizer.param_groups]
    try:
        load_weights(loop, state)
        loop.scaler.load_state_dict(state["scaler"])
        loop.epoch, loop.batch, loop.steps, loop._sum, loop._count = state["place"]
        loop.history = state["history"]
        loop._epoch_random, now = (of_this_process(state[key]) for key in ("epoch_random", "random"))
        require_consistent(loop)
        loop.schedule.last_epoch, loop.schedule._step_count = loop.steps, loop.steps + 1
        factors = [factor(loop.steps) for factor in loop.schedule.lr_lambdas]
        loop.schedule._last_lr = [base * factor for base, factor in zip(loop.schedule.base_lrs, factors, strict=True)]
        for group, own, lr in zip(loop.optimizer.param_groups, settings, loop.schedule.get_last_lr(), strict=True):
            group |= own | {"lr": lr}  # of this run's options, whatever the file's were
        if loop.goes_on and loop.batch:
            loop.batches.load_state_dict(state["batches"])
        # In the middle of an epoch the loader starts with the random state that the epoch started with.
        set_random_state(loop._epoch_random if loop.batch else now, loop.device)
    except Exception as error:
        raise unusable(loop.file, str(error)) from None
    return now if loop.batch else None


def sample_count(loop: "Loop") -> int | None:
    """In the data set that the batches are drawn from, if they tell."""
    dataset = getattr(loop.batches, "dataset", None)
    return len(dataset) if isinstance(dataset, Sized) else None


def load_weights(loop: "Loop", state: dict[str, Any]) -> None:
    """Takes up the weights and the optimizer's state, sharded in the file or not, sharded in this run or not."""
    from torch.distributed.checkpoint import state_dict as whole

    from recipes.core.shards import NAMES, load_shards

    assert loop.file is not None
    if "shards" in state:
        if state["shards"] not in NAMES:
            raise ValueError("no name of shards")
        loop._shards = state["shards"]
        return load_shards(loop.file, loop._shards, state["rest"], loop.module, loop.optimizer)
    options = whole.StateDictOptions(full_state_dict=True)
    whole.set_model_state_dict(loop.module, state["model"], options=options)
    saved = state["optimizer"]["state"]
    if saved != {}:  # plain SGD has none
        options = whole.StateDictOptions(full_state_dict=True, strict=False)
        whole.set_optimizer_state_dict(loop.module, loop.optimizer, state["optimizer"], options=options)
        used = {one for name, one in loop.module.named_parameters(remove_duplicate=False) if name in saved}
        for parameter in loop.optimizer.state.keys() - used:  # never had a gradient, and so has no state yet
            del loop.optimizer.state[parameter]


def require_consistent(loop: "Loop") -> None:
    """Raises ValueError or FloatingPointError unless what was loaded can have come from this training."""
    counts = (loop.epoch, loop.batch, loop.steps, loop._count)
    if not all(type(count) is int and count >= 0 for count in counts) or not math.isfinite(loop._sum):
        raise ValueError("the place in it is no count of epochs, batches and steps")
    rows = [row["epoch"] for row in loop.history if math.isfinite(row["loss"])]
    if len(rows) != loop.epoch or rows != list(range(1, len(rows) + 1)) or loop.batch > len(loop.batches):
        raise ValueError(f"{len(rows)} epochs in its history, {loop.epoch} done, {loop.batch} batches after them")
    require_finite(loop.module)
    for parameter, state in loop.optimizer.state.items():
        for key, value in state.items():
            known = key in LIKE_THE_PARAMETER or key == "step"
            if (value is None and key == "momentum_buffer") or not (known or isinstance(value, Tensor)):
                continue  # before the first step, or counts of some optimizers
            told = torch.as_tensor(value)
            shape = parameter.shape if key in LIKE_THE_PARAMETER else torch.Size() if key == "step" else told.shape
            if told.shape != shape or not bool(told.isfinite().all()):
                raise ValueError(f"{key} of a weight of shape {tuple(parameter.shape)} is damaged")


def holds_values(options: Any) -> bool:
    """Whether these are options as a checkpoint has them, text and numbers by name."""
    kinds = (str, int, float, list, type(None))
    return isinstance(options, dict) and all(isinstance(value, kinds) for value in options.values())


def of_all_processes(state: list[Tensor]) -> list[list[Tensor]]:
    """The random states of all processes, by rank."""
    states: list[Any] = [state] * rank_and_world()[1]
    if len(states) > 1:
        dist.all_gather_object(states, state)
    return states


def of_this_process(states: list[list[Tensor]]) -> list[Tensor]:
    """This process's own random state; where the training had fewer processes, one that none of them had."""
    rank = rank_and_world()[0]
    if rank < len(states):
        return states[rank]
    generator = torch.Generator()
    generator.set_state(states[0][0])
    return [generator.manual_seed(int(generator.initial_seed()) + rank).get_state(), *states[0][1:]]


def unusable(file: Path, reason: str) -> InputError:
    return InputError(f"{file}: expected a checkpoint of this training ({reason.strip().partition(chr(10))[0][:200]})")


def require_finite(model: nn.Module) -> None:
    """Weights that are not finite are never saved, nor buffers with NaN; a mask may well hold -inf.

    Raises:
        FloatingPointError: naming the first of them.
    """
    sound = {name: one.isfinite().all() for name, one in model.named_parameters()}
    sound |= {name: ~one.isnan().any() for name, one in model.named_buffers()}
    for name, held in sound.items():
        if not bool(held):
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
