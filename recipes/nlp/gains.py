"""A picture of what changing texts gains."""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import torch

from recipes.core.figures import new_figure


def draw_gains(rows: Sequence[dict[str, Any]], examples: dict[str, str]) -> Any:
    """What each kind of change adds to the accuracy, on clean and on mistyped texts, and a text as each changes it."""
    figure, axes = new_figure(1, 2, width=6.4, height=4.2)
    places = torch.arange(len(rows) - 1)
    for shift, key, label in ((-0.2, "accuracy", "clean texts"), (0.2, "noisy_accuracy", "mistyped texts")):
        gains = [100 * (row[key] - rows[0][key]) for row in rows[1:]]
        bars = axes[0, 0].barh(places + shift, gains, height=0.38, label=label)
        axes[0, 0].bar_label(bars, fmt="%+.1f", padding=3, fontsize=8)
    axes[0, 0].axvline(0, color="black", linewidth=0.8)
    axes[0, 0].margins(x=0.15)
    axes[0, 0].set_yticks(places, [row["changes"] for row in rows[1:]])
    axes[0, 0].set(ylim=(len(rows) - 1.4, -1.2), xlabel="points of accuracy above unchanged texts")
    axes[0, 0].legend(frameon=False, loc="upper left", ncols=2)
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    for place, (name, text) in enumerate(examples.items()):
        axes[0, 1].text(0, -place, name, weight="bold", fontsize=9)
        axes[0, 1].text(0, -place - 0.15, fill(text, 78), fontsize=8, va="top")
    axes[0, 1].set(xlim=(0, 1), ylim=(-len(examples), 0.5))
    axes[0, 1].axis("off")
    return figure
