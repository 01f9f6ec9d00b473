"""Figures without a display; matplotlib is imported when one is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(rows: int = 1, columns: int = 1, *, width: float = 4.0, height: float = 3.2) -> "tuple[Figure, Any]":
    """A figure and its axes, (rows, columns) of them, each `width` by `height` inches."""
    import io

    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self) -> bytes:  # what a notebook shows
            content = io.BytesIO()
            self.savefig(content, format="png", dpi=100)
            return content.getvalue()

    figure = Shown(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def show_picture(axes: Any, image: Tensor, title: str = "") -> None:
    """A picture (C, H, W), uint8 or in [0, 1], grey or colour, without ticks."""
    axes.imshow(image.permute(1, 2, 0).cpu().numpy(), cmap="gray", interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def draw_curves(axes: Any, history: Sequence[dict[str, float]], metrics: Sequence[str] = ("loss",)) -> None:
    """One line a metric over the epochs."""
    epochs = [row["epoch"] for row in history]
    for metric in metrics:
        axes.plot(epochs, [row[metric] for row in history], marker=".", label=metric)
    axes.set_xlabel("epoch")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
