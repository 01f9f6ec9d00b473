"""What a classifier of texts says of held-out ones, as a figure."""

import textwrap
from collections.abc import Sequence
from typing import Any

import torch

from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, new_figure
from recipes.core.result import Result
from recipes.nlp.text_classification.drawing import draw_confusion, fonts


def draw(result: Result, shown: Sequence[int]) -> Any:
    """The curve, the confusion matrix, all that was compared, and of the texts `shown` the first eight."""
    dataset, rows = result.test_set, result.rows or [{"model": "this recipe"} | result.metrics]
    logits = torch.stack(predict(result.model, dataset, next(result.model.parameters()).device))
    predicted, shares = logits.argmax(dim=1), logits.softmax(dim=1)
    figure, axes = new_figure(2, 3, width=4.2, height=3.0)
    draw_curves(axes[0, 0], result.history, ["loss", "accuracy"])
    axes[0, 0].set(ylim=(0, None), title="training")
    draw_confusion(axes[0, 1], predicted, dataset.labels, dataset.classes)
    lines = torch.arange(len(rows))
    for shift, key, label in ((-0.2, "accuracy", "all"), (0.2, "negated", "with a negation")):
        if all(key in row for row in rows):
            bars = axes[0, 2].barh(lines + shift, [row[key] for row in rows], height=0.38, label=label)
            axes[0, 2].bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes[0, 2].set_yticks(lines, [row["model"].replace(", ", ",\n", 1) for row in rows], fontsize=8)
    axes[0, 2].set(xlim=(0, 1.15), ylim=(len(rows) - 0.4, -1.2), title="accuracy on held-out texts")
    axes[0, 2].legend(frameon=False, ncols=2, loc="upper right", fontsize=8)
    axes[0, 2].spines[["top", "right"]].set_visible(False)
    grid = axes[1, 0].get_gridspec()
    for lower in axes[1]:
        lower.remove()
    words, line = figure.add_subplot(grid[1, :]), 0
    for index in shown[:8]:
        color = "tab:green" if predicted[index] == dataset.labels[index] else "tab:red"
        answer = f"{dataset.classes[predicted[index]]} {shares[index].max():.2f}"
        words.text(0, line, answer, fontsize=9, va="top", color=color, family=fonts("DejaVu Sans"))
        text = textwrap.wrap(dataset.texts[index], 135)[:2]
        words.text(0.12, line, "\n".join(text), fontsize=9, va="top", family=fonts("DejaVu Sans"))
        line += len(text)
    words.set(xlim=(0, 1), ylim=(max(line, 9), -0.5))
    words.axis("off")
    return figure
