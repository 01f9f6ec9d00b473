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
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter, ScalarFormatter

    class Shown(Figure):
        def draw(self, renderer: Any) -> None:
            """Draws names as they are, with dollar signs too; only the numbers at ticks may be formulas, as 10^3 is."""
            formatters = LogFormatter, ScalarFormatter
            every = [axis for axes in self.axes for axis in (axes.xaxis, axes.yaxis)]
            numbered = [axis for axis in every if isinstance(axis.get_major_formatter(), formatters)]
            numbers = {text for axis in numbered for text in axis.findobj(Text) if text is not axis.label}
            for text in self.findobj(Text):
                text.set_parse_math(text in numbers)
            super().draw(renderer)

        def _repr_png_(self) -> bytes:  # what a notebook shows
            content = io.BytesIO()
            self.savefig(content, format="png", dpi=100)
            return content.getvalue()

    figure = Shown(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def legend_name(name: str) -> str:
    """A name as a legend takes it: matplotlib leaves out what begins with an underscore."""
    return f" {name}" if name.startswith("_") else name


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


def draw_confusion(axes: Any, counts: Tensor, classes: Sequence[str]) -> None:
    """How often each true class (rows) was taken for each (columns): the shade is the share of the row.

    Args:
        counts: (classes, classes), whole numbers. They are written into the cells where there is room.
    """
    shares = counts.double().div(counts.sum(1, keepdim=True).clamp(min=1))
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted class", ylabel="true class")
    if len(counts) > 12:
        return
    for row, column in counts.nonzero().tolist():
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, int(counts[row, column]), ha="center", va="center", fontsize=6, color=color)
    names = [name if len(name) <= 4 else str(number) for number, name in enumerate(classes)]
    axes.set_xticks(range(len(names)), names, fontsize=6)
    axes.set_yticks(range(len(names)), names, fontsize=6)


def tidy(figure: "Figure", history: Sequence[dict[str, float]] = ()) -> "Figure":
    """The figure, with plain numbers on short logarithmic axes, and legends that lie on what is drawn moved below.

    Without claims, legends do not name the variants that were not trained, and panels for them show curves of the
    `history` that no other panel shows: its loss, then each metric. What is empty even so leaves its room to the others
    of a single row.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

    for axes in figure.axes:
        drop_empty_lines(axes)
    measured = [name for name in (history[0] if history else {}) if all(name in row for row in history)]
    lines: list[Any] = [line for axes in figure.axes for line in axes.lines]
    drawn = [list(line.get_ydata()) for line in lines]
    apart = [name for name in measured if [row[name] for row in history] not in drawn]
    curves = iter([name for name in apart if name not in ("epoch", "lr", "seconds")])
    for axes in list(figure.axes):
        if axes.has_data() or axes.texts or not axes.axison:
            continue
        axes.clear()
        if metric := next(curves, None):
            draw_curves(axes, history, [metric])
        else:
            leave_out(axes)
    for axes in figure.axes:
        if axes.get_xlabel() == "epoch":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        if axis.get_scale() == "log" and high < 100 * low:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
    figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend()
        if legend is None or not covers(legend.get_window_extent(), axes):
            continue
        handles, names = axes.get_legend_handles_labels()
        labels = axes.xaxis.get_tightbbox()
        lowest = labels.y0 if labels is not None else axes.get_window_extent().y0
        below = axes.transAxes.inverted().transform((0, lowest))[1] - 0.02
        columns = 1 if max(map(len, names)) > 24 else 2
        axes.legend(
            handles, names, loc="upper center", bbox_to_anchor=(0.5, below), ncols=columns, frameon=False, fontsize=7
        )
    return figure


def drop_empty_lines(axes: Any) -> None:
    """Without lines of no points, and their names in the legend; beside texts such a line is a key to them."""
    empty = [line for line in axes.lines if not len(line.get_xdata())]
    if not empty or axes.texts:
        return
    for line in empty:
        line.remove()
    handles, names = axes.get_legend_handles_labels()
    if handles and axes.get_legend():
        axes.legend(handles, names, frameon=False)
    elif axes.get_legend():
        axes.get_legend().remove()


def leave_out(axes: Any) -> None:
    """Without these axes: those beside them in a single row take their room, in a figure that is narrower by it."""
    figure, count = axes.figure, len(axes.figure.axes)
    if count == 1 or axes.get_gridspec().nrows > 1:
        axes.axis("off")
        return
    axes.remove()
    figure.set_figwidth(figure.get_figwidth() * (count - 1) / count)
    row = figure.add_gridspec(1, count - 1)
    for place, one in enumerate(figure.axes):
        one.set_subplotspec(row[place])


def covers(box: Any, axes: Any) -> bool:
    """Whether the box, in pixels of the screen, lies on a curve, a bar, or a point of the axes."""
    import numpy as np
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Rectangle

    for line in axes.lines:
        points = line.get_transform().transform(line.get_path().interpolated(20).vertices)
        inside = (points > box.min).all(1) & (points < box.max).all(1)
        if inside.any():
            return True
    bars = [one for one in axes.patches if isinstance(one, Rectangle) and one.get_visible()]
    if any(one.get_window_extent().overlaps(box) for one in bars):
        return True
    for drawn in axes.collections:
        if isinstance(drawn, PolyCollection):
            areas = [path.get_extents(drawn.get_transform()) for path in drawn.get_paths()]
            if any(area.overlaps(box) for area in areas):
                return True
            continue
        points = np.asarray(drawn.get_offset_transform().transform(drawn.get_offsets()))
        if ((points > box.min).all(1) & (points < box.max).all(1)).any():
            return True
    return False
