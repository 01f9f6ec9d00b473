"""What a network that guesses hidden words has learned, as a figure."""

from typing import Any

import torch
from torch import nn

from recipes.core.figures import draw_curves, new_figure
from recipes.nlp.bert.subwords import SubwordTexts


@torch.inference_mode()
def guesses(model: nn.Module, dataset: SubwordTexts, device: torch.device, count: int = 7) -> list[tuple[str, str]]:
    """For the middle word of each of the first texts: the text with a gap, and the three likeliest fillings."""
    model.eval()
    subwords, lines = dataset.vocabulary, []
    for ids in dataset.ids[:count]:
        place = len(ids) // 2
        hidden = torch.arange(len(ids)) == place
        logits = model(ids.masked_fill(hidden, subwords.mask)[None].to(device), hidden[None].to(device))
        shares, best = logits[0].softmax(dim=0).topk(3)
        before, after = (subwords.tokenizer.decode(part) for part in (ids[1:place], ids[place + 1 : -1]))
        said = "   ".join(
            f"“{subwords.words[number]}” {share:.2f}"
            for number, share in zip(best.tolist(), shares.tolist(), strict=True)
        )
        lines.append((f"{before} ____ {after}", f"{said}   (was: “{subwords.words[int(ids[place])]}”)"))
    return lines


def draw(
    model: nn.Module,
    dataset: SubwordTexts,
    device: torch.device,
    history: list[dict[str, float]],
    baseline: dict[str, float],
    rows: list[dict[str, Any]],
) -> Any:
    """The curve, the two starts compared, and what the model puts in gaps."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(2, 2, width=5.0, height=3.0)
    draw_curves(axes[0, 0], history, ["accuracy"])
    axes[0, 0].axhline(baseline["accuracy"], color="gray", linestyle=":", label="the commonest word")
    axes[0, 0].set(ylim=(0, None), title="hidden words guessed")
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].legend(frameon=False)
    columns = ("capitals_f1", "capitals_f1_test")
    for shift, row in zip((-0.2, 0.2), rows, strict=False):
        shares = [row[column] for column in columns]
        bars = axes[0, 1].bar(torch.arange(2) + shift, shares, width=0.36, label=f"{row['start']} start")
        axes[0, 1].bar_label(bars, fmt="%.2f")
        axes[0, 1].set(title=f"capitals found after {row['texts']} texts (F1)")
        axes[0, 1].legend(frameon=False, ncols=2, loc="upper center")
    axes[0, 1].set_xticks([0, 1], ["held-out texts", "test part"])
    axes[0, 1].set(ylim=(0, 1.2))
    axes[0, 1].spines[["top", "right"]].set_visible(False)
    grid = axes[1, 0].get_gridspec()
    for place in axes[1]:
        place.remove()
    words = figure.add_subplot(grid[1, :])
    lines = guesses(model, dataset, device)
    for number, (text, said) in enumerate(lines):
        start = max(0, text.index("____") - 60)
        words.text(0, 2.4 * number, ("… " if start else "") + text[start : start + 120], fontsize=9)
        words.text(0.02, 2.4 * number + 1, said, fontsize=9, color="tab:blue")
    words.set(xlim=(0, 1), ylim=(2.4 * len(lines), -1))
    words.axis("off")
    return figure
