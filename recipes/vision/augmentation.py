"""Augmentation: more pictures out of the few there are.

A network that has ten pictures of a class can learn them by heart. Moved, turned, noisy or partly hidden,
they are new to it each time while their class stays the same, and it has to find what they have in common.
Here one network is trained for the same number of steps on the same few pictures, with each kind of
augmentation, and tested on held-out pictures: as they are, turned, noisy, and partly hidden. The transforms
themselves, each a short function for a whole batch on its device, are in `recipes/vision/transforms.py`.

Only what keeps the class may be changed: a mirrored car is a car, but a mirrored 7 is no digit, and the row
"and mirrored" shows what that costs. Boxes and masks have to follow the picture. Here they do, by the same
matrix, also under RandAugment; torchvision's RandAugment, TrivialAugment, AugMix and MixUp refuse them.

Notes: 44, 90
Paper: Cubuk, Zoph, Shlens, Le (2019), "RandAugment", https://arxiv.org/abs/1909.13719;
    Zhang, Cisse, Dauphin, Lopez-Paz (2017), "mixup: Beyond Empirical Risk Minimization",
    https://arxiv.org/abs/1710.09412;
    Yun et al. (2019), "CutMix", https://arxiv.org/abs/1905.04899
Data: ten handwritten digits (UCI) of each class, 8×8 pixels; yours as IDX files, a folder a class, or
    torchvision:NAME.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import new_figure, show_picture
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.bundled import bundled
from recipes.datasets.images import ImageFiles, Images, decode_all, open_images
from recipes.datasets.loading import few_of_each
from recipes.vision.classification.old import FAST, build_model
from recipes.vision.transforms import (
    brightness,
    contrast,
    crop,
    cutmix,
    erase,
    flip,
    hue,
    mixup,
    noise,
    pad,
    rand_augment,
    rectangles,
    rotate,
    saturation,
    scale,
    translate,
    warp,
    warp_boxes,
    warp_masks,
)

Augmentation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def augment(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Turned, scaled and moved in one sampling, then lighter or darker, noisy, and partly hidden.

    Args:
        images: (batch, channels, height, width) on the scale 0 to 1.
        targets: (batch, classes), the share of each class.
    """
    matrices = translate(images) @ scale(images) @ rotate(images, amount=20)
    images = contrast(brightness(warp(images, matrices)))
    return erase(noise(images, amount=0.2), amount=0.6), targets


METHODS: dict[str, Augmentation] = {
    "none": lambda images, targets: (images, targets),
    "augmentation": augment,
    "and mirrored": lambda images, targets: augment(warp(images, flip(images)), targets),
    "RandAugment": lambda images, targets: (rand_augment(images)[0], targets),
    "MixUp": mixup,
    "CutMix": cutmix,
}


def turned(images: Tensor, generator: torch.Generator) -> Tensor:
    """By up to 30 degrees."""
    return warp(images, rotate(images, generator, 30))


def noisy(images: Tensor, generator: torch.Generator) -> Tensor:
    """Under noise of deviation 0.2."""
    drawn = torch.randn(images.shape, generator=generator, device=images.device)
    return (images + 0.2 * drawn).clamp(0, 1)


def hidden(images: Tensor, generator: torch.Generator) -> Tensor:
    """Behind a black square of 0.4 of the side."""
    side = images.new_full((len(images),), 0.4)
    return images.masked_fill(rectangles(images, side, side, generator), 0)


MOVES = (flip, rotate, scale, translate, crop, pad)
COLOURS = (brightness, contrast, saturation, hue, noise, erase)
TESTS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "accuracy": lambda images, generator: images,
    "rotated_accuracy": turned,
    "noisy_accuracy": noisy,
    "occluded_accuracy": hidden,
}


class Shifted:
    """A data set whose pictures are changed when they are fetched, by the same draws at each time."""

    def __init__(self, dataset: Images | ImageFiles, change: Callable[[Tensor, torch.Generator], Tensor]) -> None:
        self.dataset, self.change = dataset, change

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        images, labels = self.dataset.__getitems__(indices)
        return self.change(images, torch.Generator().manual_seed(indices[0])), labels


def train(
    model: nn.Module,
    train_set: Images | ImageFiles,
    augmentation: Augmentation,
    epochs: int,
    batch_size: int,
    lr: float,
    *,
    device: torch.device,
    seed: int = 0,
    **loop_options: Any,
) -> OldLoop:
    """Minimises the cross-entropy between the network's answers and the augmented targets."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    loader = old_batches(train_set, batch_size, seed=seed)
    loop = OldLoop(model, optimizer, loader, epochs=epochs, device=device, schedule=one_cycle, **loop_options)
    for images, labels in loop:
        images, targets = augmentation(images, F.one_hot(labels, len(train_set.classes)).float())
        loss = F.cross_entropy(loop.model(images), targets)
        loop.step(loss)
    return loop


def evaluate(model: nn.Module, dataset: Images | ImageFiles, device: torch.device) -> dict[str, float]:
    """Accuracy on the held-out pictures as they are, turned, noisy, and partly hidden."""
    accuracies = {}
    for name, change in TESTS.items():
        logits = torch.stack(predict(model, Shifted(dataset, change), device))  # (N, classes)
        accuracies[name] = (logits.argmax(dim=1) == dataset.labels.cpu()).double().mean().item()
    return accuracies


def box_error() -> float:
    """Pixels by which a moved box and the tight box of its moved mask differ at most, over all transforms."""
    masks = torch.zeros(8, 200, 240, dtype=torch.int64)
    masks[:, 70:120, 90:160] = 1
    boxes = [torch.tensor([[90.0, 70.0, 160.0, 120.0]])] * 8
    worst = 0.0
    for transform in MOVES:
        matrices = transform(masks.unsqueeze(1))
        moved, _ = warp_boxes(boxes, matrices, (200, 240))
        for mask, box in zip(warp_masks(masks, matrices), moved, strict=True):
            y, x = mask.nonzero(as_tuple=True)
            seen = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
            worst = max(worst, (box - seen).abs().max().item())
    return worst


def draw(rows: list[dict[str, Any]]) -> Any:
    """Each transform on a bundled scene with its boxes, two scenes joined, and the accuracies."""
    from matplotlib.patches import Rectangle

    folder, generator = bundled("scenes"), torch.Generator().manual_seed(0)
    records = json.loads((folder / "annotations" / "instances_train.json").read_text("utf-8"))["annotations"]
    boxes = torch.tensor([record["bbox"] for record in records if record["image_id"] == 1]).float()
    boxes[:, 2:] += boxes[:, :2]  # the file has left, top, width, height
    files = [folder / "train" / f"{number:04}.png" for number in (1, 2)]
    scenes = decode_all(files, (3, 64, 64)) / 255
    images = scenes[:1].expand(9, -1, -1, -1)
    unmoved = torch.eye(3).expand(9, 3, 3)
    changed = {"as it is": (images, unmoved)}
    for move in MOVES:
        matrices = move(images, generator)
        changed[move.__name__] = (warp(images, matrices), matrices)
    for colour in COLOURS:
        changed[colour.__name__] = (colour(images, generator), unmoved)
    changed["RandAugment"] = rand_augment(images, generator)

    figure, axes = new_figure(4, 6, width=1.7, height=1.8)
    places = iter(axes.flatten())
    for name, (pictures, matrices) in changed.items():
        distance = (pictures - images).abs().mean(dim=(1, 2, 3))
        chosen = int(distance.argsort()[6])  # neither the least nor the most changed of nine
        place = next(places)
        show_picture(place, pictures[chosen], name)
        for left, top, right, bottom in warp_boxes([boxes], matrices[chosen : chosen + 1], (64, 64))[0][0] - 0.5:
            place.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="cyan"))
    for name, mix in (("MixUp", mixup), ("CutMix", cutmix)):
        pictures, targets = mix(scenes.repeat(9, 1, 1, 1), torch.eye(2).repeat(9, 1), generator)
        chosen = int((targets[:, 0] - 0.6).abs().argmin())
        show_picture(next(places), pictures[chosen], f"{name}, {targets[chosen, 0]:.0%} and {targets[chosen, 1]:.0%}")
    for place in places:
        place.remove()
    bars = figure.add_subplot(axes[0, 0].get_gridspec()[3, :])
    for number, row in enumerate(rows):
        at = [column + 0.13 * number for column in range(len(TESTS))]
        bars.bar(at, [row[name] for name in TESTS], 0.12, label=row["training"])
    bars.set_xticks([column + 0.33 for column in range(len(TESTS))], ["held out", "turned", "noisy", "partly hidden"])
    bars.set(ylabel="accuracy", ylim=(0.5, 1))
    bars.spines[["top", "right"]].set_visible(False)
    bars.legend(frameon=False, ncols=len(rows), loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=8)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    model: str = "small_cnn",
    samples: int = 10,
    repeats: int = 3,
    image_size: int | None = None,
    epochs: int = 120,
    batch_size: int = 50,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains on few pictures with each augmentation, and measures on held-out and on shifted ones.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        model: small_cnn, timm:NAME or torchvision:NAME.
        samples: training pictures of each class.
        repeats: trainings of each kind, each on other pictures; the accuracies are their means.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        epochs: passes over the few training pictures.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the pictures chosen, the weights and the augmentation.
        out: folder for result.json, figure.png and model.safetensors, an augmented network's.
    """
    if min(samples, repeats) < 1:
        raise InputError(f"options samples and repeats: expected at least 1, got {samples} and {repeats}")
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, normalize=False, seed=seed)
    options: Engine = {**FAST, **engine}
    rows: list[dict[str, Any]] = []
    for method, augmentation in METHODS.items():
        scores = []
        for repeat in range(repeats * seed, repeats * seed + repeats):
            torch.manual_seed(repeat)
            few = train_set.subset(few_of_each(train_set.labels, samples, repeat))
            network = build_model(model, train_set.shape[0], len(train_set.classes)).to(place)
            name = f"{method}-{repeat}"
            loop = train(
                network, few, augmentation, epochs, batch_size, lr, device=place, seed=repeat, name=name, **options
            )
            scores.append(evaluate(network, test_set, place))
        rows.append({"training": method} | {test: sum(score[test] for score in scores) / repeats for test in TESTS})
        if method == "augmentation":
            kept, history = network, loop.history
    without, augmented, mirrored = rows[:3]
    return Result(
        metrics={name: augmented[name] for name in TESTS},
        baseline={name: without[name] for name in TESTS},
        baseline_name="not augmented",
        bars={"accuracy": 0.92},
        claims=[
            *(claim(f"augmentation improves {name}", augmented[name], ">", without[name]) for name in TESTS),
            claim("mirroring digits costs accuracy", mirrored["accuracy"], "<", augmented["accuracy"]),
            claim("moved boxes stay tight about moved masks, in pixels", box_error(), "<", 1),
        ],
        history=history,
        rows=rows,
        model=kept,
        draw=lambda: draw(rows),
    )


if __name__ == "__main__":
    main(run)
