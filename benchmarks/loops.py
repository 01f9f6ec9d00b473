"""`Loop` against the same training written by hand, with Accelerate, Lightning, and Transformers' Trainer.

All train one network on one in-memory set with one optimizer. The time of a step is read off the calls
of the network, from the second to the last, so that nobody's start-up counts.
"""

import contextlib
import importlib.util
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.row import Row
from recipes.core import plain
from recipes.core.loading import batches
from recipes.core.loop import Loop
from recipes.core.options import Options

STEPS, BATCH, WIDTH = 60, 128, 640
OPTIONS = Options(epochs=1, batch_size=BATCH, device="cpu")


class Pictures:
    """Random pictures: what they show does not matter to the clock."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(STEPS * BATCH, 784, generator=generator)
        self.labels = torch.randint(10, (STEPS * BATCH,), generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.images[indices], self.labels[indices]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]


class Timed(nn.Module):
    """A network of three layers that notes when it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)
        )
        self.calls: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(time.perf_counter())
        return self.layers(images)

    def seconds_a_step(self) -> float:
        return (self.calls[-1] - self.calls[1]) / (len(self.calls) - 2)


def by_hand(dataset: Pictures) -> float:
    model = Timed()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for images, labels in batches(dataset, OPTIONS):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.seconds_a_step()


def with_loop(dataset: Pictures) -> float:
    model = Timed()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loop = Loop(model, optimizer, batches(dataset, OPTIONS), OPTIONS)
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(images), labels))
    return model.seconds_a_step()


def with_plain_frame(dataset: Pictures) -> float:
    """The loop that copies get."""
    model, options = Timed(), plain.Options(epochs=1, batch_size=BATCH, device="cpu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loop = plain.Loop(model, optimizer, plain.batches(dataset, options), options)
    with contextlib.redirect_stdout(io.StringIO()):
        for images, labels in loop:
            loop.step(F.cross_entropy(loop.model(images), labels))
    return model.seconds_a_step()


def with_accelerate(dataset: Pictures) -> float:
    from accelerate import Accelerator

    model = Timed()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    accelerator = Accelerator(cpu=True)
    prepared, optimizer, loader = accelerator.prepare(model, optimizer, batches(dataset, OPTIONS))
    prepared.train()
    for images, labels in loader:
        optimizer.zero_grad()
        accelerator.backward(F.cross_entropy(prepared(images), labels))
        optimizer.step()
    return model.seconds_a_step()


def with_lightning(dataset: Pictures) -> float:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Timed()

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            images, labels = batch
            return F.cross_entropy(self.model(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module = Module()
    quiet: dict[str, Any] = dict.fromkeys(
        ("enable_progress_bar", "enable_checkpointing", "enable_model_summary", "logger"), False
    )
    lightning.Trainer(max_epochs=1, accelerator="cpu", **quiet).fit(module, batches(dataset, OPTIONS))
    return module.model.seconds_a_step()


def with_trainer(dataset: Pictures) -> float:
    from transformers import Trainer, TrainingArguments

    model = Timed()

    class LossTrainer(Trainer):
        def get_train_dataloader(self) -> DataLoader:
            return batches(dataset, OPTIONS)

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            images, labels = inputs
            return F.cross_entropy(model(images), labels)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-3,
            max_grad_norm=0.0,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            logging_strategy="no",
        )
        LossTrainer(model=model, args=arguments, train_dataset=dataset).train()
    return model.seconds_a_step()


def measure(rounds: int = 9) -> list[Row]:
    ways: dict[str, Callable[[Pictures], float]] = {"Loop": with_loop, "the loop by hand": by_hand}
    ways["the loop of copies"] = with_plain_frame
    others = {"accelerate": with_accelerate, "lightning": with_lightning, "transformers": with_trainer}
    ways |= {name: way for name, way in others.items() if importlib.util.find_spec(name)}
    dataset = Pictures()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for turn in range(rounds + 1):
            for name, way in ways.items():
                taken = way(dataset)
                if turn:  # the first round warms up
                    seconds[name].append(taken)
    rows = []
    for name in list(ways)[1:]:
        ratios = [mine / other for mine, other in zip(seconds["Loop"], seconds[name], strict=True)]
        milliseconds = 1000 * sorted(seconds[name])[rounds // 2]
        remark = f"their step {milliseconds:.2f} ms"
        rows.append(Row("`Loop`", name, ratios, "≤ 1.03" if name == "the loop by hand" else "", remark))
    return rows
