"""Every architecture of `vision.classification` at a small width, after one pass over the same pictures.

All learn from the same 12,000 pictures of Fashion-MNIST in one thread, of which processor time counts.
Batches and schedule are the same for all; the learning rate is that of the architecture's recipe.
"""

import inspect
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from benchmarks.row import table
from recipes.core.loading import holdout
from recipes.core.measure import macs, parameter_count
from recipes.datasets.images import open_images
from recipes.vision.classification import (
    alexnet,
    efficientnet,
    inception,
    lenet,
    mobilenet,
    resnet,
    scoring,
    task,
    vgg,
    vit,
)

CPU = torch.device("cpu")
PICTURES, CLASSES, BATCH = 12_000, 10, 64

Network = tuple[ModuleType, str, Callable[[], nn.Module]]  # the recipe, what is taken from it, and how it is built


def networks() -> list[Network]:
    """One for grey pictures of 28×28 from each recipe; LeNet-5 takes 32×32."""
    grey: dict[str, Any] = {"channels": 1, "num_classes": CLASSES}
    small = {"small_pictures": True, **grey}
    separable = {"width": 0.5, "last": 128, **small}
    scaled = {"stem": 8, "by": 2, "dropout": 0.1, "stochastic_depth": 0.1, **small}
    tokens = {"width": 48, "depth": 3, "heads": 4, "dropout": 0.1, **grey}
    convolutions = {"width": 16, "hidden": 128, "grid": 1, "dropout": 0.2, "batch_norm": True, **grey}
    return [
        (lenet, "LeNet-5, 32×32 pixels", lambda: lenet.LeNet(1, CLASSES)),
        (alexnet, "AlexNet, width 12", lambda: alexnet.AlexNet(width=12, **small)),
        (vgg, "9 convolutions of VGG, width 16", lambda: vgg.VGG(vgg.STAGES["small"], **convolutions)),
        (
            inception,
            "4 Inception modules, one of each kind",
            lambda: inception.small_inception(inception.InceptionOptions(auxiliary=0), 1, CLASSES),
        ),
        (resnet, "ResNet-14, width 16", lambda: resnet.small_resnet(14, **grey)),
        (
            mobilenet,
            "5 blocks of MobileNet v2, width 0.5",
            lambda: mobilenet.MobileNetV2(mobilenet.SMALL_SETTINGS, **separable),
        ),
        (
            efficientnet,
            "5 blocks of EfficientNet, width 8",
            lambda: efficientnet.EfficientNet(efficientnet.SMALL_SETTINGS, **scaled),
        ),
        (vit, "3 blocks of ViT, width 48, patches of 4×4", lambda: vit.VisionTransformer((28, 28), 4, **tokens)),
        (task, "3 convolutions, width 24", lambda: task.SmallCNN(1, CLASSES, width=24)),
    ]


def line(folder: Path, recipe: ModuleType, name: str, build: Callable[[], nn.Module]) -> list[str]:
    """Trains one network; gives its cells of the table."""
    train_set, test_set = open_images(folder, image_size=32 if recipe is lenet else None)
    few = train_set.subset(holdout(train_set.labels, PICTURES / len(train_set))[1])
    torch.manual_seed(0)
    model, lr = build(), inspect.signature(recipe.run).parameters["lr"].default
    size = [f"{count:,}" for count in (parameter_count(model), macs(model, few.__getitems__([0])[0]))]
    start = time.process_time()
    options = task.ClassificationOptions(epochs=1, batch_size=BATCH, lr=lr, device="cpu")
    task.train(model, few, few.subset(range(1)), options)
    seconds = time.process_time() - start
    accuracy = scoring.evaluate(model, test_set, CPU)["accuracy"]
    title = recipe.__name__.removeprefix("recipes.").removesuffix(".task")
    return [f"`{title}`", name, f"{100 * accuracy:.1f} %", *size, f"{seconds:.0f}"]


def section() -> str:
    """A heading, a sentence and the table; nothing without the pictures."""
    folder = Path(os.environ.get("RECIPES_REAL_DATA", "")) / "fashion_mnist"
    if not folder.is_dir():
        return ""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    lines = [line(folder, *network) for network in networks()]
    torch.set_num_threads(threads)
    return f"""## Architectures of `vision.classification`

One pass over the same {PICTURES:,} pictures of Fashion-MNIST, in batches of {BATCH} and at the learning rate of each
recipe; accuracy on all 10,000 held-out pictures, multiply-accumulates of one picture, and seconds of training in one
thread (half precision where the processor has it). It tells what each costs and how far it comes at first, not where
it ends.

{table(["recipe", "network", "accuracy", "parameters", "MACs", "seconds"], lines)}
"""
