"""Semantic segmentation with U-Net: an encoder, a decoder, and skips that join them.

The encoder halves the picture three times to see what is there, and loses where exactly. The decoder
doubles it back, and at each size takes in the encoder's features of that size, concatenated with its own:
they still know where. Trained again without these skips, the network finds the digits but smears them.

The first weights are drawn as the paper asks, so that every layer passes on as much as it gets. With
torch's own, which are smaller, a training as short as this one can end on a plateau.

Notes: 87
Paper: Ronneberger, Fischer and Brox (2015), "U-Net: Convolutional Networks for Biomedical Image Segmentation",
    https://arxiv.org/abs/1505.04597
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


def two_convolutions(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Pictures (N, channels, H, W) of any size to logits (N, num_classes, H, W).

    Args:
        channels: of the pictures.
        num_classes: of the pixels.
        width: channels at full size; every halving of the picture doubles them.
        depth: how often the picture is halved.
        skips: without them, the upsampling makes the channels that they would have brought.
    """

    def __init__(self, channels: int, num_classes: int, *, width: int = 8, depth: int = 3, skips: bool = True) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.skips = skips
        self.encoder = nn.ModuleList(
            two_convolutions(*pair) for pair in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.upsamplings = nn.ModuleList(
            nn.ConvTranspose2d(2 * wide, wide if skips else 2 * wide, 2, stride=2) for wide in widths[-2::-1]
        )
        self.decoder = nn.ModuleList(two_convolutions(2 * wide, wide) for wide in widths[-2::-1])
        self.head = nn.Conv2d(width, num_classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)  # of deviation √(2 / inputs of a pixel)
            elif isinstance(layer, nn.ConvTranspose2d):  # here every pixel has one of the kernel's four places
                nn.init.normal_(layer.weight, std=(2 / layer.in_channels) ** 0.5)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        step = 2 ** len(self.decoder)
        features = F.pad(images, (0, -width % step, 0, -height % step))  # sides that can be halved so often
        kept = []
        for block in self.encoder[:-1]:
            features = block(features)  # (batch, width · 2^level, height / 2^level, width / 2^level)
            kept.append(features)
            features = F.max_pool2d(features, 2)
        features = self.encoder[-1](features)
        for upsampling, block in zip(self.upsamplings, self.decoder, strict=True):
            features = upsampling(features)  # twice the height and width
            if self.skips:
                features = torch.cat([kept.pop(), features], dim=1)
            features = block(features)
        return self.head(features)[:, :, :height, :width]


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
    width: int = 8,
    depth: int = 3,
    compare: bool = True,
    epochs: int = 7,
    batch_size: int = 8,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a U-Net and, beside it, the same network without skips.

    Args:
        data: folder of your pictures and masks; the bundled scenes if not given.
        image_size: side in pixels that your pictures are brought to; their own or 128 if not given.
        width: channels at full size; every halving of the picture doubles them.
        depth: how often the picture is halved.
        compare: also train the network without skips.
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

    def fit(*, skips: bool) -> tuple[UNet, list[dict[str, float]], dict[str, float]]:
        torch.manual_seed(seed)
        network = UNet(3, classes, width=width, depth=depth, skips=skips).to(place)
        loop = train(
            network,
            train_set,
            test_set,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            device=place,
            seed=seed,
            name="skips" if skips else "no_skips",
            **options,
        )
        predicted = predict_masks(network, test_set, place)
        metrics = scores(predicted, test_set.masks, classes)
        metrics["mean_iou_at_borders"] = scores(predicted, borders.masks, classes)["mean_iou"]
        return network, loop.history, metrics

    network, history, metrics = fit(skips=True)
    baseline = commonest_class(train_set, test_set)
    baseline["mean_iou_at_borders"] = commonest_class(train_set, borders)["mean_iou"]
    claims: list[Claim] = []
    rows: list[dict[str, Any]] = []
    if compare:
        plain, plain_history, without = fit(skips=False)
        rows = [
            {"trained": "with skips", "parameters": parameter_count(network), **metrics},
            {"trained": "without skips", "parameters": parameter_count(plain), **without},
        ]
        claims = [
            claim("without the skips it does worse", without["mean_iou"], "<", metrics["mean_iou"]),
            claim(
                "and loses more within 2 pixels of the borders",
                metrics["mean_iou_at_borders"] - without["mean_iou_at_borders"],
                ">",
                metrics["mean_iou"] - without["mean_iou"],
            ),
        ]
        history = [
            row | {"mean_iou_without_skips": other["mean_iou"]}
            for row, other in zip(history, plain_history, strict=True)
        ]
    return Result(
        metrics=metrics,
        baseline=baseline,
        baseline_name="commonest class",
        bars={"mean_iou": 0.8},
        claims=claims,
        history=history,
        rows=rows,
        model=network,
        draw=lambda: draw(network, test_set, place, history),
    )


if __name__ == "__main__":
    main(run)
