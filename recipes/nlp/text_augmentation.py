"""Text augmentation: more texts out of few.

A picture stays what it shows when it is moved a little; a text mostly says the same with another word in it, or with
one missing. Easy data augmentation changes some words of a text at random: puts a synonym for one, inserts one,
swaps two, leaves one out. Slips at the keyboard change letters. Each time a text is seen it is changed anew, and
keeps its label. The synonyms come from text without labels: they are the words that stand among the same words. The
run measures each change alone, on clean texts and on mistyped ones.

Notes: 90
Paper: Wei, Zou (2019), "EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification
    Tasks", https://arxiv.org/abs/1901.11196
Data: the language reference that every Python carries; yours as a folder with a text file for each topic.
"""

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from recipes.core.claims import Claim
from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.loading import few_of_each
from recipes.datasets.passages import open_passages
from recipes.nlp.few_labels import held_out_passages
from recipes.nlp.gains import draw_gains
from recipes.nlp.related_words import alike_words
from recipes.nlp.spelling import BUCKETS, pieces
from recipes.nlp.text_classification.encoding import tokenize
from recipes.nlp.text_classification.scoring import accuracy_on

Change = Callable[[list[str], random.Random], list[str]]

KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def some(words: Sequence[Any], share: float) -> int:
    """How many of the words to change: a share of them, at least one."""
    return max(1, round(share * len(words)))


def with_synonyms(
    words: list[str], draw: random.Random, *, synonyms: dict[str, list[str]], share: float = 0.5
) -> list[str]:
    """Some of the words that have synonyms replaced by one of them."""
    places = [place for place, word in enumerate(words) if word in synonyms]
    chosen = set(draw.sample(places, min(some(words, share), len(places))))
    return [draw.choice(synonyms[word]) if place in chosen else word for place, word in enumerate(words)]


def with_insertions(
    words: list[str], draw: random.Random, *, synonyms: dict[str, list[str]], share: float = 0.3
) -> list[str]:
    """Synonyms of some of the words put in anywhere."""
    known = [word for word in words if word in synonyms]
    changed = list(words)
    for word in draw.choices(known, k=some(words, share)) if known else []:
        changed.insert(draw.randint(0, len(changed)), draw.choice(synonyms[word]))
    return changed


def with_swaps(words: list[str], draw: random.Random, *, share: float = 0.1) -> list[str]:
    """Two words change places, so many times."""
    changed = list(words)
    for _ in range(some(words, share)):
        one, other = draw.randrange(len(changed)), draw.randrange(len(changed))
        changed[one], changed[other] = changed[other], changed[one]
    return changed


def with_deletions(words: list[str], draw: random.Random, *, share: float = 0.1) -> list[str]:
    """Each word left out with this probability; one is left at least."""
    return [word for word in words if draw.random() >= share] or [draw.choice(words)]


@functools.cache
def neighbours_on_the_keyboard() -> dict[str, str]:
    """The letters beside, above and below each letter of a QWERTY keyboard."""
    places = {letter: (row, column) for row, letters in enumerate(KEYS) for column, letter in enumerate(letters)}
    return {
        letter: "".join(
            other
            for other, (r, c) in places.items()
            if other != letter and abs(r - row) <= 1 and -1 <= (c - column) + (r - row) / 2 <= 1
        )
        for letter, (row, column) in places.items()
    }


def with_slips(words: list[str], draw: random.Random, *, share: float = 0.2) -> list[str]:
    """Each letter mistyped with this probability: a key beside it, none, twice the same, or its neighbour first."""
    near = neighbours_on_the_keyboard()

    def typed(word: str) -> str:
        letters = list(word)
        for place in range(len(letters)):
            if draw.random() < share and letters[place] in near:
                slip = draw.randrange(4)
                if slip == 0:
                    letters[place] = draw.choice(near[letters[place]])
                elif slip == 1:
                    letters[place] = ""
                elif slip == 2:
                    letters[place] *= 2
                elif place + 1 < len(letters):
                    letters[place : place + 2] = reversed(letters[place : place + 2])
        return "".join(letters)

    return [mistyped for word in words if (mistyped := typed(word))] or words


@dataclass
class ChangingTexts:
    """Texts as words, changed anew each time they are asked for; it gives numbers of their words' pieces.

    Attributes:
        words: N lists of words.
        labels: (N,).
        changes: one of them, drawn at random, is made to four texts in five; with none all stay as they are.
    """

    words: list[list[str]]
    labels: Tensor
    changes: tuple[Change, ...] = ()

    def __len__(self) -> int:
        return len(self.words)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        texts = [self.words[index] for index in indices]
        if self.changes:
            draw = random.Random(int(torch.randint(2**31, ())))
            texts = [draw.choice(self.changes)(text, draw) if draw.random() < 0.8 else text for text in texts]
        ids = [torch.cat([pieces(word) for word in text]) for text in texts]
        return pad_sequence(ids, batch_first=True), self.labels[list(indices)]  # (batch, pieces), (batch,)


class MeanOfPieces(nn.Module):
    """The mean of the vectors of all pieces of all words, then a linear layer."""

    def __init__(self, num_classes: int, *, width: int = 64) -> None:
        super().__init__()
        self.pieces = nn.EmbeddingBag(BUCKETS, width, mode="mean", padding_idx=0)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(width, num_classes))
        with torch.no_grad():
            self.pieces.weight *= 0.3

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.pieces(ids))  # (batch, pieces) to (batch, num_classes)


def train(
    model: nn.Module,
    train_set: ChangingTexts,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    name: str = "model",
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises the cross-entropy with AdamW."""
    loop = OldLoop(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05, fused=True),
        old_batches(train_set, batch_size, seed=seed),
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        name=name,
        **engine,
    )
    for ids, labels in loop:
        loss = F.cross_entropy(loop.model(ids), labels)
        loop.step(loss)
    return loop


@old_recipe
def run(
    *,
    data: str | None = None,
    samples: int = 5,
    noise: float = 0.2,
    trainings: int = 6,
    epochs: int = 30,
    batch_size: int = 20,
    lr: float = 2e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains on few texts, changed in each way and not at all, and measures that on clean and on mistyped texts.

    Args:
        data: folder of your texts, a file *.txt for each topic; the reference of Python if not given.
        samples: passages of each topic to train on; the others give synonyms, without their labels.
        noise: share of the letters of the mistyped test texts that are slips, above 0 and below 1.
        trainings: trainings that every accuracy is the mean of, each with passages of its own.
        epochs: passes over the train texts.
        batch_size: texts in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the first training's texts, weights and changes; the others count up from it.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if min(samples, trainings) < 1 or not 0 < noise < 1:
        raise InputError(
            "options samples, trainings and noise: expected at least 1, at least 1, and a share above 0 and below 1, "
            f"got {samples}, {trainings} and {noise}"
        )
    place = setup(device, seed)
    topics = open_passages(data)
    labelled, asked, names = held_out_passages(topics, seed=seed)
    hidden = {text for text, _ in asked}
    synonyms = alike_words([text for texts in topics.values() for text in texts if text not in hidden])
    whole, clean = (
        ChangingTexts([tokenize(text)[:80] for text, _ in part], torch.tensor([label for _, label in part]))
        for part in (labelled, asked)
    )
    typist = random.Random(seed)
    mistyped = replace(clean, words=[with_slips(text, typist, share=noise) for text in clean.words])

    kinds: dict[str, Change] = {
        "synonyms": functools.partial(with_synonyms, synonyms=synonyms),
        "insertions": functools.partial(with_insertions, synonyms=synonyms),
        "swaps": with_swaps,
        "deletions": with_deletions,
        "slips of keys": with_slips,
    }
    ways: dict[str, tuple[Change, ...]] = {
        "none": (),
        **{name: (change,) for name, change in kinds.items()},
        "all of them": tuple(kinds.values()),
    }
    rows: list[dict[str, Any]] = []
    for way, changes in ways.items():
        measured = []
        for number in range(seed, seed + trainings):
            few = few_of_each(whole.labels, samples, number).tolist()
            train_set = ChangingTexts([whole.words[index] for index in few], whole.labels[few], changes)
            torch.manual_seed(number)
            model = MeanOfPieces(len(names)).to(place)
            shared: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "device": place}
            loop = train(model, train_set, **shared, seed=number, name=f"{way} {number}", **engine)
            measured.append([accuracy_on(model, test_set, place) for test_set in (clean, mistyped)])
        accuracy, noisy = torch.tensor(measured, dtype=torch.double).mean(dim=0).tolist()
        rows.append({"changes": way, "accuracy": accuracy, "noisy_accuracy": noisy})
    by_way = {row["changes"]: {key: row[key] for key in ("accuracy", "noisy_accuracy")} for row in rows}
    plain = by_way["none"]

    def compared(text: str, way: str, key: str = "accuracy") -> Claim:
        return claim(text, by_way[way][key], ">", plain[key])

    example = max((text[:13] for text in whole.words), key=lambda text: len({word for word in text if word.isalpha()}))
    examples = {name: " ".join(change(example, random.Random(seed))) for name, change in kinds.items()}
    return Result(
        metrics=by_way["all of them"],
        baseline=plain,
        baseline_name="unchanged texts",
        bars={"accuracy": 0.5},
        claims=[
            compared("all changes in turn help on clean texts", "all of them"),
            compared("and on mistyped ones", "all of them", "noisy_accuracy"),
            compared("synonyms from text without labels help on clean texts", "synonyms"),
            compared("slips of keys help on mistyped texts", "slips of keys", "noisy_accuracy"),
            compared("leaving words out helps on clean texts", "deletions"),
            claim(
                "swaps teach a mean, which reads no order, next to nothing",
                abs(by_way["swaps"]["accuracy"] - plain["accuracy"]),
                "<",
                0.01,
            ),
        ],
        rows=rows,
        history=loop.history,
        model=model,
        draw=lambda: draw_gains(rows, {"as it was": " ".join(example)} | examples),
    )


if __name__ == "__main__":
    main(run)
