"""Writes the bundled reviews, `reviews/train.csv` and `reviews/test.csv`: the same bytes on every run.

    python data/make_reviews.py [FOLDER]

A review is one to three sentences: perhaps an opening, a core that carries the opinion, perhaps a close.
The core is a frame, a sentence with gaps. A gap is filled in the polarity of the label ("main") or in the
opposite one ("other"), and either way perhaps through a negation: "the plot was far from dull". So words of
both polarities stand in reviews of both classes, and their order decides:

    The acting was superb, but the plot was far from convincing.       negative
    The plot was far from convincing, but the acting was superb.       positive

The test part has frames, nouns and names of its own, and a few opinion words that train never shows.
"""

import csv
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SIZES = {"train": 4000, "test": 1000}
POLARITIES = ("negative", "positive")
WORDS_MIN, WORDS_MAX, SENTENCES_MAX = 8, 40, 3

# Gaps of a frame: {a was} {a is} {a}    an aspect of the subject, with its verb; so too {b} and {c}
#                  {main} {other}        what an aspect is like: "very bland", "anything but bland"
#                  {main whole}          the same about the whole, where "bland" may not fit
#                  {main word}           one adjective, before a noun
#                  {main thing}          "a treat", "hardly a treat"
#                  {main verb}           what an aspect did: "impressed us", "failed to impress us"
#                  {main verdict}        a sentence of its own
#                  {subject} {name} {person} {month} {number}
FRAMES: dict[str, dict[str, list[str]]] = {
    "train": {
        "plain": [
            "The {a was} {main}, and the {b was} {main}.",
            "I found the {a} {main} and the {b} {main}.",
            "What a {main word} {subject}! The {a was} {main}.",
            "From start to finish, this {subject} was {main whole}.",
            "Honestly, the {a was} {main}, and the {b} {main verb}.",
            "The {a} {main verb}. The {b turned} out {main}, too.",
            "This {subject} was {main thing}, and the {a was} {main}.",
            "Everything about it felt {main whole}, the {a} above all.",
            "The {a was} {main}, the {b was} {main} and the {c} {main verb}.",
            "I thought the {a was} {main}. {main verdict}",
            "The whole {subject} was {main thing}. {main verdict}",
            "For me it was {main thing}: the {a} {main verb}.",
            "With its {main word} {a}, this {subject} was {main whole}.",
            "It was {main whole}, it was {main thing}, and the {a} {main verb}.",
        ],
        "contrast": [
            "The {a was} {other}, but it was {main brief whole} on the whole.",
            "The {a was} {other} and the {b was} {other}, but the {c} proved {main brief}.",
            "The {a} {other verb}, but the {b} {main brief verb}.",
            "The {a looked} {other} at first, but I found it {main brief whole}.",
            "The {a seemed} {other} at first, but the {b} proved {main brief}.",
            "The {a was} {other}. But the {b} {main brief verb}.",
            "It seemed {other whole} at first, but it turned out {main brief whole}.",
            "The {a was} {other}. In the end, though, it proved {main brief whole}.",
            "The {a was} {other}, but in the end the {b turned} out {main brief}.",
            "There was the {other word} {a}, but it was {main thing}.",
            "At first it felt {other whole}, but in the end the {b} {main brief verb}.",
            "The {a was} {other}, but this {subject} turned out {main brief whole}.",
            "It looked {other whole} at first, but it was {main thing}.",
        ],
        "concession": [
            "Although the {a was} {other brief}, it proved {main whole}.",
            "The {a turned} out {main}, although the {b was} {other brief}.",
            "Although the {a} {other brief verb}, it turned out {main whole}.",
            "The {subject} was {main whole}, although the {a} {other brief verb}.",
            "Even though the {a was} {other brief}, the {b} {main verb}.",
            "The {a} {main verb}, even though the {b was} {other brief}.",
            "Despite the {other word} {a}, the {b was} {main}.",
            "The {b was} {main} despite the {other word} {a}.",
            "Despite its {other word} {a}, this {subject} was {main thing}.",
            "It was {main thing}, although the {a was} {other brief}.",
            "Although it was {other brief whole}, the {a} {main verb}.",
            "Although {other whole} at first, it turned out {main whole}.",
            "The {a} {main verb} despite the {other word} {b}.",
            "Despite the {other word} {a}, I found it {main whole}.",
            "It was {main whole}, even though the {a} {other brief verb}.",
            "Even though I found the {a} {other brief}, it turned out {main whole}.",
            "I found it {main whole}, although it was {other thing} at first.",
        ],
        "expectation": [
            "I expected it to be {other whole}; it was {main whole}.",
            "I expected the {subject} to be {other whole}. It turned out {main whole}.",
            "We expected it to be {other whole}, but it proved {main brief whole}.",
            "I had expected {other thing}, but the {a turned} out {main}.",
            "I thought it would be {other thing}, but it was {main brief whole}.",
            "It should have been {other thing}; the {a turned} out {main}.",
            "We thought it would be {other whole}. It turned out {main whole}.",
            "It was said to be {other whole}, but it turned out {main brief whole}.",
            "The {a was} said to be {other}; I found it {main brief whole}.",
        ],
        "change": [
            "It used to be {other whole}, but now it is {main brief whole}.",
            "The {a} used to be {other}; now it is {main brief whole}.",
            "Now it is {main brief whole}; it used to be {other whole}.",
            "Years ago it used to be {other thing}. Now the {subject} is {main brief whole}.",
            "The {subject} used to be {other thing}, but now it is {main thing}.",
        ],
        "hearsay": [
            "My {person} called it {other whole}; I found it {main whole}.",
            "The reviews called it {other whole}, but it turned out {main brief whole}.",
            "I found it {main whole}, and my {person} called it {other whole}.",
            "People called it {other thing}. I found it {main whole}.",
            "My {person} called the {a} {other}; I found it {main whole}.",
        ],
        "comparison": [
            "Unlike the {other word} {subject} I had tried before, this one was {main whole}.",
            "Their last one was {other whole}, whereas this one was {main whole}.",
            "This one was {main thing}, unlike their {other word} last {subject}.",
            "The last one was {other whole}; this one turned out {main whole}.",
        ],
    },
    "test": {
        "plain": [
            "To be honest, both the {a} and the {b} were {main}.",
            "I have to say the {a was} {main}, the {b} likewise.",
            "Start with the {a}, which my {person} and I found {main}. It was {main thing}.",
            "It is {main whole}, this {subject}, and the {a} {main verb}.",
            "In short, {main thing}: the {a was} {main}.",
            "Overall the {a} {main verb} and the {b turned} out {main}.",
            "The {a}, I must say, {main verb}. {main verdict}",
        ],
        "contrast": [
            "True, the {a seemed} {other} at first, but then it proved {main brief whole}.",
            "I grant that the {a was} {other}, but for me the {b} {main brief verb}.",
            "The {a}: {other}. But the {b}? It turned out {main brief whole}.",
            "We thought the {a was} {other}, but overall it was {main brief whole}.",
            "So the {a} {other verb}. In the end, though, I found it {main brief whole}.",
            "It began with the {other word} {a}, but it proved {main brief whole} after all.",
            "The {a}, I admit, {other verb}, but it was {main thing} in the end.",
        ],
        "concession": [
            "Although we found the {a} {other brief}, the {b} {main verb}.",
            "I thought it was {main whole}, although some of it was {other brief whole}.",
            "Even though my {person} found it {other brief whole}, the {b turned} out {main}.",
            "Overall it was {main thing}, even though the {a} {other brief verb}.",
            "Despite the {other word} {a} and the {other word} {b}, it was {main whole}.",
            "We found it {main whole} despite the {other word} {b}.",
        ],
        "expectation": [
            "Before we started I expected it to be {other thing}; the {a turned} out {main}.",
            "The {a}, which we expected to be {other}, proved {main brief}.",
            "Friends said it would be {other whole}, but I found it {main brief whole}.",
            "From the photos I thought it would be {other whole}, but the {a} proved {main brief}.",
        ],
        "change": [
            "As a {subject} it used to be {other thing}, but now I find it {main brief whole}.",
            "Last year it used to be {other whole}; this time it proved {main brief whole}.",
            "These days it is {main whole}, but it used to be {other whole}.",
        ],
        "hearsay": [
            "A {person} of mine called it {other thing}, but I found the {a} {main brief}.",
            "The papers called the {a} {other}. It proved {main whole}.",
            "It turned out {main whole}; my {person} called it {other whole}.",
        ],
        "comparison": [
            "We know others; the last one was {other whole}, whereas here the {a turned} out {main}.",
            "Here the {a was} {main}, unlike the {other word} {b} of the last {subject}.",
        ],
    },
}
KINDS = {
    "plain": 64,
    "contrast": 14,
    "concession": 14,
    "expectation": 6,
    "change": 5,
    "hearsay": 6,
    "comparison": 5,
}

OPENINGS = {
    "train": [
        "My {person} recommended this {subject}.",
        "I came across {name} in {month}.",
        "We chose {name} for my {person}'s birthday.",
        "{name} is the third {subject} that I tried this year.",
        "I read about the {subject} in a magazine.",
        "I picked {name} for the price.",
        "{name} was a present from my {person}.",
        "This review is about {name}, a {subject}.",
        "We were looking for a {subject} in {month}.",
    ],
    "test": [
        "A {person} of ours suggested {name}.",
        "In {month} we needed another {subject}.",
        "A word about {name}.",
        "So this was {name}, then, a {subject}.",
        "Here is what I think of the {subject} called {name}.",
    ],
}
CLOSINGS = {
    "train": [
        "That was in {month}.",
        "My {person} was there, too.",
        "I paid the full price.",
        "We were a group of {number}.",
        "I am writing this {number} days later.",
        "Others may see it differently.",
        "I tried it only once.",
        "Ask my {person}.",
    ],
    "test": [
        "So much for {name}.",
        "Such is my view after {number} weeks.",
        "We paid like everybody else.",
        "Let me know what you think.",
    ],
}
VERDICTS = {
    "train": {
        "negative": [
            "I would never pay for it again.",
            "I cannot recommend it to anyone.",
            "I regret every penny.",
            "There is nothing here that I would praise.",
            "I would hesitate to try it again.",
            "I want my money back.",
            "Nobody should have to pay for this.",
        ],
        "positive": [
            "I would gladly pay for it again.",
            "I cannot recommend it enough.",
            "I do not regret a single penny.",
            "There is nothing here that I would change.",
            "I would not hesitate to try it again.",
            "It is worth the money.",
            "Nobody should miss this.",
        ],
    },
    "test": {
        "negative": [
            "I regret that I tried it.",
            "It is not worth the money.",
            "We cannot recommend it, sorry.",
            "We would never try it again.",
        ],
        "positive": [
            "I do not regret that I tried it.",
            "It is worth every bit of the money.",
            "We cannot recommend it enough, really.",
            "We would gladly try it again.",
        ],
    },
}


@dataclass(frozen=True)
class Field:
    """What is reviewed: nouns by part, and the adjectives that fit its aspects, by polarity.

    Aspects end in "s" exactly when they are plural.
    """

    subjects: dict[str, list[str]]
    aspects: dict[str, list[str]]
    adjectives: dict[str, list[str]]


def words(text: str) -> list[str]:
    """The entries of a list written with commas."""
    return [word.strip() for word in text.split(",")]


FIELDS = {
    "stories": Field(
        {
            "train": words("film, book, novel, play, series, musical, comedy"),
            "test": words("documentary, opera, thriller, biography, podcast"),
        },
        {
            "train": words("plot, acting, ending, dialogue, first chapter, main character, jokes, story, scenes"),
            "test": words("script, narration, opening, villain, finale, monologues, subplots"),
        },
        {
            "positive": words("gripping, witty, moving, clever, touching, entertaining"),
            "negative": words("dull, tedious, predictable, boring, clumsy, contrived"),
        },
    ),
    "places": Field(
        {
            "train": words("hotel, hostel, campsite, holiday flat, cottage, resort"),
            "test": words("guesthouse, lodge, motel, chalet, houseboat"),
        },
        {
            "train": words("room, bathroom, lobby, bedroom, balcony, kitchen, lounge, beds, showers"),
            "test": words("suite, courtyard, hallway, attic, terrace, sofas, cabins"),
        },
        {
            "positive": words("clean, comfortable, spotless, inviting, cosy, tidy"),
            "negative": words("dirty, shabby, uncomfortable, grubby, run-down, smelly"),
        },
    ),
    "food": Field(
        {
            "train": words("restaurant, canteen, pizzeria, steakhouse, tavern, tearoom"),
            "test": words("bistro, brasserie, diner, buffet, snack bar"),
        },
        {
            "train": words("soup, salad, main course, dessert, pasta, curry, starters, side dishes"),
            "test": words("risotto, chowder, pudding, fish pie, omelette, dumplings, pancakes"),
        },
        {
            "positive": words("tasty, delicious, fresh, flavourful, mouth-watering, nourishing"),
            "negative": words("bland, tasteless, greasy, inedible, overcooked, unappetising"),
        },
    ),
    "devices": Field(
        {
            "train": words("phone, laptop, printer, radio, watch, vacuum cleaner, kettle"),
            "test": words("camera, tablet, blender, projector, headset"),
        },
        {
            "train": words("screen, battery, keyboard, menu, charger, lid, buttons, cables, manual"),
            "test": words("lens, strap, handle, casing, plug, switches, hinges, dials"),
        },
        {
            "positive": words("reliable, sturdy, well-made, practical, handy, dependable"),
            "negative": words("flimsy, unreliable, fiddly, impractical, clunky, cheap-looking"),
        },
    ),
    "lessons": Field(
        {
            "train": words("course, class, guided tour, workshop, seminar, lecture"),
            "test": words("webinar, boot camp, masterclass, training day, evening school"),
        },
        {
            "train": words("teacher, guide, timetable, handouts, exercises, instructions, homework, slides"),
            "test": words("lecturer, coach, syllabus, worksheet, quizzes, examples, revision"),
        },
        {
            "positive": words("helpful, well-organised, clear, engaging, inspiring, useful"),
            "negative": words("confusing, chaotic, unhelpful, muddled, pointless, unclear"),
        },
    ),
}
SINGULAR_IN_S = {"lens", "syllabus"}

# Of every field. Strong adjectives are not graded: "utterly awful", but not "very awful".
GRADED = {
    "positive": words("good, impressive, satisfying, appealing, convincing, pleasing, likeable, nice, decent"),
    "negative": words("bad, poor, disappointing, annoying, frustrating, weak, irritating, unpleasant, shoddy"),
}
STRONG = {
    "positive": words(
        "excellent, superb, wonderful, brilliant, outstanding, fantastic, marvellous, great, perfect, ideal"
    ),
    "negative": words(
        "terrible, awful, dreadful, horrible, abysmal, appalling, atrocious, useless, hopeless, pathetic"
    ),
}
HELD_OUT = {
    "positive": words("stellar, exquisite, praiseworthy, phenomenal, top-notch, sublime"),
    "negative": words("dismal, woeful, lamentable, deplorable, second-rate, abominable"),
}
THINGS = {
    "positive": words("a delight, a pleasure, a treat, a joy, a success, a triumph, a gem, a bargain"),
    "negative": words("a disappointment, a letdown, a disaster, a mess, a failure, a waste of time, a rip-off"),
}
VERBS = {  # past, infinitive
    "positive": [
        ("impressed", "impress"),
        ("delighted", "delight"),
        ("pleased", "please"),
        ("charmed", "charm"),
        ("convinced", "convince"),
    ],
    "negative": [
        ("disappointed", "disappoint"),
        ("annoyed", "annoy"),
        ("frustrated", "frustrate"),
        ("irritated", "irritate"),
        ("bothered", "bother"),
    ],
}
QUALITIES = {
    "positive": words("charm, quality, polish, character, class"),
    "negative": words("flaws, faults, problems, shortcomings, weaknesses"),
}

GRADED_MORE = words("very, really, rather, quite, surprisingly, extremely, truly")
STRONG_MORE = words("absolutely, simply, truly, really, nothing short of, never less than")
NEGATIONS = words("not, not at all, far from, anything but, hardly, by no means, nowhere near, not in the least")
BRIEF_NEGATIONS = words("hardly, far from")
THING_NEGATIONS = words("hardly, far from, anything but, by no means, not")

PEOPLE = {
    "train": words("sister, brother, neighbour, cousin, boss, flatmate, father, aunt"),
    "test": words("nephew, uncle, landlord, dentist, godmother"),
}
MONTHS = words("January, February, March, April, May, June, July, August, September, October, November, December")
NUMBERS = words("two, three, four, five, six, seven, eight, nine, ten, twelve")

NEGATED = {"main": 0.14, "other": 0.06}
COORDINATED = 0.15


@dataclass(frozen=True)
class Review:
    """A text, its label, and the frames that it was made from, the core first."""

    text: str
    label: str
    frames: tuple[str, ...]


def opposite(polarity: str) -> str:
    return POLARITIES[1 - POLARITIES.index(polarity)]


class Writer:
    """Fills the gaps of one review; no opinion word and no aspect comes twice.

    Args:
        part: "train" or "test", whose nouns are used.
        label: polarity of the gaps called main.
        draw: where chance comes from.
    """

    def __init__(self, part: str, label: str, draw: random.Random):
        self.part, self.label, self.draw = part, label, draw
        field = FIELDS[draw.choice(list(FIELDS))]
        self.adjectives = field.adjectives
        self.subject = draw.choice(field.subjects[part])
        self.aspects = dict(zip("abc", draw.sample(field.aspects[part], 3), strict=True))
        self.person = draw.choice(PEOPLE[part])
        self.name = made_up_name(draw, part)
        self.used: set[str] = set()

    def fresh(self, entries: Sequence[str]) -> str:
        """One of the entries that this review has not used yet."""
        entry = self.draw.choice([entry for entry in entries if entry not in self.used])
        self.used.add(entry)
        return entry

    def negated(self, polarity: str) -> bool:
        return self.draw.random() < NEGATED["main" if polarity == self.label else "other"]

    def adjective(self, polarity: str, whole: bool) -> str:
        pools = [GRADED[polarity], STRONG[polarity]] + ([] if whole else [self.adjectives[polarity]] * 2)
        return self.fresh(self.draw.choice(pools))

    def opinion(self, polarity: str, whole: bool, brief: bool) -> str:
        """What something is like: graded, negated, or two adjectives together; two words if brief."""
        negated = self.negated(polarity)
        spoken = opposite(polarity) if negated else polarity
        first = self.adjective(spoken, whole)
        if self.draw.random() < COORDINATED:
            # An unseen word never stands alone: its neighbour, which train has seen, tells its polarity.
            unseen = self.part == "test" and self.draw.random() < 0.7
            second = self.fresh(HELD_OUT[spoken]) if unseen else self.adjective(spoken, whole)
            return f"neither {first} nor {second}" if negated else f"{first} and {second}"
        if negated:
            return f"{self.draw.choice(BRIEF_NEGATIONS if brief else NEGATIONS)} {first}"
        if self.draw.random() < 0.5:
            stronger = STRONG_MORE if first in STRONG[spoken] else GRADED_MORE
            return f"{self.draw.choice([more for more in stronger if not brief or ' ' not in more])} {first}"
        return first

    def thing(self, polarity: str) -> str:
        if self.negated(polarity):
            return f"{self.draw.choice(THING_NEGATIONS)} {self.fresh(THINGS[opposite(polarity)])}"
        return self.fresh(THINGS[polarity])

    def verb(self, polarity: str, brief: bool) -> str:
        """What something did; past tense, so that it fits one and many."""
        whom = self.draw.choice(["me", "us"])
        negated = self.negated(polarity)
        spoken = opposite(polarity) if negated else polarity
        if not brief and self.draw.random() < 0.3:
            quality = self.fresh(QUALITIES[spoken])
            if spoken == "positive":
                return self.draw.choice(
                    [f"had no {quality}", f"lacked {quality}"]
                    if negated
                    else [f"had real {quality}", f"had no lack of {quality}"]
                )
            return self.draw.choice(
                [f"had no {quality}", f"came without {quality}"]
                if negated
                else [f"had many {quality}", f"came with {quality}"]
            )
        past, infinitive = self.draw.choice([pair for pair in VERBS[spoken] if pair[0] not in self.used])
        self.used.add(past)
        if not negated:
            return f"{self.draw.choice(['', 'really ', 'truly '])}{past} {whom}"
        forms = [f"never {past} {whom}", f"hardly {past} {whom}"]
        if not brief:
            forms.append(f"did not {infinitive} {whom}")
            if spoken == "positive":
                forms.append(f"failed to {infinitive} {whom}")
        return self.draw.choice(forms)

    def gap(self, content: str) -> str:
        """The filling of one gap, given what stands between its braces."""
        head, _, tail = content.partition(" ")
        if head in self.aspects:
            aspect = self.aspects[head]
            plural = aspect.endswith("s") and aspect not in SINGULAR_IN_S
            tail = {"was": "were", "is": "are"}.get(tail, tail) if plural else tail
            return f"{aspect} {tail}".strip()
        if head in ("main", "other"):
            polarity = self.label if head == "main" else opposite(self.label)
            if tail == "verdict":
                return self.draw.choice(VERDICTS[self.part][polarity])
            if tail == "word":
                return self.adjective(polarity, whole=True)
            if tail == "thing":
                return self.thing(polarity)
            brief = "brief" in tail
            if tail.endswith("verb"):
                return self.verb(polarity, brief)
            return self.opinion(polarity, "whole" in tail, brief)
        if head == "month":
            return self.draw.choice(MONTHS)
        if head == "number":
            return self.draw.choice(NUMBERS)
        return {"subject": self.subject, "person": self.person, "name": self.name}[head]

    def fill(self, frame: str) -> str:
        """The frame with its gaps filled, "a" before a vowel put right, sentences begun with a capital."""
        text = re.sub(r"\{([^}]*)\}", lambda match: self.gap(match[1]), frame)
        text = re.sub(r"\b([Aa]) (?=[aeio]|un|u[gr])", r"\1n ", text)
        return text[0].upper() + text[1:]


def made_up_name(draw: random.Random, part: str) -> str:
    """A name that nothing bears; those of the two parts differ in their first syllable."""
    first = {"train": "Vel Cor Bram Tol Sar Min Dra Hol Wes Lin", "test": "Qua Zel Pim Gor Fen"}[part]
    return "".join(
        draw.choice(syllables.split())
        for syllables in (first, "da mo ri va ne lo ka stu", "ra ton li mar ville ny na dor ges")
    )


def write_review(part: str, label: str, draw: random.Random) -> Review:
    writer = Writer(part, label, draw)
    kind = draw.choices(list(KINDS), weights=list(KINDS.values()))[0]
    core = draw.choice(FRAMES[part][kind])
    frames, sentences = [core], [writer.fill(core)]
    if draw.random() < 0.5:
        frames.append(draw.choice(OPENINGS[part]))
        sentences.insert(0, writer.fill(frames[-1]))
    if draw.random() < 0.3:
        frames.append(draw.choice(CLOSINGS[part]))
        sentences.append(writer.fill(frames[-1]))
    return Review(" ".join(sentences), label, tuple(frames))


def build(seed: int = 0) -> dict[str, list[Review]]:
    """Both parts: as many reviews of either class, no text twice."""
    draw = random.Random(seed)
    seen: set[str] = set()
    parts: dict[str, list[Review]] = {}
    for part, size in SIZES.items():
        reviews: list[Review] = []
        while len(reviews) < size:
            review = write_review(part, POLARITIES[len(reviews) % 2], draw)
            fits = (
                WORDS_MIN <= len(review.text.split()) <= WORDS_MAX
                and len(re.findall(r"[.!?](?: |$)", review.text)) <= SENTENCES_MAX
            )
            if fits and review.text not in seen:
                seen.add(review.text)
                reviews.append(review)
        draw.shuffle(reviews)
        parts[part] = reviews
    return parts


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, reviews in build().items():
        with open(folder / f"{part}.csv", "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["text", "label"])
            table.writerows((review.text, review.label) for review in reviews)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "reviews")
