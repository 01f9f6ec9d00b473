"""Distributed training: processes that share each batch and end with the same weights.

The gradient of a mean over a batch is the mean of the gradients over its parts. So each process (a *rank*) takes its
own part, computes its gradient, and all of them average these before anyone takes a step: the same step as one
process would take with the whole batch. Replicas that start alike stay alike. DDP does just this, and hides the
averaging behind the backward pass. FSDP keeps on each rank a share of the weights, gathers a layer when it is needed,
and leaves each rank the gradient of its share: the same numbers with less memory.

Batch norm breaks the first sentence, since its mean and variance are of one part alone; where parts are small they are
noise. Summed over all processes, as `SyncBatchNorm` sums them, they are the whole batch's again. The run starts its
own processes; under torchrun all recipes whose loop is `Loop` train in this way without a line of their own.

Paper: Li and others (2020), "PyTorch Distributed: Experiences on Accelerating Data Parallel Training",
    https://arxiv.org/abs/2006.15704; Zhao and others (2023), "PyTorch FSDP: Experiences on Scaling Fully Sharded
    Data Parallel", https://arxiv.org/abs/2304.11277
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler

from recipes.core.figures import draw_curves, new_figure
from recipes.core.frame import Claim, InputError, Options, Result, main, one_cycle, option, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.training.by_hand import refuse_engine
from recipes.training.scoring import evaluate, least_squares
from recipes.vision.classification.using import Classification


@dataclass(kw_only=True)
class DistributedOptions(Options):
    processes: int = option(2, "processes that share each batch, on a GPU each where there are as many", least=1)
    engine: Literal["by_hand", "ddp", "fsdp", "alone"] = option(
        "by_hand", "how gradients are averaged: by_hand, by ddp (replicas), by fsdp (shards), or not: alone"
    )
    batch_norm: Literal["synchronized", "local", "none"] = option(
        "synchronized", "mean and variance over all processes (synchronized) or each one's part (local), or none"
    )
    width: int = option(128, "units of each of the two hidden layers", least=1)
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = 8
    batch_size: int = 64
    lr: float = 3e-3


class SumOverProcesses(torch.autograd.Function):
    """The sum over all processes; on the way back, the gradients are summed likewise."""

    @staticmethod
    def forward(context: Any, mine: Tensor) -> Tensor:
        total = mine.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return SumOverProcesses.forward(context, gradient)


class SyncBatchNorm(nn.BatchNorm1d):
    """Batch norm over the samples of all processes, as nn.SyncBatchNorm has it on GPUs; their parts are equal."""

    def forward(self, x: Tensor) -> Tensor:  # (B, features)
        if not self.training:
            return super().forward(x)
        count = len(x) * dist.get_world_size()
        mean = SumOverProcesses.apply(x.sum(dim=0)) / count  # (features,)
        variance = SumOverProcesses.apply((x - mean).square().sum(dim=0)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, 0.1)  # type: ignore[union-attr]
            self.running_var.lerp_(variance * count / max(1, count - 1), 0.1)  # type: ignore[union-attr]
        return (x - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias


def build(options: DistributedOptions, data: Images | ImageFiles) -> nn.Sequential:
    """A perceptron with two hidden layers."""
    width, norms = options.width, {"synchronized": SyncBatchNorm, "local": nn.BatchNorm1d, "none": nn.Identity}
    norm: Callable[[int], nn.Module] = norms[options.batch_norm]
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(math.prod(data.shape), width), norm(width), nn.ReLU()),
        *(nn.Linear(width, width), norm(width), nn.ReLU(), nn.Linear(width, len(data.classes))),
    )


def average_gradients(model: nn.Module) -> None:
    """g = 1/N Σ_rank g_rank, in place on every rank, for each parameter."""
    for parameter in model.parameters():
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad)  # the sum, on all ranks
        parameter.grad /= dist.get_world_size()


def spread(model: nn.Module, options: DistributedOptions) -> nn.Module:
    """The module to call: replicas that DDP keeps alike, a model in shards, or the model itself."""
    if options.engine == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    if options.engine == "fsdp":  # over the run's device: without a mesh it takes the machine's accelerator
        mesh = init_device_mesh(options.device.type, (dist.get_world_size(),))
        for part in [*(layer for layer in model.children() if [*layer.parameters()]), model]:
            fully_shard(part, mesh=mesh)  # each layer is gathered by itself; last, what they left
    return model


def batches_of_rank(dataset: Images | ImageFiles, options: DistributedOptions) -> DataLoader:
    """This rank's share of each batch, in an order that depends on the seed and the epoch alone."""
    sampler: Any = DistributedSampler(dataset, seed=options.seed, drop_last=True)  # type: ignore[arg-type]
    share = min(options.batch_size, len(dataset)) // dist.get_world_size()
    return DataLoader(dataset, share, sampler=sampler, drop_last=True, collate_fn=lambda batch: batch)  # type: ignore[arg-type]


def train(options: DistributedOptions, train_set: Images | ImageFiles) -> dict[str, Any]:
    """What each process does: minimizes the cross-entropy over its share of each batch."""
    torch.manual_seed(options.seed)  # the same weights on every rank
    model = build(options, train_set).to(options.device)
    engine = spread(model, options)
    optimizer = torch.optim.AdamW(engine.parameters(), lr=options.lr, weight_decay=0.05)  # of its shards, if any
    loader, steps = batches_of_rank(train_set, options), 0
    history: list[dict[str, float]] = []
    total = options.steps or options.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(min(step / total, 1)))
    while steps < total:
        losses = []
        loader.sampler.set_epoch(len(history))  # type: ignore[attr-defined]
        for images, labels in islice(loader, total - steps):
            loss = F.cross_entropy(engine(images.to(options.device)), labels.to(options.device))
            optimizer.zero_grad()
            loss.backward()
            if options.engine == "by_hand":
                average_gradients(model)
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            steps += 1
        history.append({"epoch": len(history) + 1, "loss": torch.stack(losses).mean().item()})  # of this rank's share
    weights = {name: getattr(one, "full_tensor", lambda one=one: one)() for name, one in model.state_dict().items()}
    return {"weights": {name: one.detach().cpu() for name, one in weights.items()}, "history": history}


def start(rank: int, work: Callable[..., dict[str, Any]], folder: str, options: Any, train_set: Any) -> None:
    """Joins the other processes, works, and leaves what came out in the folder."""
    torch.set_num_threads(1)  # the processes share the cores
    if options.device.type == "cuda":
        options = replace(options, device=torch.device("cuda", rank))
        torch.cuda.set_device(options.device)
    backend = "nccl" if options.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=options.processes)
    torch.save(work(options, train_set), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def launch(work: Callable[..., dict[str, Any]], options: Any, train_set: Any) -> list[dict[str, Any]]:
    """Starts the processes on this machine, and returns what came out of each."""
    script, in_script = vars(sys.modules["__main__"]), start.__module__ == "__main__"
    method = "forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn"
    if in_script and not script.get("__file__", "").endswith(".py"):
        method = "fork"  # a notebook cannot be imported
    if method == "forkserver":  # torch is imported once for all of them
        mp.get_context(method).set_forkserver_preload([start.__module__])
    # A script that nothing is taken from is not imported, since without a main guard it would run once more
    hide = not in_script and isinstance(train_set, Images) and "__file__" in script
    hidden = {"__file__": script.pop("__file__")} if hide else {}
    with tempfile.TemporaryDirectory() as folder:
        given, count = (work, folder, options, train_set), options.processes
        running = mp.start_processes(start, given, count, join=False, start_method=method)
        script.update(hidden)
        while not running.join():
            pass
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=True) for rank in range(count)]


@recipe(DistributedOptions)
def run(options: DistributedOptions) -> Result:
    """Trains one network by several processes, and measures it and how far the processes' weights are apart."""
    refuse_engine(options)
    if options.batch_size % options.processes:
        raise InputError(f"option batch_size: expected a multiple of {options.processes} processes")
    gpus = torch.cuda.device_count() * (torch.device(options.device).type == "cuda")
    device = torch.device("cuda" if gpus >= options.processes else "cpu")
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    ranks = launch(train, replace(options, device=device, data=None), train_set)
    model, first = build(options, train_set), ranks[0]["weights"]
    model.load_state_dict(first)
    drift = max(float((one["weights"][name] - first[name]).abs().max()) for one in ranks for name in first)
    return Result(
        metrics=evaluate(model, test_set, torch.device("cpu")) | {"drift": drift},
        baseline=least_squares(train_set, test_set),
        baseline_name="linear classifier, solved",
        bars={"accuracy": 0.95},
        history=ranks[0]["history"],
        device=str(device),
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    options = DistributedOptions(**result.options | {"data": None, "out": None, "checkpoint": None, "device": "cpu"})
    options = replace(options, device=torch.device(result.device), processes=max(2, options.processes))
    (alone,) = launch(compare, replace(options, processes=1), result.train_set)
    ranks = launch(compare, options, result.train_set)
    for way in WAYS:
        truth = alone["alone, none" if way.endswith("none") else "alone, local"]  # of one process, torch's batch norm
        result.rows.append({"gradient": way, "differs by": (ranks[0][way] - truth).abs().max().item()})
    one_rank, hand, ddp, fsdp, local, synchronized = (row["differs by"] for row in result.rows)
    yield Claim("one rank's gradient is not the batch's: largest difference", one_rank, ">", 1e-4, kind="fact")
    yield Claim("the ranks' average is: by hand, by DDP, by FSDP", max(hand, ddp, fsdp), "<", 1e-6, kind="fact")
    yield Claim("with batch norm over each rank's part it is not", local, ">", 1e-4, kind="fact")
    yield Claim("with batch norm over all ranks' samples it is again", synchronized, "<", 1e-5, kind="fact")
    seen = torch.cat([rank["seen"] for rank in ranks])
    yield Claim("pictures that two ranks see in an epoch", len(seen) - len(seen.unique()), "<=", 0, kind="fact")
    yield Claim("share of the weights on a rank, sharded", ranks[0]["held"], "<", 1.2 / options.processes, kind="fact")
    apart, *others = (run(engine=name, processes=options.processes) for name in ("alone", "ddp", "fsdp"))
    yield Claim("averaged, replicas stay alike: their weights' distance", result["drift"], "<=", 0, kind="fact")
    yield Claim("not averaged, they part", apart["drift"], ">", result["drift"], margin=0.02)
    single, lead = run(processes=1)["accuracy"], result["accuracy"] - result.baseline["accuracy"]
    text = "accuracy: by hand, DDP and FSDP are closer to one process than half the lead on the linear classifier"
    yield Claim(text, max(abs(one["accuracy"] - single) for one in (result, *others)), "<", lead / 2, margin=0.003)
    small = {"batch_size": 2 * options.processes, "steps": 300, "processes": options.processes}
    part, whole = (run(**small, batch_norm=norm)["loss"] for norm in ("local", "synchronized"))
    text = "two samples a rank: held-out loss, higher with batch norm over these alone than over all ranks'"
    yield Claim(text, part, ">", whole, margin=0.3)


WAYS = ("alone, none", "by_hand, none", "ddp, none", "fsdp, none", "by_hand, local", "by_hand, synchronized")


def compare(options: DistributedOptions, train_set: Images | ImageFiles) -> dict[str, Any]:
    """The whole gradient of the first batch, in each way; the pictures that this rank sees, and the share it holds."""
    loader = batches_of_rank(train_set, options)
    images, labels = (tensor.to(options.device) for tensor in next(iter(loader)))
    found: dict[str, Any] = {"seen": torch.tensor(list(loader.sampler))}
    for way in dict.fromkeys((*WAYS, "alone, local")):
        chosen = options.with_changes(**dict(zip(("engine", "batch_norm"), way.split(", "), strict=True)))
        torch.manual_seed(options.seed)
        model = build(chosen, train_set).to(options.device)
        engine = spread(model, chosen)
        F.cross_entropy(engine(images), labels).backward()
        if chosen.engine == "by_hand":
            average_gradients(model)
        gradients: Any = [parameter.grad for parameter in model.parameters()]
        if chosen.engine == "fsdp":
            found["held"] = sum(one.to_local().numel() for one in gradients) / sum(one.numel() for one in gradients)
            gradients = [one.full_tensor() for one in gradients]
        found[way] = torch.cat([one.flatten() for one in gradients]).cpu()
    return found


@run.figure
def figure(result: Result) -> Any:
    drawing, axes = new_figure(1, 1 + bool(result.rows), width=4.6)
    draw_curves(axes[0, 0], result.history, ["loss"])
    for row in reversed(result.rows):  # with the claims
        axes[0, 1].barh(row["gradient"], max(row["differs by"], 1e-9), color="C0")
        axes[0, 1].set(xscale="log", title="gradient: distance from one process's")
    return drawing


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
