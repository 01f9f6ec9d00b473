"""The frame that copies get: the names of `frame` on one device, without processes, checkpoints or signals.

A copy belongs to the person who edits it, so this is as short as it can be read: types are left to the library.
"""

import argparse
import dataclasses
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

Precision = str
Result = SimpleNamespace  # what a run measured, and what it made: metrics, history, model, train_set, test_set


class InputError(ValueError):
    """Input that cannot be used: a file, a record, an option."""


def tell(text):
    """A line about input that is taken otherwise than it stands."""
    print(text)


def option(default, sentence, **limits):
    """A field of `Options`, and the sentence that --help shows."""
    return field(default=default, metadata={"help": sentence})


@dataclass(kw_only=True)
class Options:
    data: Any = option(None, "folder of your data; the bundled ones if not given")
    epochs: int = option(5, "passes over the training part")
    steps: int | None = option(None, "optimizer steps to train for, in place of epochs")
    batch_size: int = option(32, "samples in an optimizer step")
    lr: float = option(1e-2, "highest learning rate of the schedule")
    device: Any = option("cuda" if torch.cuda.is_available() else "cpu", "cpu, cuda or mps")
    seed: int = option(0, "of all that is random")
    out: str | None = option(None, "file to save the weights in, such as model.pt")
    precision: str = option("fp32", "fp32, bf16, or auto: bf16 where the device computes in it")
    channels_last: bool = option(False, "keep pictures in the memory order (N, H, W, C)")
    clip: float | None = option(None, "largest norm of the gradient")


def rank_and_world():
    """The number of this process, and how many there are: a copy runs in one."""
    return 0, 1


def map_tensors(function, batch):
    """The batch with `function` applied to every tensor in it."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, dict):
        return {key: map_tensors(function, value) for key, value in batch.items()}
    return type(batch)(map_tensors(function, one) for one in batch)


def batches(dataset, options, *, workers=0):
    """Shuffled batches, in an order that depends on the seed and the epoch alone."""
    sampler = DistributedSampler(dataset, num_replicas=1, rank=0, seed=options.seed)
    whole = (lambda batch: batch) if hasattr(dataset, "__getitems__") else None  # the set hands out whole batches
    size = min(options.batch_size, len(dataset))
    return DataLoader(dataset, size, sampler=sampler, drop_last=True, collate_fn=whole, num_workers=workers)


class ByLength:
    """An order in which each batch holds samples of similar length, so that little of it is padding."""

    def __init__(self, lengths, batch_size, *, seed=0):
        self.lengths, self.seed, self.size, self.epoch = lengths, seed, min(batch_size, len(lengths)), 0
        self.count = len(lengths) // self.size

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.count * self.size

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)[: len(self)]
        pools = [pool[self.lengths[pool].argsort(stable=True)] for pool in order.split(50 * self.size)]
        rows = torch.cat(pools).view(self.count, self.size)  # a batch a row
        return iter(rows[torch.randperm(self.count, generator=generator)].flatten().tolist())


def batches_by_length(dataset, options, lengths=None):
    """Shuffled batches of samples of similar length, so that little of them is padding."""
    lengths = [len(ids) for ids in dataset.ids] if lengths is None else lengths
    sampler = ByLength(torch.tensor(lengths), options.batch_size, seed=options.seed)
    return DataLoader(dataset, sampler.size, sampler=sampler, collate_fn=lambda batch: batch)


def one_cycle(progress):
    """A learning rate that rises over the first fifth of training and falls to zero after it."""
    return max(progress / 0.2, 0.02) if progress < 0.2 else (1 - progress) / 0.8


class Loop:
    """Batches, epoch by epoch; `step(loss)` is backward, clip, optimizer and schedule."""

    def __init__(self, model, optimizer, loader, options, *, schedule=one_cycle, evaluate=dict, name="model"):
        self.optimizer, self.batches, self.options, self.evaluate = optimizer, loader, options, evaluate
        self.device, self.steps, self.history = torch.device(options.device), 0, []
        self.layout = torch.channels_last if options.channels_last else torch.preserve_format
        self.module = model.to(self.device).to(memory_format=self.layout)
        self.total = options.steps or options.epochs * len(loader)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(min(step / self.total, 1)))
        has_bf16 = self.device.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
        self.half = options.precision == "bf16" or (options.precision == "auto" and has_bf16)

    def model(self, *inputs):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            outputs = self.module(*inputs)
        return map_tensors(lambda one: one.float() if one.dtype == torch.bfloat16 else one, outputs)

    def place(self, one):
        return one.to(self.device, memory_format=self.layout if one.ndim == 4 else torch.preserve_format)

    def __iter__(self):
        while self.steps < self.total:
            self.module.train()
            self.losses = []
            self.batches.sampler.set_epoch(len(self.history))
            for _, batch in zip(range(self.total - self.steps), self.batches, strict=False):
                yield map_tensors(self.place, batch)
            loss = torch.stack(self.losses).mean().item()
            self.history.append({"epoch": len(self.history) + 1, "loss": loss} | self.evaluate())
            print("  ".join(f"{name} {value:.4g}" for name, value in self.history[-1].items()))

    def step(self, loss):
        loss.backward()
        if self.options.clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.steps += 1
        self.losses.append(loss.detach())


@torch.inference_mode()
def predict(model, dataset, device, batch_size=256):
    """Outputs of `model`, one for each sample of `dataset`, on the CPU; it is left in evaluation mode."""
    outputs = []
    model.eval()
    for indices in torch.arange(len(dataset)).split(batch_size):
        inputs, _ = dataset.__getitems__(indices.tolist())
        outputs += map_tensors(lambda one: one.cpu(), model(map_tensors(lambda one: one.to(device), inputs)))
    return outputs


def recipe(options_class):
    """Makes `run(**options)` of a function from options to a result: it seeds, prints and saves."""

    def decorate(body):
        def run(**given):
            options = options_class(**given)
            torch.manual_seed(options.seed)
            result = body(options)
            print(*getattr(result, "rows", []), sep="\n")
            print("this recipe: " + "  ".join(f"{key} {value:.4g}" for key, value in result.metrics.items()))
            if options.out:
                torch.save(result.model.state_dict(), options.out)
            return result

        run.options = options_class
        return run

    return decorate


def main(run):
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for one in dataclasses.fields(run.options):
        kind = {int | None: int, float | None: float, str | None: str, Any: str}.get(one.type, type(one.default))
        how = {"type": kind, "choices": get_args(one.type) if get_origin(one.type) is Literal else None}
        how = {"action": argparse.BooleanOptionalAction} if kind is bool else how
        how |= {"default": one.default} | (one.metadata or Options.__dataclass_fields__[one.name].metadata)
        parser.add_argument(f"--{one.name.replace('_', '-')}", **how)
    try:
        run(**vars(parser.parse_args()))
    except FileNotFoundError as error:  # of the data, for one
        parser.exit(2, f"error: {error}\n")
