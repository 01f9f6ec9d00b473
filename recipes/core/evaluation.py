"""What a model says of a whole data set, in the set's order."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recipes.core.device import rank_and_world


@torch.inference_mode()
def predict(model: nn.Module, dataset: Any, device: torch.device, batch_size: int = 256) -> list[Any]:
    """Outputs of `model` in evaluation mode, one for each sample of `dataset`, on the CPU.

    Under torchrun each process computes its share, and all of them get all the outputs.

    Args:
        model: takes a batch of inputs and gives a tensor (batch, …), or a list with an entry a sample.
        dataset: its `__getitems__(indices)` gives (inputs, targets).
        device: where the model lives.
        batch_size: samples in a forward pass.
    """
    rank, world = rank_and_world()
    size = len(dataset)
    rows = -(-size // world)  # every process takes as many steps, since a sharded model works in step
    mine = [(rank * rows + row) % size for row in range(rows)]
    was_training = model.training
    model.eval()
    outputs: list[Any] = []
    for start in range(0, rows, batch_size):
        inputs, _ = dataset.__getitems__(mine[start : start + batch_size])
        answers = model(map_tensors(lambda tensor: tensor.to(device), inputs))
        outputs += map_tensors(lambda tensor: tensor.cpu(), answers)
    model.train(was_training)
    if world > 1:
        parts: list[Any] = [None] * world
        dist.all_gather_object(parts, outputs)
        outputs = [output for part in parts for output in part]
    return outputs[:size]


def map_tensors(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """The batch with `function` applied to every tensor; lists, tuples and dicts keep their shape."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, dict):
        return {key: map_tensors(function, value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(map_tensors(function, value) for value in batch)
    return batch
