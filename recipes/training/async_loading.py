"""Asynchronous loading: the next batches are read while the network learns from this one.

Reading from a disk or over a network is mostly waiting, and a training loop that reads its own batches waits
along: a step takes load + compute. A `DataLoader` with `num_workers` reads in as many processes beside it, and lets
each read `prefetch_factor` batches ahead. Then a step takes max(load / workers, compute), and from some number of
workers on it is the network alone that counts. That is the ideal; the times here are held against it.

Both sides are of a known length. Reading a digit waits for 1.5 ms, which stands in for a slow disk. A step
trains a real, small network and then waits until 30 ms are over, which stands in for a large one on a GPU: it
leaves the processor free. Whatever the number of workers, the batches are the same in the same order, so the
weights learned are the same to the bit. Workers have to be started, though: persistent ones once and for all,
others at every epoch. On a GPU, batches in pinned memory, which never moves, are copied faster and in the
background.

Notes: 47
Paper: Paszke et al. (2019), "PyTorch: An Imperative Style, High-Performance Deep Learning Library",
    https://arxiv.org/abs/1912.01703
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import statistics
import time
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, get_worker_info

from recipes.core.command_line import main
from recipes.core.device import rank_and_world, setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.loading import Loader, Reading, Share
from recipes.core.measure import interleaved, ratio
from recipes.core.old import OldLoop, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.training.scoring import evaluate, majority

MOST_WORKERS = 64
WARM_UP = 4  # steps before the time of a step is taken
Sample = tuple[Tensor, int, float]  # a picture, its class, and when its reading began


class SlowStore(Dataset):
    """Pictures read one by one; each comes after `wait` seconds, and every 128th after `stall` more."""

    def __init__(self, pictures: Images | ImageFiles, wait: float, *, stall: float = 0.0) -> None:
        self.pictures, self.wait, self.stall = pictures, wait, stall
        self.files = pictures.files if isinstance(pictures, ImageFiles) else [f"picture {i}" for i in range(len(self))]
        self.reading = Reading()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        began = time.perf_counter()
        self.reading.note(index)
        time.sleep(self.wait + self.stall * (index % 128 == 0))  # stands in for the disk or the network
        image, label = self.pictures[index]  # decodes it: (C, H, W)
        return image, label, began


def collate(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, tuple[int, float, float]]:
    """A batch of pictures and classes, and who read them from when to when: 0 is the main process, 1 a worker."""
    images, labels, began = zip(*samples, strict=True)
    worker = get_worker_info()
    return torch.stack(images), torch.tensor(labels), (worker.id + 1 if worker else 0, began[0], time.perf_counter())


def make_loader(
    store: Dataset,
    batch_size: int,
    workers: int,
    *,
    seed: int = 0,
    persistent: bool = True,
    prefetch: int = 2,
    pinned: bool = False,
) -> DataLoader:
    """Shuffled batches of `batch_size` over all processes, in an order that the number of workers does not change."""
    rank, world = rank_and_world()
    # Fewer cores than workers are no matter where these only wait
    warnings.filterwarnings("ignore", "This DataLoader will create")
    return Loader(  # a DataLoader that names what a killed worker was reading
        store,
        max(1, batch_size // world),
        sampler=Share(store, world, rank, seed=seed, drop_last=True),  # by the seed and the epoch alone
        num_workers=workers,  # processes that read; with 0 the main one does, when it is asked
        persistent_workers=persistent and workers > 0,  # that stay from epoch to epoch
        prefetch_factor=prefetch if workers else None,  # batches that each reads ahead
        pin_memory=pinned,  # batches go where a GPU copies from by itself
        collate_fn=collate,
        drop_last=True,
        generator=torch.Generator().manual_seed(seed),  # draws a number; worker w is seeded with that plus w
    )


class Step(NamedTuple):
    """A batch on its way, in seconds on the clock that all processes of a machine share."""

    epoch: int
    reader: int
    read_from: float
    read_to: float
    got: float  # by the main process
    done: float  # learned from


def build_model(channels: int, num_classes: int) -> nn.Module:
    """Two convolutions and a linear layer: learned in seconds."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveMaxPool2d(1)),
        nn.Flatten(),  # (batch, 64)
        nn.Linear(64, num_classes),
    )


def train(
    model: nn.Module, loader: DataLoader, *, compute: float, lr: float, device: torch.device, **loop_options: Any
) -> tuple[OldLoop, float, list[Step]]:
    """Minimises the cross-entropy in steps of at least `compute` seconds; gives the loop, its start and its steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    loop = OldLoop(model, optimizer, loader, device=device, **loop_options)
    steps: list[Step] = []
    began = time.perf_counter()
    for images, labels, (reader, read_from, read_to) in loop:
        got = time.perf_counter()
        loss = F.cross_entropy(loop.model(images), labels)
        loop.step(loss)
        loss.item()  # a GPU is done only now
        time.sleep(max(0.0, got + compute - time.perf_counter()))  # stands in for a larger network on a GPU
        steps.append(Step(loop.epoch, reader, read_from, read_to, got, time.perf_counter()))
    return loop, began, steps


def waits(loader: DataLoader, compute: float = 0.0, epochs: int = 1) -> list[list[float]]:
    """Seconds that a loop with `compute` seconds a step waits for each batch; a list an epoch."""
    waited: list[list[float]] = []
    asked = time.perf_counter()
    for _ in range(epochs):
        waited.append([])
        for _ in loader:
            waited[-1].append(time.perf_counter() - asked)
            time.sleep(compute)
            asked = time.perf_counter()
    return waited


def pinned_ratio(device: torch.device) -> float:
    """Time of copying 32 MiB from pinned memory to a GPU, over that from ordinary memory."""
    ordinary, pinned = torch.zeros(2**23), torch.zeros(2**23).pin_memory()
    copies = {"pinned": lambda: pinned.to(device, non_blocking=True), "ordinary": lambda: ordinary.to(device)}
    seconds = interleaved(copies, device=device.type)
    return ratio(seconds["pinned"], seconds["ordinary"])[1]


def draw(runs: dict[int, tuple[float, list[Step]]], rows: list[dict[str, Any]]) -> Any:
    """Who did what when: the main process, and below it each worker, for each number of workers."""
    white = {"edgecolor": "white", "linewidth": 0.5}
    figure, axes = new_figure(-(-len(runs) // 2), 2, width=5.6, height=2.3)
    shown = (rows[0]["first_batch_ms"] + 6 * rows[0]["step_ms"]) / 1000  # seconds
    for place, (workers, (began, steps)), row in zip(axes.flatten(), runs.items(), rows, strict=False):
        for reader in range(workers + 1):
            spans = [(s.read_from - began, s.read_to - s.read_from) for s in steps if s.reader == reader]
            place.broken_barh(spans, (reader - 0.4, 0.8), color="C1", **white, label="loads")
        spans = [(step.got - began, step.done - step.got) for step in steps]
        place.broken_barh(spans, (-0.4, 0.8), color="C0", **white, label="computes")
        place.set_yticks(range(workers + 1), ["main", *(f"worker {one + 1}" for one in range(workers))], fontsize=8)
        place.set(xlim=(0, shown), ylim=(max(workers, 1) + 0.6, -0.6), xlabel="seconds")
        title = f"workers: {workers}, a step: {row['step_ms']:.0f} ms, ideal {row['ideal_ms']:.0f} ms"
        place.set_title(title, fontsize=9)
        place.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, ncols=2, loc="lower left", fontsize=8)
    for place in axes.flatten()[len(runs) :]:
        place.remove()
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    workers: int = 4,
    wait: float = 1.5,
    compute: float = 30.0,
    epochs: int = 6,
    batch_size: int = 64,
    lr: float = 5e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
) -> Result:
    """Trains from a slow store with more and more workers, and holds the time of a step against the ideal.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        workers: most processes that read; half as many, and so on, are measured too.
        wait: milliseconds that the store keeps the reader of a picture waiting; 0 for your own disk's time.
        compute: milliseconds that a training step takes at least; 0 for the network's own time.
        epochs: passes over the training pictures with the most workers; with fewer of them it is one.
        batch_size: pictures in an optimizer step, over all processes.
        lr: learning rate.
        device: auto, cpu, cuda or mps.
        seed: of the weights and of the order of the pictures.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if not 1 <= workers <= MOST_WORKERS:
        raise InputError(f"option workers: expected 1 to {MOST_WORKERS}, got {workers}")
    if min(wait, compute) < 0:
        raise InputError(f"options wait and compute: expected 0 milliseconds or more, got {wait} and {compute}")
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    if len(train_set) < 2 * WARM_UP * batch_size:
        raise InputError(f"option batch_size: expected at most {len(train_set) // (2 * WARM_UP)}, for steps to measure")
    on_gpu, seconds = place.type == "cuda", compute / 1000
    store = SlowStore(train_set, wait / 1000)
    runs: dict[int, tuple[float, list[Step]]] = {}
    rows: list[dict[str, Any]] = []
    for count in sorted({0, *(workers >> halvings for halvings in range(workers.bit_length()))}):
        torch.manual_seed(seed)
        model = build_model(train_set.shape[0], len(train_set.classes)).to(place)
        loader = make_loader(store, batch_size, count, seed=seed, pinned=on_gpu)
        score, passes = partial(evaluate, model, test_set, place), epochs if count == workers else 1
        loop, began, steps = train(model, loader, compute=seconds, lr=lr, device=place, epochs=passes, evaluate=score)
        steps = [step for step in steps if step.epoch == 0]
        if count == 0:  # nothing overlaps, so that each part can be timed
            load = statistics.mean(step.got - step.read_from for step in steps[WARM_UP:])
            work = statistics.mean(step.done - step.got for step in steps[WARM_UP:])
        ideal = max(load / count, work) if count else load + work
        taken = (steps[-1].done - steps[WARM_UP - 1].done) / (len(steps) - WARM_UP)
        times = {"first_batch_ms": steps[0].got - began, "step_ms": taken, "ideal_ms": ideal}
        rows.append({"workers": count} | {name: 1000 * one for name, one in times.items()})
        rows[-1] |= {"reached": ideal / taken, "loss": loop.history[0]["loss"]}
        runs[count] = began, steps
    fewer = max(1, batch_size // 4)
    few = SlowStore(train_set.subset(range(workers * fewer)), wait / 1000)
    pauses = {}
    for kept in (True, False):
        later = waits(make_loader(few, fewer, workers, persistent=kept), epochs=4)[1:]
        pauses[kept] = statistics.median(epoch[0] for epoch in later)
    stalling = SlowStore(train_set.subset(range(32 * fewer)), 0.0, stall=2.5 * seconds)
    one, eight = (sum(waits(make_loader(stalling, fewer, 2, prefetch=each), seconds / 2)[0][2:]) for each in (1, 8))
    (alone, *_, most), losses = rows, [row["loss"] for row in rows]
    slower_start = most["first_batch_ms"] / alone["first_batch_ms"]
    claims = [
        claim(f"loading overlaps computing: share of the ideal, {workers} workers", most["reached"], ">=", 0.85),
        claim("time of a step over that without workers", most["step_ms"] / alone["step_ms"], "<", 0.5),
        claim("the same batches: largest difference of the losses", max(losses) - min(losses), "<=", 0),
        claim("but workers have to start: time to the first batch over that without", slower_start, ">", 1),
        claim("persistent workers: pause between epochs over that of new ones", pauses[True] / pauses[False], "<", 0.7),
        claim("a store that stalls: waiting with prefetch_factor 8 over that with 1", eight / one, "<", 0.7),
    ]
    if on_gpu:
        claims.append(claim("pinned memory: time of a copy over that from ordinary", pinned_ratio(place), "<", 1))
    return Result(
        metrics=evaluate(model, test_set, place),
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.95},
        claims=claims,
        history=loop.history,
        rows=rows,
        model=model,
        draw=lambda: draw(runs, rows),
    )


if __name__ == "__main__":
    main(run)
