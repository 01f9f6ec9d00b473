"""Seconds to 90 % on Fashion-MNIST: `vision.classification` by default against the usual small example.

The other way is what tutorials show: two convolutions and two linear layers, a DataLoader that fetches
and transforms one picture at a time, Adadelta, batches of 64. The clock stops while
either is tested. Three seeds, in turn.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.row import Row
from recipes.core.loading import batches
from recipes.core.loop import Loop
from recipes.datasets.images import open_images
from recipes.vision.classification import task
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import ClassificationOptions, build

CPU = torch.device("cpu")
TARGET, END, EVERY, SEEDS = 0.90, 0.923, 50, (0, 1, 2)


class Usual(nn.Module):
    """Two 3×3 convolutions, pooling, dropout, two linear layers: 1.2 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Sequential(
            nn.Dropout(0.25), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class PerSample(Dataset):
    """One picture at a time through torchvision's transforms, as its data sets do."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        from torchvision import transforms

        self.images, self.labels = images, labels
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.286,), (0.353,))])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index, 0].numpy())), int(self.labels[index])


def usual_way(folder: Path, accuracy: Callable[[nn.Module], float], seed: int) -> Iterator[tuple[float, float]]:
    """Yields the seconds trained so far and the accuracy reached, every few steps."""
    train_set, _ = open_images(folder)
    torch.manual_seed(seed)
    model = Usual()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
    loader = DataLoader(PerSample(train_set.pixels(torch.arange(len(train_set))), train_set.labels), 64, shuffle=True)
    trained, start, step = 0.0, time.perf_counter(), 0
    for _ in range(6):
        for images, labels in loader:
            model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            step += 1
            if step % EVERY == 0:
                trained += time.perf_counter() - start
                yield trained, accuracy(model)
                start = time.perf_counter()
        schedule.step()


def fair_way(folder: Path, accuracy: Callable[[nn.Module], float], seed: int) -> Iterator[tuple[float, float]]:
    """The usual network with what the recipe has around its own: batched loading, AdamW, bf16, one cycle."""
    train_set, _ = open_images(folder)
    torch.manual_seed(seed)
    model, options = Usual().to(memory_format=torch.channels_last), ClassificationOptions(seed=seed, device="cpu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05, fused=True)
    loop = Loop(model, optimizer, batches(train_set, options), options)
    trained, start = 0.0, time.perf_counter()
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(images), labels))
        if loop.steps % EVERY == 0:
            trained += time.perf_counter() - start
            yield trained, accuracy(model)
            model.train()
            start = time.perf_counter()


def our_way(folder: Path, accuracy: Callable[[nn.Module], float], seed: int) -> list[tuple[float, float]]:
    """The same for the recipe: its own `train` with its default options, tested between two steps and at the end."""
    train_set, test_set = open_images(folder)
    options = ClassificationOptions(seed=seed, device="cpu")
    torch.manual_seed(seed)
    model, curve, step = build(options, train_set), [], Loop.step
    start, paused = time.perf_counter(), 0.0

    def look(network: nn.Module) -> None:
        nonlocal paused
        now = time.perf_counter()
        curve.append((now - start - paused, accuracy(network)))
        network.train()
        paused += time.perf_counter() - now

    def watched(loop: Loop, loss: Tensor) -> None:
        every = EVERY if loop.epoch == 0 else 5 * EVERY  # testing takes as long as training
        if loop.steps and loop.steps % every == 0:
            look(loop.module)
        step(loop, loss)

    with mock.patch.object(Loop, "step", watched), mock.patch.object(task, "evaluate", return_value={}):
        task.train(model, train_set, test_set, options)
    look(model)
    return curve


def measure() -> list[Row]:
    folder = Path(os.environ.get("RECIPES_REAL_DATA", "")) / "fashion_mnist"
    if not folder.is_dir():
        return []
    _, test_set = open_images(folder)

    def accuracy(model: nn.Module) -> float:
        return evaluate(model, test_set, CPU)["accuracy"]

    ratios, fair, ours, theirs, highs, ends = [], [], [], [], [], []
    for seed in SEEDS:
        run_through = our_way(folder, accuracy, seed)
        ours.append(first(run_through, TARGET))
        highs.append(first(run_through, END))
        ends.append(run_through[-1])
        theirs.append(first(usual_way(folder, accuracy, seed), TARGET))
        ratios.append(ours[-1] / theirs[-1])
        fair.append(ours[-1] / first(fair_way(folder, accuracy, seed), TARGET))
    told = f"{seconds(ours)} against {seconds(theirs)}; ours passes {100 * END:.1f} % after {seconds(highs)} and ends "
    told += f"after {seconds([end for end, _ in ends])} at {', '.join(f'{100 * reached:.1f}' for _, reached in ends)} %"
    name = "`vision.classification` to 90 % on Fashion-MNIST"
    differs = "its network with this loading, AdamW, bf16 and schedule; no averaging"
    return [Row(name, "the usual example", ratios, "≤ 0.15", told), Row(name, "the same, modern", fair, "", differs)]


def first(curve: Iterable[tuple[float, float]], target: float) -> float:
    """Seconds until the accuracy is first there; not a number if it never is."""
    return next((passed for passed, reached in curve if reached >= target), math.nan)


def seconds(values: list[float]) -> str:
    return f"{', '.join(f'{value:.0f}' for value in values)} s"
