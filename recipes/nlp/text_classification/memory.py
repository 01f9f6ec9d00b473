"""A test of memory: the first word of a text decides its class, and words that mean nothing follow it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from recipes.core.figures import draw_curves, new_figure
from recipes.core.result import Result
from recipes.nlp.text_classification.drawing import draw_texts
from recipes.nlp.text_classification.encoding import EncodedTexts, Vocabulary
from recipes.nlp.text_classification.scoring import evaluate

DISTANCES = (5, 50, 200)
VERDICTS = ("dreadful", "superb")
FILLERS = ("the", "a", "of", "and", "it", "this", "that", "one", "in", "on", "at", "by", "for", "with", "from", "as")


def verdict_texts(distance: int, count: int, *, seed: int) -> EncodedTexts:
    """Texts of a verdict and `distance` fillers drawn at random: "superb of it the …" is good, whatever follows."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = Vocabulary([" ".join((*VERDICTS, *FILLERS))], min_freq=1)
    labels = torch.randint(2, (count,), generator=generator)
    verdicts = torch.tensor([vocabulary.number[word] for word in VERDICTS])
    fillers = torch.tensor([vocabulary.number[word] for word in FILLERS])
    drawn = fillers[torch.randint(len(fillers), (count, distance), generator=generator)]
    ids = torch.cat([verdicts[labels][:, None], drawn], dim=1)  # (count, 1 + distance)
    texts = [" ".join(vocabulary.words[number] for number in text) for text in ids.tolist()]
    return EncodedTexts(texts, list(ids), labels, ["bad", "good"], vocabulary)


def accuracy_by_distance(
    kind: Any,
    build: Callable[[Any, EncodedTexts], nn.Module],
    train: Callable[[Any, EncodedTexts, EncodedTexts, Any], Any],
    result: Result,
    *,
    distances: Sequence[int] = DISTANCES,
    **changed: Any,
) -> dict[int, float]:
    """Trains a fresh network for each distance, all alike, and measures it on 500 texts that it has not seen.

    It reads in one direction, and its last state has to tell the verdict.

    Args:
        kind: of the recipe's options.
        build: the recipe's, from options and data to a network.
        train: the recipe's.
        result: of the recipe, whose options the trainings have.
        distances: words between the verdict and the end.
        changed: options that differ.
    """
    device = next(result.model.parameters()).device
    changed = {"bidirectional": False, "pool": "last", "dropout": 0.0, "epochs": 1, "batch_size": 50} | changed
    shared = {"data": None, "vectors": None, "out": None, "steps": None, "device": device}
    options = kind(**result.options | shared | changed)
    accuracy = {}
    for distance in distances:
        parts = [verdict_texts(distance, count, seed=2 * options.seed + n) for n, count in enumerate((7_500, 500))]
        options.variant = " ".join([f"{distance} words back", *map(str, changed.values())])
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(options.seed)
            model = build(options, parts[0]).to(device)
            train(model, parts[0], parts[1], options)
        accuracy[distance] = evaluate(model, parts[1], device)["accuracy"]
    return accuracy


def rows_of(curves: Mapping[str, Mapping[int, float]]) -> list[dict[str, float]]:
    """A row a distance, with the accuracy of each network."""
    distances = next(iter(curves.values()))
    return [{"words after the one that decides": n} | {name: one[n] for name, one in curves.items()} for n in distances]


def draw_recurrent(result: Result) -> Any:
    """The curve, the accuracy against the distance of the deciding word if it was measured, and texts in colors."""
    figure, axes = new_figure(2, 2, width=6.0, height=3.4)
    draw_curves(axes[0, 0], result.history, ["loss", "accuracy"])
    for name in list(result.rows[0])[1:] if result.rows else []:
        distances = [row["words after the one that decides"] for row in result.rows]
        axes[0, 1].plot(distances, [row[name] for row in result.rows], marker="o", label=name)
        axes[0, 1].legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 0.2))
    axes[0, 1].axhline(0.5, color="gray", linestyle=":", linewidth=1)
    axes[0, 1].set(ylim=(0.4, 1.03), xlabel="words after the one that decides", ylabel="accuracy on held-out texts")
    axes[0, 1].spines[["top", "right"]].set_visible(False)
    grid = axes[1, 0].get_gridspec()
    for unused in axes[1]:
        unused.remove()
    device = next(result.model.parameters()).device
    draw_texts(figure.add_subplot(grid[1, :]), result.model, result.test_set, device, columns=150)
    return figure
