"""From a data set to batches, and from one set to a train and a test part."""

import signal
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, default_collate


def as_is(batch: Any) -> Any:
    """The collate function of data sets that hand out whole batches."""
    return batch


def leave_interrupts_alone(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; it is the training that decides when its workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def batches(dataset: Any, batch_size: int, *, seed: int = 0, workers: int = 0) -> DataLoader:
    """Shuffled batches for training, in an order that depends on the seed and the epoch alone.

    Under torchrun each process gets its own share of every batch, so that N processes train on the
    same joined batches as one. What does not fill a last batch waits for another epoch's order.

    Args:
        dataset: map-style data set. With a method `__getitems__` it is asked for a whole batch at a
            time, and what it gives is taken as it is; otherwise samples are collated as torch does.
        batch_size: samples in an optimizer step, over all processes.
        seed: of the order; `Loop` tells the sampler the epoch.
        workers: processes that fetch; 0 fetches in this one, the fastest for data held in memory.
    """
    world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    held = [value for value in getattr(dataset, "__dict__", {}).values() if isinstance(value, Tensor)]
    share = max(1, min(batch_size, len(dataset)) // world)
    return DataLoader(
        dataset,
        batch_size=share,
        sampler=DistributedSampler(dataset, num_replicas=world, rank=rank, seed=seed, drop_last=True),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available() and not any(tensor.is_cuda for tensor in held),
        drop_last=True,
        worker_init_fn=leave_interrupts_alone,
        collate_fn=as_is if hasattr(dataset, "__getitems__") else default_collate,
    )


def holdout(labels: Tensor, share: float = 0.2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Splits samples in two, each class by the same share: indices of the train and of the test part.

    Args:
        labels: (N,) integers.
        share: of each class that goes to the test part; at least one sample of a class with two or more.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    train, test = [], []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        count = max(round(len(members) * share), int(len(members) > 1))
        test.append(members[:count])
        train.append(members[count:])
    return torch.cat(train).sort().values, torch.cat(test).sort().values


def few_of_each(labels: Tensor, samples: int, seed: int) -> Tensor:
    """Indices of so many samples of each class, drawn with the seed."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return torch.cat([order[labels[order] == label][:samples] for label in labels.unique()])
