"""Questions with the answers that were found, and the F1 of what was compared, as a figure."""

import textwrap
from collections.abc import Sequence
from typing import Any

import torch

from recipes.core.figures import draw_curves, new_figure
from recipes.core.result import Result
from recipes.nlp.bert.spans import exact_match, texts_of

NAMES = {"f1": "all", "f1_other_words": "asked in other words", "f1_rivals": "another is of the same kind"}


def draw(result: Result, answers: Sequence[str]) -> Any:
    """The curve, all that was compared, and a paragraph or two with their questions and the answers found."""
    figure, axes = new_figure(2, 2, width=5.2, height=2.9)
    draw_curves(axes[0, 0], result.history, ["f1", "exact_match"])
    axes[0, 0].set(ylim=(0, 1.02), title="held-out questions")
    axes[0, 0].locator_params(axis="x", integer=True)
    rows = result.rows or [{"model": "this recipe"} | result.metrics]
    kinds = [kind for kind in NAMES if all(kind in row for row in rows)]
    for number, kind in enumerate(kinds):
        heights = torch.arange(len(rows)) + 0.27 * (number - (len(kinds) - 1) / 2)
        bars = axes[0, 1].barh(heights, [row[kind] for row in rows], height=0.25, label=NAMES[kind])
        axes[0, 1].bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes[0, 1].set_yticks(range(len(rows)), [textwrap.fill(row["model"], 18) for row in rows], fontsize=8)
    axes[0, 1].set(xlim=(0, 1.15), ylim=(len(rows) - 0.4, -1.4), title="F1")
    axes[0, 1].legend(frameon=False, ncols=3, loc="upper right", fontsize=7)
    axes[0, 1].spines[["top", "right"]].set_visible(False)
    grid = axes[1, 0].get_gridspec()
    for lower in axes[1]:
        lower.remove()
    words, line, part = figure.add_subplot(grid[1, :]), 0, result.test_set.part
    for context in list(dict.fromkeys(part.contexts))[:2]:
        lines = textwrap.wrap(context, 140)[:3]
        words.text(0, line, "\n".join(lines), fontsize=9, va="top")
        line += len(lines)
        for index in [index for index, other in enumerate(part.contexts) if other == context][:4]:
            words.text(0.02, line, textwrap.shorten(part.questions[index], 80), fontsize=9, va="top")
            right = any(exact_match(answers[index], text) for text in texts_of(part.answers[index]))
            color = "tab:green" if right else "tab:red"
            words.text(0.5, line, textwrap.shorten(answers[index] or "(none)", 60), fontsize=9, va="top", color=color)
            line += 1
        line += 1
    words.set(xlim=(0, 1), ylim=(max(line, 12), -0.5))
    words.axis("off")
    return figure
