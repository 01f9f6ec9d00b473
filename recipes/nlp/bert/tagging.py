"""From tagged words to batches of pieces and back, entities counted, and a classifier that looks through a window."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.datasets.tagged_words import TaggedWords, spans_of, well_formed
from recipes.nlp.bert.encoder import Start
from recipes.nlp.bert.subwords import Subwords

NO_TAG = -100  # pieces that are not the first of a word, which the loss leaves out


@dataclass
class TaggedPieces:
    """Tagged words as numbers; asked for many sentences at a time, it pads them to the longest.

    Attributes:
        ids: N tensors (pieces,).
        owners: N tensors (pieces,), the word that a piece is the first of; -1 elsewhere.
        tags: N tensors (pieces,), an index into `names` at the first piece of each word; NO_TAG elsewhere.
        names: of the tags: O, then B- and I- of each kind.
        vocabulary: of the pieces.
        config: of the encoder that reads them, see `encoder_from`.
        part: as it was read.
    """

    ids: list[Tensor]
    owners: list[Tensor]
    tags: list[Tensor]
    names: list[str]
    vocabulary: Subwords
    config: dict[str, Any]
    part: TaggedWords

    @property
    def pad(self) -> int:
        return self.vocabulary.pad

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        ids, tags = ([side[index] for index in indices] for side in (self.ids, self.tags))
        padded = pad_sequence(ids, batch_first=True, padding_value=self.pad)
        return padded, pad_sequence(tags, batch_first=True, padding_value=NO_TAG)  # both (batch, pieces)

    def tagged(self, logits: Sequence[Tensor], steps: Tensor | None = None) -> list[list[str]]:
        """The tags of each sentence's words, given logits (pieces or more, tags) for each sentence."""
        return [
            word_tags(scores, owners, len(words), self.names, steps)
            for words, owners, scores in zip(self.part.words, self.owners, logits, strict=True)
        ]


def word_tags(logits: Tensor, owners: Tensor, count: int, names: Sequence[str], steps: Tensor | None) -> list[str]:
    """The tag of each of `count` words; O for words that were cut off.

    Args:
        logits: (pieces or more, tags) of a sentence.
        owners: (pieces,), the word that a piece is the first of; -1 elsewhere.
        count: words of the sentence.
        names: of the tags.
        steps: for the likeliest sequence, see `best_sequence`; if None, each word gets its own likeliest tag.
    """
    first = owners >= 0
    scores = logits[: len(owners)][first].float()  # (words, tags)
    chosen = scores.argmax(dim=1).tolist() if steps is None else best_sequence(scores, steps)
    tags = ["O"] * count
    for owner, tag in zip(owners[first].tolist(), chosen, strict=True):
        tags[owner] = names[tag]
    return tags


def best_sequence(scores: Tensor, steps: Tensor) -> list[int]:
    """The sequence of tags with the highest sum of scores and steps, by Viterbi's algorithm.

    Args:
        scores: (words, tags).
        steps: (tags + 1, tags): the score of tag `column` after tag `row`; the last row is for the first word.
    """
    if not len(scores):
        return []
    best, origins = steps[-1] + scores[0], []  # best: (tags,), the highest sum of a sequence that ends in each tag
    for score in scores[1:]:
        best, origin = (best[:, None] + steps[:-1]).max(dim=0)  # origin: for each tag, the tag before it
        best = best + score
        origins.append(origin.tolist())
    sequence = [int(best.argmax())]
    for origin in reversed(origins):
        sequence.append(origin[sequence[-1]])
    return sequence[::-1]


def encode_tags(part: TaggedWords, start: Start, max_pieces: int) -> TaggedPieces:
    """The words as pieces, each word's tag at its first one; a kind that train does not have is learned as O."""
    names = ["O", *(f"{prefix}-{kind}" for kind in part.kinds for prefix in "BI")]
    number = {name: index for index, name in enumerate(names)}
    encoded = TaggedPieces([], [], [], names, start.subwords, start.config, part)
    for words, tags in zip(part.words, part.tags, strict=True):
        ids, owners = encode_words(words, start.subwords, max_pieces)
        encoded.ids.append(ids)
        encoded.owners.append(owners)
        kept = iter(well_formed([tags[one] for one in owners.tolist() if one >= 0]))  # a control letter has no piece
        found = [NO_TAG if one < 0 else number.get(next(kept), 0) for one in owners.tolist()]
        encoded.tags.append(torch.tensor(found))
    return encoded


def encode_words(words: list[str], subwords: Subwords, max_pieces: int) -> tuple[Tensor, Tensor]:
    """A sentence's pieces (pieces,), `max_pieces` at most, and the word that each is the first of (-1: of none)."""
    encoding = subwords.tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_pieces)
    of = [-1 if word is None else word for word in encoding.word_ids()]  # the word that each piece belongs to
    owners = [word if word != last else -1 for last, word in zip([-1, *of], of, strict=False)]
    return torch.tensor(encoding["input_ids"]), torch.tensor(owners)


def entity_scores(predicted: Sequence[list[str]], truth: Sequence[list[str]]) -> dict[str, float]:
    """F1, precision and recall of entities; one counts only if its first word, last word and kind are all right."""
    found, true = (
        {(row, *span) for row, tags in enumerate(side) for span in spans_of(tags)} for side in (predicted, truth)
    )
    hits = len(found & true)
    precision, recall = hits / max(len(found), 1), hits / max(len(true), 1)
    return {"f1": 2 * hits / max(len(found) + len(true), 1), "precision": precision, "recall": recall}


def window_classifier(train_part: TaggedWords, part: TaggedWords, *, whole: bool = False) -> list[list[str]]:
    """The tags that a logistic regression gives each word by itself and the two words on either side.

    Args:
        train_part: to learn from.
        part: to tag.
        whole: let it see also which words stand anywhere before the word, and which anywhere after it.
    """
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    classifier = make_pipeline(DictVectorizer(), LogisticRegression(C=10, max_iter=300))
    features = [one for words in train_part.words for one in window_features(words, whole=whole)]
    with warnings.catch_warnings(action="ignore"):  # this many steps are enough, converged or not
        classifier.fit(features, [tag for tags in train_part.tags for tag in tags])
    return [well_formed(classifier.predict(window_features(words, whole=whole)).tolist()) for words in part.words]


def window_features(words: list[str], *, whole: bool = False) -> list[dict[str, bool]]:
    """Of each word and the two on either side: the word in lower case, its shape and its ending; capitals count."""
    padded = ["", "", *words, "", ""]
    shapes = [re.sub(r"\d+", "0", re.sub(r"[^\W\d_A-Z]+", "a", re.sub(r"[A-Z]+", "A", word))) for word in padded]
    rows = []
    for middle, word in enumerate(words, start=2):
        seen = [f"{place} {padded[middle + place].lower()}" for place in range(-2, 3)]
        seen += [f"{place} shape {shapes[middle + place]}" for place in range(-2, 3)]
        seen += [f"{place} ending {padded[middle + place][-3:]}" for place in range(-2, 3)]
        seen += [f"part {part}" for size in (2, 3, 4) for part in (word[:size], word[-size:])]
        if whole:
            seen += [f"before {one.lower()}" for one in words[: middle - 2]]
            seen += [f"after {one.lower()}" for one in words[middle - 1 :]]
        rows.append(dict.fromkeys(seen, True))
    return rows


def new_entities(train_part: TaggedWords, part: TaggedWords) -> list[list[str]]:
    """The part's tags, with those entities alone that hold a word which train never shows."""
    seen = {word for words in train_part.words for word in words}
    return entities_that(part, lambda entity: not set(entity) <= seen)


def long_entities(part: TaggedWords) -> list[list[str]]:
    """The part's tags, with those entities alone that are of two words or more."""
    return entities_that(part, lambda entity: len(entity) > 1)


def entities_that(part: TaggedWords, wanted: Callable[[list[str]], bool]) -> list[list[str]]:
    """The part's tags, O in place of the entities whose words are not `wanted`."""
    kept = []
    for words, tags in zip(part.words, part.tags, strict=True):
        row = ["O"] * len(tags)
        for start, end, _ in spans_of(tags):
            if wanted(words[start:end]):
                row[start:end] = tags[start:end]
        kept.append(row)
    return kept
