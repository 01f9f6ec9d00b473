"""The training loop's iterator: everything around the loss, on torch's own engines."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from recipes.core.checkpoints import (
    checkpoint_file,
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from recipes.core.device import rank_and_world
from recipes.core.errors import InputError, tell
from recipes.core.evaluation import map_tensors
from recipes.core.interrupts import interrupts_noted
from recipes.core.options import Options
from recipes.core.precision import autocast, precision_of
from recipes.core.processes import (
    mean_over_processes,
    require_gpus,
    spread,
    synchronize_batch_norm,
    synchronize_if,
)
from recipes.core.progress import Progress


def one_cycle(progress: float) -> float:
    """A learning rate that rises over the first fifth of training and falls to zero after it.

    Source: Smith and Topin (2019), "Super-Convergence", https://arxiv.org/abs/1708.07120.
    """
    return max(progress / 0.2, 0.02) if progress < 0.2 else (1 - progress) / 0.8


class Loop:
    """Yields batches on the device, and does with each loss what training asks for.

    ```
    loop = Loop(model, optimizer, batches(train_set, options), options)
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(images), labels)
        loop.step(loss)
    ```

    Under torchrun the model is replicated or sharded, and gradients are averaged. Ctrl-C and SIGTERM end the run
    after the step, saved where there is a checkpoint; a second one ends it at once. `history` holds a row an
    epoch: epoch, loss (mean over the epoch), lr, seconds, and what `evaluate` returns.

    Args:
        model: to train; call it as `loop.model`, which adds precision, compilation and processes.
        optimizer: over the model's parameters.
        batches: a sized iterable of batches, such as a DataLoader; its sampler's `set_epoch` is called. One with
            `state_dict`, such as a StatefulDataLoader, resumes in the middle of an epoch; others are read up to there.
        options: epochs or steps, device, precision and the rest of the engine's.
        schedule: from the share of training done, 0 to 1, to a factor on the learning rate.
        evaluate: called after each epoch; its metrics join the history.
        name: of this training, where a recipe trains several models.

    Raises:
        FloatingPointError: the loss is not finite; names the epoch, the batch and the learning rate.
        InputError: there is no batch, or a checkpoint is not this training's.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: Any,
        options: Options,
        *,
        schedule: Callable[[float], float] = one_cycle,
        evaluate: Callable[[], dict[str, float]] = dict,
        name: str = "model",
    ) -> None:
        if len(batches) == 0:
            raise InputError("no whole batch to train on: expected more samples or a smaller batch_size")
        self.options, self.device, (self.rank, self.world) = options, torch.device(options.device), rank_and_world()
        last = options.channels_last and not options.shard  # FSDP shards contiguous weights alone
        self.layout = torch.channels_last if last else torch.preserve_format
        if options.sync_batch_norm:
            require_gpus(self.device)
            synchronize_batch_norm(model)
        self.module = model.to(self.device).to(memory_format=self.layout)
        for state in optimizer.state.values():  # some optimizers make theirs before the model moves
            state.update(
                {key: one.to(self.device) for key, one in state.items() if key != "step" and torch.is_tensor(one)}
            )
        self.optimizer, self.batches, self.evaluate = optimizer, batches, evaluate
        self.file, self.name = checkpoint_file(options.checkpoint, options.variant, name), name
        self.history: list[dict[str, float]] = []
        self.epoch = self.batch = self.steps = 0  # epochs done, batches done in this one, optimizer steps done
        steps_an_epoch = -(-len(batches) // options.accumulate)
        self.epochs = -(-options.steps // steps_an_epoch) if options.steps else options.epochs
        self.total = options.steps or options.epochs * steps_an_epoch
        if options.data is not None and options.steps is None and self.total < options.few_steps:
            enough = 3 * options.few_steps
            tell(f"{self.total} steps on own data are few: --steps {enough}, or more epochs, would teach it more")

        self.engine = spread(model, optimizer, sharded=options.shard, device=self.device)
        self.model: Callable[..., Any] = torch.compile(self.engine) if options.compile else self.engine
        dtype = precision_of(options.precision, self.device)
        if dtype != torch.float32:
            self.model = autocast(self.model, self.device, dtype)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(min(step / self.total, 1.0)))
        self._losses: list[Tensor] = []  # not yet looked at: looking waits for the device
        self._sum, self._count, self._stepped = 0.0, 0, True
        self._shards = ""  # the name of those that the checkpoint uses

    @property
    def lr(self) -> float:
        """Learning rate of the next step (of the first parameter group)."""
        return self.optimizer.param_groups[0]["lr"]

    @property
    def goes_on(self) -> bool:
        """Whether the batches can resume in the middle of an epoch."""
        return hasattr(self.batches, "load_state_dict")

    def __iter__(self) -> Iterator[Any]:
        if self.rank > 0:  # the same model everywhere, but not the same dropout
            torch.manual_seed(torch.initial_seed() + self.rank)
        resumed = load_checkpoint(self)
        self._progress = Progress(" ".join(filter(None, (self.options.variant, self.name))), self.total, self.steps)
        try:
            with interrupts_noted(self.world == 1) as interrupts:
                while self.epoch < self.epochs:
                    yield from self._one_epoch(resumed, interrupts)
                    resumed = None
                    self._save(interrupts)
        finally:
            self._progress.stop()

    def _one_epoch(self, resumed: list[Tensor] | None, interrupts: list[int]) -> Iterator[Any]:
        if hasattr(getattr(self.batches, "sampler", None), "set_epoch"):
            self.batches.sampler.set_epoch(self.epoch)
        self.module.train()
        started, done = time.perf_counter(), self.batch
        if not resumed:
            self._epoch_random = random_state(self.device)
        for number, batch in enumerate(self.batches, start=done + 1 if self.goes_on else 1):
            self.batch = number
            if self.batch <= done:
                continue  # the interrupted run had these
            if resumed:
                set_random_state(resumed, self.device)
                resumed = None
            synchronize_if(self._closes_group(), self.engine)
            self._current, self._stepped = map_tensors(self._place, batch), False
            yield self._current
            if not self._stepped:
                raise RuntimeError("every batch of a Loop needs one loop.step(loss)")
            if self.steps >= self.total:
                break
            inside = self._closes_group() and self.batch < len(self.batches)  # at the end it is saved anyway
            if inside and (interrupts or (self.options.save_every and self.steps % self.options.save_every == 0)):
                self._save(interrupts)
        self._end_epoch(time.perf_counter() - started)

    def step(self, loss: Tensor) -> None:
        """Backward pass and, when a group of `accumulate` batches is complete, an optimizer step.

        Args:
            loss: scalar, the mean over this process's batch.
        """
        self._stepped = True
        last = len(self.batches) % self.options.accumulate  # the epoch's last group may be smaller
        size = last if last and self.batch > len(self.batches) - last else self.options.accumulate
        self.scaler.scale(loss / size if size > 1 else loss).backward()
        self._losses.append(loss.detach())
        if self.device.type == "cpu" or len(self._losses) >= 32:
            self._look_at_losses()
        if not self._closes_group():
            return
        if self.options.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), self.options.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.steps += 1

    def _closes_group(self) -> bool:
        return self.batch % self.options.accumulate == 0 or self.batch == len(self.batches)

    def _place(self, tensor: Tensor) -> Tensor:
        layout = self.layout if tensor.ndim == 4 else torch.preserve_format
        return tensor.to(self.device, non_blocking=self.device.type == "cuda", memory_format=layout)

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
        if self._progress.bar is not None:
            self._progress.update(self.steps, self._sum / max(self._count, 1))

    def _end_epoch(self, seconds: float) -> None:
        self._look_at_losses()
        loss = mean_over_processes(self._sum / self._count, self.device)
        metrics = self.evaluate()
        self._progress.held_out(metrics)
        self.history.append({"epoch": self.epoch + 1, "loss": loss, "lr": self.lr, "seconds": seconds} | metrics)
        self._sum, self._count, self.batch = 0.0, 0, 0
        self.epoch += 1

    def _save(self, interrupts: list[int]) -> None:
        """Saves where a checkpoint was asked for, and ends the run if it was interrupted."""
        if self.file is not None:
            self._look_at_losses()  # never save what is not finite
            save_checkpoint(self)
        if interrupts:
            way_on = f"saved; the same command resumes from {self.file}" if self.file else "no checkpoint was asked for"
            raise KeyboardInterrupt(f"stopped after step {self.steps}, {way_on}")


def value_range(batch: Any) -> str:
    """The least and the largest value of the batch's tensors of real numbers."""
    values: list[float] = []

    def look(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.numel():
            values.extend(extreme.item() for extreme in tensor.detach().aminmax())
        return tensor

    map_tensors(look, batch)
    return f"values from {min(values):.3g} to {max(values):.3g}" if values else "no real numbers"
