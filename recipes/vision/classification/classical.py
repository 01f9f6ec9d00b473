"""Gradients counted by direction (HOG), with a linear SVM, a decision tree and a random forest.

Before networks learned what to look at, people said it. Histograms of oriented gradients cut the picture into
cells and count in each how much brightness changes in which direction, so an edge counts wherever in the cell it
is; brought to length 1 with their neighbours, the counts stay the same when the light does not. A classifier then
does the rest. The recipe gives three of them the histograms and the raw pixels, and sets a small convolutional
network, which learns its own features, beside them; then it dims the held-out pictures.

Notes: 81
Paper: Dalal, Triggs (2005), "Histograms of Oriented Gradients for Human Detection",
    https://doi.org/10.1109/CVPR.2005.177
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure, show_picture
from recipes.core.old import Engine, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.old import FAST, train
from recipes.vision.classification.scoring import evaluate, majority
from recipes.vision.classification.task import SmallCNN

METHODS = ("linear SVM", "decision tree", "random forest")
SIDE = 32  # pixels; smaller pictures are enlarged to it before their gradients are counted


def oriented_gradients(pictures: Tensor, cells: int = 4) -> np.ndarray:
    """HOG: each picture's gradients, counted by direction in each cell.

    A gradient counts by its length, in one of 9 directions between 0 and 180 degrees; in colour the channel
    with the longest one counts. Every block of 2×2 cells is brought to length 1, its largest numbers are cut
    to 0.2, and it is brought to length 1 again.

    Args:
        pictures: (batch, channels, height, width), on any scale of brightness.
        cells: along a side.

    Returns:
        (batch, (cells - 1)² blocks * 4 cells * 9 directions).
    """
    from skimage.feature import hog

    return np.stack([hog(picture, **cells_of(picture, cells)) for picture in enlarged(pictures).numpy()])


def cells_of(picture: np.ndarray, cells: int) -> dict[str, Any]:
    """What scikit-image's `hog` has to know to cut a picture (channels, height, width) into so many cells."""
    cell = picture.shape[1] // cells, picture.shape[2] // cells  # pixels down and across
    return {"orientations": 9, "pixels_per_cell": cell, "cells_per_block": (2, 2), "channel_axis": 0}


def enlarged(pictures: Tensor) -> Tensor:
    """The pictures (batch, channels, height, width) with at least SIDE pixels a side."""
    scale = SIDE / min(pictures.shape[2:])
    return F.interpolate(pictures, scale_factor=scale, mode="bilinear") if scale > 1 else pictures


def features(dataset: Images | ImageFiles, kind: str, light: float = 1.0) -> np.ndarray:
    """Each picture of the set as a row of numbers, its pixels or its HOG: (pictures, features).

    Args:
        dataset: its pictures are brought to the scale from 0 to 1.
        kind: "pixels" or "HOG".
        light: factor on the brightness.
    """
    rows = []
    for chunk in torch.arange(len(dataset)).split(256):
        pictures = dataset.pixels(chunk).float() / 255 * light
        rows.append(oriented_gradients(pictures) if kind == "HOG" else pictures.flatten(1).numpy())
    return np.concatenate(rows)


def build_classifier(method: str, seed: int) -> Any:
    """The classifier of that name, from scikit-learn."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.svm import LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    if method == "decision tree":  # questions of one feature each, until every leaf holds one class
        return DecisionTreeClassifier(random_state=seed)
    if method == "random forest":  # a hundred trees, each on other samples and features, vote
        return RandomForestClassifier(n_estimators=100, random_state=seed)
    return LinearSVC(dual="auto", random_state=seed)  # one plane a class, with the widest margin


def dimmed(dataset: Images | ImageFiles, light: float) -> Images | ImageFiles:
    """The same set in less light, for a network: (light * x - mean) / std is (x - mean / light) / (std / light)."""
    assert dataset.mean is not None
    assert dataset.std is not None
    return replace(dataset, mean=dataset.mean / light, std=dataset.std / light)


def draw_comparison(rows: list[dict[str, Any]], pictures: Tensor) -> Any:
    """Three pictures (3, channels, height, width) with their gradients, and the table as bars."""
    from skimage.feature import hog

    figure, axes = new_figure(2, 5, width=2.2, height=2.0)
    for number, picture in enumerate(F.interpolate(pictures, (128, 128), mode="bilinear")):
        show_picture(axes[0, number], picture)
        _, drawn = hog(picture.numpy(), **cells_of(picture.numpy(), 8), visualize=True)
        show_picture(axes[1, number], torch.from_numpy(drawn)[None], "gradients by direction")
    for place in axes[:, 3:].flatten():
        place.remove()
    bars = figure.add_subplot(axes[0, 0].get_gridspec()[:, 3:])
    names = [f"{row['method']}, {row['features']}" for row in rows]
    for offset, column, color in ((-0.2, "accuracy", "tab:blue"), (0.2, "in dim light", "tab:gray")):
        places = [number + offset for number in range(len(rows))]
        bars.barh(places, [row[column] for row in rows], 0.38, label=column, color=color)
    bars.set_yticks(range(len(rows)), names)
    bars.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))
    bars.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.4, 1.13), ncols=2)
    bars.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    light: float = 0.25,
    epochs: int = 8,
    batch_size: int = 64,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Measures HOG and raw pixels with three methods, and a small CNN, on held-out pictures.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        light: factor on the brightness of the dimmed pictures.
        epochs: passes of the network over the training pictures.
        batch_size: pictures in one of the network's optimizer steps, over all processes.
        lr: highest learning rate of the network's one-cycle schedule.
        device: auto, cpu, cuda or mps, of the network; all else runs on the CPU.
        seed: of the trees, of the network's weights and of the order of the pictures.
        out: folder for result.json, figure.png and model.safetensors, the network's.
    """
    if not 0 < light < 1:
        raise InputError(f"option light: expected a number between 0 and 1, got {light}")
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    labels, truth = train_set.labels.numpy(), test_set.labels.numpy()
    rows: list[dict[str, Any]] = []
    for kind in ("pixels", "HOG"):
        known, unseen, dark = (
            features(dataset, kind, factor)
            for dataset, factor in ((train_set, 1.0), (test_set, 1.0), (test_set, light))
        )
        for method in METHODS:
            classifier = build_classifier(method, seed).fit(known, labels)
            accuracy, dark_accuracy = (float((classifier.predict(given) == truth).mean()) for given in (unseen, dark))
            rows.append({"method": method, "features": kind, "accuracy": accuracy, "in dim light": dark_accuracy})

    network = SmallCNN(train_set.shape[0], len(train_set.classes))
    options: Engine = {**FAST, **engine}
    loop = train(
        network, train_set, test_set, epochs=epochs, batch_size=batch_size, lr=lr, device=place, seed=seed, **options
    )
    learned = {
        "accuracy": evaluate(network, test_set, place)["accuracy"],
        "in dim light": evaluate(network, dimmed(test_set, light), place)["accuracy"],
    }
    rows.append({"method": "small CNN", "features": "learned"} | learned)

    svm, hog_svm = rows[0], rows[3]
    pixels_lose = min(row["accuracy"] - row["in dim light"] for row in rows[:3])
    hog_loses = max(row["accuracy"] - row["in dim light"] for row in rows[3:6])
    network_loses = learned["accuracy"] - learned["in dim light"]
    best = max(row["accuracy"] for row in rows[:-1])
    return Result(
        metrics={"accuracy": hog_svm["accuracy"]},
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.95},
        claims=[
            claim("a linear SVM does better on HOG than on pixels", hog_svm["accuracy"], ">", svm["accuracy"]),
            claim("the CNN, on features it learned, beats them all", learned["accuracy"], ">", best),
            claim("no method on HOG loses more than 3 points in dim light", hog_loses, "<=", 0.03),
            claim("every method on pixels loses more than 10", pixels_lose, ">", 0.1),
            claim("and so does the CNN, which never saw the dark", network_loses, ">", 0.1),
        ],
        history=loop.history,
        rows=rows,
        model=network,
        draw=lambda: draw_comparison(rows, test_set.pixels(torch.arange(3)).float() / 255),
    )


if __name__ == "__main__":
    main(run)
