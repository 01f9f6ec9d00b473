"""Pictures of what a text classifier has learned; they ask the model alone, so any will do."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.evaluation import predict
from recipes.core.result import Result
from recipes.nlp.text_classification.encoding import UNKNOWN, EncodedTexts, phrases, tokenize
from recipes.nlp.text_classification.scoring import accuracy_in_disorder

CJK_FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei")


def fonts(first: str) -> list[str]:
    """That font, and after it those here that have Chinese, Japanese and Korean."""
    from matplotlib import font_manager

    here = set(font_manager.get_font_names())
    return [first, *(name for name in CJK_FONTS if name in here)]


def draw_confusion(axes: Any, predicted: Tensor, labels: Tensor, classes: list[str]) -> None:
    """How often each true class (a row) was taken for each class, as shares of the row."""
    count = len(classes)
    table = torch.bincount(labels * count + predicted, minlength=count * count).view(count, count).double()
    shares = table / table.sum(dim=1, keepdim=True).clamp(min=1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if count <= 10:
        axes.set_xticks(range(count), classes, rotation=30 if count > 3 else 0, family=fonts("DejaVu Sans"))
        axes.set_yticks(range(count), classes, family=fonts("DejaVu Sans"))
        for row, column in torch.cartesian_prod(torch.arange(count), torch.arange(count)).tolist():
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", color=color)


def above_mean(logits: Tensor) -> Tensor:
    """The logit of the last class above the mean of all: (N, num_classes) to (N,)."""
    return logits[:, -1] - logits.mean(dim=1)


def phrase_evidence(
    model: nn.Module, dataset: EncodedTexts, device: torch.device, length: int
) -> tuple[list[str], Tensor]:
    """The phrases of `length` words in the texts, and what the model says for the last class to each alone."""
    alone = phrases(dataset, length)
    logits = predict(model, alone, device)
    return alone.texts, above_mean(torch.stack(logits)) if logits else torch.empty(0)


def word_evidence(model: nn.Module, dataset: EncodedTexts, index: int, device: torch.device) -> Tensor:
    """How much each word of a text, (words,), speaks for the last class.

    Measured by what is lost when the unknown word replaces it.
    """
    ids = dataset.ids[index]
    without = [torch.where(torch.arange(len(ids)) == position, UNKNOWN, ids) for position in range(len(ids))]
    variants = [ids, *without]
    altered = replace(dataset, texts=[""] * len(variants), ids=variants, labels=ids.new_zeros(len(variants)))
    evidence = above_mean(torch.stack(predict(model, altered, device)))
    return evidence[0] - evidence[1:]


def draw_evidence(axes: Any, names: Sequence[str], evidence: Tensor, title: str, count: int = 7) -> None:
    """Bars of the `count` names with the most evidence (names,) for a class, and of those against it."""
    order = evidence.argsort()
    ends = torch.cat([order[:count], order[count:][-count:]])
    values = evidence[ends].tolist()
    axes.barh(range(len(values)), values, color=["tab:blue" if value > 0 else "tab:orange" for value in values])
    axes.set_yticks(range(len(values)), [names[index] for index in ends.tolist()], family=fonts("DejaVu Sans"))
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_title(title, fontsize=10, family=fonts("DejaVu Sans"))
    axes.spines[["top", "right"]].set_visible(False)


def draw_compared(axes: Any, result: Result) -> None:
    """Accuracy of each model on the texts as they are, and with their words shuffled; the baseline as a line."""
    runs = result.runs | {"as given": result}
    rows = torch.arange(len(runs))
    axes.barh(rows - 0.2, [one.metrics["accuracy"] for one in runs.values()], height=0.38, label="as written")
    axes.barh(rows + 0.2, [accuracy_in_disorder(one) for one in runs.values()], height=0.38, label="words shuffled")
    axes.axvline(result.baseline["accuracy"], ymax=0.8, color="black", linestyle=":", label="linear SVM")
    axes.set_yticks(rows, list(runs), fontsize=8)
    axes.set(ylim=(len(rows) - 0.4, -1.2), xlim=(0, 1), xlabel="accuracy on held-out texts")
    axes.legend(frameon=False, loc="upper left", ncols=3, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def draw_texts(axes: Any, model: nn.Module, dataset: EncodedTexts, device: torch.device, columns: int) -> None:
    """Texts the model is most wrong about and some it gets right, in lines of `columns` letters.

    Words in blue speak for the last class, words in orange against it, grey ones are unknown.
    """
    logits = torch.stack(predict(model, dataset, device))
    predicted = logits.argmax(dim=1)
    worst = F.cross_entropy(logits, dataset.labels, reduction="none").argsort(descending=True)[:4].tolist()
    right = (predicted == dataset.labels).nonzero().flatten()[:4].tolist()
    line = 0.0
    for index in dict.fromkeys(worst + right):
        truth, answer = dataset.classes[dataset.labels[index]], dataset.classes[predicted[index]]
        title = truth if truth == answer else f"{truth}, taken for {answer}"
        axes.text(0, line, title, fontsize=8, weight="bold", family=fonts("DejaVu Sans"))
        evidence = word_evidence(model, dataset, index, device)
        strength = 0.8 * evidence / evidence.abs().max().clamp(min=1e-6)
        line, column = line + 1, 0
        words = zip(tokenize(dataset.texts[index]), dataset.ids[index].tolist(), strength.tolist(), strict=False)
        for word, number, value in list(words)[:120]:
            wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in word)
            if column + len(word) + wide > columns:
                line, column = line + 1, 0
            box = {"facecolor": ("tab:blue" if value > 0 else "tab:orange", abs(value)), "linewidth": 0, "pad": 1.2}
            color = "gray" if number == UNKNOWN else "black"
            axes.text(column, line, word, fontsize=8, family=fonts("DejaVu Sans Mono"), color=color, bbox=box)
            column += len(word) + wide + 1
        line += 1.7
    axes.set(xlim=(0, columns), ylim=(line - 1, -1))
    axes.axis("off")
