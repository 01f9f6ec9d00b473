"""Checkpointing: save, kill, resume, and end with the same weights to the bit.

A training is more than its weights. The optimizer keeps running means, the schedule counts steps, dropout draws from
the random state, and the epoch has come to some batch. A checkpoint holds all of it in one file, which is written
beside the last one and then put in its place in one step: a process that is killed while it writes leaves the last one
whole. Here a process is killed twenty times (by SIGKILL, which no program can catch), each time at a random step, and a
new one resumes from the file.

Then one part is lost at every kill, to see what it was for. Any of them changes the weights at the end. How much that
matters differs: without the schedule's count each new process warms up again and the model ends far behind, while the
optimizer's running means are soon found again.

Paper: Mohan, Phanishayee, Chidambaram (2021), "CheckFreq: Frequent, Fine-Grained DNN Checkpointing",
    https://www.usenix.org/conference/fast21/presentation/mohan
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

import contextlib
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.checkpoints import random_state, set_random_state
from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, main, one_cycle, option, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.training.by_hand import refuse_engine
from recipes.training.scoring import evaluate, least_squares
from recipes.vision.classification.using import Classification


@dataclass(kw_only=True)
class CheckpointingOptions(Options):
    width: int = option(16, "channels of the first convolution", least=1)
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    kills: int = option(20, "how many times a training is killed, for the claims", least=1)
    checkpoint: str | None = option(None, "folder to save the training in, and to resume from if it holds one")
    save_every: int | None = option(5, "optimizer steps from one checkpoint to the next", least=1)
    epochs: int = 8
    batch_size: int = 64


def build(options: CheckpointingOptions, data: Images | ImageFiles) -> nn.Sequential:
    """Two convolutions; batch norm has state that is no weight, and dropout draws random numbers."""
    width = options.width
    return nn.Sequential(
        *(nn.Conv2d(data.shape[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(2)),
        nn.Flatten(),  # (batch, 8 * width)
        *(nn.Dropout(0.3), nn.Linear(8 * width, len(data.classes))),
    )


class Training:
    """All that a training is made of, and the one step that it repeats."""

    def __init__(self, options: CheckpointingOptions, train_set: Images | ImageFiles) -> None:
        self.options, self.train_set = options, train_set
        self.model = build(options, train_set).to(options.device)
        self.batch_size = min(options.batch_size, len(train_set))
        self.batches = len(train_set) // self.batch_size  # in an epoch
        self.total = options.steps or options.epochs * self.batches
        self.losses: list[float] = []  # of each step so far: their number says where the training has come to
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=options.lr)
        factor = lambda step: one_cycle(min(step / self.total, 1))  # noqa: E731
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)

    def step(self) -> None:
        epoch, batch = divmod(len(self.losses), self.batches)
        # The order depends on the seed and the epoch alone: a resumed run finds its batch again
        generator = torch.Generator().manual_seed(1_000_003 * self.options.seed + epoch)
        order = torch.randperm(len(self.train_set), generator=generator)
        images, labels = self.train_set.__getitems__(order.split(self.batch_size)[batch])
        loss = F.cross_entropy(self.model(images.to(self.options.device)), labels.to(self.options.device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.losses.append(loss.item())

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on, as tensors, numbers and text: to read them, no code is run."""
        kept = ("epochs", "steps", "batch_size", "lr", "seed", "width")
        return {
            "model": self.model.state_dict(),  # the weights, and batch norm's running means
            "optimizer": self.optimizer.state_dict(),  # Adam's running means
            "schedule": self.schedule.state_dict(),  # how many steps it has counted
            "random": random_state(torch.device(self.options.device)),  # what dropout draws from
            "losses": self.losses,
            "options": {name: getattr(self.options, name) for name in kept}
            | {"pictures": len(self.train_set), "shape": list(self.train_set.shape)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        mine = self.state_dict()["options"]
        if other := {name: value for name, value in state["options"].items() if value != mine.get(name)}:
            raise ValueError(f"it was started with {other}")
        for name in ("model", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        set_random_state(state["random"], torch.device(self.options.device))
        self.losses = list(state["losses"])


def save(state: dict[str, Any], file: Path) -> None:
    """Writes the state beside `file`, and then puts it in the place of `file` in one step."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    torch.save(state, unfinished)
    with unfinished.open("rb+") as written:
        os.fsync(written.fileno())  # on the disk, and not only on its way there
    os.replace(unfinished, file)


def train(training: Training, file: Path | None = None, save_every: int | None = None) -> Iterator[int]:
    """Trains to the end, from the checkpoint on if there is one; yields the number of each step after it is done."""
    if file is not None and file.exists():
        try:
            training.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as error:
            raise InputError(f"{file}: expected a checkpoint of this training ({str(error)[:200]})") from None
    training.model.train()
    while (step := len(training.losses)) < training.total:
        training.step()
        if not math.isfinite(training.losses[-1]):
            raise FloatingPointError(f"the loss became {training.losses[-1]} in step {step + 1}; a lower lr may help")
        if file is not None and (step + 1 == training.total or (save_every and (step + 1) % save_every == 0)):
            save(training.state_dict(), file)
        yield step + 1


@recipe(CheckpointingOptions)
def run(options: CheckpointingOptions) -> Result:
    """Trains a network by a loop that can be killed at any step, and run again to resume."""
    refuse_engine(options)
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    training = Training(options, train_set)
    file = Path(options.checkpoint).expanduser() / "training.pt" if options.checkpoint else None
    list(train(training, file, options.save_every))
    epochs = [training.losses[start : start + training.batches] for start in range(0, training.total, training.batches)]
    return Result(
        metrics=evaluate(training.model, test_set, options.device),
        baseline=least_squares(train_set, test_set),
        baseline_name="linear classifier, solved",
        bars={"accuracy": 0.96},
        history=[{"epoch": number, "loss": mean(losses)} for number, losses in enumerate(epochs, start=1)],
        model=training.model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result, here = run(), {"out": None, "checkpoint": None, "device": "cpu"}  # which alone promises it to the bit
    options, train_set = CheckpointingOptions(**result.options | here | {"data": None}), result.train_set
    with tempfile.TemporaryDirectory() as name, torch.random.fork_rng(devices=[]):
        folder, whole = Path(name), new_training(options, train_set)
        draw = torch.Generator().manual_seed(options.seed)
        kills = sorted((1 + torch.randperm(whole.total - 1, generator=draw)[: options.kills]).tolist())
        list(train(whole))
        weights = whole.model.state_dict()
        # Windows cannot fork, a notebook is no file to run in another process, and Datasets are in this one alone
        if hasattr(os, "fork") and Path(__file__).suffix == ".py" and isinstance(result.options["data"], str | None):
            order = json.dumps({"options": result.options | here, "kills": kills, "threads": torch.get_num_threads()})
            subprocess.run([sys.executable, "-c", KILLER, __file__, name, order], check=True)
            differ = differing(weights, torch.load(folder / "end.pt", weights_only=True))
            yield Claim(f"killed {len(kills)} times: numbers that differ in the end", differ, "<=", 0, kind="fact")
        for steps in (12, 39, None):
            stopped = train_with_loop(options.with_changes(checkpoint=name, save_every=5), train_set, steps)
        differ = differing(train_with_loop(options, train_set), stopped)
        yield Claim("the same with `Loop`, stopped and resumed twice", differ, "<=", 0, kind="fact")
        save(whole.state_dict(), folder / "whole.pt")
        size = (folder / "whole.pt").stat().st_size / sum(value.nbytes for value in weights.values())
        yield Claim("bytes of a checkpoint, over those of the weights alone", size, ">", 2, kind="fact")
        for lost in ("nothing", "model", "optimizer", "schedule", "random", "losses"):
            variants = [options.with_changes(seed=options.seed + number) for number in range(3)]
            models, curves = zip(*(lose(lost, kills, one, train_set) for one in variants), strict=True)
            scores = [evaluate(model, result.test_set, torch.device("cpu")) for model in models]
            row: dict[str, Any] = {"lost": lost, "differ": differing(weights, models[0].state_dict())}
            row |= {key: mean(one[key] for one in scores) for key in scores[0]}
            epochs = torch.tensor(curves).mean(dim=0).split(whole.batches)
            result.rows.append(row | {str(i): round(part.mean().item(), 4) for i, part in enumerate(epochs, 1)})
    nothing, _, optimizer, schedule, *_ = result.rows
    yield Claim("whatever is lost, numbers differ", min(row["differ"] for row in result.rows[1:]), ">", 0, kind="fact")
    yield Claim("held-out loss: higher without the schedule", schedule["loss"], ">", nothing["loss"], margin=0.005)
    text = "loss in the last epoch: lower without the optimizer's state than without the schedule"
    yield Claim(text, optimizer[str(len(epochs))], "<", schedule[str(len(epochs))], margin=0.02)


def new_training(options: CheckpointingOptions, train_set: Images | ImageFiles) -> Training:
    torch.manual_seed(options.seed)
    return Training(options, train_set)


def lose(lost: str, kills: list[int], options: CheckpointingOptions, train_set: Any) -> tuple[nn.Module, list[float]]:
    """A model resumed after these steps from all but one part of the training, and the loss of each step."""
    training, losses = new_training(options, train_set), []
    for step in range(1, training.total + 1):
        training.step()
        losses.append(training.losses[-1])
        if step in kills:
            state, training = training.state_dict(), new_training(options, train_set)
            training.load_state_dict(state | {key: one for key, one in training.state_dict().items() if key == lost})
    return training.model, losses


def train_with_loop(options: CheckpointingOptions, train_set: Any, steps: int | None = None) -> dict[str, Tensor]:
    """The weights of a training whose checkpoints `Loop` writes and reads; it ends without a word after some steps."""
    model = new_training(options, train_set).model
    loop = Loop(model, torch.optim.AdamW(model.parameters(), lr=options.lr), batches(train_set, options), options)
    for images, labels in islice(loop, steps):
        loop.step(F.cross_entropy(loop.model(images), labels))
    return model.state_dict()


# A new process, whose forks have no threads or GPU of this one to trip over, nor torch._dynamo to import
KILLER = "import runpy, sys, torch._dynamo; runpy.run_path(sys.argv[1])['kill_again_and_again'](*sys.argv[2:])"


def kill_again_and_again(folder: str, order: str) -> None:
    """Kills the training when it has reported each of the steps in the order; the last process trains to the end."""
    given, context = json.loads(order), multiprocessing.get_context("fork")
    torch.set_num_threads(given["threads"])  # a sum over another number of threads rounds differently
    options = CheckpointingOptions(**given["options"])
    train_set, _ = open_images(options.data, image_size=options.image_size, seed=options.seed)

    def train_and_report(pipe: Any) -> None:
        training = new_training(options, train_set)
        for step in train(training, Path(folder, "killed.pt"), options.save_every or 5):
            pipe.send(step)
        save(training.model.state_dict(), Path(folder, "end.pt"))

    for kill in [*given["kills"], math.inf]:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=train_and_report, args=(theirs,))
        process.start()
        theirs.close()
        with contextlib.suppress(EOFError):  # it has trained to the end
            while ours.recv() < kill:
                pass
        process.kill()  # SIGKILL: in the middle of the next step, or of writing a checkpoint
        process.join()


def differing(state: dict[str, Tensor], other: dict[str, Tensor]) -> int:
    """How many numbers of two models, running means of batch norm among them, are not equal."""
    return sum(int((value != other[name]).sum()) for name, value in state.items())


@run.figure
def figure(result: Result) -> Any:
    drawing, axes = new_figure(width=5.5, height=3.8)
    whole = {"lost": "nothing"} | {str(row["epoch"]): row["loss"] for row in result.history}
    for row in result.rows or [whole]:
        losses = {int(epoch): loss for epoch, loss in row.items() if epoch.isdigit()}
        axes[0, 0].plot(list(losses), list(losses.values()), marker=".", label=f"lost: {row['lost']}")
    axes[0, 0].set(yscale="log", xlabel="epoch", ylabel="training loss")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return drawing


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
