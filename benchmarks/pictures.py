"""Pictures from files to augmented batches: the opener and whole-batch transforms against one at a time.

The other way is torchvision's: an ImageFolder that decodes a picture whenever it is asked for, its transforms on
that picture, and a DataLoader that stacks the results. Both flip, turn, enlarge, move, and change brightness and
contrast by the same amounts, in one process of one thread, and count processor time.
"""

import os
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.row import Row
from recipes.core.loading import batches
from recipes.core.options import Options
from recipes.datasets.images import Images, open_images
from recipes.vision.transforms import brightness, contrast, flip, rotate, scale, translate, warp

BATCH = 64


def one_epoch(dataset: Images) -> int:
    count = 0
    for images, _ in batches(dataset, Options(batch_size=BATCH)):
        matrices = translate(images) @ scale(images) @ rotate(images) @ flip(images)
        count += len(contrast(brightness(warp(images, matrices))))
    return count


def one_epoch_a_picture_at_a_time(folder: Path) -> int:
    from torchvision import datasets, transforms

    changed = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomAffine(15, translate=(0.125, 0.125), scale=(1 / 1.2, 1.2)),
            transforms.ColorJitter(brightness=0.3, contrast=0.3),
            transforms.ToTensor(),
        ]
    )
    loader = DataLoader(datasets.ImageFolder(str(folder), changed), BATCH, shuffle=True, drop_last=True)
    return sum(len(images) for images, _ in loader)


def measure(rounds: int = 5) -> list[Row]:
    folder = Path(os.environ.get("RECIPES_REAL_DATA", "")) / "cifar10_jpg"
    if not folder.is_dir():
        return []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    opened: list[float] = []
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(rounds + 1):
        start = time.process_time()
        train_set, test_set = open_images(folder, normalize=False)
        assert isinstance(train_set, Images)
        middle = time.process_time()
        count = one_epoch(train_set)
        end = time.process_time()
        assert one_epoch_a_picture_at_a_time(folder / "train") == count
        if turn:  # the first round warms up
            opened.append((middle - start) * len(train_set) / (len(train_set) + len(test_set)))
            ours.append(end - middle)
            theirs.append(time.process_time() - end)
    torch.set_num_threads(threads)
    rates = [f"{count / sorted(seconds)[rounds // 2]:,.0f}" for seconds in (ours, theirs)]
    remark = f"{rates[0]} against {rates[1]} pictures a second"
    first = [(o + m) / t for o, m, t in zip(opened, ours, theirs, strict=True)]
    return [
        Row(
            "augmented batches, each epoch",
            "torchvision, a picture at a time",
            [m / t for m, t in zip(ours, theirs, strict=True)],
            "≤ 0.33",
            remark,
        ),
        Row("with opening, the first epoch", "torchvision, a picture at a time", first),
    ]
