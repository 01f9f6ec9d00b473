"""How well vectors know which words belong together: words and their forms in -s, found and put into proportion."""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.nlp.near_words import common_words, counted, known_words, near_pairs


def pairs_in_s(words: Sequence[str], *, least: int = 10, most: int = 200) -> Tensor:
    """Numbers of the words that come with and without an s, such as "value" and "values": (pairs, 2).

    Args:
        words: the commonest first.
        least: pairs that there must be.
        most: pairs that are taken, the first ones.

    Raises:
        InputError: there are fewer than `least`.
    """
    number = {word: row for row, word in enumerate(words)}
    stems = [word for word in words if len(word) > 3 and word.isalpha() and f"{word}s" in number]
    if len(stems) < least:
        raise InputError(f"the text has {len(stems)} words that also come with an s; expected at least {least}")
    return torch.tensor([[number[word], number[f"{word}s"]] for word in stems[:most]])


def likeness(table: Tensor) -> Tensor:
    """The cosine between each two rows of (words, width): (words, words)."""
    rows = F.normalize(table, dim=1)
    return rows @ rows.T


def neighbour_rank(alike: Tensor, pairs: Tensor) -> float:
    """Mean of 1 / r, where the second word of a pair is the r-th most alike to the first."""
    scores = alike[pairs[:, 0]].scatter(1, pairs[:, :1], -torch.inf)  # (pairs, words); no word is its own neighbour
    return mean_reciprocal_rank(scores, pairs[:, 1])


def analogy_rank(alike: Tensor, pairs: Tensor, *, offset: bool = True) -> float:
    """Mean of 1 / r over all "a is to as what b is to …": bs is the r-th most alike to b + as - a.

    Args:
        alike: see `likeness`; since a cosine with a sum is a sum of cosines, it is all that is needed.
        pairs: (pairs, 2).
        offset: add as - a; without it, the question is for the neighbours of b.
    """
    total = 0.0
    for index, (word, form) in enumerate(pairs.tolist()):
        others = torch.cat([pairs[:index], pairs[index + 1 :]])
        scores = alike[others[:, 0]] + (alike[form] - alike[word] if offset else 0)  # (pairs - 1, words)
        scores[:, [word, form]] = -torch.inf  # the words of the question are no answers
        scores.scatter_(1, others[:, :1], -torch.inf)
        total += mean_reciprocal_rank(scores, others[:, 1])
    return total / len(pairs)


def mean_reciprocal_rank(scores: Tensor, right: Tensor) -> float:
    """Of the right answers (N,) among scores (N, words)."""
    ranks = 1 + (scores > scores.gather(1, right[:, None])).sum(dim=1)
    return (1 / ranks.double()).mean().item()


def nearest(alike: Tensor, words: Sequence[str], word: str, count: int = 4) -> str:
    """The words most alike to this one, with commas."""
    row = alike[words.index(word)].clone()
    row[words.index(word)] = -torch.inf
    return ", ".join(words[index] for index in row.topk(count).indices.tolist())


def mutual_information(counts: Tensor) -> Tensor:
    """How much oftener two words stand together than by chance, as a logarithm, none below 0: (words, words)."""
    ones = counts.sum(dim=1, keepdim=True).clamp(min=1e-9)
    return (counts * counts.sum() / (ones * ones.T)).log().clamp(min=0)


def alike_words(passages: Sequence[str], *, least: float = 0.2, count: int = 5) -> dict[str, list[str]]:
    """Each word with up to `count` words that stand among the same words, as far as the passages tell.

    Args:
        passages: text without labels.
        least: cosine between the two words' mutual information with all others.
        count: at most so many, the most alike.
    """
    vocabulary = common_words(passages, 4)
    pairs, distances = near_pairs(known_words(passages, vocabulary), 5)
    alike = likeness(mutual_information(counted(pairs, distances, len(vocabulary)))).fill_diagonal_(-1)
    best = alike.topk(min(count, len(alike)), dim=1)
    found: dict[str, list[str]] = {}
    for word, scores, others in zip(vocabulary.words, best.values.tolist(), best.indices.tolist(), strict=True):
        near = [vocabulary.words[other] for other, score in zip(others, scores, strict=True) if score > least]
        found |= {word: near} if near else {}
    return found


def draw_words(
    rows: Sequence[dict[str, Any]], table: Tensor, words: Sequence[str], pairs: Tensor, few: dict[str, list[float]]
) -> Any:
    """How well each table finds forms in -s, some of these in the plane, and classifiers with few labels.

    Args:
        rows: of each table, with "vectors", "neighbours" and "analogies".
        table: (words, width), to draw in the plane.
        words: of its rows.
        pairs: see `pairs_in_s`.
        few: of each start, the accuracy of every classifier.
    """
    figure, axes = new_figure(1, 3, width=4.8, height=4.2)
    places = torch.arange(len(rows))
    for shift, key in ((-0.2, "neighbours"), (0.2, "analogies")):
        bars = axes[0, 0].barh(places + shift, [row[key] for row in rows], height=0.38, label=key)
        axes[0, 0].bar_label(bars, fmt="%.3f", padding=2, fontsize=8)
    axes[0, 0].margins(x=0.15)
    axes[0, 0].set_yticks(places, [row["vectors"] for row in rows])
    axes[0, 0].set(ylim=(len(rows) - 0.4, -0.6), xlabel="mean reciprocal rank of the form in -s")
    axes[0, 0].locator_params(axis="x", nbins=5)
    axes[0, 0].legend(frameon=False, loc="upper right")

    shown = pairs[:9]
    unit = F.normalize(table, dim=1)[shown.flatten()]
    plane = torch.linalg.svd(unit - unit.mean(dim=0), full_matrices=False)
    points = (plane.U[:, :2] * plane.S[:2]).view(-1, 2, 2)  # (pairs, word and form, x and y)
    for (start, end), names in zip(points.tolist(), shown.tolist(), strict=True):
        axes[0, 1].annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "tab:gray"})
        for point, name in zip((start, end), names, strict=True):
            axes[0, 1].annotate(words[name], point, fontsize=8, ha="center")
    flat = points.flatten(0, 1)
    axes[0, 1].scatter(*flat.T.tolist(), s=6)
    axes[0, 1].margins(0.15)
    axes[0, 1].set_title("skip-gram's vectors in the plane", fontsize=10)

    for place, accuracies in enumerate(few.values()):
        axes[0, 2].scatter([place] * len(accuracies), accuracies, color="tab:blue", alpha=0.6)
        axes[0, 2].hlines(sum(accuracies) / len(accuracies), place - 0.2, place + 0.2, color="black")
    axes[0, 2].set_xticks(range(len(few)), [fill(name, 12) for name in few], fontsize=9)
    axes[0, 2].set(xlim=(-0.6, len(few) - 0.4), ylabel="accuracy on held-out passages")
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
    return figure
