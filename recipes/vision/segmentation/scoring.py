"""How segmenters are measured and shown: IoU from a confusion matrix, pictures beside truth and answer."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, new_figure, show_picture
from recipes.datasets.scenes import VOID, Masks


class Argmax(nn.Module):
    """The likeliest class of each pixel: a byte, where logits take four a class."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.training = model, model.training

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).argmax(dim=1).to(torch.uint8)  # (batch, height, width)


def predict_masks(model: nn.Module, dataset: Masks, device: torch.device) -> Tensor:
    """The class that the model gives each pixel of the whole set, (N, H, W) uint8, on the CPU."""
    height, width = dataset.masks.shape[1:]
    batch_size = max(1, 2**20 // (height * width))  # a million pixels at once
    return torch.stack(predict(Argmax(model), dataset, device, batch_size))


def confusion_matrix(predicted: Tensor, masks: Tensor, num_classes: int) -> Tensor:
    """Pixels by true class (rows) and predicted class (columns), (classes, classes) int64; VOID is left out."""
    known = masks != VOID
    pairs = masks[known].long() * num_classes + predicted[known]
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def iou_by_class(confusion: Tensor) -> Tensor:
    """Shared pixels over the pixels of either, (classes) float64; NaN for a class that neither has."""
    shared = confusion.diagonal().double()
    return shared / (confusion.sum(dim=0) + confusion.sum(dim=1) - shared)


def scores(predicted: Tensor, masks: Tensor, num_classes: int) -> dict[str, float]:
    """The mean of the classes' IoU, and the share of pixels that are right.

    Args:
        predicted: (N, H, W), indices of classes.
        masks: (N, H, W), the truth; pixels of VOID do not count.
        num_classes: of the pixels; a class that neither truth nor answer has does not count.
    """
    confusion = confusion_matrix(predicted, masks, num_classes)
    return {
        "mean_iou": iou_by_class(confusion).nanmean().item(),
        "pixel_accuracy": (confusion.trace() / confusion.sum()).item(),
    }


def evaluate(model: nn.Module, dataset: Masks, device: torch.device) -> dict[str, float]:
    """Mean IoU and pixel accuracy over the whole set, as if it were one large picture."""
    return scores(predict_masks(model, dataset, device), dataset.masks, len(dataset.classes))


def commonest_class(train_set: Masks, test_set: Masks) -> dict[str, float]:
    """The baseline that looks at no picture: every pixel is of the train part's commonest class."""
    counts = torch.bincount(train_set.masks[train_set.masks != VOID], minlength=len(train_set.classes))
    return scores(torch.full_like(test_set.masks, int(counts.argmax())), test_set.masks, len(test_set.classes))


def trees_on_pixels(train_set: Masks, test_set: Masks, pixels: int = 20_000, asked: int = 2**16) -> dict[str, float]:
    """The baseline without a network: randomized trees that see, of each pixel, the colors in a square around it.

    They learn from as many pixels of each class, and are asked for pixels spread evenly over all test pictures.
    Source: Geurts, Ernst, Wehenkel (2006), "Extremely randomized trees", by scikit-learn.

    Args:
        train_set: to learn from.
        test_set: to be measured on.
        pixels: of the train part that the trees learn from.
        asked: pixels of the test part that are asked for, at most.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    kinds, choice = len(train_set.classes), torch.Generator().manual_seed(0)
    classes = [(train_set.masks.flatten() == kind).nonzero().flatten() for kind in range(kinds)]
    known = torch.cat([one[torch.randperm(len(one), generator=choice)[: pixels // kinds]] for one in classes])
    step = max(1, -(-test_set.masks.numel() // asked))
    unseen = torch.arange(step // 2, test_set.masks.numel(), step)
    trees = ExtraTreesClassifier(20, random_state=0)
    trees.fit(surroundings(train_set.images, known).numpy(), train_set.masks.flatten()[known].numpy())
    found = torch.from_numpy(trees.predict(surroundings(test_set.images, unseen).numpy()))
    return scores(found, test_set.masks.flatten()[unseen], kinds)


def surroundings(images: Tensor, pixels: Tensor, side: int = 5, step: int = 3) -> Tensor:
    """The colors at `side` times `side` places around pixels, `step` apart: (pixels, side · side · 3) uint8.

    Args:
        images: (N, 3, H, W) uint8; beyond the edge, the color at the edge counts.
        pixels: their places in the flattened masks (N, H, W).
    """
    count, _, height, width = images.shape
    picture, row, column = torch.unravel_index(pixels, (count, height, width))
    reach = (torch.arange(side) - side // 2) * step
    rows = (row[:, None] + reach).clamp(0, height - 1)[:, :, None]  # (pixels, side, 1)
    columns = (column[:, None] + reach).clamp(0, width - 1)[:, None, :]  # (pixels, 1, side)
    return images[picture[:, None, None], :, rows, columns].flatten(1)


def near_borders(masks: Tensor, distance: int = 2) -> Tensor:
    """Masks (N, H, W) with VOID wherever no other class is within so many pixels to the side or diagonally."""
    known = masks.where(masks != VOID, 0).float()
    highest = F.max_pool2d(known, 2 * distance + 1, stride=1, padding=distance)
    lowest = -F.max_pool2d(-masks.float(), 2 * distance + 1, stride=1, padding=distance)
    return masks.where(highest != lowest, VOID)


def class_colors(classes: list[str]) -> Tensor:
    """A color for each value of a mask, (256, 3) in 0 to 1; VOID is white, a background dark."""
    from matplotlib import colormaps

    colors = torch.ones(256, 3)
    colors[: len(classes)] = torch.tensor(colormaps["turbo"](torch.linspace(0.08, 0.92, len(classes)).numpy())[:, :3])
    if classes[0] == "background":
        colors[0] = 0.15
    return colors


def draw(model: nn.Module, dataset: Masks, device: torch.device, history: list[dict[str, float]]) -> Any:
    """The curves, the IoU of each class, and pictures from the worst segmented to the best."""
    classes, colors = len(dataset.classes), class_colors(dataset.classes)
    predicted = predict_masks(model, dataset, device)
    each = torch.tensor([scores(*pair, classes)["mean_iou"] for pair in zip(predicted, dataset.masks, strict=True)])
    shown = each.argsort()[torch.linspace(0, len(each) - 1, 5).long()].tolist()

    figure, axes = new_figure(3, 6, width=2.0, height=2.1)
    draw_curves(axes[0, 0], history, [name for name in history[0] if name.startswith(("mean_iou", "pixel"))])
    axes[0, 0].set(ylim=(0, 1), xlabel="")
    axes[0, 0].set_title("over the epochs", fontsize=9)
    axes[0, 0].legend(frameon=False, fontsize=7)
    for place in axes[1:, 0]:
        place.remove()
    bars = figure.add_subplot(axes[0, 0].get_gridspec()[1:, 0])
    values = iou_by_class(confusion_matrix(predicted, dataset.masks, classes))
    bars.barh(dataset.classes, values.nan_to_num().numpy(), color=colors[:classes].numpy())
    bars.set(xlim=(0, 1), xticks=(0, 0.5, 1))
    bars.set_title("IoU of each class", fontsize=9)
    bars.invert_yaxis()
    bars.spines[["top", "right"]].set_visible(False)
    files = getattr(dataset, "files", [""] * len(dataset))  # which copies do not keep
    for place, index in zip(axes[:, 1:].T, shown, strict=True):
        show_picture(place[0], dataset.images[index], files[index].rpartition("/")[2])
        show_picture(place[1], colors[dataset.masks[index].long()].permute(2, 0, 1), "true classes")
        show_picture(place[2], colors[predicted[index].long()].permute(2, 0, 1), f"predicted, IoU {each[index]:.2f}")
    return figure
