"""From articles and their summaries to batches of numbers, and from summaries to a score."""

import re
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.core.errors import InputError
from recipes.core.figures import draw_curves, new_figure
from recipes.datasets.bundled import bundled
from recipes.datasets.parallel import Pairs, open_pairs
from recipes.nlp.sentence_pairs import END, START, Language, split_words
from recipes.nlp.text_classification.encoding import UNKNOWN
from recipes.nlp.words import nearest

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")


@dataclass
class EncodedArticles:
    """Articles and summaries as numbers; asked for many at a time, it pads both to their longest.

    A word that the vocabulary lacks is numbered within its article: the first one that the article has is
    `len(language)`, the next one follows. Its summary uses these numbers too. A word that neither has is UNKNOWN.

    Attributes:
        sources: N tensors (words,), the articles.
        targets: N tensors (words + 2,), the summaries between START and END.
        lacking: for each article the words that the vocabulary lacks, in the order of their numbers.
        language: the words of articles and summaries of the train part.
        texts: the N articles as they were read.
        truths: the N summaries as they were read.
    """

    sources: list[Tensor]
    targets: list[Tensor]
    lacking: list[list[str]]
    language: Language
    texts: list[str]
    truths: list[str]

    def __len__(self) -> int:
        return len(self.sources)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        sources, targets = ([side[index] for index in indices] for side in (self.sources, self.targets))
        return pad_sequence(sources, batch_first=True), pad_sequence(targets, batch_first=True)  # PAD is 0

    def words(self, index: int, ids: Tensor) -> list[str]:
        """The words of an article, or of its summary up to END."""
        every = self.language.words + self.lacking[index]
        return [every[one] for one in ids.tolist() if one > END or one == UNKNOWN]


def encode_articles(part: Pairs, language: Language, *, max_words: int, max_summary: int) -> EncodedArticles:
    """The first words of each article and of each summary as numbers."""
    sources, targets, lackings = [], [], []
    for article, summary in zip(part.sources, part.targets, strict=True):
        words = split_words(article)[:max_words]
        lacking = list(dict.fromkeys(word for word in words if word not in language.number))
        number = ChainMap(language.number, {word: len(language) + place for place, word in enumerate(lacking)})
        written = [number.get(word, UNKNOWN) for word in split_words(summary)[:max_summary]]
        sources.append(torch.tensor([number[word] for word in words] or [UNKNOWN]))
        targets.append(torch.tensor([START, *written, END]))
        lackings.append(lacking)
    return EncodedArticles(sources, targets, lackings, language, part.sources, part.targets)


def open_articles(
    data: str | None = None,
    *,
    source: str | None = None,
    target: str | None = None,
    limit: int | None = None,
    min_freq: int = 1,
    max_words: int = 400,
    max_summary: int = 100,
    seed: int = 0,
) -> tuple[EncodedArticles, EncodedArticles]:
    """Opens articles with their summaries as numbers: the train and the test part, with the words of train.

    Args:
        data: see `open_pairs`, as are source, target, limit and seed; the bundled articles if not given.
        min_freq: times a word must occur in train to be known.
        max_words: of an article that are read; the rest is left out.
        max_summary: words of a summary that are read; the rest is left out.

    Raises:
        InputError: see `open_pairs`; or no word occurs so often.
    """
    folder = bundled("articles") if data is None else data
    parts = open_pairs(folder, source=source, target=target, limit=limit, seed=seed)
    language = Language(parts[0].sources + parts[0].targets, min_freq)
    train_set, test_set = (
        encode_articles(part, language, max_words=max_words, max_summary=max_summary) for part in parts
    )
    return train_set, test_set


class Splitter:
    """Splits texts for ROUGE as we do, in any script; what is no word does not count."""

    def tokenize(self, text: str) -> list[str]:
        return [word for word in split_words(text) if word[0].isalnum()]


def rouge(summaries: Sequence[str], truths: Sequence[str]) -> dict[str, float]:
    """Mean F1 by rouge-score, 0 to 1: of the longest common subsequence of words, and of pairs of words."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise InputError("ROUGE needs one more package: pip install rouge-score") from None
    scorer = RougeScorer(["rougeL", "rouge2"], tokenizer=Splitter())
    scores = [scorer.score(truth, summary) for truth, summary in zip(truths, summaries, strict=True)]
    means = {kind: sum(score[kind].fmeasure for score in scores) / len(scores) for kind in ("rougeL", "rouge2")}
    return {"rouge_l": means["rougeL"], "rouge_2": means["rouge2"]}


def new_words_found(summaries: Sequence[str], train_set: EncodedArticles, test_set: EncodedArticles) -> float:
    """Of the words in the true summaries that stand nowhere in the train part, the share that is in ours."""
    seen = {word for text in train_set.texts + train_set.truths for word in split_words(text)}
    found = [
        word in set(split_words(summary))
        for summary, truth in zip(summaries, test_set.truths, strict=True)
        for word in set(split_words(truth)) - seen
    ]
    return sum(found) / len(found) if found else float("nan")


def best_plain(train_set: EncodedArticles, test_set: EncodedArticles) -> dict[str, float]:
    """The baseline: first sentences, or the summaries of the nearest train articles, whichever are better."""
    known = len(train_set.language)
    parts = [[ids.where(ids < known, UNKNOWN) for ids in part.sources] for part in (train_set, test_set)]
    answers = first_sentences(test_set), [train_set.truths[place] for place in nearest(*parts)]
    return max((rouge(found, test_set.truths) for found in answers), key=lambda scores: scores["rouge_l"])


def first_sentences(dataset: EncodedArticles) -> list[str]:
    """What is strong for real news: the first sentence of each article."""
    return [SENTENCE_END.split(text.strip(), maxsplit=1)[0] for text in dataset.texts]


def best_sentences(dataset: EncodedArticles) -> list[str]:
    """What choosing sentences could reach: of each article the one with the highest ROUGE-L, the truth being known."""
    return [
        max(filter(None, SENTENCE_END.split(text)), key=lambda sentence: rouge([sentence], [truth])["rouge_l"])
        for text, truth in zip(dataset.texts, dataset.truths, strict=True)
    ]


def draw(histories: dict[str, list[dict[str, float]]], copied: Sequence[tuple[list[str], list[str], Tensor]]) -> Any:
    """The losses, and for two articles where each word of the summary was copied from.

    Args:
        histories: of each model's training.
        copied: for each article its words, those of the summary, and how much of each of these came from which
            word of the article, (summary words, article words).
    """
    figure, axes = new_figure(1, 1 + len(copied), width=5.2, height=5.4)
    curves = [{"epoch": float(epoch)} for epoch in range(1, 1 + max(map(len, histories.values())))]
    for name, history in histories.items():
        for row, told in zip(curves, history, strict=False):
            row[name] = told["loss"]
    draw_curves(axes[0, 0], curves, list(histories))
    axes[0, 0].set(ylabel="loss (nats a word)", ylim=(0, None))
    for place, (article, summary, shares) in zip(axes[0, 1:], copied, strict=True):
        place.imshow(shares.T.cpu().numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        place.set_xticks(range(len(summary)), summary, rotation=60, ha="right", fontsize=8)
        place.set_yticks(range(len(article)), article, fontsize=7)
        place.set_title("copied, word by word", fontsize=10)
    return figure
