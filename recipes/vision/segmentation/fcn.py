"""Semantic segmentation with a fully convolutional network, and sums over skips.

A classifier ends in layers that expect one size of picture. A 1×1 convolution is such a layer, applied at
every place: with nothing but convolutions, the network takes pictures of any size and gives a coarse map of
scores for each class. The deepest map knows what is there and is too coarse to say where exactly. So the
shallower, finer maps are scored too: each sum upsamples the coarser scores and adds the finer ones.

In the paper the maps are 32, 16 and 8 times smaller than the picture; here, for pictures of 64 pixels,
8, 4 and 2 times. The paper starts from a trained VGG-16, this network from nothing.

Notes: 87
Paper: Long, Shelhamer and Darrell (2015), "Fully Convolutional Networks for Semantic Segmentation",
    https://arxiv.org/abs/1411.4038
Data: handwritten digits of four kinds on cluttered backgrounds, 64×64 pixels; yours as COCO, Pascal VOC,
    or PNG masks beside pictures.
"""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.loop import one_cycle
from recipes.core.measure import parameter_count
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.scenes import VOID, Masks, open_masks
from recipes.vision.segmentation.scoring import commonest_class, draw, evaluate
from recipes.vision.segmentation.task import dice_loss

OTHER_SIZES = [(37, 50), (128, 96)]  # heights and widths that no default training has


def convolution(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


class FCNHead(nn.Sequential):
    """Features (N, channels, h, w) to scores (N, num_classes, h, w), each place on its own but for a 3×3 look.

    The layers and their names are torchvision's, so that its weights load.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(
            *convolution(channels, channels // 4), nn.Dropout(0.1), nn.Conv2d(channels // 4, num_classes, 1)
        )


class FCN(nn.Module):
    """Pictures (N, channels, H, W) of any size from 2×2 to logits (N, num_classes, H, W).

    Args:
        channels: of the pictures.
        num_classes: of the pixels.
        width: channels at half the picture's size; every halving doubles them.
        skips: how many finer maps of scores are added to the coarsest, 0 to 2.
    """

    def __init__(self, channels: int, num_classes: int, *, width: int = 16, skips: int = 2) -> None:
        super().__init__()
        if not 0 <= skips <= 2:
            raise InputError(f"option skips: expected 0, 1 or 2, got {skips}")
        stem = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stages = nn.ModuleList([nn.Sequential(stem, convolution(width, width))])
        for wide in (width, 2 * width):
            pool = nn.MaxPool2d(2, ceil_mode=True)
            self.stages.append(nn.Sequential(pool, convolution(wide, 2 * wide), convolution(2 * wide, 2 * wide)))
        self.coarsest = FCNHead(4 * width, num_classes)
        self.finer = nn.ModuleList(nn.Conv2d(wide, num_classes, 1) for wide in (2 * width, width)[:skips])

    def forward(self, images: Tensor) -> Tensor:
        maps, features = [], images
        for stage in self.stages:
            features = stage(features)
            maps.append(features)  # (batch, width · 2^level, height / 2^(level + 1), width / 2^(level + 1))
        logits = self.coarsest(maps.pop())  # (batch, num_classes, height / 8, width / 8)
        for score in self.finer:
            finer = score(maps.pop())  # (batch, num_classes, height / 4, width / 4), then / 2
            logits = finer + F.interpolate(logits, size=finer.shape[2:], mode="bilinear")
        return F.interpolate(logits, size=images.shape[2:], mode="bilinear")


def mosaics(dataset: Masks) -> Masks:
    """Every four pictures as one of twice the height and width; up to three at the end are left out."""

    def joined(pictures: Tensor) -> Tensor:  # (4 · n, …, height, width) to (n, …, 2 · height, 2 · width)
        quarters = pictures[: len(pictures) // 4 * 4].unflatten(0, (-1, 4)).unbind(dim=1)
        return torch.cat([torch.cat(quarters[:2], dim=-1), torch.cat(quarters[2:], dim=-1)], dim=-2)

    return Masks(joined(dataset.images), joined(dataset.masks), dataset.classes, dataset.files[3::4])


@torch.no_grad()
def keeps_size(model: nn.Module, size: tuple[int, int], device: torch.device) -> bool:
    """Whether a picture of that height and width gives logits of the same."""
    model.eval()
    return model(torch.rand(1, 3, *size, device=device)).shape[2:] == size


def train(
    model: nn.Module,
    train_set: Masks,
    test_set: Masks,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    name: str = "model",
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises cross-entropy and Dice loss together by AdamW; the loop's history follows the test part."""
    loop = OldLoop(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr),
        old_batches(train_set, batch_size, seed=seed),
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        evaluate=lambda: evaluate(model, test_set, device),
        name=name,
        **engine,
    )
    for images, masks in loop:
        logits = loop.model(images)  # (batch, classes, height, width)
        loop.step(F.cross_entropy(logits, masks, ignore_index=VOID) + dice_loss(logits, masks))
    return loop


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    width: int = 16,
    skips: int = 2,
    compare: bool = True,
    epochs: int = 5,
    batch_size: int = 8,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a fully convolutional network and, beside it, the same with fewer skips.

    Args:
        data: folder of your pictures and masks; the bundled scenes if not given.
        image_size: side in pixels that your pictures are brought to; their own or 128 if not given.
        width: channels at half the picture's size; every halving doubles them.
        skips: how many finer maps of scores are added to the coarsest, 0 to 2.
        compare: also train with fewer skips, down to none.
        epochs: passes over the training pictures.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights and of the order of the pictures.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    train_set, test_set = open_masks(data, image_size=image_size, seed=seed)
    classes, large = len(train_set.classes), mosaics(test_set)
    fast: Engine = {"precision": "auto", "channels_last": True}
    options: Engine = {**fast, **engine}
    rows: list[dict[str, Any]] = []

    def fit(skips: int) -> tuple[FCN, list[dict[str, float]]]:
        torch.manual_seed(seed)
        network = FCN(3, classes, width=width, skips=skips).to(place)
        loop = train(
            network,
            train_set,
            test_set,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            device=place,
            seed=seed,
            name=f"skips_{skips}",
            **options,
        )
        rows.append({"skips": skips, "parameters": parameter_count(network), **evaluate(network, test_set, place)})
        if len(large):
            rows[-1]["mean_iou_on_mosaics"] = evaluate(network, large, place)["mean_iou"]
        return network, loop.history

    network, history = fit(skips)
    metrics = {name: rows[0][name] for name in ("mean_iou", "pixel_accuracy")}
    kept = sum(keeps_size(network, size, place) for size in OTHER_SIZES)
    claims = [claim("pictures of 37×50 and of 128×96 pixels get answers of their sizes", kept, ">=", len(OTHER_SIZES))]
    if len(large):
        claims.append(
            claim(
                "on four pictures joined to one, larger than any in training, mean IoU stays within 0.02",
                abs(rows[0]["mean_iou_on_mosaics"] - metrics["mean_iou"]),
                "<=",
                0.02,
            )
        )
    for fewer in range(skips - 1, -1, -1) if compare else []:
        _, other_history = fit(fewer)
        claims.append(
            claim(
                f"skips: {fewer} do worse than {fewer + 1}",
                rows[-1]["mean_iou"],
                "<",
                rows[-2]["mean_iou"],
            )
        )
        history = [
            row | {f"mean_iou_skips_{fewer}": other["mean_iou"]}
            for row, other in zip(history, other_history, strict=True)
        ]
    return Result(
        metrics=metrics,
        baseline=commonest_class(train_set, test_set),
        baseline_name="commonest class",
        bars={"mean_iou": 0.7},
        claims=claims,
        history=history,
        rows=rows,
        model=network,
        draw=lambda: draw(network, test_set, place, history),
    )


if __name__ == "__main__":
    main(run)
