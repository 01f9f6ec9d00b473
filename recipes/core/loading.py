"""From a data set to batches, and a share of it held out for choices."""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, Sampler, default_collate, get_worker_info

from recipes.core.device import rank_and_world
from recipes.core.errors import InputError, tell
from recipes.core.options import Options


def as_is(batch: Any) -> Any:
    """The collate function of data sets that hand out whole batches."""
    return batch


def leave_interrupts_alone(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; it is the training that decides when its workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Reading:
    """Which file each worker is reading, in memory that all of them share: the last word of one that is killed."""

    def __init__(self, workers: int = 64) -> None:
        self.places = torch.full((workers, 2), -1).share_memory_()  # process, and the file's number

    def note(self, number: int) -> None:
        worker = get_worker_info()
        if worker is not None and worker.id < len(self.places):
            self.places[worker.id] = torch.tensor([os.getpid(), number])

    def of_the_dead(self) -> list[int]:
        """Numbers of the files that workers were reading which are no more."""
        return [number for process, number in self.places.tolist() if process > 0 and has_ended(process)]


def has_ended(process: int) -> bool:
    """Whether this child process is no more; False where the system cannot tell."""
    if not hasattr(os, "waitid"):
        return False
    try:
        return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def share_of(batch_size: int, samples: int) -> int:
    """Samples of each batch that a process gets; where they cannot be equal, it tells how many are taken in all."""
    world, wanted = rank_and_world()[1], min(batch_size, samples)
    share = max(1, wanted // world)
    if share * world != wanted:
        tell(f"option batch_size: {share * world} samples a step are taken, {share} in each of {world} processes")
    return share


class Share(DistributedSampler):
    """The samples that each process gets, in an order that depends on the seed and the epoch alone."""

    start = 0  # samples to leave out of the next pass

    def __iter__(self) -> Iterator[int]:
        start, self.start = self.start, 0
        return itertools.islice(super().__iter__(), start, None)


class ByLength(Sampler[int]):
    """An order in which each batch holds samples of similar length, so that little of it is padding.

    The samples are shuffled, those of 50 batches at a time are sorted by length and cut into batches, and
    the batches are shuffled. The order depends on the seed and the epoch alone.

    Args:
        lengths: (N,) of the samples.
        batch_size: samples in a batch, over all processes; each process gets its share of every batch.
        seed: of the order.
    """

    start = 0  # samples to leave out of the next pass

    def __init__(self, lengths: Tensor, batch_size: int, *, seed: int = 0) -> None:
        self.lengths, self.seed, self.epoch = lengths, seed, 0
        self.rank, self.world = rank_and_world()
        self.share = share_of(batch_size, len(lengths))
        self.count = len(lengths) // (self.share * self.world)  # samples left over wait for another epoch's order

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count * self.share

    def __iter__(self) -> Iterator[int]:
        start, self.start = self.start, 0
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        whole = self.share * self.world
        order = torch.randperm(len(self.lengths), generator=generator)[: self.count * whole]
        pools = [pool[self.lengths[pool].argsort(stable=True)] for pool in order.split(50 * whole)]
        rows = torch.cat(pools).view(self.count, whole)  # a batch a row
        rows = rows[torch.randperm(self.count, generator=generator)]
        return iter(rows[:, self.rank :: self.world].flatten().tolist()[start:])


class Loader(DataLoader):
    """A DataLoader that can go on in the middle of a pass, and names the file which a killed worker was reading.

    Its `sampler` is a `Share` or `ByLength`; the data set may keep a `Reading`, and then has `files`.
    """

    given = 0  # batches of this pass

    def state_dict(self) -> dict[str, int]:
        """The place in the pass, as torchdata's StatefulDataLoader tells its own."""
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next pass begins at that place, without reading what lies before."""
        self.sampler.start = state["given"] * (self.batch_size or 1)  # type: ignore[attr-defined]
        self.given = state["given"]

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if not getattr(self.sampler, "start", 0):
            self.given = 0
        try:
            for batch in super().__iter__():
                self.given += 1
                yield batch
            return
        except (RuntimeError, OSError, EOFError) as error:  # torch's word for it, or a connection that broke
            with contextlib.suppress(RuntimeError):
                time.sleep(0.2)  # torch's own alarm may still be on its way, and would be heard anywhere
            dead = self.dataset.reading.of_the_dead() if hasattr(self.dataset, "reading") else []
            if not dead or isinstance(error, InputError):
                raise
            files = " or ".join(str(self.dataset.files[number]) for number in dead)  # type: ignore[attr-defined]
            reason = str(error).strip().partition("\n")[0]
        # Only now, when the old error has let go of the workers: torch watches them, and would interrupt its report.
        raise RuntimeError(f"a worker of the DataLoader died while it was reading {files} ({reason})")


def batches(dataset: Any, options: Options, *, workers: int | None = None) -> DataLoader:
    """Shuffled batches for training, in an order that depends on the seed and the epoch alone.

    Under torchrun each process gets its own share of every batch, so that N processes train on the
    same joined batches as one. What does not fill a last batch waits for another epoch's order.

    Args:
        dataset: map-style data set. With a method `__getitems__` it is asked for a whole batch at a
            time, and what it returns is taken as it is; otherwise samples are collated as torch does.
        options: batch_size (samples in an optimizer step, over all processes) and seed.
        workers: processes that fetch. By default as many as the data set asks for with its attribute `workers`,
            or none: fetching in this process is the fastest for data held in memory.
    """
    world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    held = [value for value in getattr(dataset, "__dict__", {}).values() if isinstance(value, Tensor)]
    share = share_of(options.batch_size, len(dataset))
    count = getattr(dataset, "workers", 0) if workers is None else workers
    return Loader(
        dataset,
        batch_size=share,
        sampler=Share(dataset, num_replicas=world, rank=rank, seed=options.seed, drop_last=True),
        num_workers=count,
        persistent_workers=count > 0,
        pin_memory=torch.cuda.is_available() and not any(tensor.is_cuda for tensor in held),
        drop_last=True,
        worker_init_fn=leave_interrupts_alone,
        collate_fn=as_is if hasattr(dataset, "__getitems__") else default_collate,
    )


def batches_by_length(dataset: Any, options: Options, lengths: Sequence[int] | None = None) -> DataLoader:
    """Shuffled batches of samples of similar length, so that little of them is padding; see `ByLength`.

    Args:
        dataset: its `__getitems__` pads, and returns a whole batch.
        options: batch_size (samples in an optimizer step, over all processes) and seed.
        lengths: of the samples; those of `dataset.ids` if not given.
    """
    if lengths is None:
        lengths = getattr(dataset.ids, "lengths", None)
    known = torch.as_tensor([len(ids) for ids in dataset.ids] if lengths is None else lengths)
    sampler = ByLength(known, options.batch_size, seed=options.seed)
    return Loader(
        dataset,
        batch_size=sampler.share,
        sampler=sampler,
        pin_memory=torch.cuda.is_available(),
        collate_fn=as_is,
    )


def hold_out(dataset: Any, share: float = 0.2, seed: int = 0) -> tuple[Any, Any]:
    """Splits a train part in two, for choices that must not see the test part: what to fit, and what to choose on.

    Args:
        dataset: with `subset(indices)`; where it has `labels`, each class is split by the same share.
        share: of the samples held out.
        seed: of the draw.
    """
    labels = getattr(dataset, "labels", None)
    labels = labels.cpu() if isinstance(labels, Tensor) and len(labels) == len(dataset) else torch.zeros(len(dataset))
    fit, held_out = holdout(labels, share, seed)
    return dataset.subset(fit), dataset.subset(held_out)


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
