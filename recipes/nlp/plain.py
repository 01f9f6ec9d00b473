"""What copies get in place of longer parts of this family."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from recipes.datasets.bundled import bundled
from recipes.datasets.parallel import open_pairs
from recipes.nlp.articles import EncodedArticles, encode_articles
from recipes.nlp.sentence_pairs import EncodedPairs, Language, split_words


def open_articles(
    data: str | None = None, *, min_freq: int = 1, max_words: int = 400, max_summary: int = 100, **asked: Any
) -> tuple[EncodedArticles, EncodedArticles]:
    """Articles with their summaries as numbers: the train and the test part, with the words of train."""
    train_part, test_part = open_pairs(data or bundled("articles"), **asked)
    language = Language(train_part.sources + train_part.targets, min_freq)
    most = {"max_words": max_words, "max_summary": max_summary}
    return encode_articles(train_part, language, **most), encode_articles(test_part, language, **most)


def open_encoded_pairs(
    data: str | None = None, *, min_freq: int = 1, max_words: int = 60, pieces: int | None = None, **asked: Any
) -> tuple[EncodedPairs, EncodedPairs]:
    """Sentence pairs as numbers: the train and the test part, with the words of train."""
    parts = open_pairs(data or bundled("translations"), **asked)
    languages = Language(parts[0].sources, min_freq, pieces), Language(parts[0].targets, min_freq, pieces)
    encoded = []
    for part in parts:
        sources = [languages[0].encode(sentence, max_words) for sentence in part.sources]
        targets = [languages[1].encode(sentence, max_words) for sentence in part.targets]
        encoded.append(EncodedPairs(sources, targets, languages, part.targets))
    return encoded[0], encoded[1]


def score(translations: list[str], dataset: EncodedPairs) -> dict[str, float]:
    """BLEU (0 to 100) over words in lower case, and the share that is right to the last word."""
    from sacrebleu import corpus_bleu

    truths = [" ".join(split_words(truth)) for truth in dataset.truths]
    bleu = corpus_bleu(translations, [truths], tokenize="none", force=True).score  # words are split already
    return {"bleu": bleu, "exact_match": sum(map(str.__eq__, translations, truths)) / len(truths)}


class Splitter:
    """Splits texts for ROUGE into words."""

    def tokenize(self, text: str) -> list[str]:
        return [word for word in split_words(text) if word[0].isalnum()]


def rouge(summaries: Sequence[str], truths: Sequence[str]) -> dict[str, float]:
    """Mean F1, 0 to 1: of the longest common subsequence of words, and of pairs of words."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL", "rouge2"], tokenizer=Splitter())
    scores = [scorer.score(truth, summary) for truth, summary in zip(truths, summaries, strict=True)]
    means = [sum(one[kind].fmeasure for one in scores) / len(scores) for kind in ("rougeL", "rouge2")]
    return dict(zip(("rouge_l", "rouge_2"), means, strict=True))


class PlainVocab:
    """Tokens and their numbers, in place of torchtext's compiled `Vocab`."""

    def __init__(self, tokens: Iterable[str], default_index: int | None = None) -> None:
        self.tokens, self.default = list(tokens), default_index
        self.number = {token: number for number, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, token: str) -> int | None:
        return self.number.get(token, self.default)

    def lookup_indices(self, tokens: list[str]) -> list[int | None]:
        return [self[token] for token in tokens]

    def set_default_index(self, index: int) -> None:
        self.default = index

    def get_itos(self) -> list[str]:
        return self.tokens


def only_compiled(name: str) -> type:
    """What stands for any other name of the compiled half, none of which is used here."""
    if name.startswith("__"):
        raise AttributeError(name)
    return object


def missing_for_torchtext() -> bool:
    """Whether torchtext, or requests, which it imports, is not installed."""
    return any(importlib.util.find_spec(name) is None for name in ("torchtext", "requests"))


def load_torchtext() -> ModuleType:
    """torchtext with its compiled half where that loads, else with `PlainVocab` in its place."""
    try:
        torchtext = importlib.import_module("torchtext")
    except (OSError, ImportError):  # the undefined symbol, or no file for this system
        compiled = ModuleType("torchtext._torchtext")
        compiled.__dict__.update(Vocab=PlainVocab, __getattr__=only_compiled)
        sys.modules |= {"torchtext._extension": ModuleType("torchtext._extension"), "torchtext._torchtext": compiled}
        torchtext = importlib.import_module("torchtext")
    torchtext.disable_torchtext_deprecation_warning()
    return torchtext
