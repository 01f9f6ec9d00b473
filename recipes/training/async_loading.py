"""Asynchronous loading: the next batches are read while the network learns from this one.

Reading from a disk or over a network is mostly waiting, and a training loop that reads its own batches waits
along: a step takes load + compute. A `DataLoader` with `num_workers` reads in as many processes beside it, and asks
each for `prefetch_factor` batches ahead. Then a step takes max(load / workers, compute), and from some number of
workers on it is the network alone that counts. The times of this run stand beside that ideal.

Both sides are of a known length. Reading a digit waits for 1.5 ms, which stands in for a slow disk. A step trains a
real, small network and then waits until 30 ms are over, which stands in for a large one on a GPU: it leaves the
processor free. Whatever the number of workers, the batches are the same in the same order, so the weights learned are
the same to the bit. Workers have to be started, though: persistent ones once, others at every epoch. Each has a copy
of the data set, which is no matter where the sampler tells it what to read; a stream (`IterableDataset`) it reads
from end to end, so that `range(100)` comes from four workers four times unless they share it out.

Notes: 47
Paper: Paszke et al. (2019), "PyTorch: An Imperative Style, High-Performance Deep Learning Library",
    https://arxiv.org/abs/1912.01703
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Sampler, get_worker_info

from recipes.core.device import rank_and_world
from recipes.core.figures import draw_curves, new_figure
from recipes.core.frame import Claim, Loop, Options, Result, main, option, recipe
from recipes.core.loading import leave_interrupts_alone
from recipes.core.measure import interleaved, ratio
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.training.scoring import evaluate, least_squares
from recipes.vision.classification.using import Classification

Sample = tuple[Tensor, int, int]  # a picture, its class, and when its reading began, in ns


@dataclass(kw_only=True)
class AsyncLoadingOptions(Options):
    workers: int = option(4, "processes that read; 0 reads in the training process", least=0, most=64)
    prefetch: int = option(2, "batches that each worker reads ahead", least=1)
    persistent: bool = option(True, "keep the workers from epoch to epoch")
    wait: float = option(1.5, "milliseconds that reading a picture waits; 0 for your own disk's time", least=0)
    compute: float = option(30.0, "milliseconds that a step takes at least; 0 for the network's own time", least=0)
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = 6
    batch_size: int = 64


class SlowStore(Dataset):
    """Pictures that are read one by one; each comes after `wait` milliseconds."""

    def __init__(self, pictures: Images | ImageFiles, wait: float) -> None:
        self.pictures, self.wait = pictures, wait

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        began = time.perf_counter_ns()
        time.sleep(self.wait / 1000)  # stands in for the disk or the network
        images, labels = self.pictures.__getitems__([index])  # decodes it
        return images[0], int(labels[0]), began


def collate(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of pictures (B, C, H, W) and classes (B,), and the process that read them, from when to when (ns)."""
    images, labels, began = zip(*samples, strict=True)
    reading = torch.tensor([os.getpid(), began[0], time.perf_counter_ns()])  # on a clock that all processes share
    return torch.stack(images), torch.tensor(labels), reading


def make_loader(store: Dataset, options: AsyncLoadingOptions) -> DataLoader:
    """Shuffled batches, in an order that the number of workers does not change."""
    rank, world = rank_and_world()
    sampler: Any = DistributedSampler(store, world, rank, seed=options.seed, drop_last=True)
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores, but these only wait
    return DataLoader(
        store,
        max(1, min(options.batch_size, len(store)) // world),  # type: ignore[arg-type]
        sampler=sampler,  # an order that depends on the seed and the epoch alone
        num_workers=options.workers,  # processes that read; with 0 this one does, when it is asked
        persistent_workers=options.persistent and options.workers > 0,
        prefetch_factor=options.prefetch if options.workers else None,  # batches that each reads ahead
        pin_memory=torch.device(options.device).type == "cuda",  # a GPU copies from there by itself
        collate_fn=collate,
        drop_last=True,
        worker_init_fn=leave_interrupts_alone,
        generator=torch.Generator().manual_seed(options.seed),  # worker w is seeded with what it draws, plus w
    )


def build(options: AsyncLoadingOptions, data: Images | ImageFiles) -> nn.Sequential:
    """Two convolutions and a linear layer."""
    return nn.Sequential(
        *(nn.Conv2d(data.shape[0], 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveMaxPool2d(1)),
        nn.Flatten(),  # (B, 64)
        nn.Linear(64, len(data.classes)),
    )


def train(model: nn.Module, loader: DataLoader, options: AsyncLoadingOptions) -> tuple[Loop, list[list[int]]]:
    """Minimizes the cross-entropy in steps of at least `compute` milliseconds.

    Returns the loop, and a row a step: who read its batch, from when to when, and from when to when it was used.
    """
    loop = Loop(model, torch.optim.AdamW(model.parameters(), lr=options.lr), loader, options)
    steps = []
    for images, labels, reading in loop:
        got = time.perf_counter_ns()
        loop.step(F.cross_entropy(loop.model(images), labels))
        row = [*reading.tolist(), got]  # which waits for a GPU to be done
        time.sleep(max(0.0, options.compute / 1e3 - (time.perf_counter_ns() - got) / 1e9))
        steps.append([*row, time.perf_counter_ns()])
    return loop, steps


@recipe(AsyncLoadingOptions)
def run(options: AsyncLoadingOptions) -> Result:
    """Trains from a slow store, which worker processes read."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop, _ = train(model, make_loader(SlowStore(train_set, options.wait), options), options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=least_squares(train_set, test_set),
        baseline_name="linear classifier, solved",
        bars={"accuracy": 0.95},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    """Counts and orders, which a busy machine does not change, of trainings on the CPU; the table has the times."""
    result = run()
    weights, result.timeline = [], {}
    here = {"out": None, "checkpoint": None, "data": None, "device": "cpu", "epochs": 1, "steps": None}
    given, store = AsyncLoadingOptions(**result.options | here), SlowStore(result.train_set, result.options["wait"])
    most = max(given.workers, 1)
    with torch.random.fork_rng(devices=[]):
        for workers in sorted({0, *(most >> halvings for halvings in range(most.bit_length()))}):
            options = given.with_changes(workers=workers)
            torch.manual_seed(options.seed)
            model = build(options, result.train_set)
            _, steps = train(model, make_loader(store, options), options)
            weights.append(nn.utils.parameters_to_vector(model.parameters()).detach())
            result.rows.append({"workers": workers} | measured(steps, workers))
            result.timeline[workers] = steps
    none, *_, full = result.rows
    text = f"batches read while the network computes, share: {most} workers over none"
    yield Claim(text, full["overlapping"], ">=", none["overlapping"] + 0.5, kind="fact")
    differ = max(int((one != weights[0]).sum()) for one in weights)
    yield Claim("weights that the number of workers changes", differ, "<=", 0, kind="fact")

    (numbers, ahead), (_, alone) = in_tens(4), in_tens(0)
    whole, shared = (torch.cat([*DataLoader(Stream(one), 10, num_workers=4)]) for one in (False, True))
    yield Claim("range(100) in tens: batches asked for ahead, 4 workers over none", ahead, ">=", alone + 8, kind="fact")
    misplaced = sum(number != index for index, number in enumerate(numbers))
    yield Claim("numbers that 4 workers give in another order", misplaced, "<=", 0, kind="fact")
    yield Claim("numbers that 4 workers give of it as a stream", len(whole), ">", 100, kind="fact")
    odd = int((shared.bincount(minlength=100) != 1).sum())
    yield Claim("and when they share it out: missing or twice", odd, "<=", 0, kind="fact")
    two = given.with_changes(workers=2, batch_size=1)
    few = SlowStore(result.train_set.subset(range(4)), 0.0)
    started, others = (len(readers(make_loader(few, two.with_changes(persistent=kept)))) for kept in (True, False))
    yield Claim("workers started in three epochs: persistent fewer", started, "<", others, kind="fact")
    device = next(result.model.parameters()).device
    if device.type == "cuda":
        ordinary, pinned = torch.zeros(2**23), torch.zeros(2**23).pin_memory()
        copies = {"pinned": lambda: pinned.to(device, non_blocking=True), "ordinary": lambda: ordinary.to(device)}
        seconds = interleaved(copies, device="cuda")
        faster = ratio(seconds["pinned"], seconds["ordinary"])[1]
        yield Claim("pinned memory: time of a copy over that from ordinary memory", faster, "<", 1, kind="fact")


def measured(steps: list[list[int]], workers: int) -> dict[str, float]:
    """Shares of the batches, and milliseconds of a step beside the ideal."""
    reads, uses = [(row[1], row[2]) for row in steps], [(row[3], row[4]) for row in steps]
    overlapping = [any(began < done and got < ended for got, done in uses) for began, ended in reads]
    ready = [ended <= done for (_, ended), (_, done) in zip(reads[1:], uses, strict=False)] or [False]
    load, compute = (median(end - start for start, end in spans) / 1e6 for spans in (reads, uses))
    first = len(uses) // 4  # the workers have to start
    step = (uses[-1][1] - uses[first][1]) / 1e6 / max(1, len(uses) - 1 - first)
    ideal = max(load / workers, compute) if workers else load + compute
    shares = {"overlapping": mean(overlapping), "ready when asked for": mean(ready)}
    return shares | {"load ms": load, "compute ms": compute, "ideal ms": ideal, "step ms": step}


class Asked(Sampler):
    """The numbers from 0 to 99, counted when the DataLoader asks for them."""

    count = 0

    def __iter__(self) -> Iterator[int]:
        for self.count in range(1, 101):
            yield self.count - 1


def in_tens(workers: int) -> tuple[list[int], int]:
    """range(100), read by workers ten at a time: what comes, and how many batches were asked for ahead of it."""
    asked, numbers, ahead = Asked(), [], 0
    for batch in DataLoader(range(100), 10, sampler=asked, num_workers=workers):  # type: ignore[arg-type]
        numbers += batch.tolist()
        ahead = max(ahead, (asked.count - len(numbers)) // 10)
    return numbers, ahead


class Stream(IterableDataset):
    """range(100) from end to end; each worker has a copy of it, and leaves to the others what is theirs, or not."""

    def __init__(self, shared: bool) -> None:
        self.shared = shared

    def __iter__(self) -> Iterator[int]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker and self.shared else (0, 1)
        return iter(range(first, 100, step))


def readers(loader: DataLoader) -> set[int]:
    """The processes that read in three epochs."""
    return {int(reading[0]) for _ in range(3) for _, _, reading in loader}


@run.figure
def figure(result: Result) -> Any:
    """The loss, and with the claims who did what when: the main process, and below it each worker."""
    timeline = getattr(result, "timeline", {})
    drawing, axes = new_figure(1 + len(timeline), 1, width=7.0, height=1.8)
    draw_curves(axes[0, 0], result.history, ["loss"])
    for panel, (workers, steps) in zip(axes[1:, 0], timeline.items(), strict=True):
        start = steps[0][1]
        numbers = {process: row for row, process in enumerate(dict.fromkeys(row[0] for row in steps), start=1)}
        for process, began, ended, got, done in steps:
            row, read = numbers[process] if workers else 0, ((began - start) / 1e9, (ended - began) / 1e9)
            panel.broken_barh([read], (row - 0.4, 0.8), color="C1", edgecolor="white", label="loads")
            panel.broken_barh([((got - start) / 1e9, (done - got) / 1e9)], (-0.4, 0.8), color="C0", label="computes")
        panel.set_yticks(range(workers + 1), ["main", *(f"worker {row}" for row in range(1, workers + 1))], fontsize=7)
        panel.set(xlim=(0, 0.8), ylim=(workers + 0.6, -0.6), xlabel="seconds")
    if timeline:
        handles, labels = axes[1, 0].get_legend_handles_labels()
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1)}  # above the first timeline, for all
        axes[1, 0].legend(handles[:2], labels[:2], frameon=False, fontsize=7, ncols=2, **place)
    return drawing


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
