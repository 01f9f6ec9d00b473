"""Opens pictures of people, drawn or yours: folders, one a person, or Datasets. Who is tested on is not trained on."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recipes.core.errors import InputError
from recipes.core.files import own_path
from recipes.datasets.drawn_faces import draw_faces
from recipes.datasets.images import (
    IN_MEMORY,
    ImageFiles,
    Images,
    channel_statistics,
    common_shape,
    decode_all,
    from_datasets,
    split_folders,
)
from recipes.datasets.own import pair_of_datasets
from recipes.datasets.reading import PICTURE_SUFFIXES, files_in, folders_in, require_folder, tell_left_out

LEAST = {"train": 4, "test": 2}  # people: of those to train on, two are kept for the choice of a threshold
ALONE = "people with fewer than two pictures left out"  # who make no pair


def open_faces(
    data: Any = None, *, image_size: int | None = None, seed: int = 0
) -> tuple[Images | ImageFiles, Images | ImageFiles]:
    """The train and the test part, with no person in both; the class of a picture is who it is.

    Args:
        data: None for drawn faces; a folder with `train/PERSON/*.jpg` and `test/` or `val/` alike, or with the PERSON
            folders alone, of which one fifth is held out; or a pair of Datasets (train, test) of (image, person).
        image_size: side in pixels that pictures are brought to; see `open_images`.
        seed: of who is held out.

    Returns:
        Two `Images`, or two `ImageFiles` where the pictures would take more than 2 GiB.

    Raises:
        InputError: the folder, a file in it or a sample cannot be used, or there are too few people.
    """
    pair, where = pair_of_datasets(data), "data" if not isinstance(data, (str, Path)) else str(data)
    if pair is not None:
        counted = [(part, part.labels.bincount()) for part in from_datasets(pair, image_size)]
        tell_left_out("data", {ALONE: sum(int((counts == 1).sum()) for _, counts in counted)})
        train, test = (people(part, (counts > 1).nonzero().flatten()) for part, counts in counted)
    elif data is None:
        drawn = [draw_faces(*size, seed=1 + part) for part, size in enumerate(((300, 10), (100, 8)))]
        train, test = (
            Images(images, labels, [f"{part} {i}" for i in range(int(labels.max()) + 1)])
            for part, (images, labels) in zip(LEAST, drawn, strict=True)
        )
    else:
        train, test = from_folders(own_path(data), image_size, seed)
    for name, part in zip(LEAST, (train, test), strict=True):
        if len(part.classes) < LEAST[name]:
            told = f"expected at least {LEAST[name]} people in the {name} part, with two or more pictures of each"
            raise InputError(f"{where}: {told}, found {len(part.classes)}")
    if both := set(train.classes) & set(test.classes):
        raise InputError(f"{where}: expected other people in the test part than in the train part, found {min(both)}")
    mean, std = channel_statistics(train, seed)
    return replace(train, mean=mean, std=std), replace(test, mean=mean, std=std)


def from_folders(folder: Path, image_size: int | None, seed: int) -> tuple[Images | ImageFiles, Images | ImageFiles]:
    require_folder(folder, "a folder for each person")
    files: list[Path] = []
    numbers: list[int] = []
    classes: list[str] = []
    bounds, left_out = [0], 0
    for root in split_folders(folder):
        for person in sorted(folders_in(root)):
            found = files_in(person, PICTURE_SUFFIXES, deep=True)
            if len(found) > 1:
                files, numbers = files + found, numbers + [len(classes)] * len(found)
                classes.append(person.name)
            left_out += len(found) < 2
        bounds.append(len(classes))
    tell_left_out(folder, {ALONE: left_out})
    if len(bounds) == 3 and bounds[1] == bounds[2]:
        told = f"expected at least {LEAST['test']} people with two or more pictures in the test part"
        raise InputError(f"{folder}: {told}, found none")
    if len(classes) < sum(LEAST.values()):
        told = f"expected at least {sum(LEAST.values())} folders, one a person, with two or more pictures in each"
        raise InputError(f"{folder}: {told}, found {len(classes)}")
    shape, labels = common_shape(files, image_size), torch.tensor(numbers)
    whole: Images | ImageFiles
    if len(files) * math.prod(shape) <= IN_MEMORY:
        whole = Images(decode_all(files, shape), labels, classes)
    else:
        whole = ImageFiles(files, shape, labels, classes)
    if len(bounds) == 3:
        return people(whole, torch.arange(bounds[1])), people(whole, torch.arange(bounds[1], bounds[2]))
    return hold_out_people(whole, 0.2, seed)


def people(dataset: Any, chosen: Tensor) -> Any:
    """The pictures of these people alone, who are numbered anew from 0."""
    part = dataset.subset(torch.isin(dataset.labels, chosen).nonzero().flatten())
    numbers, labels = part.labels.unique(return_inverse=True)
    return replace(part, labels=labels, classes=[dataset.classes[number] for number in numbers.tolist()])


def hold_out_people(dataset: Any, share: float = 0.2, seed: int = 0) -> tuple[Any, Any]:
    """Splits a part in two that have no person in common: all but a share of the people, at least two, and those."""
    order = torch.randperm(len(dataset.classes), generator=torch.Generator().manual_seed(seed))
    count = max(2, round(share * len(order)))
    return people(dataset, order[count:]), people(dataset, order[:count])
