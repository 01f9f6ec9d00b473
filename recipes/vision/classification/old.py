"""What recipes of the first frame take from this task; it goes when the last of them has moved."""

from collections.abc import Callable
from typing import Unpack

import torch
from torch import nn
from torch.nn import functional as F

from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, old_batches
from recipes.datasets.images import ImageFiles, Images
from recipes.vision.classification.averaging import Averaged
from recipes.vision.classification.models import named_model
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN

# Half precision and channels-last make these convolutions twice as fast where the device has them.
FAST: Engine = {"precision": "auto", "channels_last": True}


def build_model(name: str, channels: int, num_classes: int, *, width: int = 16) -> nn.Module:
    """The network of that name, with random weights."""
    if name == "small_cnn":
        return SmallCNN(channels, num_classes, width=width)
    return named_model(name, channels, num_classes)


def train(
    model: nn.Module,
    train_set: Images | ImageFiles,
    test_set: Images | ImageFiles,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    schedule: Callable[[float], float] = one_cycle,
    average: bool = False,
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises the cross-entropy with AdamW; gives the loop, whose history follows both parts.

    With `average` the weights that are tested, and that the model ends with, are averages of recent ones.
    """
    learner = Averaged(model) if average else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05, fused=True)
    loop = OldLoop(
        learner,
        optimizer,
        old_batches(train_set, batch_size, seed=seed, workers=2 if isinstance(train_set, ImageFiles) else 0),
        epochs=epochs,
        device=device,
        schedule=schedule,
        evaluate=lambda: evaluate(learner, test_set, device),
        **engine,
    )
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(images), labels)
        loop.step(loss)
        if isinstance(learner, Averaged):
            learner.update()
    if isinstance(learner, Averaged):
        learner.settle()
    return loop
