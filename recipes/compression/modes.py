"""Training or evaluation for a while: each layer then has the mode it had before."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """The whole model in one mode; afterwards, also after an error, each layer in its own: some may be frozen."""
    modes = {layer: layer.training for layer in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode


@contextmanager
def measuring_norms(model: nn.Module) -> Iterator[None]:
    """Batch norm's means and variances become plain means over the batches that the model is given meanwhile."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    try:
        with in_mode(model, training=True):
            yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
