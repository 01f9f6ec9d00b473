"""Augmentation: more pictures out of the few there are.

A network that has ten pictures of a class can learn them by heart. Moved, rotated, noisy or partly hidden, they are new
to it each time while their class stays the same, and it has to find what they have in common. The transforms, each a
short function for a whole batch on its device, are in `recipes/vision/transforms.py`; `augmentation="torchvision"` is
the usual pipeline of torchvision, a picture at a time. The network is tested on held-out pictures as they are, rotated,
noisy, partly hidden and lit from one side, and on pictures of another origin.

Only what keeps the class may be changed: a mirrored car is a car, but a mirrored 7 is no digit. And each change helps
where a test differs from the training pictures in just that way; under noise, the nearest neighbor in pixels stays
ahead. Boxes and masks follow the picture by the same matrix, also under RandAugment.

Notes: 44, 90
Paper: Cubuk, Zoph, Shlens, Le (2019), "RandAugment", https://arxiv.org/abs/1909.13719;
    Zhang, Cisse, Dauphin, Lopez-Paz (2017), "mixup: Beyond Empirical Risk Minimization",
    https://arxiv.org/abs/1710.09412;
    Yun and others (2019), "CutMix", https://arxiv.org/abs/1905.04899
Data: ten digits (UCI) of each class, 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure, show_picture
from recipes.core.frame import Claim, Loop, Options, Result, batches, main, option, recipe
from recipes.datasets.bundled import bundled
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.datasets.loading import few_of_each
from recipes.vision.classification.task import SmallCNN
from recipes.vision.classification.using import Classification
from recipes.vision.networks import named_model
from recipes.vision.pixels import flat, nearest_classes
from recipes.vision.transforms import (
    COLORS,
    MOVES,
    brightness,
    contrast,
    cutmix,
    erase,
    flip,
    mixup,
    noise,
    rand_augment,
    rectangles,
    rotate,
    scale,
    translate,
    warp,
    warp_boxes,
)


@dataclass(kw_only=True)
class AugmentationOptions(Options):
    augmentation: Literal["none", "usual", "mirrored", "rand_augment", "mixup", "cutmix", "torchvision"] = option(
        "usual", "how the training pictures are changed; mirrored is the usual way, and half of them mirrored too"
    )
    samples: int = option(10, "training pictures of each class", least=1)
    model: str = option("small_cnn", "small_cnn, timm:NAME or torchvision:NAME")
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = 200
    batch_size: int = 50


def usual(images: Tensor) -> Tensor:
    """Rotated, scaled and moved in one sampling, then lighter or darker, noisy, and partly hidden.

    Args:
        images: (batch, channels, height, width) on the scale 0 to 1.
    """
    matrices = translate(images) @ scale(images) @ rotate(images, amount=20)
    images = contrast(brightness(warp(images, matrices), amount=0.5))
    return erase(noise(images, amount=0.2), amount=0.6)


def by_torchvision(images: Tensor) -> Tensor:
    """The same kinds of changes by torchvision's transforms, which draw once a call: so one call a picture."""
    from torchvision import transforms

    moved = transforms.RandomAffine(
        20, (0.125, 0.125), (1 / 1.2, 1.2), interpolation=transforms.InterpolationMode.BILINEAR
    )
    changed = transforms.Compose([moved, transforms.ColorJitter(0.5, 0.3), transforms.RandomErasing(0.5)])
    return torch.stack([changed(image) for image in images])


# What each does to pictures, and to their targets (batch, classes), the share of each class.
AUGMENTATIONS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "none": lambda images, targets: (images, targets),
    "usual": lambda images, targets: (usual(images), targets),
    "mirrored": lambda images, targets: (usual(warp(images, flip(images))), targets),
    "rand_augment": lambda images, targets: (rand_augment(images)[0], targets),
    "mixup": mixup,
    "cutmix": cutmix,
    "torchvision": lambda images, targets: (by_torchvision(images), targets),
}


def hidden(images: Tensor, generator: torch.Generator) -> Tensor:
    """Behind a black square of 0.4 of the side."""
    side = images.new_full((len(images),), 0.4)
    return images.masked_fill(rectangles(images, side, side, generator), 0)


def lit(images: Tensor, generator: torch.Generator) -> Tensor:
    """From one side, left or right: a tenth of the light is left at the other."""
    light = torch.linspace(0.1, 1, images.shape[3]).expand(len(images), 1, 1, -1)
    from_left = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return images * torch.where(from_left, light.flip(3), light)


CONDITIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "accuracy": lambda images, generator: images,
    "rotated_accuracy": lambda images, generator: warp(images, rotate(images, generator, 30)),
    "noisy_accuracy": lambda images, generator: images + 0.2 * torch.randn(images.shape, generator=generator),
    "occluded_accuracy": hidden,
    "lit_accuracy": lit,
}


def build(options: AugmentationOptions, data: Images | ImageFiles) -> nn.Module:
    """The network that the options name, for pictures and classes like these."""
    if options.model == "small_cnn":
        return SmallCNN(data.shape[0], len(data.classes))
    return named_model(options.model, data.shape[0], len(data.classes))


def train(model: nn.Module, train_set: Images | ImageFiles, options: AugmentationOptions) -> Loop:
    """Minimizes the cross-entropy between the network's answers and the augmented targets."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05, fused=True)
    loop = Loop(model, optimizer, batches(train_set, options), options)
    augment = AUGMENTATIONS[options.augmentation]
    for images, labels in loop:
        images, targets = augment(images, F.one_hot(labels, len(train_set.classes)).float())
        loop.step(F.cross_entropy(loop.model(images), targets))
    return loop


def evaluate(classify: Callable[[Tensor], Tensor], test_set: Images | ImageFiles) -> dict[str, float]:
    """Accuracy under each condition; `classify` takes pictures (batch, C, H, W) to classes (batch,)."""
    generator, right = torch.Generator().manual_seed(0), dict.fromkeys(CONDITIONS, 0)
    for indices in torch.arange(len(test_set)).split(256):
        images, labels = test_set.__getitems__(indices.tolist())
        for name, change in CONDITIONS.items():
            right[name] += int((classify(change(images, generator)) == labels).sum())
    return {name: count / len(test_set) for name, count in right.items()}


@torch.inference_mode()
def answers(model: nn.Module, images: Tensor) -> Tensor:
    """The likeliest class of each picture, (batch,)."""
    return model.eval()(images.to(next(model.parameters()).device)).argmax(dim=1).cpu()


@recipe(AugmentationOptions)
def run(options: AugmentationOptions) -> Result:
    """Trains on few pictures, changed at random, and measures on held-out ones, as they are and changed."""
    parts = open_images(options.data, image_size=options.image_size, seed=options.seed)
    whole, test_set = (replace(part, mean=torch.zeros(1), std=torch.ones(1)) for part in parts)  # on the scale 0 to 1
    train_set = whole.subset(few_of_each(whole.labels.cpu(), options.samples, options.seed))
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, options)
    return Result(
        metrics=evaluate(lambda images: answers(model, images), test_set),
        baseline=evaluate(lambda images: nearest_classes(train_set, flat(images)), test_set),
        baseline_name="nearest neighbor on pixels",
        bars={"accuracy": 0.92},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    given, trainings, bundled_digits = run().options, 3, run().options["data"] is None

    def mean_scores(augmentation: str) -> dict[str, float]:
        """Means over trainings, each on other pictures."""
        scores = []
        for number in range(trainings):
            wanted = {"augmentation": augmentation, "seed": (given["seed"] + 1000 * number) % 2**32}
            one = run(**{name: value for name, value in wanted.items() if value != given[name]})
            scores.append(one.metrics | (printed_accuracy(one) if bundled_digits else {}))
        return {name: fmean(score[name] for score in scores) for name in scores[0]}

    means, nearest = {name: mean_scores(name) for name in AUGMENTATIONS}, run().baseline
    run().rows = [{f"augmentation, {trainings} trainings": name} | scores for name, scores in means.items()]

    def better(text: str, name: str, one: str, other: str, margin: float) -> Claim:
        least = max(means[other][name], nearest.get(name, 0.6) / 2)  # an untrained network does not reach half of it
        return Claim(f"{text}: {name}", means[one][name], ">", least, margin=margin)

    for name, margin in zip(CONDITIONS, (0.015, 0.15, 0.03, 0.05, 0.3), strict=True):
        yield better("changed pictures teach more", name, "usual", "none", margin)
    if bundled_digits:
        yield better("and so they do about printed digits", "printed_accuracy", "usual", "none", 0.04)
        yield better("mirroring digits costs accuracy", "accuracy", "usual", "mirrored", 0.02)
    text = "torchvision's pipeline, which adds no noise, prepares for it less"
    yield better(text, "noisy_accuracy", "usual", "torchvision", 0.05)
    yield better("CutMix prepares for hidden parts", "occluded_accuracy", "cutmix", "none", 0.03)
    yield better("MixUp gains less than moving pictures does", "accuracy", "usual", "mixup", 0.01)
    least = max(means["usual"]["accuracy"] - 0.03, nearest["accuracy"])
    text = "RandAugment comes within three points of changes chosen by hand, and beats the nearest neighbor: accuracy"
    yield Claim(text, means["rand_augment"]["accuracy"], ">", least, margin=0.005)


def printed_accuracy(result: Result) -> dict[str, float]:
    """Accuracy on digits of another origin: those of fonts that matplotlib carries."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    fonts, pages = Path(get_data_path()) / "fonts" / "ttf", []
    channels, *size = result.test_set.shape
    for path in sorted([*fonts.glob("DejaVuS*.ttf"), *fonts.glob("STIXGen*.ttf")]):
        for digit in "0123456789" if "Display" not in path.name else "":
            ink = ImageFont.truetype(str(path), 64).getmask(digit)
            width, height = ink.size
            page = F.pad(torch.tensor(list(ink)).view(1, 1, height, width) / 255, [(height - width) // 2] * 2)
            pages.append(F.interpolate(page, size, mode="area").expand(-1, channels, -1, -1))
    found = answers(result.model, torch.cat(pages))
    return {"printed_accuracy": (found == torch.arange(len(found)) % 10).double().mean().item()}


@run.figure
def figure(result: Result) -> Any:
    """Each transform on a bundled scene with its boxes, two scenes joined, and the accuracies."""
    from matplotlib.patches import Rectangle
    from PIL import Image

    generator, folder = torch.Generator().manual_seed(0), bundled("scenes")
    records = json.loads((folder / "annotations" / "instances_train.json").read_text("utf-8"))["annotations"]
    boxes = torch.tensor([one["bbox"] for one in records if one["image_id"] == 1]).float()
    boxes[:, 2:] += boxes[:, :2]  # the file has left, top, width, height
    files = [Image.open(folder / "train" / f"{number:04}.png").convert("RGB") for number in (1, 2)]
    scenes = torch.tensor([list(file.tobytes()) for file in files]).view(2, 64, 64, 3).permute(0, 3, 1, 2) / 255
    images, still = scenes[:1].expand(9, -1, -1, -1), torch.eye(3).expand(9, 3, 3)
    changed = {"as it is": (images, still), "RandAugment": rand_augment(images, generator)}
    for transform in (*MOVES, *COLORS):
        made = transform(images, generator)
        changed[transform.__name__] = (made, still) if transform in COLORS else (warp(images, made), made)
    drawn, axes = new_figure(4, 6, width=1.7, height=1.8)
    panels = iter(axes.flatten())
    for name, (pictures, matrices) in changed.items():
        chosen, panel = int((pictures - images).abs().mean(dim=(1, 2, 3)).argsort()[6]), next(panels)
        show_picture(panel, pictures[chosen], name)
        for left, top, right, bottom in warp_boxes([boxes], matrices[chosen : chosen + 1], (64, 64))[0][0] - 0.5:
            panel.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="cyan"))
    for name, mix in (("MixUp", mixup), ("CutMix", cutmix)):
        pictures, shares = mix(scenes.repeat(9, 1, 1, 1), torch.eye(2).repeat(9, 1), generator)
        chosen = int((shares[:, 0] - 0.6).abs().argmin())
        show_picture(next(panels), pictures[chosen], f"{name}, {shares[chosen, 0]:.0%} and {shares[chosen, 1]:.0%}")
    for panel in panels:
        panel.remove()
    bars = drawn.add_subplot(axes[0, 0].get_gridspec()[3, :])
    rows = result.rows or [{"": "this recipe"} | result.metrics, {"": result.baseline_name} | result.baseline]
    for number, row in enumerate(rows):
        name, *scores = row.values()
        bars.bar([column + 0.11 * number for column in range(len(scores))], scores, 0.1, label=name)
    middle = torch.arange(len(scores)) + 0.055 * (len(rows) - 1)
    bars.set_xticks(middle, [name.removesuffix("_accuracy") for name in [*rows[0]][1:]])
    bars.set(ylabel="accuracy", ylim=(0, 1))
    bars.legend(frameon=False, ncols=len(rows), loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=8)
    return drawn


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
