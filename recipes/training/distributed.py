"""Distributed training: processes that share each batch and end with the same weights.

The gradient of a mean over a batch is the mean of the gradients over its parts. So each process (a *rank*) takes
its own part, computes its gradient, and all of them average what they got before anyone takes a step: the same
step as one process would take with the whole batch. Replicas that start alike stay alike. DDP does just this, and
hides the averaging behind the backward pass. FSDP keeps on each rank a share of the weights, gathers a layer when
it is needed, and leaves each rank the gradient of its share: the same numbers with less memory.

The run starts its own processes on this machine. Under torchrun, on this machine or on many, all other recipes
train in this way without a line of their own: `Loop` does it.

Notes:
Paper: Li and others (2020), "PyTorch Distributed: Experiences on Accelerating Data Parallel Training",
    https://arxiv.org/abs/2006.15704; Zhao and others (2023), "PyTorch FSDP: Experiences on Scaling Fully Sharded
    Data Parallel", https://arxiv.org/abs/2304.11277
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import pick_device, setup
from recipes.core.errors import InputError
from recipes.core.figures import draw_curves, new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.core.task import whole_weights
from recipes.datasets.images import open_images
from recipes.training.scoring import evaluate, majority


class MLP(nn.Sequential):
    """Two hidden layers. No batch norm, which would take its statistics over one process's share alone."""

    def __init__(self, inputs: int, num_classes: int, width: int) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(inputs, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, num_classes),
        )


def average_gradients(model: nn.Module) -> None:
    """g = 1/N Σ_rank g_rank, in place on every rank, for each parameter."""
    for parameter in model.parameters():
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad)  # the sum, on all ranks
        parameter.grad /= dist.get_world_size()


def gradient(model: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """The whole gradient of the mean cross-entropy over this rank's batch, as `model` leaves it."""
    model.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    found = [parameter.grad for parameter in model.parameters()]
    return [each.full_tensor() if hasattr(each, "full_tensor") else each.clone() for each in found if each is not None]


def drift(model: nn.Module) -> float:
    """The largest difference between this rank's weights and the mean over all ranks, over all ranks."""
    farthest = torch.zeros((), device=next(model.parameters()).device)
    for parameter in model.parameters():
        mean = parameter.detach().clone()
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
        farthest = torch.maximum(farthest, (parameter.detach() - mean).abs().max())
    dist.all_reduce(farthest, dist.ReduceOp.MAX)
    return farthest.item()


def work(rank: int, world: int, folder: str, given: dict[str, Any]) -> None:
    """What each process does; leaves its findings in the file `{world}-{rank}.pt` of the folder."""
    torch.set_num_threads(1)  # the processes share the cores
    device = torch.device("cuda", rank) if given["gpus"] else torch.device("cpu")
    meeting = f"file://{folder}/meeting-{world}"
    dist.init_process_group("nccl" if given["gpus"] else "gloo", init_method=meeting, rank=rank, world_size=world)
    train_set, test_set = open_images(given["data"], image_size=given["image_size"], seed=given["seed"])
    loader = old_batches(train_set, given["batch_size"], seed=given["seed"])
    images, labels = (tensor.to(device) for tensor in next(iter(loader)))  # this rank's share of the first batch

    def new_model() -> MLP:
        torch.manual_seed(given["seed"])  # the same weights on every rank
        return MLP(images[0].numel(), len(train_set.classes), given["width"]).to(device)

    def train(model: nn.Module, **engine: Any) -> OldLoop:
        optimizer = torch.optim.AdamW(model.parameters(), lr=given["lr"], weight_decay=0.05)
        loop = OldLoop(
            model,
            optimizer,
            old_batches(train_set, given["batch_size"], seed=given["seed"]),
            epochs=given["epochs"],
            device=device,
            schedule=one_cycle,
            evaluate=lambda: evaluate(model, test_set, device),
            **engine,
        )
        for inputs, targets in loop:
            loss = F.cross_entropy(loop.model(inputs), targets)
            loop.step(loss)
        return loop

    by_hand, replica = new_model(), new_model()
    gradients = {"alone": gradient(by_hand, images, labels)}
    average_gradients(by_hand)
    gradients["by hand"] = [parameter.grad for parameter in by_hand.parameters() if parameter.grad is not None]
    gradients["DDP"] = gradient(nn.parallel.DistributedDataParallel(replica), images, labels)
    model = new_model()
    loop = train(model)  # replicated by DDP where there are several
    found: dict[str, Any] = {
        "seen": torch.tensor(list(loader.sampler)),  # in this epoch
        "history": loop.history,
        "weights": whole_weights(model),
        "drift": drift(model),
    }
    if world > 1:
        sharded: Any = fully_shard(new_model())
        parts = list(sharded.parameters())
        found["held"] = sum(part.to_local().numel() for part in parts) / sum(part.numel() for part in parts)
        gradients["FSDP"] = gradient(sharded, images, labels)
        found["sharded"] = train(new_model(), shard=True).history
        forgetful = new_model()
        optimizer = torch.optim.SGD(forgetful.parameters(), lr=0.1)
        for inputs, targets in loader:  # nobody averages
            gradient(forgetful, inputs.to(device), targets.to(device))
            optimizer.step()
        found["drift without averaging"] = drift(forgetful)
    found["gradients"] = {name: [each.cpu() for each in those] for name, those in gradients.items()}
    torch.save(found, Path(folder) / f"{world}-{rank}.pt")
    dist.destroy_process_group()


def farthest(mine: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference between two gradients, in any parameter."""
    return max((one - other).abs().max().item() for one, other in zip(mine, theirs, strict=True))


def draw(differences: dict[str, float], seen: list[Tensor], history: list[dict[str, float]]) -> Any:
    """How far each gradient is from one process's, who sees which picture, and the training."""
    figure, axes = new_figure(1, 3, width=4.2)
    axes[0, 0].barh(list(differences), [max(value, 1e-12) for value in differences.values()])
    axes[0, 0].set(xscale="log", title="gradient: difference from one process's")
    axes[0, 0].invert_yaxis()
    for rank, indices in enumerate(seen):
        axes[0, 1].plot(range(40), indices[:40], "o", markersize=4, label=f"rank {rank}")
    axes[0, 1].set(title="who sees which picture", xlabel="place in the epoch", ylabel="number of the picture")
    axes[0, 1].legend(loc="upper right")
    draw_curves(axes[0, 2], history, ["loss", "accuracy"])
    for place in axes[0]:
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    processes: int = 2,
    width: int = 128,
    epochs: int = 8,
    batch_size: int = 64,
    lr: float = 3e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
) -> Result:
    """Trains one network by one process, by several replicas, and sharded, and compares gradients and metrics.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        processes: to start, at least 2.
        width: neurons in each of the two hidden layers.
        epochs: passes over the training pictures.
        batch_size: pictures in an optimizer step, over all processes; a multiple of their number.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu or cuda; auto is cuda where there is a GPU for each process.
        seed: of the weights and of the order of the pictures.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError("this recipe starts its own processes: expected a run without torchrun")
    if processes < 2 or batch_size % processes:
        raise InputError(
            "options processes and batch_size: expected at least 2, and a multiple of it, "
            f"got {processes} and {batch_size}"
        )
    enough = torch.cuda.is_available() and torch.cuda.device_count() >= processes
    gpus = enough and pick_device(device).type == "cuda"
    setup("cpu", seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)  # what is wrong with it is said once
    given: dict[str, Any] = {
        "data": data,
        "image_size": image_size,
        "width": width,
        "epochs": epochs,
        "batch_size": batch_size,
    }
    given |= {"lr": lr, "seed": seed, "gpus": gpus}
    with tempfile.TemporaryDirectory() as folder:
        for world in (1, processes):
            mp.spawn(work, (world, folder, given), nprocs=world)
        files = [Path(folder) / f"{world}-{rank}.pt" for world in (1, processes) for rank in range(world)]
        one, *ranks = [torch.load(file, weights_only=True) for file in files]
    first, truth = ranks[0], one["gradients"]["alone"]
    names = {"alone": "each rank for itself", "by hand": "averaged by hand", "DDP": "DDP", "FSDP": "FSDP"}
    differences = {label: farthest(first["gradients"][name], truth) for name, label in names.items()}
    seen = torch.cat([rank["seen"] for rank in ranks])
    model = MLP(math.prod(train_set.shape), len(train_set.classes), width)
    model.load_state_dict(first["weights"])
    metrics = evaluate(model, test_set, torch.device("cpu"))
    last = {"one process": one["history"], "DDP": first["history"], "FSDP": first["sharded"]}
    gathered = first["history"][-1]["accuracy"]
    return Result(
        metrics=metrics,
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.95},
        claims=[
            claim("one rank's gradient is not the batch's: largest difference", differences[names["alone"]], ">", 1e-4),
            claim("the ranks' average is: by hand", differences[names["by hand"]], "<", 1e-6),
            claim("by DDP", differences["DDP"], "<", 1e-6),
            claim("by FSDP", differences["FSDP"], "<", 1e-6),
            claim("replicas stay alike: largest difference of weights after training", first["drift"], "<=", 0),
            claim("without averaging they part within an epoch", first["drift without averaging"], ">", 1e-3),
            claim("pictures that two ranks saw in the same epoch", len(seen) - len(seen.unique()), "<=", 0),
            claim(
                "the ranks' accuracy, gathered, differs from one process's on them",
                abs(gathered - metrics["accuracy"]),
                "<=",
                0,
            ),
            claim("weights that a rank holds when they are sharded, share", first["held"], "<", 1.2 / processes),
        ],
        rows=[
            {"trained by": name} | {key: history[-1][key] for key in ("loss", "accuracy")}
            for name, history in last.items()
        ],
        history=first["history"],
        model=model,
        draw=lambda: draw(differences, [rank["seen"] for rank in ranks], first["history"]),
    )


if __name__ == "__main__":
    main(run)
