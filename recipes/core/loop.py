"""The training loop's iterator: everything around the loss, on torch's own engines."""

import contextlib
import math
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recipes.core.device import rank_and_world
from recipes.core.errors import InputError
from recipes.core.evaluation import map_tensors
from recipes.core.files import write_whole

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "auto": None}


class Engine(TypedDict, total=False):
    """Options of `Loop` that every recipe takes and passes on.

    Args:
        precision: arithmetic of the forward pass; fp16 scales the loss, auto is bf16 where the device
            computes in it and fp32 elsewhere.
        channels_last: keep pictures and convolutions in the memory order (N, H, W, C).
        accumulate: batches whose gradients are summed before each optimizer step.
        clip: largest norm of the gradient; a larger one is scaled down to it.
        compile: compile the model with torch.compile.
        shard: split parameters, gradients and optimizer state over the processes of torchrun (FSDP2)
            instead of replicating them (DDP).
        checkpoint: folder to save the training in after every epoch, and to go on from if it holds one.
        save_every: also save after every so many optimizer steps.
    """

    precision: Literal["fp32", "bf16", "fp16", "auto"]
    channels_last: bool
    accumulate: int
    clip: float
    compile: bool
    shard: bool
    checkpoint: str
    save_every: int


class Loop:
    """Yields batches on the device, and does with each loss what training asks for.

    ```
    loop = Loop(model, optimizer, batches, epochs=epochs, device=device)
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(images), labels)
        loop.step(loss)
    ```

    Under torchrun the model is replicated or sharded, and gradients are averaged. Ctrl-C ends the run after
    the step, saved where there is a checkpoint; a second one ends it at once. `history` holds a row an epoch:
    epoch, loss (mean over the epoch), lr, seconds, and what `evaluate` gives.

    Args:
        model: to train; call it as `loop.model`, which adds precision, compilation and processes.
        optimizer: over the model's parameters.
        batches: a sized iterable of batches, such as a DataLoader; its sampler's `set_epoch` is called. One with
            `state_dict`, such as a StatefulDataLoader, goes on in the middle of an epoch; others are read up to there.
        epochs: passes over the batches.
        device: where to train.
        schedule: from the share of training done, 0 to 1, to a factor on the learning rate.
        evaluate: called after each epoch; its metrics join the history.
        name: of this training's file in the checkpoint folder, where a recipe trains several models.
        engine: see `Engine`; float32, replicated and not saved if not said.

    Raises:
        FloatingPointError: the loss is not finite; names the epoch, the batch and the learning rate.
        InputError: an option that cannot be, or a checkpoint that is not this training's.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: Any,
        *,
        epochs: int,
        device: torch.device | str = "cpu",
        schedule: Callable[[float], float] = lambda progress: 1.0,
        evaluate: Callable[[], dict[str, float]] = dict,
        name: str = "model",
        **engine: Unpack[Engine],
    ) -> None:
        if unknown := engine.keys() - Engine.__annotations__.keys():
            raise TypeError(f"unknown options of the training loop: {', '.join(sorted(unknown))}")
        precision, folder = engine.get("precision", "fp32"), engine.get("checkpoint")
        self.accumulate, self.save_every = engine.get("accumulate", 1), engine.get("save_every")
        if precision not in PRECISIONS:
            raise InputError(f"option precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
        if self.accumulate < 1 or (self.save_every is not None and self.save_every < 1):
            raise InputError("options accumulate and save_every: expected whole numbers of at least 1")
        if len(batches) == 0:
            raise InputError("no whole batch to train on: expected more samples or a smaller batch_size")
        self.device, (self.rank, self.world) = torch.device(device), rank_and_world()
        last = engine.get("channels_last") and not engine.get("shard")  # FSDP shards contiguous weights alone
        self.layout = torch.channels_last if last else torch.preserve_format
        self.module = model.to(self.device).to(memory_format=self.layout)
        self.optimizer, self.batches, self.epochs, self.evaluate = optimizer, batches, epochs, evaluate
        self.clip, self.file = engine.get("clip"), Path(folder) / f"{name}.pt" if folder is not None else None
        self.history: list[dict[str, float]] = []
        self.epoch = self.batch = self.steps = 0  # epochs done, batches done in this one, optimizer steps done

        self.engine: nn.Module = model  # what synchronises gradients
        if engine.get("shard"):
            shard(model, optimizer)
        elif self.world > 1:
            self.engine = nn.parallel.DistributedDataParallel(model)
        self.model: Callable[..., Any] = torch.compile(self.engine) if engine.get("compile") else self.engine
        dtype = PRECISIONS[precision] or (torch.bfloat16 if computes_in_bf16(self.device) else torch.float32)
        if dtype != torch.float32:
            self.model = autocast(self.model, self.device, dtype)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        total = epochs * -(-len(batches) // self.accumulate)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(min(step / total, 1.0)))
        self._losses: list[Tensor] = []  # not yet looked at: looking waits for the device
        self._sum, self._count, self._shown, self._stepped = 0.0, 0, 0.0, True

    @property
    def lr(self) -> float:
        """Learning rate of the next step (of the first parameter group)."""
        return self.optimizer.param_groups[0]["lr"]

    def __iter__(self) -> Iterator[Any]:
        resumed = self._load()
        if self.rank > 0:  # the same model everywhere, but not the same dropout
            torch.manual_seed(torch.initial_seed() + self.rank)
        with interrupts_noted(self.world == 1) as interrupts:
            while self.epoch < self.epochs:
                if hasattr(getattr(self.batches, "sampler", None), "set_epoch"):
                    self.batches.sampler.set_epoch(self.epoch)
                self.module.train()
                started, done = time.perf_counter(), self.batch
                if not resumed:
                    self._epoch_random = random_state(self.device)
                for number, batch in enumerate(self.batches, start=done + 1 if self._goes_on else 1):
                    self.batch = number
                    if self.batch <= done:
                        continue  # the interrupted run had these
                    if resumed:
                        set_random_state(resumed, self.device)
                        resumed = None
                    self._synchronise_if(self._closes_group())
                    self._current, self._stepped = map_tensors(self._place, batch), False
                    yield self._current
                    if not self._stepped:
                        raise RuntimeError("every batch of a Loop needs one loop.step(loss)")
                    inside = self._closes_group() and self.batch < len(self.batches)  # at the end it is saved anyway
                    if inside and (interrupts or (self.save_every and self.steps % self.save_every == 0)):
                        self._save(interrupts)
                self._end_epoch(time.perf_counter() - started)
                self._save(interrupts)

    def step(self, loss: Tensor) -> None:
        """Backward pass and, when a group of `accumulate` batches is complete, an optimizer step.

        Args:
            loss: scalar, the mean over this process's batch.
        """
        self._stepped = True
        last = len(self.batches) % self.accumulate  # the epoch's last group may be smaller
        size = last if last and self.batch > len(self.batches) - last else self.accumulate
        self.scaler.scale(loss / size if size > 1 else loss).backward()
        self._losses.append(loss.detach())
        if self.device.type == "cpu" or len(self._losses) >= 32:
            self._look_at_losses()
        if not self._closes_group():
            return
        if self.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.steps += 1

    @property
    def _goes_on(self) -> bool:
        return hasattr(self.batches, "load_state_dict")

    def _closes_group(self) -> bool:
        return self.batch % self.accumulate == 0 or self.batch == len(self.batches)

    def _synchronise_if(self, wanted: bool) -> None:
        """Gradients travel between processes only with the last batch of a group."""
        if isinstance(self.engine, nn.parallel.DistributedDataParallel):
            self.engine.require_backward_grad_sync = wanted
        elif callable(sharded := getattr(self.engine, "set_requires_gradient_sync", None)):
            sharded(wanted)

    def _place(self, tensor: Tensor) -> Tensor:
        layout = self.layout if tensor.ndim == 4 else torch.preserve_format
        return tensor.to(self.device, non_blocking=True, memory_format=layout)

    def _look_at_losses(self) -> None:
        values = [loss.item() for loss in self._losses]
        self._losses.clear()
        for back, value in enumerate(values, start=1 - len(values)):
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the loss became {value} in epoch {self.epoch + 1}, batch {self.batch + back}, at learning rate "
                    f"{self.lr:.3g}, with {value_range(self._current)} in the batch last read: expected a finite "
                    "number; a lower lr, clip, or a look at the data may help"
                )
        self._sum, self._count = self._sum + sum(values), self._count + len(values)
        if self.rank == 0 and sys.stderr.isatty() and time.perf_counter() - self._shown > 0.2:
            self._shown = time.perf_counter()
            place = f"epoch {self.epoch + 1}/{self.epochs}, batch {self.batch}/{len(self.batches)}"
            print(f"\r{place}, loss {self._sum / self._count:.4f}\033[K\r", end="", file=sys.stderr)

    def _end_epoch(self, seconds: float) -> None:
        self._look_at_losses()
        loss = mean_over_processes(self._sum / self._count, self.device)
        row = {"epoch": self.epoch + 1, "loss": loss, "lr": self.lr, "seconds": seconds}
        self.history.append(row | self.evaluate())
        self._sum, self._count, self.batch = 0.0, 0, 0
        self.epoch += 1

    def _save(self, interrupts: list[int]) -> None:
        """Writes the whole state where a checkpoint was asked for, and ends the run if it was interrupted."""
        if self.file is not None:
            from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

            self._look_at_losses()  # never save what is not finite
            whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
            weights, optimizer = get_state_dict(self.module, self.optimizer, options=whole)
            losses = mean_over_processes(self._sum, self.device)
            state = {
                "model": weights,
                "optimizer": optimizer,
                "schedule": self.schedule.state_dict(),
                "scaler": self.scaler.state_dict(),
                "place": (self.epoch, self.batch, self.steps, losses, self._count),
                "batches": self.batches.state_dict() if self._goes_on else {},
                "history": self.history,
                "random": random_state(self.device),
                "epoch_random": self._epoch_random,
            }
            if self.rank == 0:
                write_whole(self.file, lambda path: torch.save(state, path))
        if interrupts:
            way_on = f"saved; the same command goes on from {self.file}" if self.file else "no checkpoint was asked for"
            raise KeyboardInterrupt(f"stopped after step {self.steps}, {way_on}")

    def _load(self) -> list[Tensor] | None:
        """Takes up the saved training, if there is one; gives the random state in the middle of an epoch."""
        if self.file is None or not self.file.exists():
            return None
        from torch.distributed.checkpoint import state_dict as whole

        options = whole.StateDictOptions(full_state_dict=True)
        try:
            with warnings.catch_warnings(action="ignore"):  # of what a foreign file may hold: the error says it
                state = torch.load(self.file, map_location="cpu", weights_only=True)
            whole.set_model_state_dict(self.module, state["model"], options=options)
            if state["optimizer"]["state"]:  # plain SGD has none
                whole.set_optimizer_state_dict(self.module, self.optimizer, state["optimizer"], options=options)
            self.schedule.load_state_dict(state["schedule"])
            self.scaler.load_state_dict(state["scaler"])
            self.epoch, self.batch, self.steps, self._sum, self._count = state["place"]
            self.history, self._epoch_random = state["history"], state["epoch_random"]
            if self._goes_on and self.batch:
                self.batches.load_state_dict(state["batches"])
        except Exception as error:
            foreign = isinstance(error, pickle.UnpicklingError)  # code in it is never run
            reason = "not one of tensors alone" if foreign else str(error).strip().partition("\n")[0][:200]
            raise InputError(f"{self.file}: expected a checkpoint of this training ({reason})") from None
        for group, lr in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = lr
        # In the middle of an epoch the loader starts with the random state that the epoch started with.
        set_random_state(self._epoch_random if self.batch else state["random"], self.device)
        return state["random"] if self.batch else None


def shard(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """FSDP2: every stack of blocks is sharded block by block, and the optimizer follows."""
    if rank_and_world()[1] == 1:
        raise InputError("option shard: expected a run under torchrun with at least two processes")
    from torch.distributed.fsdp import fully_shard

    names = {parameter: name for name, parameter in model.named_parameters()}
    for block in [block for part in model.modules() if isinstance(part, nn.ModuleList) for block in part]:
        fully_shard(block)
    fully_shard(model)
    sharded = dict(model.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [sharded[names[parameter]] for parameter in group["params"]]


def autocast(model: Callable[..., Any], device: torch.device, dtype: torch.dtype) -> Callable[..., Any]:
    """The model with half-precision arithmetic inside and float32 outputs."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device.type, dtype):
            outputs = model(*args, **kwargs)
        return map_tensors(lambda tensor: tensor.float() if tensor.dtype == dtype else tensor, outputs)

    return forward


def mean_over_processes(value: float, device: torch.device) -> float:
    if not dist.is_initialized():
        return value
    values = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(values)
    return values.item() / dist.get_world_size()


@contextlib.contextmanager
def interrupts_noted(wanted: bool) -> Iterator[list[int]]:
    """Puts the first Ctrl-C into a list, so that a step can be finished; the second one acts as ever."""
    noted: list[int] = []
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield noted  # torchrun ends its processes itself; only the main thread may listen
        return

    def note(number: int, _frame: object) -> None:
        noted.append(number)
        signal.signal(signal.SIGINT, usual)

    usual = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, usual)


def value_range(batch: Any) -> str:
    """The least and the largest value of the batch's tensors of real numbers."""
    values: list[float] = []

    def look(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.numel():
            values.extend(extreme.item() for extreme in tensor.detach().aminmax())
        return tensor

    map_tensors(look, batch)
    return f"values from {min(values):.3g} to {max(values):.3g}" if values else "no real numbers"


def random_state(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def set_random_state(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32 there: on GPUs that have it, and on CPUs with its instructions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)


def one_cycle(progress: float) -> float:
    """A learning rate that rises over the first fifth of training and falls to zero after it.

    Source: Smith and Topin (2019), "Super-Convergence", https://arxiv.org/abs/1708.07120.
    """
    return max(progress / 0.2, 0.02) if progress < 0.2 else (1 - progress) / 0.8
