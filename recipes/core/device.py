"""Where a recipe runs: its device, its seed, and its place among the processes of torchrun."""

import atexit
import os

import torch
import torch.distributed as dist

from recipes.core.errors import InputError


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name: "auto" is CUDA, then Apple's MPS, then the CPU, whichever is there.

    Raises:
        InputError: the device is unknown or not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise NotImplementedError  # it computes nothing
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"option device: expected auto, cpu, or one that torch sees here, got {name!r}") from None
    if device.type == "cuda" and device.index is None:
        number, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if number >= count:
            raise InputError(f"process {number} of this machine has no GPU: expected at most {count} processes here")
        device = torch.device("cuda", number)
    return device


def setup(device: str | torch.device = "auto", seed: int = 0) -> torch.device:
    """Seeds torch, joins the other processes under torchrun, and gives this process's device.

    Args:
        device: a name for `pick_device`.
        seed: of torch's random numbers on all devices.
    """
    chosen = pick_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    torch.manual_seed(seed)
    return chosen


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are: (0, 1) without torchrun."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
