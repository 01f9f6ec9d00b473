"""A test of memory: the first word of a text decides its class, and words that mean nothing follow it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from recipes.core.figures import draw_curves, new_figure
from recipes.core.old import OldLoop
from recipes.nlp.text_classification.drawing import draw_texts
from recipes.nlp.text_classification.encoding import EncodedTexts, Vocabulary
from recipes.nlp.text_classification.scoring import evaluate

DISTANCES = (5, 40, 100)
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
    build: Callable[[int], nn.Module],
    train: Callable[..., OldLoop],
    device: torch.device,
    *,
    distances: tuple[int, ...] = DISTANCES,
    seed: int = 0,
    name: str = "memory",
    **options: Any,
) -> dict[int, float]:
    """Trains a fresh network for each distance, all alike, and measures it on 500 texts that it has not seen.

    Args:
        build: from the size of the vocabulary to a network of two classes.
        train: the recipe's.
        device: where to train.
        distances: words between the verdict and the end.
        seed: of the weights and the texts.
        name: of the trainings in a checkpoint folder.
        options: of `train`.
    """
    accuracy = {}
    for distance in distances:
        taught, asked = (verdict_texts(distance, count, seed=2 * seed + n) for n, count in enumerate((7_500, 500)))
        torch.manual_seed(seed)
        model = build(len(taught.vocabulary)).to(device)
        given = {"name": f"{name} {distance}", **options}
        train(model, taught, asked, epochs=1, batch_size=50, lr=1e-2, device=device, seed=seed, **given)
        accuracy[distance] = evaluate(model, asked, device)["accuracy"]
    return accuracy


def draw_memory(axes: Any, curves: Mapping[str, Mapping[int, float]]) -> None:
    """One line a network: accuracy against the distance of the deciding word."""
    for name, accuracy in curves.items():
        axes.plot(list(accuracy), list(accuracy.values()), marker="o", label=name)
    axes.axhline(0.5, color="gray", linestyle=":", linewidth=1)
    axes.set(ylim=(0.4, 1.03), xlabel="words after the one that decides", ylabel="accuracy on held-out texts")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 0.2))
    axes.spines[["top", "right"]].set_visible(False)


def draw_recurrent(
    model: nn.Module,
    dataset: EncodedTexts,
    device: torch.device,
    history: list[dict[str, float]],
    curves: Mapping[str, Mapping[int, float]],
) -> Any:
    """The curve, the accuracy against the distance of the deciding word, and texts in colours."""
    figure, axes = new_figure(2, 2, width=6.0, height=3.4)
    draw_curves(axes[0, 0], history, ["loss", "accuracy"])
    draw_memory(axes[0, 1], curves)
    grid = axes[1, 0].get_gridspec()
    for place in axes[1]:
        place.remove()
    draw_texts(figure.add_subplot(grid[1, :]), model, dataset, device, columns=150)
    return figure
