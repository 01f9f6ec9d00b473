"""Writes the bundled entities, `entities/train.conll` and `entities/test.conll`: the same bytes on every run.

    python data/make_entities.py [FOLDER]

News in a sentence, a word and its tag a line, with people (PER), places (LOC) and organizations (ORG). The same
made-up name may be any of them, and what decides usually stands several words away:

    Harwick , after a long night of talks , fell ill .                  a person
    Harwick , after a long night of talks , raised its prices .         an organization
    Six towns asked for help on Friday : Dorley , Calford and Harwick . places
    Harwick and Dorley , to nobody's surprise , got married .           two people
    Harwick and Dorley , to nobody's surprise , went bankrupt .         one organization
    The painter Dorley and the town of Harwick are in the news , and little is known of Harwick .   the place

In the test part cues are joined to wordings that train never joins them to, and half of the made-up names are new:
syllables that train has, but never together. Weekdays, months and languages have capitals and are no entities.
"""

import random
import sys
from collections.abc import Sequence
from pathlib import Path


def words(text: str) -> list[str]:
    """The entries of a list written with commas."""
    return text.split(", ")


SIZES = {"train": 2000, "test": 500}
KINDS = ("per", "loc", "org")
# What is said of a name, by kind: after a clause that says nothing of it, or by a clause before it.
PREDICATES = {
    "per": "resigned|fell ill|got married|wrote a second novel|broke a leg|won the race|sang for the children|"
    "thanked the doctors|learned {lang}|married a {job}|went to bed early|turned forty|died|gave a speech|came home|"
    "lost two teeth",
    "loc": "was flooded|lies under snow|has no hospital|elected a mayor|got a second bridge|was cut off by snow|"
    "had {number} inhabitants|was rebuilt by hand|woke to clear skies|is famous for its castle|lost its only harbor|"
    "celebrated the harvest|has run out of water|was shaken by an earthquake|closed its beaches|swept its streets",
    "org": "raised its prices|hired {number} people|went bankrupt|sold its shares|paid no dividend|was fined for fraud|"
    "recalled {number} cars|opened a second factory|reported record profits|sued a rival|changed its board|"
    "lost {number} customers|was bought by a rival|launched a product|cut {number} jobs|moved its head office",
}
LEADS = {
    "per": "With a broken arm and a fever|Born to poor farmers|Known for three novels and a film|Wearing a red coat|"
    "Asked about the divorce|Elected judge|Raised by two aunts|Engaged to a {job}",
    "loc": "With its streets under water|Built on two hills|Famous for its castle|With {number} houses and a school|"
    "Cut off by snow|Shaken by an earthquake|Surrounded by forests|Without a road or a bridge",
    "org": "With its shares at a record low|Founded to sell bicycles|Fined for fraud|Owned by two rivals|"
    "With {number} employees and no profits|Short of customers|Sued over its prices|With a factory for sale",
}
PLURALS = {  # of names that are listed
    "per": "painters, teachers, singers, farmers, nurses, pilots, chemists, lawyers",
    "loc": "towns, villages, cities, islands, harbors, resorts, valleys, districts",
    "org": "banks, firms, airlines, breweries, publishers, newspapers, insurers, shipyards",
}
TOGETHER = {  # said of several people or places; of an organization whose name is several joined, PREDICATES
    "per": "got married|resigned|fell ill|sang for the children|gave speeches|came home|won prizes|thanked the doctors",
    "loc": "were flooded|have no hospital|lie under snow|closed their beaches|elected mayors|were cut off by snow|"
    "are famous for their castles|have run out of water",
}
# What says nothing of a name's kind.
CLAUSES = (
    "after a long night of talks|to nobody's surprise|as the papers wrote on {day}|for the second time in {month}|"
    "after {number} days of rumors|much later than expected|so the evening news reported|according to a {lang} paper"
)
MOMENTS = "on {day}|since {month}|last week|once more|for {number} weeks now|in {month}|as usual|at the time"
ENDS = (
    "is in the news again|made headlines on {day}|drew little attention|had to wait until {month}|"
    "surprised everyone|was named in the report|got help at last|has been much discussed"
)
LISTED = (
    "were named in the report|asked for help on {day}|made headlines in {month}|have waited for {number} weeks|"
    "are in the news again|will be discussed on {day}|got letters from the minister|have been praised by a {lang} paper"
)
AGAIN = (
    "and little is known of|and on {day} everyone asked about|but no one in {month} had heard of|and a {lang} film is "
    "planned about|but the news in {month} was about|and the paper has printed a picture of|yet few remember|and in "
    "{month} there was more to hear of"
)
BOTH = (
    "are in the news|made headlines on {day}|were named in the report|have been much discussed|drew little attention|"
    "surprised everyone in {month}|got help at last|had to wait"
)
INTRODUCED = {
    "per": "the {job} {x}|{first} {x}|Mr {x}|Dr {x}",
    "loc": "the town of {x}|{x} Bay|the village of {x}|Port {x}",
    "org": "the firm {x}|{x} Motors|the bank {x}|University of {x}",
}
OPENINGS = ("", "", "", "", "On {day} ,", "In {month} ,", "As expected ,", "This week ,")
FILLINGS = {
    "job": "painter, teacher, singer, farmer, nurse, pilot, chemist, lawyer",
    "day": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
    "month": "January, February, March, April, June, July, August, September, October, November, December",
    "lang": "French, German, Spanish, Polish, Dutch, Greek, Danish, Irish",
    "number": "two, three, six, seven, nine, 12, 20, 40, 300",
    "first": "Anna, Peter, Laura, Martin, Julia, Robert, Emma, Oscar, Clara, Simon, Maria, David, Sophie, Thomas, "
    "Alice, Henry, Rosa, Albert, Judith, Frank, Irene, George, Hannah, Leo, Vera, Philip",
}
STARTS = words("Har, Ben, Cal, Dor, El, Gar, Hal, Ker, Lan, Mar, Nor, Ol, Pen, Rad, Sel, Tar, Un, Wel, Bra, Cro, Fre")
STARTS += ["Gri", "Ple", "Sta"]
ENDINGS = words("wick, ton, ley, worth, ford, by, ham, mere, dale, ster, man, son, more, stead, land, field")
JOINS = ", while|, but|; meanwhile ,|; on the same day ,"
WEIGHTS = (25, 15, 25, 10, 15, 10)
SHARE_JOINED = 0.8
KNOWN = 40  # names that come again and again, at most
SHARE_KNOWN = 0.5
Tagged = list[tuple[str, str]]


def made_up(part: str, draw: random.Random) -> str:
    """A name of two syllables; a third of the pairs of syllables belongs to the test part."""
    while True:
        start, ending = draw.randrange(len(STARTS)), draw.randrange(len(ENDINGS))
        if ((start + ending) % 3 == 0) == (part == "test"):
            return STARTS[start] + ENDINGS[ending]


class Writer:
    """Writes sentences; every word comes with its tag.

    Args:
        part: "train" or "test", whose pairs of wordings and whose names are used.
        known: names that both parts use.
        draw: where chance comes from.
    """

    def __init__(self, part: str, known: list[str], draw: random.Random) -> None:
        self.part, self.known, self.draw = part, known, draw

    def name(self) -> str:
        known = self.draw.random() < SHARE_KNOWN
        return self.draw.choice(self.known) if known else made_up(self.part, self.draw)

    def names(self, count: int) -> list[str]:
        """So many names, no two alike."""
        found: dict[str, None] = {}
        while len(found) < count:
            found[self.name()] = None
        return list(found)

    def pair(self, cues: Sequence[str], wordings: Sequence[str]) -> tuple[str, str]:
        """One of each; a fourth of the pairs belongs to the test part."""
        while True:
            cue, wording = self.draw.randrange(len(cues)), self.draw.randrange(len(wordings))
            if ((cue + wording) % 4 == 0) == (self.part == "test"):
                return cues[cue], wordings[wording]

    def plain(self, text: str) -> Tagged:
        """Words that are no entities, each gap filled."""
        return [
            (self.draw.choice(words(FILLINGS[word[1:-1]])) if word[0] == "{" else word, "O") for word in text.split()
        ]

    def introduced(self, kind: str, name: str) -> Tagged:
        """A name with what tells its kind: some of these words belong to the entity."""
        form = self.draw.choice(INTRODUCED[kind].split("|")).replace("{x}", name)
        tagged = self.plain(form)
        start = next(i for i, (word, _) in enumerate(tagged) if word[0].isupper() and word not in ("Mr", "Dr"))
        return tagged[:start] + entity(kind, [word for word, _ in tagged[start:]])

    def clause_then_predicate(self) -> Tagged:
        kind = self.draw.choice(KINDS)
        predicate, clause = self.pair(PREDICATES[kind].split("|"), CLAUSES.split("|"))
        return entity(kind, [self.name()]) + self.plain(f", {clause} , {predicate}")

    def lead_then_name(self) -> Tagged:
        kind = self.draw.choice(KINDS)
        lead, moment = self.pair(LEADS[kind].split("|"), MOMENTS.split("|"))
        end = self.draw.choice(ENDS.split("|"))
        return self.plain(f"{lead} {moment} ,") + entity(kind, [self.name()]) + self.plain(end)

    def list_of_names(self) -> Tagged:
        kind = self.draw.choice(KINDS)
        plural, wording = self.pair(words(PLURALS[kind]), LISTED.split("|"))
        listed = enumeration(kind, self.names(self.draw.choice((2, 3, 3, 4))))
        if self.draw.random() < 0.5:
            return self.plain(f"{{number}} {plural} {wording} :") + listed
        return listed + self.plain(f"{wording} along with other {plural}")

    def one_or_several(self) -> Tagged:
        """Names joined by "and": several people, several places, or one organization."""
        kind, names = self.draw.choice(KINDS), self.names(self.draw.choice((2, 2, 3)))
        joined = enumeration(kind, names)
        if kind == "org":
            joined = entity(kind, [word for word, _ in joined])
        predicate, clause = self.pair((PREDICATES | TOGETHER)[kind].split("|"), CLAUSES.split("|"))
        return joined + self.plain(f", {clause} , {predicate}")

    def mentioned_again(self) -> Tagged:
        kinds, names = self.draw.sample(KINDS, 2), self.names(2)
        again, both = self.pair(AGAIN.split("|"), BOTH.split("|"))
        which = self.draw.randrange(2)
        first, second = (self.introduced(kind, name) for kind, name in zip(kinds, names, strict=True))
        return [
            *first,
            ("and", "O"),
            *second,
            *self.plain(f"{both} , {again}"),
            *entity(kinds[which], [names[which]]),
        ]

    def told_at_once(self) -> Tagged:
        """A name that its neighbors tell."""
        kind = self.draw.choice(KINDS)
        predicate, opening = self.pair(PREDICATES[kind].split("|"), OPENINGS)
        return self.plain(opening) + self.introduced(kind, self.name()) + self.plain(predicate)

    def sentence(self) -> Tagged:
        """Words with their tags; the first one begins with a capital."""
        far = [self.clause_then_predicate, self.lead_then_name, self.one_or_several, self.list_of_names]
        (chosen,) = self.draw.choices((*far, self.mentioned_again, self.told_at_once), WEIGHTS)
        tagged = chosen()
        if chosen in far and self.draw.random() < SHARE_JOINED:
            (other,) = self.draw.choices(far, WEIGHTS[:4])
            tagged += [*self.plain(self.draw.choice(JOINS.split("|"))), *lower(other())]
        (first, tag), *rest = tagged
        return [(first[0].upper() + first[1:], tag), *rest, (".", "O")]


def lower(tagged: Tagged) -> Tagged:
    """The words as they stand in the middle of a sentence."""
    (first, tag), *rest = tagged
    return [(first.lower() if tag == "O" else first, tag), *rest]


def entity(kind: str, name: list[str]) -> Tagged:
    return [(word, f"{'BI'[position > 0]}-{kind.upper()}") for position, word in enumerate(name)]


def enumeration(kind: str, names: list[str]) -> Tagged:
    """One and another; one, another and a third."""
    tagged = entity(kind, [names[0]])
    for name in names[1:-1]:
        tagged += [(",", "O"), *entity(kind, [name])]
    return [*tagged, ("and", "O"), *entity(kind, [names[-1]])]


def build(seed: int = 0) -> dict[str, list[Tagged]]:
    """Both parts, no sentence twice."""
    draw = random.Random(seed)
    known = sorted({made_up("train", draw) for _ in range(KNOWN)})
    parts: dict[str, list[Tagged]] = {}
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
