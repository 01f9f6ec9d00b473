"""Writes the bundled entities, `entities/train.conll` and `entities/test.conll`: the same bytes on every run.

    python data/make_entities.py [FOLDER]

News in a sentence, a word and its tag a line, with people (PER), places (LOC) and organisations (ORG). One and the
same made-up name may stand for any of them, and what is around it decides:

    Harwick said no more on Friday .          a person
    It rained in Harwick on Friday .          a place
    Harwick sold 300 shops on Friday .        an organisation

Weekdays, months and languages have capitals and are no entities. The test part says of each subject what
train never says of it, and half of its names are new: syllables that train has, but never together.
"""

import random
import re
import sys
from pathlib import Path


def words(text: str) -> list[str]:
    """The entries of a list written with commas."""
    return text.split(", ")


SIZES = {"train": 1100, "test": 280}
OPENINGS = "|||On {day} ,|In {month} ,|According to {per} ,|According to {org} ,|In {loc} ,|Near {loc} ,|As expected ,"
# Of what sort a subject is, how it may be put, and what is said of it.
SUBJECTS = {
    "person": "{per}|{per}|{per} , a {job} from {loc} ,|the {job} {per}|Mr {last}|Dr {last}|{per} of {org}|"
    "the sister of {per}|the {job}|the {lang} {job}|{per} and {per}",
    "firm": "{org}|{org}|the {lang} firm {org}|{org} , based in {loc} ,|a spokesman for {org}|the director of {org}|"
    "workers at {org}|customers of {org}",
    "town": "{loc}|{loc}|the {lang} town of {loc}|the mayor of {loc}|people in {loc}|the road to {loc}",
}
STATEMENTS = {
    "person": "moved to {loc}|grew up in {loc}|worked for {org}|met {per}|wrote to {per}|wrote to {org}|"
    "flew from {loc} to {loc}|joined {org}|said no more|{did}|asked {org} for help|spoke {lang} with {per}|"
    "founded {org}|came from {loc}|{did} and thanked {per}",
    "firm": "sold {number} shops|opened an office in {loc}|hired {per}|bought {org}|lost {number} million|left {loc}|"
    "said nothing about {per}|announced a new film|sued {org}|paid {per} for it|stopped work",
    "town": "sent aid to {loc}|waited for {per}|bought an office from {org}|welcomed {per}|made the news|"
    "lost {number} schools|had no doctor|gave {org} a prize",
}
TAILS = "||||on {day}|in {month}|last {month}|near {loc}|with {per}|, said {per}|, {per} said|after {number} days"
FILLINGS = {
    "job": "painter, teacher, lawyer, singer, farmer, nurse, pilot, chemist, swimmer, banker, journalist, judge",
    "did": "died, resigned, won a prize, lost the case, retired, fell ill, gave a speech, came home, won again",
    "day": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
    "month": "January, February, March, April, June, July, August, September, October, November, December",
    "lang": "French, German, Spanish, Polish, Dutch, Greek, Danish, Irish",
    "number": "two, three, seven, nine, 12, 20, 40, 300",
}
FIRST_NAMES = words(
    "Anna, Peter, Laura, Martin, Julia, Robert, Emma, Oscar, Clara, Simon, Maria, David, Sophie, Thomas, Alice, "
    "Henry, Rosa, Albert, Judith, Frank, Irene, George, Hannah, Leo, Vera, Philip"
)
STARTS = "Har Ben Cal Dor El Gar Hal Ker Lan Mar Nor Ol Pen Rad Sel Tar Un Wel Bra Cro Fre Gri Ple Sta"
ENDINGS = "wick ton ley worth ford by ham mere dale ster man son more stead land field"
# What makes a place or an organisation of a made-up name.
LOC_FORMS = ["{x} Bay", "{x} Hill", "{x} Falls", "Port {x}", "Lake {x}", "New {x}"]
ORG_FORMS = ["{x} Bank", "{x} Motors", "{x} & {x}", "{x} and Sons", "University of {x}", "{x} Museum", "{x} Press"]
KNOWN = 40  # names that come again and again, at most
SHARE_KNOWN = {"train": 0.5, "test": 0.5}


def made_up(part: str, draw: random.Random) -> str:
    """A name of two syllables; a third of the pairs of syllables belongs to the test part."""
    starts, endings = STARTS.split(), ENDINGS.split()
    while True:
        start, ending = draw.randrange(len(starts)), draw.randrange(len(endings))
        if ((start + ending) % 3 == 0) == (part == "test"):
            return starts[start] + endings[ending]


class Writer:
    """Fills frames with names and other words; every word comes with its tag.

    Args:
        part: "train" or "test", whose frames and names are used.
        known: names that both parts use.
        draw: where chance comes from.
    """

    def __init__(self, part: str, known: list[str], draw: random.Random) -> None:
        self.part, self.known, self.draw = part, known, draw

    def name(self) -> str:
        known = self.draw.random() < SHARE_KNOWN[self.part]
        return self.draw.choice(self.known) if known else made_up(self.part, self.draw)

    def form(self, forms: list[str], plain: float) -> str:
        """The name alone, in so many cases, or in one of the forms."""
        chosen = "{x}" if self.draw.random() < plain else self.draw.choice(forms)
        return re.sub(r"\{x\}", lambda _: self.name(), chosen)

    def entity(self, kind: str) -> str:
        if kind == "last":  # after Mr or Dr
            return self.name()
        if kind == "per":
            first = self.draw.choice(FIRST_NAMES)
            return self.draw.choice([f"{first} {self.name()}", f"{first} {self.name()}", self.name(), first])
        if kind == "loc":
            return self.form(LOC_FORMS, plain=0.6)
        return self.form(ORG_FORMS, plain=0.4)

    def frame(self) -> str:
        """A sentence with gaps; a fourth of the pairs of subject and statement belongs to the test part."""
        while True:
            sort = self.draw.choice(sorted(SUBJECTS))
            subjects, statements = SUBJECTS[sort].split("|"), STATEMENTS[sort].split("|")
            subject, statement = self.draw.randrange(len(subjects)), self.draw.randrange(len(statements))
            if ((subject + statement) % 4 == 0) == (self.part == "test"):
                ends = self.draw.choice(OPENINGS.split("|")), self.draw.choice(TAILS.split("|"))
                return " ".join([ends[0], subjects[subject], statements[statement], ends[1], "."])

    def sentence(self) -> list[tuple[str, str]]:
        """Words with their tags; the first one begins with a capital."""
        tagged: list[tuple[str, str]] = []
        for slot in self.frame().split():
            kind = slot[1:-1] if slot.startswith("{") else ""
            if kind in FILLINGS:
                tagged += [(word, "O") for word in self.draw.choice(words(FILLINGS[kind])).split()]
            elif kind:
                tag = "PER" if kind == "last" else kind.upper()
                name = self.entity(kind).split()
                tagged += [(word, f"{'BI'[place > 0]}-{tag}") for place, word in enumerate(name)]
            else:
                tagged.append((slot, "O"))
        first, tag = tagged[0]
        return [(first[0].upper() + first[1:], tag), *tagged[1:]]


def build(seed: int = 0) -> dict[str, list[list[tuple[str, str]]]]:
    """Both parts, no sentence twice."""
    draw = random.Random(seed)
    known = sorted({made_up("train", draw) for _ in range(KNOWN)})
    parts: dict[str, list[list[tuple[str, str]]]] = {}
    for part, size in SIZES.items():
        writer = Writer(part, known, draw)
        sentences: dict[tuple[tuple[str, str], ...], None] = {}
        while len(sentences) < size:
            sentences[tuple(writer.sentence())] = None
        parts[part] = [list(sentence) for sentence in sentences]
    return parts


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, sentences in build().items():
        blocks = ["".join(f"{word}\t{tag}\n" for word, tag in sentence) for sentence in sentences]
        (folder / f"{part}.conll").write_text("\n".join(blocks), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "entities")
