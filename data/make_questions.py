"""Writes the bundled questions, `questions/train.json` and `questions/test.json`: the same bytes on every run.

    python data/make_questions.py [FOLDER]

A paragraph tells four things about a made-up place, two with an answer of one kind and two of another, so that the
kind (a person, a year) does not say which one is asked for. Each thing is told in one of two wordings, and asked for
with the words of that one or of the other:

    Harwick Mill was started by Lauro Calton. It burned down in 1862. The head of it is Ostia Norby. Workers ...
    Who founded the mill?                       Lauro Calton
    When was it that the mill burned down?      1862

Names and numbers differ between the parts.
"""

import json
import random
import sys
from pathlib import Path

SIZES = {"train": 74, "test": 24}  # paragraphs

# For each kind of answer the things that can be told, each in two wordings, then two that ask for it; the first
# that asks shares words with the first that tells, the second with the second. {s} is the place, {x} the answer.
RELATIONS = {
    "person": [
        "{x} founded {s}|{s} was started by {x}|Who founded {s}?|By whom was {s} started?",
        "the architect of {s} was {x}|{x} drew the plans of {s}|Who was the architect?|Who drew the plans?",
        "{x} runs {s} today|the head of {s} is {x}|Who runs {s}?|Who is the head of {s}?",
    ],
    "year": [
        "{s} was opened in {x}|{s} had its first guests in {x}|When was {s} opened?|When did the first guests come?",
        "{s} burned down in {x}|flames ruined {s} in {x}|When was it that {s} burned down?|When did flames ruin {s}?",
        "{s} was repaired in {x}|workers restored {s} in {x}|When was {s} repaired?|When was {s} restored?",
    ],
    "number": [
        "{s} has {x} visitors a day|{x} people come to {s} daily|How many visitors has {s}?|How many people come?",
        "{s} has {x} rooms|there are {x} halls in {s}|How many rooms has {s}?|How many halls are there?",
    ],
    "town": [
        "{s} stands in {x}|{s} is located in {x}|Where is it that {s} stands?|Where is {s} located?",
        "the stones are from {x}|{x} supplied the bricks|Where are the stones from?|Where do the bricks come from?",
    ],
}
KINDS = ["Mill", "Museum", "Theatre", "Library", "School", "Hotel", "Castle"]
STARTS = {
    "train": "Har Ben Cal Dor El Gar Hal Ker Lan Mar Nor Ol Pen Rad Sel Tar Un Wel Bra Cro Fre Gri Ple Sta",
    "test": "Ash Bur Dun Fal Hol Mel Pres Rin Thor Win",
}
ENDINGS = "wick ton ley worth ford by ham mere dale ster man son more stead land field"
FIRST_ENDINGS = "a o ia us in e is en ette ard"


class Writer:
    """Writes paragraphs with their questions.

    Args:
        part: "train" or "test", whose names and numbers are used.
        draw: where chance comes from.
    """

    def __init__(self, part: str, draw: random.Random) -> None:
        self.part, self.draw = part, draw

    def name(self, endings: str = ENDINGS) -> str:
        return self.draw.choice(STARTS[self.part].split()) + self.draw.choice(endings.split())

    def answer(self, kind: str) -> str:
        if kind == "person":
            return f"{self.name(FIRST_ENDINGS)} {self.name()}"
        if kind == "town":
            return self.name()
        first, last = (1500, 1990) if kind == "year" else (12, 980)
        odd = self.part == "test"  # odd ones in test, even ones in train
        return str(2 * self.draw.randrange(first // 2, last // 2) + odd)

    def paragraph(self, number: int) -> dict[str, object]:
        """A paragraph as SQuAD has it, with a question for each thing that it tells."""
        kind = self.draw.choice(KINDS)
        place, called = f"{self.name()} {kind}", f"the {kind.lower()}"
        chosen = [
            (what, relation)
            for what in self.draw.sample(sorted(RELATIONS), 2)
            for relation in self.draw.sample(RELATIONS[what], 2)
        ]
        self.draw.shuffle(chosen)
        context, asked = "", []
        answers = {place.split()[0]}
        for what, relation in chosen:
            wordings = relation.split("|")
            telling = self.draw.randrange(2)
            asking = telling if self.draw.random() < 0.4 else 1 - telling
            answer = self.answer(what)
            while answer in answers:
                answer = self.answer(what)
            answers.add(answer)
            subject = self.draw.choice(["it", called]) if place in context else place
            sentence = wordings[telling].format(s=subject, x="\0")
            sentence = sentence[0].upper() + sentence[1:] + ". "
            start = len(context) + sentence.index("\0")
            context += sentence.replace("\0", answer)
            asked.append((wordings[2 + asking].format(s=called), answer, start))
        self.draw.shuffle(asked)
        qas = [
            {"id": f"{number}.{index}", "question": question, "answers": [{"text": text, "answer_start": start}]}
            for index, (question, text, start) in enumerate(asked)
        ]
        return {"title": kind, "paragraphs": [{"context": context.strip(), "qas": qas}]}


def build(seed: int = 0) -> dict[str, dict[str, object]]:
    """Both parts, in the format of SQuAD 1.1."""
    draw = random.Random(seed)
    parts: dict[str, dict[str, object]] = {}
    for part, size in SIZES.items():
        writer = Writer(part, draw)
        parts[part] = {"version": "1.1", "data": [writer.paragraph(number) for number in range(size)]}
    return parts


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in build().items():
        text = json.dumps(content, separators=(",", ":"))
        (folder / f"{part}.json").write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "questions")
