"""One training on many processes: replicated (DDP) or sharded (FSDP2)."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from recipes.core.device import rank_and_world
from recipes.core.errors import InputError


def require_gpus(device: torch.device) -> None:
    """Raises InputError unless this is a device that torch can synchronize batch norm on."""
    if device.type != "cuda":
        raise InputError(f"option sync_batch_norm: expected GPUs, which torch has it for, got {device.type}")


def synchronize_batch_norm(model: nn.Module) -> None:
    """Makes each batch norm inside a model normalize by the samples of all processes; its parameters stay.

    Without, each process normalizes its share by that share's own mean and variance, so N processes with batch norm
    train a little otherwise than one with the whole batch.
    """
    for name, layer in list(model.named_children()):
        model.add_module(name, nn.SyncBatchNorm.convert_sync_batchnorm(layer))


def spread(model: nn.Module, optimizer: torch.optim.Optimizer, *, sharded: bool, device: torch.device) -> nn.Module:
    """The module that averages gradients over the processes; the model itself where there is one process."""
    if sharded:
        shard(model, optimizer, device)
        return model
    return nn.parallel.DistributedDataParallel(model) if rank_and_world()[1] > 1 else model


def shard(model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """FSDP2: every stack of blocks is sharded block by block, and the optimizer follows."""
    if rank_and_world()[1] == 1:
        raise InputError("option shard: expected a run under torchrun with at least two processes")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (rank_and_world()[1],))  # else it takes the machine's accelerator
    names = {parameter: name for name, parameter in model.named_parameters()}
    for block in [block for part in model.modules() if isinstance(part, nn.ModuleList) for block in part]:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    sharded = dict(model.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [sharded[names[parameter]] for parameter in group["params"]]


def synchronize_if(wanted: bool, engine: Any) -> None:
    """Gradients travel between processes only with the last batch of a group."""
    if isinstance(engine, nn.parallel.DistributedDataParallel):
        engine.require_backward_grad_sync = wanted
    elif callable(sharded := getattr(engine, "set_requires_gradient_sync", None)):
        sharded(wanted)


def mean_over_processes(value: float, device: torch.device) -> float:
    if not dist.is_initialized():
        return value
    values = torch.tensor(value, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    dist.all_reduce(values)
    return values.item() / dist.get_world_size()
