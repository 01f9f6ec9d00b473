"""What a network that guesses hidden words has learned, as a figure."""

from typing import Any

import torch

from recipes.core.figures import draw_curves, new_figure
from recipes.core.result import Result


@torch.inference_mode()
def guesses(result: Result, count: int = 7) -> list[tuple[str, str]]:
    """For the middle word of each of the first texts: the text with a gap, and the three likeliest fillings."""
    model, dataset = result.model.eval(), result.test_set
    device = next(model.parameters()).device
    subwords, lines = dataset.vocabulary, []
    for ids in dataset.ids[:count]:
        middle = len(ids) // 2
        hidden = torch.arange(len(ids)) == middle
        logits = model(ids.masked_fill(hidden, subwords.mask)[None].to(device), hidden[None].to(device))
        shares, best = logits[0].softmax(dim=0).topk(3)
        before, after = (subwords.tokenizer.decode(part) for part in (ids[1:middle], ids[middle + 1 : -1]))
        fillings = zip(best.tolist(), shares.tolist(), strict=True)
        likely = "   ".join(f"“{subwords.words[number]}” {share:.2f}" for number, share in fillings)
        lines.append((f"{before} ____ {after}", f"{likely}   (was: “{subwords.words[int(ids[middle])]}”)"))
    return lines


def draw(result: Result) -> Any:
    """The curve, the two starts compared, and what the model puts in gaps."""
    figure, axes = new_figure(2, 2, width=5.0, height=3.0)
    draw_curves(axes[0, 0], result.history, ["accuracy"])
    axes[0, 0].axhline(result.baseline["accuracy"], color="gray", linestyle=":", label=result.baseline_name)
    axes[0, 0].set(ylim=(0, None), title="hidden words guessed")
    axes[0, 0].locator_params(axis="x", integer=True)
    axes[0, 0].legend(frameon=False)
    names = [name for name in ("held-out texts", "other sentences") if all(name in row for row in result.rows)]
    for shift, row in zip((-0.2, 0.2), result.rows, strict=False):
        shares = [row[name] for name in names]
        bars = axes[0, 1].bar(torch.arange(len(names)) + shift, shares, width=0.36, label=f"{row['start']} start")
        axes[0, 1].bar_label(bars, fmt="%.2f")
        axes[0, 1].set(title=f"capitals found after {row['texts']} texts (F1)")
        axes[0, 1].legend(frameon=False, ncols=2, loc="upper center")
    axes[0, 1].set_xticks(range(len(names)), names)
    axes[0, 1].set(ylim=(0, 1.2))
    axes[0, 1].spines[["top", "right"]].set_visible(False)
    grid = axes[1, 0].get_gridspec()
    for lower in axes[1]:
        lower.remove()
    words = figure.add_subplot(grid[1, :])
    lines = guesses(result)
    for number, (text, likely) in enumerate(lines):
        start = max(0, text.index("____") - 60)
        words.text(0, 2.4 * number, ("… " if start else "") + text[start : start + 120], fontsize=9)
        words.text(0.02, 2.4 * number + 1, likely, fontsize=9, color="tab:blue")
    words.set(xlim=(0, 1), ylim=(2.4 * len(lines), -1))
    words.axis("off")
    return figure
