"""From sentence pairs to batches of numbers, and from translations to a score."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.datasets.bundled import bundled
from recipes.datasets.parallel import Pairs, open_pairs
from recipes.nlp.text_classification.encoding import LETTER, PAD, SINGLE, UNKNOWN
from recipes.nlp.words import nearest

START, END = 2, 3
WORD = re.compile(rf"[{SINGLE}]|(?:{LETTER})+|[^\w\s]")  # a sign of Chinese is a word of its own


def split_words(sentence: str) -> list[str]:
    """Words and punctuation marks in lower case: "Is it you?" gives ["is", "it", "you", "?"]."""
    return WORD.findall(sentence.lower())


class Language:
    """The words of one language: those that occur `min_freq` times in its train sentences.

    With `pieces` it knows so many pieces of words at most in their place: a rare word falls into several, of which
    all but the first begin with ##.
    """

    def __init__(self, sentences: Sequence[str], min_freq: int, pieces: int | None = None) -> None:
        counts = Counter(word for sentence in sentences for word in split_words(sentence))
        known = sorted((-count, word) for word, count in counts.items() if count >= min_freq)
        if not known:
            raise InputError(f"option min_freq: no word of the train sentences occurs {min_freq} times")
        names = [word for _, word in known] if pieces is None else learned_pieces(counts, pieces)
        self.words = ["<pad>", "<unk>", "<start>", "<end>", *names]
        self.number = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, sentence: str, max_words: int) -> Tensor:
        """Numbers of its first words between START and END, (words + 2,)."""
        known = [piece for word in split_words(sentence)[:max_words] for piece in self.pieces_of(word)]
        return torch.tensor([START, *known, END])

    def pieces_of(self, word: str) -> list[int]:
        """The word's number; if it has none, those of the longest pieces that it can be read in from left to right."""
        if word in self.number or f"##{word[-1]}" not in self.number:
            return [self.number.get(word, UNKNOWN)]
        pieces, start = [], 0
        while start < len(word):
            names = ("##" * bool(start) + word[start:end] for end in range(len(word), start, -1))
            piece = next((name for name in names if name in self.number), None)
            if piece is None:
                return [UNKNOWN]
            pieces.append(self.number[piece])
            start += len(piece) - 2 * bool(start)
        return pieces

    def decode(self, ids: Tensor) -> str:
        """The words up to END, with spaces between them."""
        return " ".join(self.words[one] for one in ids.tolist() if one not in (PAD, START, END)).replace(" ##", "")


def learned_pieces(counts: Mapping[str, int], most: int) -> list[str]:
    """WordPiece: from single letters on, the pair of pieces that meets most often is joined into a new one.

    Args:
        counts: of the words.
        most: pieces in all; letters find room whatever it is.
    """
    from tokenizers import Tokenizer, models, trainers

    # Each letter gets its number beforehand: pairs that meet equally often are joined in the order of their numbers.
    letters = sorted({f"##{letter}" for word in counts for letter in word[1:]} | {word[0] for word in counts})
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    trainer = trainers.WordPieceTrainer(vocab_size=most, special_tokens=letters, show_progress=False)
    tokenizer.train_from_iterator((word for word in sorted(counts) for _ in range(counts[word])), trainer)
    number = tokenizer.get_vocab()
    return sorted(number, key=number.__getitem__)


class KnownLanguage(Language):
    """A language whose words are given, in the order of their numbers."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.number = {word: number for number, word in enumerate(words)}


@dataclass
class EncodedPairs:
    """Sentence pairs as numbers; asked for many at a time, it pads both sides to their longest.

    Attributes:
        sources, targets: N tensors (words + 2,) each.
        languages: whose words they number.
        truths: the N target sentences as they were read.
    """

    sources: list[Tensor]
    targets: list[Tensor]
    languages: tuple[Language, Language]
    truths: list[str]

    def __len__(self) -> int:
        return len(self.sources)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        sources, targets = ([side[index] for index in indices] for side in (self.sources, self.targets))
        return pad_sequence(sources, batch_first=True), pad_sequence(targets, batch_first=True)  # PAD is 0


def open_encoded_pairs(
    data: str | None = None,
    *,
    source: str | None = None,
    target: str | None = None,
    limit: int | None = None,
    min_freq: int = 1,
    max_words: int = 60,
    pieces: int | None = None,
    seed: int = 0,
) -> tuple[EncodedPairs, EncodedPairs]:
    """Opens sentence pairs as numbers: the train and the test part, with the words of train.

    Args:
        data: see `open_pairs`, as are source, target, limit and seed; the bundled translations if not given.
        min_freq: times a word must occur in train to be known.
        max_words: of a sentence that are read; the rest is left out.
        pieces: of words that each language knows at most; whole words if not given.

    Raises:
        InputError: see `open_pairs`; or no word occurs so often.
    """
    folder = bundled("translations") if data is None else data
    parts = open_pairs(folder, source=source, target=target, limit=limit, seed=seed)
    languages = Language(parts[0].sources, min_freq, pieces), Language(parts[0].targets, min_freq, pieces)

    def encoded(part: Pairs) -> EncodedPairs:
        sources = [languages[0].encode(sentence, max_words) for sentence in part.sources]
        targets = [languages[1].encode(sentence, max_words) for sentence in part.targets]
        return EncodedPairs(sources, targets, languages, part.targets)

    return encoded(parts[0]), encoded(parts[1])


def score(translations: list[str], dataset: EncodedPairs) -> dict[str, float]:
    """BLEU (0 to 100) by sacrebleu over our words in lower case, and the share that is right to the last word."""
    try:
        from sacrebleu import corpus_bleu
    except ImportError:
        raise InputError("BLEU needs one more package: pip install sacrebleu") from None
    truths = [" ".join(split_words(truth)) for truth in dataset.truths]
    right = sum(one == truth for one, truth in zip(translations, truths, strict=True))
    # Words are split already, and the full stop at the end is one of them.
    bleu = corpus_bleu(translations, [truths], tokenize="none", force=True).score
    return {"bleu": bleu, "exact_match": right / len(truths)}


def plain_scores(train_set: EncodedPairs, test_set: EncodedPairs) -> dict[str, float]:
    """The baseline: word by word, or the translations of the nearest train sentences, whichever are better."""
    language = train_set.languages[1]
    copied = [language.decode(train_set.targets[place]) for place in nearest(train_set.sources, test_set.sources)]
    answers = word_by_word(train_set, test_set), copied
    return max((score(found, test_set) for found in answers), key=lambda scores: scores["bleu"])


def word_by_word(train_set: EncodedPairs, test_set: EncodedPairs) -> list[str]:
    """For each word the one that it shares most sentences with, by Dice's 2 n(s, t) / (n(s) + n(t))."""
    together = torch.zeros(*map(len, train_set.languages))
    ones, others = together.sum(dim=1), together.sum(dim=0)
    for source, target in zip(train_set.sources, train_set.targets, strict=True):
        source, target = source.unique(), target.unique()
        together[source[:, None], target] += 1
        ones[source] += 1
        others[target] += 1
    dice = 2 * together / (ones[:, None] + others).clamp(min=1)
    dice[:, : END + 1] = 0
    partner = dice.argmax(dim=1)
    return [test_set.languages[1].decode(partner[ids[1:-1]]) for ids in test_set.sources]


def draw(result: Any, attention: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Any:
    """BLEU of all that was compared, and where the decoder attends as it translates two long sentences.

    Args:
        result: of a translation recipe.
        attention: from a sentence to its translation and the shares (translated words, source words).
    """
    bleu = {"plain method": result.baseline["bleu"], "this recipe": result.metrics["bleu"]}
    bleu |= {label: run.metrics["bleu"] for label, run in result.runs.items()}
    bleu |= {row["model"]: row["bleu"] for row in result.rows}
    figure, axes = new_figure(1, 3, width=4.6, height=4.4)
    bars = axes[0, 0].barh(list(bleu), list(bleu.values()), color="tab:blue")
    axes[0, 0].bar_label(bars, fmt="%.1f", padding=3)
    axes[0, 0].set(xlim=(0, 112), xlabel="BLEU of held-out sentences")
    axes[0, 0].invert_yaxis()
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    dataset = result.test_set
    lengths = torch.tensor([len(source) for source in dataset.sources]).clamp(max=16)
    for panel, index in zip(axes[0, 1:], lengths.argsort(descending=True, stable=True).tolist(), strict=False):
        source = dataset.sources[index]
        written, shares = attention(source)
        panel.imshow(shares.cpu().numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for axis, language, ids in zip((panel.xaxis, panel.yaxis), dataset.languages, (source, written), strict=True):
            axis.set_ticks(range(len(ids)), [language.words[one] for one in ids.tolist()], fontsize=9)
        panel.tick_params(axis="x", rotation=60)
        panel.set_title("where the decoder attends", fontsize=10)
    return figure
