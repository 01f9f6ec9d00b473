"""Sentences with the entities that were found in them, and the F1 of what was compared."""

from collections.abc import Sequence
from typing import Any

from recipes.core.figures import draw_curves, new_figure
from recipes.core.result import Result
from recipes.datasets.tagged_words import Span, spans_of

COLUMNS = 132  # letters of a typewriter's font in a line


def draw(result: Result, predicted: list[list[str]]) -> Any:
    """The curve, the F1 of all that was compared, and held-out sentences with the entities that were found."""
    figure, axes = new_figure(2, 2, width=5.2, height=2.9)
    draw_curves(axes[0, 0], result.history, ["f1", "loss"])
    axes[0, 0].set(ylim=(0, None), title="training")
    plain = {"this recipe": result.metrics, result.baseline_name: result.baseline}
    rows = {row["model"]: row for row in result.rows} or plain
    bars = axes[0, 1].barh(list(rows), [row["f1"] for row in rows.values()], height=0.6)
    axes[0, 1].bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes[0, 1].set(xlim=(0, 1.15), title="F1")
    axes[0, 1].invert_yaxis()
    axes[0, 1].spines[["top", "right"]].set_visible(False)
    grid = axes[1, 0].get_gridspec()
    for lower in axes[1]:
        lower.remove()
    part = result.test_set.part
    found, true = ([spans_of(tags) for tags in side] for side in (predicted, part.tags))
    draw_sentences(figure.add_subplot(grid[1, :]), part.words, found, true)
    return figure


def draw_sentences(
    axes: Any, sentences: Sequence[list[str]], found: list[list[Span]], true: list[list[Span]], lines: int = 8
) -> None:
    """The first sentences, each kind of entity on a color of its own; what is wrong is underlined in red."""
    from matplotlib import colormaps

    kinds = sorted({kind for spans in (*found, *true) for _, _, kind in spans})
    colors = {kind: colormaps["Pastel1"](index % 9) for index, kind in enumerate(kinds)}
    for line, words in enumerate(sentences[:lines]):
        starts = [sum(len(word) + 1 for word in words[:index]) for index in range(len(words))]
        for word, start in zip(words, starts, strict=True):
            if start + len(word) <= COLUMNS:
                axes.text(start, -line, word, family="monospace", fontsize=9, va="center")
        for span in {*found[line], *true[line]}:
            first, end, kind = span
            sides = [starts[first], starts[end - 1] + len(words[end - 1])]
            if sides[1] <= COLUMNS and span in found[line]:
                axes.fill_between(sides, -line - 0.35, -line + 0.35, color=colors[kind], zorder=0, lw=0)
            if sides[1] <= COLUMNS and not (span in found[line] and span in true[line]):
                axes.plot(sides, [-line - 0.4] * 2, color="red", lw=1.5)
    for kind, color in colors.items():
        axes.fill_between([], [], color=color, label=kind)
    if found != true:
        axes.plot([], [], color="red", label="wrong")
    axes.set(xlim=(0, COLUMNS), ylim=(-max(min(lines, len(sentences)), 1), 1.4))
    axes.legend(frameon=False, ncols=9, loc="upper left", fontsize=8)
    axes.axis("off")


def wrapped(words: list[str], spans: list[Span]) -> tuple[list[list[str]], list[list[Span]]]:
    """A long sentence in lines of COLUMNS letters, none of its entities cut in two, and the spans in each line."""
    begun = {start: (end, kind) for start, end, kind in spans}
    lines: list[list[str]] = [[]]
    found: list[list[Span]] = [[]]
    word = 0
    while word < len(words):
        end, kind = begun.get(word, (word + 1, ""))
        if lines[-1] and len(" ".join([*lines[-1], *words[word:end]])) > COLUMNS:
            lines.append([])
            found.append([])
        first = len(lines[-1])
        lines[-1] += words[word:end]
        if kind:
            found[-1].append((first, len(lines[-1]), kind))
        word = end
    return lines, found
