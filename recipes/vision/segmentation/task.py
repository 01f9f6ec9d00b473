"""Semantic segmentation with a small dilated network, and how it is measured.

A segmenter answers for every pixel which class it belongs to. Most pixels are background, so the share
of pixels that are right says little; the IoU of a class, the pixels that truth and answer share over
those that either of them has, counts a thin digit as much as a wide sky. The loss has the same trouble:
cross-entropy averages over pixels. The Dice loss, a smooth relative of IoU, averages over classes.

The network works at half the picture's size. Each of its convolutions leaves a gap between the pixels it
looks at (dilation) and so sees wider than its neighbours at the same number of parameters.

Notes: 87
Paper: Yu and Koltun (2016), "Multi-Scale Context Aggregation by Dilated Convolutions",
    https://arxiv.org/abs/1511.07122; Milletari, Navab and Ahmadi (2016), "V-Net" (the Dice loss),
    https://arxiv.org/abs/1606.04797
Data: handwritten digits of four kinds on cluttered backgrounds, 64×64 pixels; yours as COCO, Pascal VOC,
    or PNG masks beside pictures.
"""

import difflib
from collections.abc import Sequence
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
from recipes.vision.segmentation.scoring import commonest_class, draw, evaluate, predict_masks, scores


class DilatedCNN(nn.Module):
    """Residual 3×3 convolutions at half the picture's size, the later ones seeing wider.

    Args:
        channels: of the pictures.
        num_classes: of the pixels.
        width: channels of every layer.
        dilations: one convolution each, and the distance between the pixels that it looks at.
    """

    def __init__(
        self, channels: int, num_classes: int, *, width: int = 16, dilations: Sequence[int] = (1, 2, 4, 8, 4, 2)
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            for dilation in dilations
        )
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)  # (batch, width, height / 2, width / 2)
        for layer in self.layers:
            features = features + layer(features)
        logits = self.head(features)  # (batch, num_classes, height / 2, width / 2)
        return F.interpolate(logits, size=images.shape[2:], mode="bilinear")


def build_model(name: str, num_classes: int) -> nn.Module:
    """The network of that name, with random weights: pictures (N, 3, H, W) to logits (N, num_classes, H, W).

    Args:
        name: "dilated_cnn" or "torchvision:NAME".
        num_classes: of the pixels.

    Raises:
        InputError: there is no such network; names the nearest.
    """
    if name == "dilated_cnn":
        return DilatedCNN(3, num_classes)
    library, _, model = name.partition(":")
    if library != "torchvision":
        raise InputError(f"option model: expected dilated_cnn or torchvision:NAME, got {name!r}")
    from torchvision import models

    known = models.list_models(module=models.segmentation)
    if model in known:
        return Logits(models.get_model(model, weights=None, weights_backbone=None, num_classes=num_classes))
    near = difflib.get_close_matches(model, known, n=1)
    raise InputError(f"option model: torchvision has no segmenter {model!r}, did you mean {(near or known)[0]}?")


class Logits(nn.Module):
    """Takes the logits out of the dictionary that torchvision's segmenters answer with."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)["out"]


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """One minus the Dice overlap of truth and answer, the mean over classes; 0 where they are equal.

    dice = (2 · shared + 1) / (true + predicted + 1), where the answer's share is its probability; the
    ones keep a class that this batch does not show from dividing by nothing.

    Args:
        logits: (N, classes, H, W).
        masks: (N, H, W) int64; pixels of VOID do not count.
    """
    counts = (masks != VOID).unsqueeze(1)  # (N, 1, H, W)
    truth = F.one_hot(masks.where(masks != VOID, 0), logits.shape[1]).movedim(3, 1) * counts
    answer = logits.softmax(dim=1) * counts  # (N, classes, H, W)
    shared = (truth * answer).sum(dim=(0, 2, 3))  # (classes)
    sizes = truth.sum(dim=(0, 2, 3)) + answer.sum(dim=(0, 2, 3))
    return 1 - ((2 * shared + 1) / (sizes + 1)).mean()


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
    dice: bool = True,
    name: str = "model",
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises cross-entropy, and the Dice loss with it, by AdamW; the loop's history follows the test part."""
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
        loss = F.cross_entropy(logits, masks, ignore_index=VOID)
        loop.step(loss + dice_loss(logits, masks) if dice else loss)
    return loop


@old_recipe
def run(
    *,
    data: str | None = None,
    model: str = "dilated_cnn",
    image_size: int | None = None,
    compare: bool = True,
    epochs: int = 6,
    batch_size: int = 8,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a segmenter and measures it on held-out pictures.

    Args:
        data: folder of your pictures and masks; the bundled scenes if not given.
        model: dilated_cnn or torchvision:NAME.
        image_size: side in pixels that your pictures are brought to; their own or 128 if not given.
        compare: also train without the Dice loss, and without dilation where the model has it.
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
    fast: Engine = {"precision": "auto", "channels_last": True}
    options: Engine = {**fast, **engine}
    rows: list[dict[str, Any]] = []

    def fit(title: str, network: nn.Module, *, dice: bool = True) -> OldLoop:
        loop = train(
            network,
            train_set,
            test_set,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            device=place,
            seed=seed,
            dice=dice,
            name=title.replace(" ", "_"),
            **options,
        )
        rows.append({"trained": title, "parameters": parameter_count(network), **evaluate(network, test_set, place)})
        return loop

    network = build_model(model, classes).to(place)
    loop = fit("this recipe", network)
    metrics = {name: rows[0][name] for name in ("mean_iou", "pixel_accuracy")}
    baseline = commonest_class(train_set, test_set)
    answers = zip(predict_masks(network, test_set, place), test_set.masks, strict=True)
    by_picture = torch.tensor([scores(*answer, classes)["mean_iou"] for answer in answers])
    claims = [
        claim(
            "pixel accuracy flatters who answers one class everywhere: it is twice the mean IoU or more",
            baseline["pixel_accuracy"],
            ">=",
            2 * baseline["mean_iou"],
        ),
        claim(
            "averaged picture by picture, mean IoU is lower: there, a few pixels of an absent class cost a whole class",
            by_picture.nanmean().item(),
            "<",
            metrics["mean_iou"],
        ),
    ]
    if compare:
        torch.manual_seed(seed)  # the same first weights
        fit("without Dice", build_model(model, classes).to(place), dice=False)
        claims.append(claim("the Dice loss raises mean IoU", metrics["mean_iou"], ">", rows[-1]["mean_iou"]))
    if compare and model == "dilated_cnn":
        torch.manual_seed(seed)
        fit("without dilation", DilatedCNN(3, classes, dilations=(1, 1, 1, 1, 1, 1)).to(place))
        claims.append(
            claim("so does seeing wider, with as many parameters", metrics["mean_iou"], ">", rows[-1]["mean_iou"])
        )
    return Result(
        metrics=metrics,
        baseline=baseline,
        baseline_name="commonest class",
        bars={"mean_iou": 0.75},
        claims=claims,
        history=loop.history,
        rows=rows,
        model=network,
        draw=lambda: draw(network, test_set, place, loop.history),
    )


if __name__ == "__main__":
    main(run)
