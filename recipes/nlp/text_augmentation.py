"""Text augmentation: more texts out of few.

A picture still shows the same when it is moved a little; a text mostly says the same with another word in it, or with
one missing. Easy data augmentation changes some words of a text at random: it replaces one by a synonym, inserts one,
swaps two, leaves one out. Slips at the keyboard change letters. Each time a text is seen it is changed anew, and
keeps its label. The synonyms come from text without labels: they are words that appear among the same words.

From five texts of each class, all changes together gain some three points of accuracy, on clean texts and on mistyped
ones, more or less with the texts that are drawn. Of single changes synonyms bring most, on average, and slips some on
mistyped texts. Leaving words out brings next to nothing, and swaps nothing at all to a network that reads no order.
Without changes, a linear SVM on runs of letters is ahead of it.

Notes: 90
Paper: Wei, Zou (2019), "EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification
    Tasks", https://arxiv.org/abs/1901.11196
Data: the bundled reference of the Python language; yours as a folder with a text file for each topic.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import mean
from textwrap import fill
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, main, option, recipe
from recipes.datasets.passages import open_labeled_passages
from recipes.datasets.texts import Texts
from recipes.nlp.few_labels import few_texts, svm_by_letters
from recipes.nlp.near_words import synonyms_from
from recipes.nlp.spelling import BUCKETS, Change, ChangingTexts, SpelledTexts, Words, with_slips
from recipes.nlp.text_classification.encoding import tokenize
from recipes.nlp.text_classification.scoring import accuracy_on, linear_svm


@dataclass(kw_only=True)
class TextAugmentationOptions(Options):
    changes: str = option("all", "all, none, or synonyms, insertions, swaps, deletions and slips, with commas between")
    often: float = option(0.5, "probability of each of the changes", above=0, most=1)
    samples: int = option(5, "texts of each class to train on; the others give synonyms, without their labels", least=1)
    noise: float = option(0.2, "share of the letters of the mistyped test texts that are slips", above=0, below=1)
    max_words: int = option(80, "words of a text that are read; the rest is left out", least=1)
    size: int = option(64, "numbers in the vector of a piece of a word", least=1)
    epochs: int = 60
    batch_size: int = 20
    lr: float = 2e-2


def count_of(words: Sequence[Any], share: float) -> int:
    """How many of the words to change: a share of them, at least one."""
    return max(1, round(share * len(words)))


def with_synonyms(words: Words, draw: Random, *, synonyms: dict[str, Words], share: float = 0.5) -> Words:
    """Words that have synonyms replaced by one of them."""
    known = [position for position, word in enumerate(words) if word in synonyms]
    chosen = set(draw.sample(known, min(count_of(words, share), len(known))))
    return [draw.choice(synonyms[word]) if position in chosen else word for position, word in enumerate(words)]


def with_insertions(words: Words, draw: Random, *, synonyms: dict[str, Words], share: float = 0.3) -> Words:
    """Synonyms of words of the text inserted anywhere."""
    known = [word for word in words if word in synonyms]
    changed = list(words)
    for word in draw.choices(known, k=count_of(words, share)) if known else []:
        changed.insert(draw.randint(0, len(changed)), draw.choice(synonyms[word]))
    return changed


def with_swaps(words: Words, draw: Random, *, share: float = 0.1) -> Words:
    """Two words swapped, as many times as a share of the words."""
    changed = list(words)
    for _ in range(count_of(words, share)):
        one, other = draw.randrange(len(changed)), draw.randrange(len(changed))
        changed[one], changed[other] = changed[other], changed[one]
    return changed


def with_deletions(words: Words, draw: Random, *, share: float = 0.1) -> Words:
    """Each word left out with this probability; at least one is left."""
    return [word for word in words if draw.random() >= share] or [draw.choice(words)]


def changes_from(option: str, texts: Sequence[str]) -> dict[str, Change]:
    """The changes that the option names, with synonyms from these texts."""
    synonyms = synonyms_from(texts)
    known: dict[str, Change] = {
        "synonyms": functools.partial(with_synonyms, synonyms=synonyms),
        "insertions": functools.partial(with_insertions, synonyms=synonyms),
        "swaps": with_swaps,
        "deletions": with_deletions,
        "slips": with_slips,
    }
    names = {"all": list(known), "none": []}.get(option, [name.strip() for name in option.split(",")])
    if not set(names) <= known.keys():
        raise InputError(f"option changes: expected all, none, or some of {', '.join(known)}, got {option!r}")
    return {name: known[name] for name in names}


class MeanOfPieces(nn.Module):
    """The mean of the vectors of all pieces of all words, then a linear layer."""

    def __init__(self, num_classes: int, *, size: int = 64) -> None:
        super().__init__()
        self.pieces = nn.Embedding(BUCKETS, size, padding_idx=0)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(size, num_classes))
        with torch.no_grad():
            self.pieces.weight *= 0.3

    def forward(self, ids: Tensor) -> Tensor:
        count = (ids != 0).sum(dim=1, keepdim=True)
        return self.head(self.pieces(ids).sum(dim=1) / count)  # (batch, pieces) to (batch, num_classes)


def build(options: TextAugmentationOptions, data: Any) -> MeanOfPieces:
    """The network for these classes."""
    return MeanOfPieces(len(data.classes), size=options.size)


def train(
    model: nn.Module, train_set: ChangingTexts, options: TextAugmentationOptions, evaluate: Callable[[], Any] = dict
) -> Loop:
    """Minimizes the cross-entropy with AdamW; `evaluate` as for `Loop`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05, fused=True)
    loop = Loop(model, optimizer, batches(train_set, options), options, evaluate=evaluate)
    for ids, labels in loop:
        loop.step(F.cross_entropy(loop.model(ids), labels))
    return loop


def as_words(texts: Texts, options: TextAugmentationOptions) -> ChangingTexts:
    """The texts' words, which stay as they are."""
    return ChangingTexts([tokenize(text)[: options.max_words] for text in texts.texts], texts.labels, texts.classes)


def mistyped(dataset: ChangingTexts, options: TextAugmentationOptions) -> ChangingTexts:
    """The texts as a typist in a hurry would type them, the same ones with the same seed."""
    typist = Random(options.seed)
    return replace(dataset, words=[with_slips(text, typist, share=options.noise) for text in dataset.words])


@recipe(TextAugmentationOptions)
def run(options: TextAugmentationOptions) -> Result:
    """Trains on few texts, changed anew in every epoch, and measures that on clean and on mistyped texts."""
    labeled, test_texts, passages = open_labeled_passages(options.data, seed=options.seed)
    few = few_texts(labeled, options.samples, options.seed)
    changes = changes_from(options.changes, passages)
    train_set = replace(as_words(few, options), changes=tuple(changes.values()), often=options.often)
    clean = as_words(test_texts, options)
    parts = {"accuracy": clean, "noisy_accuracy": mistyped(clean, options)}
    model = build(options, clean).to(options.device)
    loop = train(model, train_set, options, lambda: {"accuracy": accuracy_on(model, clean, options.device)})
    return Result(
        metrics={name: accuracy_on(model, part, options.device) for name, part in parts.items()},
        baseline={name: linear_svm(few, as_texts(part), longest=1)["accuracy"] for name, part in parts.items()},
        baseline_name="linear SVM on words",
        bars={"accuracy": 0.5},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=clean,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    device = next(result.model.parameters()).device
    options = TextAugmentationOptions(**result.options | {"device": device, "out": None, "checkpoint": None})
    seeds = range(options.seed, options.seed + 6)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            for name, one in variants(replace(options, seed=seed)):
                found[name].append(one)
    keys = ("accuracy", "noisy_accuracy")
    means = {name: {key: mean(one[key] for one in all_of) for key in keys} for name, all_of in found.items()}
    result.rows = [{"changes": name} | one for name, one in means.items()]
    (clean, noisy), plain = means["all"].values(), means["none"]
    text = f"means of {len(seeds)} networks, each from {options.samples} texts a class: changed texts teach more than"
    yield Claim(f"{text} unchanged ones", clean, ">", plain["accuracy"], margin=0.01)
    yield Claim("and so on mistyped texts", noisy, ">", plain["noisy_accuracy"], margin=0.01)
    counted = means["linear SVM on words"]["accuracy"]
    yield Claim("changed texts beat counted words", clean, ">", counted, margin=0.02)


def variants(options: TextAugmentationOptions) -> Iterator[tuple[str, dict[str, float]]]:
    """Scores of networks that learn from the same few texts, changed in each way, and of linear SVMs on them."""
    labeled, test_texts, passages = open_labeled_passages(options.data, seed=options.seed)
    few, clean = few_texts(labeled, options.samples, options.seed), as_words(test_texts, options)
    parts = {"accuracy": clean, "noisy_accuracy": mistyped(clean, options)}
    known = changes_from("all", passages)
    for name, names in {"none": [], **{name: [name] for name in known}, "all": list(known)}.items():
        torch.manual_seed(options.seed)
        model = build(options, clean).to(options.device)
        changes = tuple(known[one] for one in names)
        train(model, replace(as_words(few, options), changes=changes, often=options.often), options)
        yield name, {key: accuracy_on(model, part, options.device) for key, part in parts.items()}
    texts = {key: as_texts(part) for key, part in parts.items()}
    yield "linear SVM on words", {key: linear_svm(few, part, longest=1)["accuracy"] for key, part in texts.items()}
    yield "linear SVM on runs of letters", {key: svm_by_letters(few, part) for key, part in texts.items()}


def as_texts(dataset: ChangingTexts) -> Texts:
    return Texts([" ".join(words) for words in dataset.words], dataset.labels, dataset.classes)


@run.figure
def figure(result: Result) -> Any:
    """What each kind of change adds to the accuracy, on clean and on mistyped texts, and a text as each changes it."""
    figure, axes = new_figure(1, 2, width=6.4, height=4.2)
    rows = result.rows[1:] or [{"changes": "as given"} | result.metrics]
    plain = result.rows[0] if result.rows else result.baseline
    for shift, key, label in ((-0.2, "accuracy", "clean texts"), (0.2, "noisy_accuracy", "mistyped texts")):
        gains = [100 * (row[key] - plain[key]) for row in rows]
        bars = axes[0, 0].barh(torch.arange(len(rows)) + shift, gains, height=0.38, label=label)
        axes[0, 0].bar_label(bars, fmt="%+.1f", padding=3, fontsize=8)
    axes[0, 0].axvline(0, color="black", linewidth=0.8)
    axes[0, 0].margins(x=0.15)
    axes[0, 0].set_yticks(range(len(rows)), [row["changes"] for row in rows])
    against = "unchanged texts" if result.rows else result.baseline_name
    axes[0, 0].set(ylim=(len(rows) - 0.4, -1.2), xlabel=f"points of accuracy above {against}")
    axes[0, 0].legend(frameon=False, loc="upper left", ncols=2)
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    text = max((text[:13] for text in result.train_set.words), key=lambda text: len(set(text)))
    examples = {"as it is": text}
    for change in result.train_set.changes:
        function = getattr(change, "func", change)
        examples[function.__name__.replace("_", " ")] = change(text, Random(result.seed))
    for row, (name, words) in enumerate(examples.items()):
        axes[0, 1].text(0, -row, name, weight="bold", fontsize=9)
        axes[0, 1].text(0, -row - 0.15, fill(" ".join(words), 78), fontsize=8, va="top", parse_math=False)
    axes[0, 1].set(xlim=(0, 1), ylim=(-len(examples), 0.5))
    axes[0, 1].axis("off")
    return figure


run.predicts(SpelledTexts, build)


if __name__ == "__main__":
    main(run)
