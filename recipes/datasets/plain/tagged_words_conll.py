"""Tagged words from train.conll and test.conll: a word and its tag a line, an empty line after each sentence."""

from dataclasses import dataclass
from pathlib import Path

from recipes.datasets.bundled import bundled

PREFIXES = {"B": "B", "I": "I", "M": "I", "E": "I", "L": "I", "S": "B", "U": "B"}  # of BIO, BMES, BIOES and BILOU


@dataclass
class TaggedWords:
    """Sentences as words, each with its tag: O, or B- and I- with the kind of entity that begins or goes on."""

    words: list[list[str]]
    tags: list[list[str]]
    kinds: list[str]

    def __len__(self) -> int:
        return len(self.words)


def open_tagged_words(data: str | None = None, *, seed: int = 0) -> tuple[TaggedWords, TaggedWords]:
    """The train and the test part of a folder with train.conll and test.conll."""
    folder, parts = Path(data) if data else bundled("entities"), []
    for part in ("train", "test"):
        blocks = (folder / f"{part}.conll").read_text("utf-8").strip().split("\n\n")
        sentences = [[line.split() for line in block.split("\n")] for block in blocks]
        words = [[fields[0] for fields in sentence] for sentence in sentences]
        tags = [[PREFIXES.get(fields[-1][0], "O") + fields[-1][1:] for fields in sentence] for sentence in sentences]
        parts.append((words, [well_formed(one) for one in tags]))
    kinds = sorted({kind for tags in parts[0][1] for _, _, kind in spans_of(tags)})
    return TaggedWords(*parts[0], kinds), TaggedWords(*parts[1], kinds)


def well_formed(tags: list[str]) -> list[str]:
    """The tags, an I- that continues nothing of its kind turned into a B-."""
    before = ["O", *tags[:-1]]
    return [
        f"B{tag[1:]}" if tag[0] == "I" and last[1:] != tag[1:] else tag for last, tag in zip(before, tags, strict=True)
    ]


def spans_of(tags: list[str]) -> list[tuple[int, int, str]]:
    """First word, last word + 1 and kind of each entity."""
    ends = [*well_formed(tags), "O"]
    starts = [i for i, tag in enumerate(ends) if tag[0] == "B"]
    return [(i, next(j for j in range(i + 1, len(ends)) if ends[j][0] != "I"), ends[i][2:]) for i in starts]
