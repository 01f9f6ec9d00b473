"""Semantic segmentation with SegNet: a decoder that puts back where the encoder's pooling took from.

Pooling keeps the largest of four pixels and forgets which one it was; upsampling can only spread the value
over all four, and borders smear. SegNet keeps the index of the largest. Its decoder has no weights for
upsampling: unpooling puts each value back at the index and leaves zeros around it, which the convolutions
then fill. Two bits a pooled pixel are carried over, where U-Net carries whole feature maps.

This is the paper's small variant, SegNet-Basic: one 7×7 convolution at each size, two sizes instead of
four. Beside it the same network with bilinear upsampling is trained, of as many parameters.

Notes: 87
Paper: Badrinarayanan, Kendall and Cipolla (2017), "SegNet: A Deep Convolutional Encoder-Decoder Architecture for
    Image Segmentation", https://arxiv.org/abs/1511.00561
Data: handwritten digits of four kinds on cluttered backgrounds, 64×64 pixels; yours as COCO, Pascal VOC,
    or PNG masks beside pictures.
"""

from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.claims import Claim
from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.loop import one_cycle
from recipes.core.measure import parameter_count
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.scenes import VOID, Masks, open_masks
from recipes.vision.segmentation.scoring import commonest_class, draw, evaluate, near_borders, predict_masks, scores
from recipes.vision.segmentation.task import dice_loss


def wide_convolution(channels: int, width: int) -> nn.Sequential:
    """7×7, with batch norm and ReLU: wide enough to fill what unpooling leaves empty."""
    return nn.Sequential(nn.Conv2d(channels, width, 7, padding=3, bias=False), nn.BatchNorm2d(width), nn.ReLU())


class SegNet(nn.Module):
    """Pictures (N, channels, H, W), of sides of 2^depth or more, to logits (N, num_classes, H, W).

    Args:
        channels: of the pictures.
        num_classes: of the pixels.
        width: channels at full size; every halving of the picture but the last doubles them.
        depth: how often the picture is halved.
        indices: False upsamples bilinearly instead of by the pooling's indices.
    """

    def __init__(
        self, channels: int, num_classes: int, *, width: int = 16, depth: int = 2, indices: bool = True
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.indices = indices
        self.encoder = nn.ModuleList(
            wide_convolution(*pair) for pair in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.decoder = nn.ModuleList(
            wide_convolution(*pair) for pair in zip(widths[::-1], [*widths[-2::-1], width], strict=True)
        )
        self.head = nn.Conv2d(width, num_classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, images: Tensor) -> Tensor:
        features, kept = images, []
        for block in self.encoder:
            features = block(features)  # (batch, width · 2^level, height / 2^level, width / 2^level)
            size = features.shape[2:]
            features, indices = F.max_pool2d(features, 2, return_indices=True)  # index of each largest in its map
            kept.append((size, indices))
        for block in self.decoder:
            size, indices = kept.pop()
            if self.indices:
                features = F.max_unpool2d(features, indices, (2, 2), output_size=size)  # zeros but at the indices
            else:
                features = F.interpolate(features, size=size, mode="bilinear")
            features = block(features)
        return self.head(features)


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
    depth: int = 2,
    compare: bool = True,
    epochs: int = 4,
    batch_size: int = 8,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a SegNet and, beside it, the same network with bilinear upsampling.

    Args:
        data: folder of your pictures and masks; the bundled scenes if not given.
        image_size: side in pixels that your pictures are brought to; their own or 128 if not given.
        width: channels at full size; every halving of the picture but the last doubles them.
        depth: how often the picture is halved.
        compare: also train with bilinear upsampling.
        epochs: passes over the training pictures.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights and of the order of the pictures.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    train_set, test_set = open_masks(data, image_size=image_size, seed=seed)
    classes = len(train_set.classes)
    borders = replace(test_set, masks=near_borders(test_set.masks))
    fast: Engine = {"precision": "auto", "channels_last": True, "clip": 1.0}
    options: Engine = {**fast, **engine}

    def fit(*, indices: bool) -> tuple[SegNet, list[dict[str, float]], dict[str, float]]:
        torch.manual_seed(seed)
        network = SegNet(3, classes, width=width, depth=depth, indices=indices).to(place)
        loop = train(
            network,
            train_set,
            test_set,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            device=place,
            seed=seed,
            name="indices" if indices else "bilinear",
            **options,
        )
        predicted = predict_masks(network, test_set, place)
        metrics = scores(predicted, test_set.masks, classes)
        metrics["mean_iou_at_borders"] = scores(predicted, borders.masks, classes)["mean_iou"]
        return network, loop.history, metrics

    network, history, metrics = fit(indices=True)
    baseline = commonest_class(train_set, test_set)
    baseline["mean_iou_at_borders"] = commonest_class(train_set, borders)["mean_iou"]
    claims: list[Claim] = []
    rows: list[dict[str, Any]] = []
    if compare:
        smooth, smooth_history, without = fit(indices=False)
        rows = [
            {"upsampling": "by index", "parameters": parameter_count(network), **metrics},
            {"upsampling": "bilinear", "parameters": parameter_count(smooth), **without},
        ]
        claims = [
            claim(
                "unpooling by index keeps borders better than bilinear upsampling: mean IoU within 2 pixels of them",
                metrics["mean_iou_at_borders"],
                ">",
                without["mean_iou_at_borders"],
            ),
        ]
        history = [
            row | {"mean_iou_bilinear": other["mean_iou"]} for row, other in zip(history, smooth_history, strict=True)
        ]
    return Result(
        metrics=metrics,
        baseline=baseline,
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
