"""Pretraining, then fine-tuning: the same encoder from random and from pretrained weights, on the same few labels.

MiniLM, 6 layers 384 wide, learns four tasks from a few labeled samples of public sets, read from the folder named by
`RECIPES_REAL_DATA`. Where it starts random, the tokenizer stays, and the learning rate is one that suits that.
To learn much in few steps, entities are learned from sentences that hold one, and questions are on short paragraphs.
Rates and epochs of these two were chosen on held-out samples of the train parts. (What guessing hidden words on the
bundled texts gains, `nlp.bert` claims itself.)
"""

import os
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.row import table
from recipes.datasets.questions import open_questions
from recipes.datasets.sentence_scores import open_scored_pairs
from recipes.datasets.tagged_words import open_tagged_words
from recipes.datasets.texts import open_texts
from recipes.nlp.bert import named_entities, question_answering, sentiment, similarity
from recipes.nlp.bert.encoder import load_encoder

SEEDS = range(3)
RANDOM_LR = 3e-4
WORDS = 100  # of a paragraph at most
Samples = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Job:
    """A task: its recipe's module, its set, how that is opened, the metric, and how much is taken of it.

    Attributes:
        lr: of pretrained weights.
        teaches: whether a sample of the train part is one to draw from.
    """

    module: Any
    folder: str
    open: Callable[[Path], Sequence[Samples]]
    metric: str
    labels: int
    held_out: int
    epochs: int
    lr: float = 1e-4
    teaches: Callable[[tuple[Any, ...]], bool] = lambda sample: True


def texts(folder: Path) -> list[Samples]:
    parts = open_texts(folder)
    return [
        [(text, part.classes[label]) for text, label in zip(part.texts, part.labels.tolist(), strict=True)]
        for part in parts
    ]


def tagged_words(folder: Path) -> list[Samples]:
    return [list(zip(part.words, part.tags, strict=True)) for part in open_tagged_words(folder)]


def questions(folder: Path) -> list[Samples]:
    parts = []
    for part in open_questions(folder):
        asked = zip(part.questions, part.contexts, part.answers, strict=True)
        short = (one for one in asked if len(one[1].split()) <= WORDS)
        parts.append([(one, two, [{"text": t, "answer_start": s} for t, s in true]) for one, two, true in short])
    return parts


def scored_pairs(folder: Path) -> list[Samples]:
    parts = open_scored_pairs(folder)
    return [list(zip(part.firsts, part.seconds, part.scores.tolist(), strict=True)) for part in parts]


JOBS = (
    Job(sentiment, "sst2", texts, "accuracy", 200, 400, 4),
    Job(similarity, "stsbenchmark", scored_pairs, "spearman", 200, 400, 4),
    Job(named_entities, "wnut17", tagged_words, "f1", 300, 200, 4, 3e-4, lambda sample: set(sample[1]) != {"O"}),
    Job(question_answering, "squadshifts_new_wiki", questions, "f1", 800, 100, 1, 3e-4),
)


def random_start(folder: Path) -> str:
    """A folder with MiniLM's tokenizer and configuration, and random weights."""
    from transformers import AutoModel

    encoder, subwords = load_encoder("pretrained")
    torch.manual_seed(0)
    AutoModel.from_config(encoder.config).save_pretrained(folder)
    subwords.tokenizer.save_pretrained(folder)
    return str(folder)


def score(job: Job, parts: Sequence[Samples], weights: str, lr: float, seed: int) -> float:
    """The metric on held-out samples, after learning from a few that the seed draws."""
    known = list(filter(job.teaches, parts[0]))
    few, held_out = random.Random(seed).sample(known, job.labels), random.Random(0).sample(parts[1], job.held_out)
    settings: dict[str, Any] = {"weights": weights, "lr": lr, "epochs": job.epochs, "seed": seed, "precision": "auto"}
    return job.module.run(data=(few, held_out), claims=False, device="cpu", **settings)[job.metric]


def spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def section() -> str:
    """The table; empty where the sets or the weights are not there."""
    folder = os.environ.get("RECIPES_REAL_DATA")
    if folder is None:
        return ""
    lines = []
    with tempfile.TemporaryDirectory() as target:
        start = random_start(Path(target))
        for job in JOBS:
            parts = job.open(Path(folder) / job.folder)
            found = {
                kind: [score(job, parts, weights, lr, seed) for seed in SEEDS]
                for kind, weights, lr in (("random", start, RANDOM_LR), ("pretrained", "pretrained", job.lr))
            }
            name = job.module.__name__.removeprefix("recipes.")
            gain = statistics.mean(found["pretrained"]) - statistics.mean(found["random"])
            what = f"{job.labels} of `{job.folder}`, {job.epochs} epoch{'s' * (job.epochs > 1)}, lr {job.lr}"
            lines.append([f"`{name}`", what, job.metric, *map(spread, found.values()), f"{gain:+.3f}"])
            print(" | ".join(lines[-1]), flush=True)
    header = ["recipe", "learns from", "metric", "from random weights", "pretrained", "gain"]
    return f"""## Pretraining, then fine-tuning

MiniLM (6 layers, 384 wide), from random and from pretrained weights, on the same few labels with the same tokenizer:
mean and standard deviation of {len(SEEDS)} draws, each measured on the same held-out samples. The learning rate is that
of the pretrained weights; the random ones learn at {RANDOM_LR}. Sentences for entities are such as hold one, paragraphs
have at most {WORDS} words.

{table(header, lines)}"""
