"""Checkpointing: save, kill, resume, and end with the same weights to the bit.

A training is more than its weights. The optimizer keeps running means, the schedule counts steps, dropout draws
from the random state, and the epoch has a place that it has come to. A checkpoint holds them all in one file,
which is written beside the last one and then put in its place in one step: whoever is killed while writing
leaves the last one whole. Here a process is killed twenty times (SIGKILL, which no program can catch), each time
at a random step, and a new one goes on from the file. Then each part is left out in turn, to see what it was for.

Paper: Mohan, Phanishayee, Chidambaram (2021), "CheckFreq: Frequent, Fine-Grained DNN Checkpointing",
    https://www.usenix.org/conference/fast21/presentation/mohan
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.checkpoints import random_state, set_random_state
from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.training.scoring import evaluate, majority


def build_model(channels: int, num_classes: int, *, width: int = 16) -> nn.Module:
    """Two convolutions; batch norm has state that is no weight, and dropout draws random numbers."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),  # (batch, 8 * width)
        *(nn.Dropout(0.3), nn.Linear(8 * width, num_classes)),
    )


def save(state: dict[str, Any], file: Path) -> None:
    """Writes the state beside `file`, and then puts it in the place of `file` in one step."""
    unfinished = file.with_suffix(".unfinished")
    torch.save(state, unfinished)
    with unfinished.open("rb") as written:
        os.fsync(written.fileno())  # on the disk, and not only on its way there
    os.replace(unfinished, file)


def train(
    model: nn.Module,
    train_set: Images | ImageFiles,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    file: Path | None = None,
    save_every: int = 5,
    without: str = "",
    after_step: Callable[[int, float], object] = lambda step, loss: None,
) -> list[float]:
    """Minimises the cross-entropy; goes on from the checkpoint if there is one. Gives the loss of each step.

    The checkpoint `file` is written every `save_every` steps, and is read but for the part `without`.
    """
    count = max(1, len(train_set) // batch_size)  # batches in an epoch
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(min(step / (epochs * count), 1)))
    stateful: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule}
    place = {"epoch": 0, "batch": 0}
    if file is not None and file.exists():
        state = torch.load(file, map_location="cpu", weights_only=True)  # no code in it is run
        for name in stateful.keys() - {without}:
            stateful[name].load_state_dict(state[name])
        for group, now in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
            group["lr"] = now
        if without != "random":
            set_random_state(state["random"], device)
        place = place if without == "place" else state["place"]
    model.train()
    losses: list[float] = []
    step = place["epoch"] * count + place["batch"]
    for epoch in range(place["epoch"], epochs):
        # The order depends on the seed and the epoch alone: to find the place again, the batch's number will do.
        order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(1000 * seed + epoch))
        for batch in range(place["batch"] if epoch == place["epoch"] else 0, count):
            images, labels = train_set.__getitems__(order[batch * batch_size : (batch + 1) * batch_size])
            loss = F.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if file is not None and step % save_every == 0:
                state = {name: part.state_dict() for name, part in stateful.items()}
                state |= {"random": random_state(device), "place": {"epoch": epoch, "batch": batch + 1}}
                save(state, file)
            losses.append(loss.item())
            after_step(step, losses[-1])
    return losses


def train_and_tell(pipe: Any, opened: dict[str, Any], folder: Path, options: dict[str, Any]) -> None:
    """What the process does that is killed: it trains, and tells of each step and its loss."""
    train_set, _ = open_images(**opened)
    torch.manual_seed(opened["seed"])
    model = build_model(train_set.shape[0], len(train_set.classes)).to(device := torch.device(options.pop("device")))
    told: Any = {"file": folder / "run.pt", "after_step": lambda *step_and_loss: pipe.send(step_and_loss)}
    train(model, train_set, device=device, **told, **options)
    save(model.state_dict(), folder / "end.pt")


def kill_again_and_again(folder: Path) -> None:
    """Kills the training once it has told of each of the steps in order.json; a last process trains to the end.

    Leaves the weights in end.pt, and in told.json the steps and losses that each process told of.
    """
    order = json.loads((folder / "order.json").read_text())
    torch.set_num_threads(order["threads"])  # a sum over another number of threads rounds differently
    context: Any = multiprocessing.get_context("fork")  # a copy of this process, which has torch imported
    told: list[list[tuple[int, float]]] = []
    for kill in [*order["kills"], None]:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=train_and_tell, args=(theirs, order["opened"], folder, order["options"]))
        process.start()
        told.append([])
        theirs.close()
        try:
            while kill is None or not told[-1] or told[-1][-1][0] < kill:
                told[-1].append(ours.recv())
        except EOFError:  # it has trained to the end
            process.join()
        finally:
            process.kill()  # SIGKILL: in the middle of the next step, or of writing a checkpoint
            process.join()
    (folder / "told.json").write_text(json.dumps(told))


def kill_and_resume(folder: Path, **order: Any) -> tuple[list[dict[str, Tensor]], list[list[tuple[int, float]]]]:
    """Calls `kill_again_and_again` in a new process, whose copies have no threads or GPU of this one to trip over.

    The order holds kills (steps in ascending order), threads, opened (for `open_images`) and options (for `train`).
    Gives the weights at the end, and for each process the steps that it told of with their losses.
    """
    (folder / "order.json").write_text(json.dumps(order))
    script = "import pathlib, runpy, sys, torch._dynamo\n"  # which the first optimizer would import in each copy
    script += "runpy.run_path(sys.argv[1])['kill_again_and_again'](pathlib.Path(sys.argv[2]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", script, __file__, str(folder)], check=True, env=environment)
    return [torch.load(folder / "end.pt", weights_only=True)], json.loads((folder / "told.json").read_text())


def differing(model: nn.Module, state: dict[str, Tensor]) -> int:
    """How many numbers of a model, running means of batch norm among them, differ from those of a state."""
    return sum(int((value.cpu() != state[name].cpu()).sum()) for name, value in model.state_dict().items())


def draw(whole: list[float], told: list[list[tuple[int, float]]], resumed: dict[str, list[float]], middle: int) -> Any:
    """The losses of the killed processes upon those of the one that was not, and those of the parts left out."""
    figure, ((left, right),) = new_figure(1, 2, width=5.2, height=3.6)
    left.plot(range(1, len(whole) + 1), whole, color="0.8", linewidth=5, label="not killed")
    for number, process in enumerate(told):
        left.plot(*zip(*process, strict=True), color="C0", linewidth=1, label=None if number else "killed and resumed")
    for process in told[:-1]:
        left.plot(*process[-1], "x", color="C3", label="killed here" if process is told[0] else None)
    for name, losses in resumed.items():
        smooth = [statistics.mean(losses[i : i + 5]) for i in range(len(losses) - 4)]
        style: dict[str, Any] = {"color": "0.8", "linewidth": 5} if name == "nothing" else {}
        right.plot(range(middle + 1, middle + 1 + len(smooth)), smooth, label=f"without {name}", **style)
    right.get_legend_handles_labels()[0][0].set_label("with everything")
    for place, means in ((left, ""), (right, ", mean of 5 steps")):
        place.set(yscale="log", xlabel="step", ylabel=f"training loss{means}")
        place.legend(frameon=False, fontsize=8)
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    kills: int = 20,
    save_every: int = 5,
    epochs: int = 8,
    batch_size: int = 64,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
) -> Result:
    """Kills a training again and again, and compares its weights with those of one that was left alone.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        kills: how often the training is killed.
        save_every: optimizer steps from one checkpoint to the next.
        epochs: passes over the training pictures.
        batch_size: pictures in an optimizer step.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the pictures and of the steps that the training is killed at.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    opened = {"data": data, "image_size": image_size, "seed": seed}
    train_set, test_set = open_images(**opened)  # type: ignore[arg-type]
    steps = epochs * max(1, len(train_set) // batch_size)
    if kills < 0 or save_every < 1 or steps < 8:
        given = f"got {kills}, {save_every} and {steps}"
        raise InputError(f"options kills, save_every, and steps in all: expected at least 0, 1 and 8, {given}")
    common: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "device": place, "seed": seed}

    def fresh(number: int = seed) -> nn.Module:
        torch.manual_seed(number)
        return build_model(train_set.shape[0], len(train_set.classes)).to(place)

    def train_with_loop(model: nn.Module, stop: int | None = None, **checkpoint: Any) -> nn.Module:
        optimizer, loader = torch.optim.AdamW(model.parameters(), lr=lr), old_batches(train_set, batch_size, seed=seed)
        loop = OldLoop(model, optimizer, loader, epochs=epochs, device=place, schedule=one_cycle, **checkpoint)
        for images, labels in loop:
            if loop.steps == stop:
                break
            loss = F.cross_entropy(loop.model(images), labels)
            loop.step(loss)
        return model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, middle = fresh(), steps // 2 + 3  # saved there, and not again before the end
        losses = train(whole, train_set, file=folder / "middle.pt", save_every=middle, **common)

        # Windows cannot copy a process, and the functions of a notebook stand in no file to run in another.
        kills = min(kills, steps - 1) if hasattr(os, "fork") and "__file__" in globals() else 0
        chosen = sorted((1 + torch.randperm(steps - 1, generator=torch.Generator().manual_seed(seed))[:kills]).tolist())
        order: Any = {"kills": chosen, "threads": torch.get_num_threads(), "opened": opened}
        order |= {"options": {**common, "device": str(place), "save_every": save_every}}
        ends, told = kill_and_resume(folder, **order) if kills else ([], [])

        rows: list[dict[str, Any]] = []
        resumed: dict[str, list[float]] = {}
        again: Any = {**common, "file": folder / "middle.pt", "save_every": 2 * steps}  # it stays as it is
        for part in ("nothing", "model", "optimizer", "schedule", "random", "place"):
            model = fresh(seed + 1)  # a new process has other weights and random numbers
            resumed[part] = train(model, train_set, without=part, **again)
            differ, accuracy = differing(whole, model.state_dict()), evaluate(model, test_set, place)["accuracy"]
            after = statistics.mean(resumed[part][:10])
            rows.append(
                {"left out": part, "numbers that differ": differ, "next 10 losses": after, "accuracy": accuracy}
            )

        shared = [str(folder)]
        if dist.is_initialized():
            dist.broadcast_object_list(shared)  # the main process's folder, which all of them read
        stops = [step for step in chosen[::4] if step >= save_every]  # there is a checkpoint by then
        for number, stop in enumerate([*stops, None]):
            stopped = train_with_loop(fresh(seed + number), stop, checkpoint=shared[0], save_every=save_every)
    in_loop = differing(train_with_loop(fresh()), stopped.state_dict())
    fewest = min(row["numbers that differ"] for row in rows[1:])
    with_all, without_optimizer = (statistics.mean(resumed[part][:10]) for part in ("nothing", "optimizer"))
    return Result(
        metrics=evaluate(whole, test_set, place),
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.97},
        claims=[
            *(
                claim(f"killed {kills} times: numbers that differ in the end", differing(whole, end), "<=", 0)
                for end in ends
            ),
            claim(f"the same with `Loop`, stopped {len(stops)} times", in_loop, "<=", 0),
            claim("any part left out changes the model: the fewest numbers that differ", fewest, ">", 0),
            claim("without the optimizer's state, the next 10 losses are higher", without_optimizer, ">", with_all),
        ],
        rows=rows,
        model=whole,
        draw=lambda: draw(losses, told, resumed, middle),
    )


if __name__ == "__main__":
    main(run)
