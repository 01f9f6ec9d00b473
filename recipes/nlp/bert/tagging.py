"""From tagged words to batches of pieces and back, entities counted, and baselines that look words up."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.datasets.tagged_words import TaggedWords, spans_of, well_formed
from recipes.nlp.bert.subwords import Subwords

NO_TAG = -100  # pieces that are not the first of a word, which the loss leaves out
FORBIDDEN = -1e4  # added to the score of what cannot be; finite, so that no gradient is lost


@dataclass
class TaggedPieces:
    """Tagged words as numbers; asked for many sentences at a time, it pads them to the longest.

    Attributes:
        ids: N tensors (pieces,).
        owners: N tensors (pieces,), the word that a piece is the first of; -1 elsewhere.
        tags: N tensors (pieces,), an index into `names` at the first piece of each word; NO_TAG elsewhere.
        names: of the tags: O, then B- and I- of each kind.
        vocabulary: of the pieces.
        part: as it was read.
    """

    ids: list[Tensor]
    owners: list[Tensor]
    tags: list[Tensor]
    names: list[str]
    vocabulary: Subwords
    part: TaggedWords

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        ids, tags = ([side[index] for index in indices] for side in (self.ids, self.tags))
        padded = pad_sequence(ids, batch_first=True, padding_value=self.vocabulary.pad)
        return padded, pad_sequence(tags, batch_first=True, padding_value=NO_TAG)  # both (batch, pieces)

    def tagged(self, logits: Sequence[Tensor], *, legal: bool = False) -> list[list[str]]:
        """The tag of each word, given logits (pieces or more, tags) a sentence; O for words cut off.

        Args:
            logits: one tensor a sentence.
            legal: the likeliest sequence in which every I- goes on with something; otherwise each word's likeliest.
        """
        steps = legal_steps(self.names) if legal else None
        all_tags = []
        for words, owners, scores in zip(self.part.words, self.owners, logits, strict=True):
            first = owners >= 0
            scores = scores[: len(owners)][first].float()  # (words, tags)
            chosen = scores.argmax(dim=1).tolist() if steps is None else likeliest_sequence(scores, steps)
            tags = ["O"] * len(words)
            for owner, best in zip(owners[first].tolist(), chosen, strict=True):
                tags[owner] = self.names[best]
            all_tags.append(tags)
        return all_tags


def legal_steps(names: Sequence[str]) -> Tensor:
    """What tag (row) may have what tag (column) after it: 0 if it may, FORBIDDEN at an I- that goes on with nothing."""
    rows = [[FORBIDDEN if tag[0] == "I" and tag[2:] != last[2:] else 0.0 for tag in names] for last in names]
    return torch.tensor(rows)


def likeliest_sequence(scores: Tensor, steps: Tensor) -> list[int]:
    """The legal sequence of tags with the highest sum of scores, by Viterbi's algorithm.

    Args:
        scores: (words, tags).
        steps: (tags, tags), see `legal_steps`.
    """
    best = torch.full_like(steps[0], FORBIDDEN)  # (tags,): of the sequences that end in each tag, the highest sum
    best[0] = 0  # before the first word stands an O
    origins: list[list[int]] = []  # of each tag of each word, the tag before
    for own in scores:
        best, origin = (best[:, None] + steps).max(dim=0)
        best = best + own
        origins.append(origin.tolist())
    sequence = [int(best.argmax())]
    for before in reversed(origins):
        sequence.append(before[sequence[-1]])
    return sequence[:-1][::-1]


def encode_tags(part: TaggedWords, subwords: Subwords, max_pieces: int) -> TaggedPieces:
    """The words as pieces, each word's tag at its first one; a kind that train does not have is learned as O."""
    names = ["O", *(f"{prefix}-{kind}" for kind in part.kinds for prefix in "BI")]
    number = {name: index for index, name in enumerate(names)}
    encoded = TaggedPieces([], [], [], names, subwords, part)
    for words, tags in zip(part.words, part.tags, strict=True):
        told = subwords.tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_pieces)
        of = [-1 if word is None else word for word in told.word_ids()]  # the word that each piece belongs to
        owners = [word if word != last else -1 for last, word in zip([-1, *of], of, strict=False)]
        encoded.ids.append(torch.tensor(told["input_ids"]))
        encoded.owners.append(torch.tensor(owners))
        left = iter(well_formed([tags[one] for one in owners if one >= 0]))  # a word of control letters has no piece
        encoded.tags.append(torch.tensor([NO_TAG if one < 0 else number.get(next(left), 0) for one in owners]))
    return encoded


def entity_scores(predicted: Sequence[list[str]], truth: Sequence[list[str]]) -> dict[str, float]:
    """F1, precision and recall of entities; one counts only if its first word, last word and kind are all right."""
    said, true = (
        {(row, *span) for row, tags in enumerate(side) for span in spans_of(tags)} for side in (predicted, truth)
    )
    hits = len(said & true)
    precision, recall = hits / max(len(said), 1), hits / max(len(true), 1)
    return {"f1": 2 * hits / max(len(said) + len(true), 1), "precision": precision, "recall": recall}


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


def looked_up(train_part: TaggedWords, part: TaggedWords, *, capitals: bool) -> list[list[str]]:
    """A plain tagger: each word gets the tag that it has most often in train, unknown ones O.

    Args:
        train_part: to look words up in.
        part: to tag.
        capitals: tag unknown words with a capital as the commonest kind of entity, unless they come first.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    kinds: Counter[str] = Counter()
    for words, tags in zip(train_part.words, train_part.tags, strict=True):
        kinds.update(kind for _, _, kind in spans_of(tags))
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    common = {word: max(sorted(tags), key=tags.__getitem__) for word, tags in counts.items()}
    unknown = f"I-{max(sorted(kinds), key=kinds.__getitem__)}" if capitals else "O"  # a B- where nothing goes before
    return [
        [common.get(word, unknown if place and word[:1].isupper() else "O") for place, word in enumerate(words)]
        for words in part.words
    ]
