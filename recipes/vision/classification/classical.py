"""Gradients counted by direction (HOG), with a linear SVM, a decision tree or a random forest.

Before networks learned what to look at, people wrote it down. Histograms of oriented gradients cut the picture into
cells and count in each how much brightness changes in which direction, so an edge counts wherever in the cell it is;
scaled to length 1 with their neighbors, the counts stay the same when the light does not. A classifier does the rest.

In the light that they were fitted in, a random forest on raw pixels or a small convolutional network, which learns
its own features, does as well. In a quarter of that light they fail, and HOG notices no difference.

Notes: 81
Paper: Dalal, Triggs (2005), "Histograms of Oriented Gradients for Human Detection",
    https://doi.org/10.1109/CVPR.2005.177
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.device import pick_device
from recipes.core.figures import new_figure, show_picture
from recipes.core.frame import Claim, Options, Result, main, option, predict, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import ClassificationOptions, SmallCNN, train
from recipes.vision.classification.using import Classification
from recipes.vision.pixels import linear_classifier, nearest_neighbor


@dataclass(kw_only=True)
class ClassicalOptions(Options):
    features: Literal["hog", "pixels"] = option("hog", "what the classifier gets: HOG, or the pixels as they are")
    method: Literal["svm", "tree", "forest"] = option("svm", "linear SVM, decision tree or random forest")
    light: float = option(0.25, "factor on the brightness of the held-out pictures in dim light", above=0, most=1)
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)


class HOG(nn.Module):
    """From pictures (batch, channels, height, width) to counts of gradients: (batch, 9 blocks * 4 cells * 9).

    A gradient counts by its length, in one of 9 directions between 0 and 180 degrees; in color the channel with the
    longest one counts. Pictures are enlarged to at least 32 pixels and cut into 4×4 cells.
    """

    def forward(self, images: Tensor) -> Tensor:
        if (scale := 32 / min(images.shape[2:])) > 1:
            images = F.interpolate(images, scale_factor=scale, mode="bilinear")
        down = F.pad(images[:, :, 2:] - images[:, :, :-2], (0, 0, 1, 1))
        across = F.pad(images[:, :, :, 2:] - images[:, :, :, :-2], (1, 1))
        down = down * (down.abs() > 1e-5)  # what rounding made of 0 could have either sign, 0 degrees or 180
        length = (down.square() + across.square()).sqrt()  # (batch, channels, height, width)
        strongest = length.argmax(dim=1, keepdim=True)
        down, across, length = (one.gather(1, strongest) for one in (down, across, length))  # (batch, 1, height, width)
        direction = (torch.atan2(down, across) % pi * 9 / pi).long() % 9
        each = torch.arange(9, device=images.device).view(9, 1, 1)
        cell = images.shape[2] // 4, images.shape[3] // 4
        counts = F.avg_pool2d((direction == each) * length, cell)  # (batch, 9, 4, 4)
        blocks = counts.unfold(2, 2, 1).unfold(3, 2, 1)  # of 2×2 cells: (batch, 9, 3, 3, 2, 2)
        blocks = blocks.permute(0, 2, 3, 4, 5, 1).flatten(3)  # (batch, 3, 3, 4 * 9)
        for largest in (0.2, 1.0):  # scaled to length 1, large numbers cut off, and scaled again
            blocks = blocks / (blocks.square().sum(dim=3, keepdim=True) + 1e-10).sqrt()
            blocks = blocks.clamp(max=largest)
        return blocks.flatten(1)


class Dim(nn.Module):
    """Normalized pictures (x - mean) / std in less light: (light * x - mean) / std."""

    shift: Tensor

    def __init__(self, light: float, data: Images | ImageFiles) -> None:
        super().__init__()
        scaled = torch.zeros(1) if data.mean is None or data.std is None else data.mean / data.std
        self.light = light
        self.register_buffer("shift", (light - 1) * scaled.view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.light * images + self.shift


def classifier(method: str, seed: int) -> Any:
    """The classifier of that name, from scikit-learn."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.svm import LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    if method == "tree":  # questions of one feature each, until every leaf holds one class
        return DecisionTreeClassifier(random_state=seed)
    if method == "forest":  # a hundred trees, each on other samples and features, vote
        return RandomForestClassifier(n_estimators=100, random_state=seed)
    return LinearSVC(dual="auto", random_state=seed)  # one plane a class, with the widest margin


def build(options: ClassicalOptions, data: Images | ImageFiles) -> nn.Sequential:
    """The features, and the linear layer that a linear SVM is."""
    channels, height, width = data.shape
    extract, size = (HOG(), 9 * 4 * 9) if options.features == "hog" else (nn.Flatten(), channels * height * width)
    return nn.Sequential(extract, nn.Linear(size, len(data.classes)))


@recipe(ClassicalOptions)
def run(options: ClassicalOptions) -> Result:
    """Fits a classifier on the features and measures it on held-out pictures, in normal light and in dim."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    dim = nn.Sequential(Dim(options.light, train_set), model[0]).to(options.device)
    known, unseen = (torch.stack(predict(model[0], part, options.device)).numpy() for part in (train_set, test_set))
    found = classifier(options.method, options.seed).fit(known, train_set.labels.cpu().numpy())
    rows = {"accuracy": unseen, "in dim light": torch.stack(predict(dim, test_set, options.device)).numpy()}
    truth = test_set.labels.cpu().numpy()
    metrics = {name: float((found.predict(given) == truth).mean()) for name, given in rows.items()}
    if options.method == "svm":
        weight, bias = torch.from_numpy(found.coef_), torch.from_numpy(found.intercept_)
        if len(weight) == 1:  # two classes share one row: for the second, and against the first
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        model[1].load_state_dict({"weight": weight, "bias": bias})
    return Result(
        metrics=metrics,
        baseline=linear_classifier(train_set, test_set),
        baseline_name="linear classifier on pixels",
        others={"nearest neighbor on pixels": nearest_neighbor(train_set, test_set)},
        bars={"accuracy": 0.97},
        model=model if options.method == "svm" else None,  # trees are no network, and are not saved
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    hog = {method: run(method=method) for method in ("svm", "tree", "forest")}
    pixels = {method: run(method=method, features="pixels") for method in hog}
    network = small_cnn(run())
    run().rows = [
        {"features": name, "method": method} | one.metrics
        for name, runs in (("HOG", hog), ("pixels", pixels))
        for method, one in runs.items()
    ]
    run().rows.append({"features": "learned", "method": "small CNN"} | network)
    text = "a linear SVM makes fewer mistakes on HOG than on pixels"
    yield Claim(text, run()["accuracy"], ">", pixels["svm"]["accuracy"], margin=0.005)
    others = [network, *(one.metrics for one in pixels.values())]
    text = "in dim light, HOG with an SVM recognizes more pictures than a CNN and all methods on pixels"
    yield Claim(text, run()["in dim light"], ">", max(one["in dim light"] for one in others), margin=0.1)
    text = "each of those loses 10 points of accuracy to the dark that HOG does not lose"
    lost = min(one["accuracy"] - one["in dim light"] for one in others)
    yield Claim(text, lost, ">", run()["accuracy"] - run()["in dim light"], margin=0.1)


def small_cnn(result: Result) -> dict[str, float]:
    """The same metrics of the task's small network, trained on the same pictures."""
    options = ClassificationOptions(device=pick_device(result.options["device"]), seed=result.seed)
    train_set, test_set, device = result.train_set, result.test_set, options.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = SmallCNN(train_set.shape[0], len(train_set.classes), width=options.width)
        train(network, train_set, test_set, options)
    dim = nn.Sequential(Dim(result.options["light"], train_set).to(device), network)
    accuracies = {"accuracy": network, "in dim light": dim}
    return {name: evaluate(one, test_set, device)["accuracy"] for name, one in accuracies.items()}


@run.figure
def figure(result: Result) -> Any:
    """Pictures, what HOG keeps of them, and the methods' accuracy in both lights."""
    drawn, axes = new_figure(2, 5, width=2.2, height=2.0)
    chosen = torch.arange(min(3, len(result.test_set)))
    counts = HOG()(result.test_set.pixels(chosen).float()).view(-1, 3, 3, 2, 2, 9)
    for number, picture in enumerate(result.test_set.pixels(chosen)):
        show_picture(axes[0, number], picture)
        axes[1, number].axis("off")
        for (row, column), cell in grid_of_cells(counts[number]):
            for direction, length in enumerate(cell.tolist()):  # an edge runs across its gradient
                angle = (direction + 0.5) * pi / 9 + pi / 2
                x, y = cos(angle) * length, sin(angle) * length
                axes[1, number].plot([column - x, column + x], [row - y, row + y], color="black", linewidth=1)
        axes[1, number].set(xlim=(-0.6, 3.6), ylim=(3.6, -0.6), aspect="equal", title="edges by direction")
    for panel in axes[:, 3:].flatten():
        panel.remove()
    bars = drawn.add_subplot(axes[0, 0].get_gridspec()[:, 3:])
    rows = result.rows or [result.options | result.metrics]
    for offset, metric, color in ((-0.2, "accuracy", "tab:blue"), (0.2, "in dim light", "tab:gray")):
        heights = [number + offset for number in range(len(rows))]
        bars.barh(heights, [row[metric] for row in rows], 0.38, label=metric, color=color)
    bars.set_yticks(range(len(rows)), [f"{row['method']}, {row['features']}" for row in rows])
    bars.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))
    bars.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.4, 1.13), ncols=2)
    return drawn


def grid_of_cells(blocks: Tensor) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """Row, column and counts (9,) of the 4×4 cells, each from a block (3, 3, 2, 2, 9) that holds it."""
    for row in range(4):
        for column in range(4):
            top, left = min(row, 2), min(column, 2)
            yield (row, column), blocks[top, left, row - top, column - left]


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
