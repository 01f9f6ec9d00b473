"""Writes the bundled similarities, `similarities/train.tsv` and `similarities/test.tsv`: the same bytes on every run.

    python data/make_similarities.py [FOLDER]

A sentence is built from a plan of five parts: who did what to whom (or with what), where, and when or how. The
second sentence of a pair keeps some of these parts and replaces the others; the score is the number it keeps.
Each part has several wordings and each plan several sentence frames, so little of what agrees is said alike, and
in some pairs two people swap their parts, so what is said alike need not agree:

    The thief fooled the lawyer at the pub at noon.
    At midday, the attorney was tricked by the burglar in the bar.          5: all of it agrees
    The lawyer fooled the thief at the pub at noon.                         3: who and whom do not

The test part has frames and first names of its own, and no plan's "who did what to whom" stands in both parts.
"""

import random
import sys
from dataclasses import dataclass, replace
from pathlib import Path

SIZES = {"train": 1300, "test": 300}

# Who did, done to whom or what, where, when. Every wording of a concept stands between commas.
FRAMES = {
    "train": [
        "{who} {did} {whom} {where} {when}",
        "{when}, {who} {did} {whom} {where}",
        "{whom} was {did} by {who} {where} {when}",
        "{where}, {whom} was {did} by {who} {when}",
        "it was {who} who {did} {whom} {where} {when}",
    ],
    "test": [
        "{when}, {whom} was {did} by {who} {where}",
        "{where}, {who} {did} {whom} {when}",
        "{when}, it was {who} who {did} {whom} {where}",
    ],
}
NAMES = {"train": ["Anna", "Peter", "Laura", "Oscar", "Clara", "Simon"], "test": ["Nora", "Victor", "Ruth", "Hugo"]}
PEOPLE = """
    the doctor, the physician
    the child, the kid
    the boss, the manager, the employer
    the thief, the burglar, the robber
    the lawyer, the attorney
    the sailor, the seaman
    the cook, the chef
    the writer, the author, the novelist
    the driver, the motorist
    the guest, the visitor"""
TO_PEOPLE = """
    helped, assisted, aided
    phoned, called
    followed, pursued
    praised, applauded
    fooled, deceived, tricked
    noticed, spotted
    saved, rescued"""
THINGS = """
    the car, the automobile
    the bike, the bicycle
    the sofa, the couch
    the bag, the purse
    the cup, the mug
    the boat, the ship, the vessel
    the rug, the carpet
    the stone, the rock"""
TO_THINGS = """
    bought, purchased, acquired
    fixed, repaired, mended
    lost, mislaid
    found, discovered
    cleaned, washed
    carried, lugged"""
PLACES = """
    in the forest, in the woods
    at the shop, at the store
    in the garden, in the yard
    on the street, on the road
    at the seaside, at the beach
    at work, in the office
    at the pub, in the bar"""
TIMES = """
    at dawn, at sunrise, at daybreak
    at dusk, at sunset, at nightfall
    at noon, at midday
    in autumn, in the fall
    long ago, many years ago
    recently, lately
    often, many times"""
PARTS = ("who", "did", "whom", "where", "when")


def concepts(table: str) -> list[tuple[str, ...]]:
    """A concept a line, with all its wordings."""
    return [tuple(line.strip().split(", ")) for line in table.strip().splitlines()]


@dataclass(frozen=True)
class Plan:
    """What a sentence says; each part is a concept, the tuple of its wordings."""

    who: tuple[str, ...]
    did: tuple[str, ...]
    whom: tuple[str, ...]
    where: tuple[str, ...]
    when: tuple[str, ...]


def agreeing(one: Plan, other: Plan) -> int:
    """How many parts of two plans are the same: the score."""
    return sum(getattr(one, part) == getattr(other, part) for part in PARTS)


class Writer:
    """Draws plans and puts them into words.

    Args:
        part: "train" or "test", whose frames and names are used.
        draw: where chance comes from.
    """

    def __init__(self, part: str, draw: random.Random) -> None:
        self.part, self.draw = part, draw

    def concept(self, kind: str, about_people: bool, but: tuple[tuple[str, ...], ...] = ()) -> tuple[str, ...]:
        """A concept for that part of a plan, none of those in `but`."""
        people = kind == "who" or (kind == "whom" and about_people)
        if people and self.draw.random() < 0.25:
            pool: list[tuple[str, ...]] = [(name,) for name in NAMES[self.part]]
        elif people:
            pool = concepts(PEOPLE)
        else:
            did = TO_PEOPLE if about_people else TO_THINGS
            pool = concepts({"did": did, "whom": THINGS, "where": PLACES, "when": TIMES}[kind])
        return self.draw.choice([one for one in pool if one not in but])

    def plan(self, about_people: bool) -> Plan:
        who = self.concept("who", about_people)
        rest = {kind: self.concept(kind, about_people, (who,)) for kind in PARTS[1:]}
        return Plan(who, **rest)

    def changed(self, plan: Plan, kept: int, about_people: bool) -> Plan:
        """A plan that agrees with the given one in so many parts, drawn at random, or has two people swapped."""
        if about_people and kept <= 3 and self.draw.random() < 0.5:
            other = replace(plan, who=plan.whom, whom=plan.who)
            replaced = self.draw.sample(("did", "where", "when"), 3 - kept)
        else:
            other = plan
            replaced = self.draw.sample(PARTS, len(PARTS) - kept)
        for kind in replaced:
            new = self.concept(kind, about_people, (getattr(plan, kind), other.who, other.whom))
            other = replace(other, **{kind: new})
        return other

    def sentence(self, plan: Plan) -> str:
        wordings = {kind: self.draw.choice(getattr(plan, kind)) for kind in PARTS}
        text = self.draw.choice(FRAMES[self.part]).format(**wordings)
        return text[0].upper() + text[1:] + "."


def build(seed: int = 0) -> dict[str, list[tuple[str, str, int]]]:
    """Both parts: pairs of sentences with their score, as many pairs of each score."""
    draw = random.Random(seed)
    told: dict[tuple[tuple[str, ...], ...], str] = {}  # the part that a "who did what to whom" belongs to
    parts: dict[str, list[tuple[str, str, int]]] = {}
    for part, size in SIZES.items():
        writer = Writer(part, draw)
        pairs: list[tuple[str, str, int]] = []
        while len(pairs) < size:
            score, about_people = len(pairs) % (len(PARTS) + 1), draw.random() < 0.6
            plan = writer.plan(about_people)
            other = writer.changed(plan, score, about_people)
            cores = {(one.who, one.did, one.whom) for one in (plan, other)}
            if agreeing(plan, other) != score or any(told.get(core, part) != part for core in cores):
                continue
            first, second = writer.sentence(plan), writer.sentence(other)
            if first != second:
                told |= dict.fromkeys(cores, part)
                pairs.append((first, second, score))
        draw.shuffle(pairs)
        parts[part] = pairs
    return parts


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, pairs in build().items():
        lines = ["sentence1\tsentence2\tscore", *(f"{first}\t{second}\t{score}" for first, second, score in pairs)]
        (folder / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "similarities")
