"""Writes the bundled sentence pairs, `translations/train.tsv.gz` and `test.tsv.gz`: the same sentences on every run.

    python data/make_translations.py [FOLDER]

An English sentence and its German translation are built from the same plan: a subject, a verb with what
belongs to it, a tense, perhaps a time, a negation or a second clause. German puts the finite verb second and
the rest of the verb last, all of it last in a subordinate clause; articles and adjectives agree with gender,
number and case; and some English words have several translations, told apart by what stands beside them:

    Yesterday the dog ate an old fish.        Gestern hat der Hund einen alten Fisch gefressen.
    When he is tired, he eats a light cake.   Wenn er müde ist, isst er einen leichten Kuchen.

A frame is what comes first, the tense, and the kind of verb. The frames of the test part never occur in the train
part, nor do its pairs of adjective and noun; each of their pieces does.
"""

import gzip
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SIZES = {"train": 3500, "test": 400}

FRONTS = ["subject", "time", "question", "clause before", "clause after", "that"]
TENSES = ["present", "past", "future", "can", "must", "want", "like"]
KINDS = ["thing", "person", "dative", "gift", "motion", "phrase", "alone", "eat", "copula", "comparison", "spend"]
FRONT_WEIGHTS, TENSE_WEIGHTS = [6, 3, 2, 2, 3, 2], [4, 4, 2, 1, 1, 1, 1]
KIND_WEIGHTS = [5, 4, 2, 3, 3, 2, 2, 2, 3, 2, 1]


def held_out_frame(front: str, tense: str, kind: str) -> bool:
    """A fifth of all frames, so spread that each two of front, tense and kind also meet in the train part."""
    return (FRONTS.index(front) + 2 * TENSES.index(tense) + KINDS.index(kind)) % 5 == 0


@dataclass(frozen=True)
class Noun:
    english: str
    plural: str
    german: str
    german_plural: str
    gender: str
    dative_plural: str


@dataclass(frozen=True)
class Verb:
    english: str
    past: str
    infinitive: str  # without its prefix
    he: str
    participle: str
    prefix: str = ""
    preposition: tuple[str, str] = ("", "")
    to_be: bool = False  # its perfect is built with "sein"


def nouns(table: str) -> list[Noun]:
    found = []
    for line in table.strip().splitlines():
        english, german, german_plural, gender = line.split()
        plural = {"child": "children", "woman": "women", "man": "men", "fish": "fish"}.get(english, with_s(english))
        dative = german_plural if german_plural[-1] in "ns" else german_plural + "n"
        found.append(Noun(english, plural, german, german_plural, gender, dative))
    return found


def verbs(table: str, *, to_be: bool = False) -> list[Verb]:
    """Lines of: English, its past, infinitive, er-form, participle, and perhaps the two prepositions."""
    found = []
    for line in table.strip().splitlines():
        english, past, infinitive, he, participle, *preposition = line.split()
        prefix, _, rest = infinitive.rpartition("|")
        words = (english.replace("_", " "), past.replace("_", " "), rest, he, participle, prefix)
        found.append(Verb(*words, preposition=tuple(preposition) or ("", ""), to_be=to_be))  # type: ignore[arg-type]
    return found


def with_s(word: str) -> str:
    """The plural of a noun, or the third person of a verb."""
    first, _, rest = word.partition(" ")
    if first.endswith(("s", "sh", "ch", "go")):
        first += "es"
    elif re.search("[^aeiou]y$", first):
        first = first[:-1] + "ies"
    else:
        first += "s"
    return f"{first} {rest}".strip()


PEOPLE = nouns("""
teacher Lehrer Lehrer m
doctor Arzt Ärzte m
brother Bruder Brüder m
friend Freund Freunde m
uncle Onkel Onkel m
man Mann Männer m
mother Mutter Mütter f
sister Schwester Schwestern f
woman Frau Frauen f
daughter Tochter Töchter f
child Kind Kinder n
girl Mädchen Mädchen n
""")
ANIMALS = nouns("""
dog Hund Hunde m
cat Katze Katzen f
horse Pferd Pferde n
bird Vogel Vögel m
""")
THINGS = nouns("""
coat Mantel Mäntel m
shirt Hemd Hemden n
bag Tasche Taschen f
table Tisch Tische m
chair Stuhl Stühle m
lamp Lampe Lampen f
picture Bild Bilder n
clock Uhr Uhren f
key Schlüssel Schlüssel m
book Buch Bücher n
letter Brief Briefe m
newspaper Zeitung Zeitungen f
""")
FOOD = nouns("""
apple Apfel Äpfel m
soup Suppe Suppen f
roll Brötchen Brötchen n
cake Kuchen Kuchen m
egg Ei Eier n
fish Fisch Fische m
""")
PLACES = nouns("""
garden Garten Gärten m
kitchen Küche Küchen f
house Haus Häuser n
town Stadt Städte f
school Schule Schulen f
park Park Parks m
room Zimmer Zimmer n
forest Wald Wälder m
""")

FAR = {"town", "school", "park", "forest"}

# English, its comparative, German, its comparative.
ADJECTIVES = [
    tuple(line.split(", "))
    for line in """old, older, alt, älter
new, newer, neu, neuer
small, smaller, klein, kleiner
big, bigger, groß, größer
beautiful, more beautiful, schön, schöner
good, better, gut, besser
young, younger, jung, jünger
friendly, friendlier, freundlich, freundlicher
light, lighter, leicht, leichter
short, shorter, kurz, kürzer""".splitlines()
]

THING = verbs("""
buy bought kaufen kauft gekauft
see saw sehen sieht gesehen
find found finden findet gefunden
draw drew zeichnen zeichnet gezeichnet
sell sold verkaufen verkauft verkauft
bring brought mit|bringen bringt mitgebracht
look_at looked_at an|sehen sieht angesehen
lose lost verlieren verliert verloren
""")
PERSON = verbs("""
see saw sehen sieht gesehen
know knew kennen kennt gekannt
visit visited besuchen besucht besucht
call called an|rufen ruft angerufen
invite invited ein|laden lädt eingeladen
meet met treffen trifft getroffen
look_at looked_at an|sehen sieht angesehen
""")
DATIVE = verbs("""
help helped helfen hilft geholfen
thank thanked danken dankt gedankt
answer answered antworten antwortet geantwortet
listen_to listened_to zu|hören hört zugehört
""")
GIFT = verbs("""
give gave geben gibt gegeben
show showed zeigen zeigt gezeigt
send sent schicken schickt geschickt
bring brought bringen bringt gebracht
""")
ALONE = verbs("""
sleep slept schlafen schläft geschlafen
work worked arbeiten arbeitet gearbeitet
laugh laughed lachen lacht gelacht
sing sang singen singt gesungen
""")
PHRASE = verbs("""
wait waited warten wartet gewartet for auf
think thought denken denkt gedacht of an
laugh laughed lachen lacht gelacht about über
write wrote schreiben schreibt geschrieben to an
""")
WALK = verbs("""
go went gehen geht gegangen
run ran laufen läuft gelaufen
""", to_be=True)  # fmt: skip
RIDE = verbs("go went fahren fährt gefahren", to_be=True)
EAT = verbs("eat ate essen isst gegessen")
FEED = verbs("eat ate fressen frisst gefressen")
SPEND_MONEY = verbs("spend spent aus|geben gibt ausgegeben")
SPEND_TIME = verbs("spend spent verbringen verbringt verbracht")

TIMES = {
    "present": [("today", "heute"), ("every day", "jeden Tag"), ("often", "oft"), ("in summer", "im Sommer")],
    "past": [("yesterday", "gestern"), ("last week", "letzte Woche"), ("on Monday", "am Montag")],
    "future": [("tomorrow", "morgen"), ("next week", "nächste Woche"), ("on Monday", "am Montag")],
}
RIDES = [("by train", "mit dem Zug"), ("by car", "mit dem Auto"), ("by bus", "mit dem Bus")]
SUMS = [("a lot of money", "viel Geld"), ("his money", "sein Geld"), ("too much money", "zu viel Geld")]
SPANS = [("a lot of time", "viel Zeit"), ("the evening", "den Abend"), ("two days", "zwei Tage")]
PRONOUNS = {  # number and person, nominative, accusative, dative; English subject and object
    "I": ("ich", "ich", "mich", "mir", "me"),
    "he": ("er", "er", "ihn", "ihm", "him"),
    "she": ("er", "sie", "sie", "ihr", "her"),
    "we": ("wir", "wir", "uns", "uns", "us"),
    "they": ("wir", "sie", "sie", "ihnen", "them"),
}
HELPERS = {
    "past": {"ich": "habe", "er": "hat", "wir": "haben"},
    "past to be": {"ich": "bin", "er": "ist", "wir": "sind"},
    "future": {"ich": "werde", "er": "wird", "wir": "werden"},
    "can": {"ich": "kann", "er": "kann", "wir": "können"},
    "must": {"ich": "muss", "er": "muss", "wir": "müssen"},
    "want": {"ich": "will", "er": "will", "wir": "wollen"},
}
# Endings by gender: nominative, accusative, dative.
THE = {"m": "der den dem", "f": "die die der", "n": "das das dem", "plural": "die die den"}
ENDINGS = {"m": " en em", "f": "e e er", "n": "  em", "plural": "e e en"}  # of ein, kein, mein, ihr, sein
THIS = {"m": "er en em", "f": "e e er", "n": "es es em", "plural": "e e en"}
AFTER_THE = {"m": "e en en", "f": "e e en", "n": "e e en", "plural": "en en en"}
AFTER_A = {"m": "er en en", "f": "e e en", "n": "es es en", "plural": "en en en"}
BARE = "e e en"  # plural without article
POSSESSIVES = {"my": "mein", "his": "sein", "her": "ihr"}


@dataclass(frozen=True)
class Phrase:
    """A subject or an object in both languages; German in every case."""

    english: str
    german: tuple[str, str, str]
    person: str  # "ich", "er" (he, she, it) or "wir" (we, they)
    pronoun: bool = False
    negatable: bool = False  # its negation is "kein"
    noun: str = ""


@dataclass(frozen=True)
class Clause:
    """One clause in both languages: English in its only order, German in the order of a main and a subordinate one."""

    english: str
    english_question: str
    german_subject: str
    finite: str
    middle: str
    end: str
    prefixed: bool  # its end is a prefix that joins the finite verb in a subordinate clause

    def main(self, first: str | None) -> str:
        """The finite verb second, after `first` (default the subject); an empty `first` makes a question."""
        if first is None:
            return " ".join(filter(None, [self.german_subject, self.finite, self.middle, self.end]))
        return " ".join(filter(None, [first, self.finite, self.german_subject, self.middle, self.end]))

    def subordinate(self) -> str:
        verb = f"{self.end}{self.finite}" if self.prefixed else f"{self.end} {self.finite}"
        return " ".join(filter(None, [self.german_subject, self.middle, verb.strip()]))


class Writer:
    """Draws the pieces of one pair; in the test part adjective and noun are pairs that train never shows."""

    def __init__(self, part: str, draw: random.Random) -> None:
        self.part, self.draw = part, draw

    def adjective(self, noun: Noun) -> tuple[str, ...]:
        places = [
            place
            for place in range(len(ADJECTIVES))
            if (fits(ADJECTIVES[place][0], noun) and held_out_pair(place, noun) == (self.part == "test"))
        ]
        return in_context(ADJECTIVES[self.draw.choice(places)], noun) if places else ()

    def phrase(self, noun: Noun, *, plural: bool | None = None, bare: bool = False) -> Phrase:
        """Article, perhaps an adjective, and the noun; `bare` is a plural without article."""
        plural = bare or (self.draw.random() < 0.3 if plural is None else plural)
        gender = "plural" if plural else noun.gender
        article = "" if bare else self.draw.choice(["the", "the", "the", "my", "his", "her", "this", *["a"] * 3])
        if plural and article == "a":
            article = ""
        adjective = self.adjective(noun) if self.draw.random() < 0.45 else ()
        german = []
        for case in range(3):
            if not article:
                start, ending = "", BARE.split(" ")[case]
            elif article in ("the", "this"):
                start = THE[gender].split(" ")[case] if article == "the" else "dies" + THIS[gender].split(" ")[case]
                ending = AFTER_THE[gender].split(" ")[case]
            else:
                start = POSSESSIVES.get(article, "ein") + ENDINGS[gender].split(" ")[case]
                ending = AFTER_A[gender].split(" ")[case]
            word = (noun.dative_plural if case == 2 else noun.german_plural) if plural else noun.german
            german.append(" ".join(filter(None, [start, adjective[2] + ending if adjective else "", word])))
        shown = {"this": "these"}.get(article, article) if plural else article
        english = " ".join(
            filter(None, [shown, adjective[0] if adjective else "", [noun.english, noun.plural][plural]])
        )
        english = re.sub(r"^a (?=[aeiou])", "an ", english)
        person = "wir" if plural else "er"
        return Phrase(
            english, (german[0], german[1], german[2]), person, negatable=article in ("a", ""), noun=noun.english
        )

    def pronoun(self, *, objective: bool = False) -> Phrase:
        name = self.draw.choice(list(PRONOUNS))
        person, nominative, accusative, dative, english = PRONOUNS[name]
        return Phrase(english if objective else name, (nominative, accusative, dative), person, pronoun=True, noun=name)

    def subject(self, choices: list[Noun], share: float = 0.4) -> Phrase:
        return self.pronoun() if self.draw.random() < share else self.phrase(self.draw.choice(choices))

    def clause(self, kind: str, tense: str, *, timed: bool, fronted: bool) -> tuple[Clause, tuple[str, str]]:
        """A clause of that kind, and the time that is said at its front (empty if it is not)."""
        draw, like = self.draw, tense == "like"
        when = TIMES["past" if tense == "past" else "future" if tense == "future" else "present"]
        time = draw.choice(when) if timed and not like else ("", "")
        negative = tense in ("present", "past", "future") and draw.random() < 0.18
        if kind in ("copula", "comparison"):
            return self.state(kind, tense, negative, time, fronted), time if fronted else ("", "")
        subject = self.subject(PEOPLE)
        objects: list[tuple[Phrase, int]] = []  # with the index of the case
        english_tail, direction = "", ""
        if kind == "thing":
            verb = draw.choice(THING)
            objects = [(self.phrase(draw.choice(THINGS), bare=like), 1)]
        elif kind == "person":
            verb = draw.choice(PERSON)
            objects = [(self.other(subject, bare=like), 1)]
        elif kind == "dative":
            verb = draw.choice(DATIVE)
            objects = [(self.other(subject, bare=like), 2)]
        elif kind == "gift":
            verb = draw.choice(GIFT)
            objects = [(self.other(subject, bare=like), 2), (self.phrase(draw.choice(THINGS), bare=like), 1)]
        elif kind == "motion":
            ride = draw.random() < 0.5
            verb = draw.choice(RIDE if ride else WALK)
            place = draw.choice([one for one in PLACES if one.english in FAR] if ride else PLACES)
            by = draw.choice(RIDES) if ride else ("", "")
            english_tail = f"to the {place.english} {by[0]}".strip()
            into = {"m": "in den", "f": "in die", "n": "ins"}[place.gender]
            direction = f"{by[1]} {into} {place.german}".strip()
        elif kind == "phrase":
            verb = draw.choice(PHRASE)
            other = self.other(subject, bare=like)
            english_tail = f"{verb.preposition[0]} {other.english}"
            direction = f"{verb.preposition[1]} {other.german[1]}"
        elif kind == "eat":
            animal = draw.random() < 0.5
            subject = self.phrase(draw.choice(ANIMALS)) if animal else subject
            verb = (FEED if animal else EAT)[0]
            objects = [(self.phrase(draw.choice(FOOD), bare=like), 1)]
        elif kind == "spend":
            money = draw.random() < 0.5
            verb = (SPEND_MONEY if money else SPEND_TIME)[0]
            english_tail, direction = draw.choice(SUMS if money else SPANS)
            if not money and draw.random() < 0.5:
                place = draw.choice(PLACES)
                english_tail += f" in the {place.english}"
                direction += f" {'in der' if place.gender == 'f' else 'im'} {place.german}"
        else:
            subject = self.subject(PEOPLE + ANIMALS if draw.random() < 0.3 else PEOPLE)
            verb = draw.choice(ALONE)
            if draw.random() < 0.5:
                place = draw.choice(PLACES)
                english_tail = f"in the {place.english}"
                direction = f"{'in der' if place.gender == 'f' else 'im'} {place.german}"

        gift_by_to = kind == "gift" and (objects[0][0].pronoun or draw.random() < 0.5)
        told = [one.english for one, _ in objects]
        if gift_by_to:
            told = [told[1], "to " + told[0]]
        said = [*told, english_tail, "" if fronted else time[0]]
        statement, question = english_verb(subject, verb.english, verb.past, tense, negative)
        none = negative and bool(objects) and objects[-1][0].negatable
        pronouns = [one.german[case] for one, case in objects if one.pronoun]
        plain = [
            no(one.german[case], case) if none and one is objects[-1][0] else one.german[case]
            for one, case in objects
            if not one.pronoun
        ]
        middle = [*pronouns, "gern" if like else "", "" if fronted else time[1], *plain]
        middle += ["nicht" if negative and not none else "", direction]
        finite, end, prefixed = german_verb(verb, subject.person, tense)
        clause = Clause(
            " ".join(filter(None, [statement, *said])),
            " ".join(filter(None, [question, *said])),
            subject.german[0],
            finite,
            " ".join(filter(None, middle)),
            end,
            prefixed,
        )
        return clause, time if fronted else ("", "")

    def other(self, subject: Phrase, *, bare: bool) -> Phrase:
        """A person that is not the subject."""
        while True:
            drawn = self.pronoun(objective=True) if not bare and self.draw.random() < 0.25 else None
            one = drawn or self.phrase(self.draw.choice(PEOPLE), bare=bare)
            if one.noun != subject.noun:
                return one

    def state(self, kind: str, tense: str, negative: bool, time: tuple[str, str], fronted: bool) -> Clause:
        """What something is like, perhaps against another: the adjective does not agree here."""
        draw = self.draw
        noun = draw.choice(THINGS + PEOPLE + ANIMALS + FOOD)
        adjective = self.adjective(noun)
        while not adjective:
            noun = draw.choice(THINGS)
            adjective = self.adjective(noun)
        subject = self.phrase_without_adjective(noun)
        english, german = adjective[0], adjective[2]
        if kind == "comparison":
            group = next(group for group in (THINGS, PEOPLE, ANIMALS, FOOD) if noun in group)
            than = self.phrase_without_adjective(draw.choice([one for one in group if one is not noun]))
            english, german = f"{adjective[1]} than {than.english}", f"{adjective[3]} als {than.german[0]}"
        many = subject.person == "wir"
        be = {"past": "were" if many else "was", "present": "are" if many else "is"}[tense]
        sein = {"past": "waren" if many else "war", "present": "sind" if many else "ist"}[tense]
        end_time = "" if fronted else time[0]
        words = [subject.english, be, "not" if negative else "", english, end_time]
        asked = [be, subject.english, "not" if negative else "", english, end_time]
        middle = ["" if fronted else time[1], "nicht" if negative else "", german]
        return Clause(
            " ".join(filter(None, words)),
            " ".join(filter(None, asked)),
            subject.german[0],
            sein,
            " ".join(filter(None, middle)),
            "",
            False,
        )

    def phrase_without_adjective(self, noun: Noun) -> Phrase:
        while True:
            one = self.phrase(noun)
            if len(one.english.split()) == 2 and not one.english.startswith(("a ", "an ")):
                return one

    def reason(self, tense: str) -> tuple[str, str]:
        """A short second clause with its conjunction: "because he is tired"."""
        draw = self.draw
        tense = "past" if tense == "past" else "present"
        english, german = draw.choice([("because", "weil"), ("although", "obwohl"), ("when", "als")])
        if english == "when" and tense == "present":
            german = "wenn"
        if draw.random() < 0.5:
            subject = self.subject(PEOPLE, 0.7)
            place = {"ich": 0, "er": 1, "wir": 2}[subject.person]
            be = (["was", "was", "were"] if tense == "past" else ["am", "is", "are"])[place]
            sein = (["war", "war", "waren"] if tense == "past" else ["bin", "ist", "sind"])[place]
            word = draw.choice([("tired", "müde"), ("ill", "krank"), ("happy", "glücklich"), ("hungry", "hungrig")])
            return f"{english} {subject.english} {be} {word[0]}", f"{german} {subject.german[0]} {word[1]} {sein}"
        kind = draw.choice(["alone", "eat", "person"])
        clause, _ = self.clause(kind, tense, timed=False, fronted=False)
        return f"{english} {clause.english}", f"{german} {clause.subordinate()}"


def fits(adjective: str, noun: Noun) -> bool:
    """Whether that adjective is said of that noun."""
    alive = noun in PEOPLE + ANIMALS
    if adjective in ("young", "friendly"):
        return alive
    if adjective == "light":
        return not alive
    if adjective == "short":
        return noun in PEOPLE or noun.english in ("coat", "shirt", "letter", "book")
    return not (adjective == "new" and noun in PEOPLE + FOOD)


def held_out_pair(place: int, noun: Noun) -> bool:
    every = PEOPLE + ANIMALS + THINGS + FOOD + PLACES
    return (place + every.index(noun)) % 5 == 0


def in_context(adjective: tuple[str, ...], noun: Noun) -> tuple[str, ...]:
    """A light lamp is "hell", a light bag "leicht"; a short man is "klein", a short letter "kurz"."""
    if adjective[0] == "light" and noun.english in ("lamp", "picture"):
        return (*adjective[:2], "hell", "heller")
    if adjective[0] == "short" and noun in PEOPLE:
        return (*adjective[:2], "klein", "kleiner")
    return adjective


def no(german: str, case: int) -> str:
    """The German phrase denied: "einen Tisch" to "keinen Tisch", "Tische" to "keine Tische"."""
    if german.startswith("ein"):
        return "k" + german
    words = german.split()
    if len(words) == 2:  # after "keine" the adjective ends in -en
        words[0] = re.sub("e$", "en", words[0])
    return " ".join(["keinen" if case == 2 else "keine", *words])


def english_verb(subject: Phrase, base: str, past: str, tense: str, negative: bool) -> tuple[str, str]:
    """Subject and verb of the statement and of the question."""
    third = subject.person == "er"
    who, does, nots = subject.english, "does" if third else "do", " not" if negative else ""
    if tense in ("future", "can", "must"):
        helper = "will" if tense == "future" else tense
        return f"{who} {helper}{nots} {base}", f"{helper} {who}{nots} {base}"
    if tense in ("want", "like"):
        base, past = f"{tense} to {base}", ""
    if tense == "past":
        return f"{who} did not {base}" if negative else f"{who} {past}", f"did {who}{nots} {base}"
    positive = with_s(base) if third else base
    return f"{who} {does} not {base}" if negative else f"{who} {positive}", f"{does} {who}{nots} {base}"


def german_verb(verb: Verb, person: str, tense: str) -> tuple[str, str, bool]:
    """The finite verb, what stands at the end, and whether that is a prefix."""
    if tense in ("present", "like"):
        stem = verb.infinitive.removesuffix("n").removesuffix("e")
        finite = {"ich": stem + "e", "er": verb.he, "wir": verb.infinitive}[person]
        return finite, verb.prefix, bool(verb.prefix)
    helper = "past to be" if tense == "past" and verb.to_be else tense
    return HELPERS[helper][person], verb.participle if tense == "past" else verb.prefix + verb.infinitive, False


def write_pair(part: str, draw: random.Random) -> tuple[str, str]:
    """One English sentence and its translation, in a frame of that part."""
    while True:
        front = draw.choices(FRONTS, FRONT_WEIGHTS)[0]
        tense = draw.choices(TENSES, TENSE_WEIGHTS)[0]
        kind = draw.choices(KINDS, KIND_WEIGHTS)[0]
        possible = kind not in ("copula", "comparison") or tense in ("present", "past")
        possible &= not (tense == "like" and (front == "time" or kind in ("spend", "gift")))
        if possible and held_out_frame(front, tense, kind) == (part == "test"):
            break
    writer = Writer(part, draw)
    timed = front == "time" or (front in ("subject", "question") and draw.random() < 0.3)
    clause, (time, german_time) = writer.clause(kind, tense, timed=timed, fronted=front == "time")
    if front == "question":
        pair = clause.english_question + "?", clause.main("") + "?"
    elif front == "time":
        pair = f"{time} {clause.english}.", clause.main(german_time) + "."
    elif front == "that":
        says = draw.choice([("know", "weiß", "wissen"), ("say", "sagt", "sagen"), ("believe", "glaubt", "glauben")])
        subject = writer.subject(PEOPLE, 0.5)
        first = "weiß" if says[0] == "know" else says[2].removesuffix("n")
        finite = {"ich": first, "er": says[1], "wir": says[2]}[subject.person]
        english = with_s(says[0]) if subject.person == "er" else says[0]
        pair = (
            f"{subject.english} {english} that {clause.english}.",
            f"{subject.german[0]} {finite}, dass {clause.subordinate()}.",
        )
    elif front == "subject":
        pair = clause.english + ".", clause.main(None) + "."
    else:
        english, german = writer.reason(tense)
        if front == "clause before":
            pair = f"{english}, {clause.english}.", clause.main(german + ",") + "."
        else:
            pair = f"{clause.english} {english}.", f"{clause.main(None)}, {german}."
    return pair[0][0].upper() + pair[0][1:], pair[1][0].upper() + pair[1][1:]


def build(seed: int = 0) -> dict[str, list[tuple[str, str]]]:
    """Both parts, no English sentence twice."""
    draw = random.Random(seed)
    seen: set[str] = set()
    parts: dict[str, list[tuple[str, str]]] = {}
    for part, size in SIZES.items():
        pairs: list[tuple[str, str]] = []
        while len(pairs) < size:
            pair = write_pair(part, draw)
            if pair[0] not in seen and len(pair[0].split()) <= 14:
                seen.add(pair[0])
                pairs.append(pair)
        parts[part] = pairs
    return parts


def write(folder: Path, parts: dict[str, Sequence[tuple[str, str]]] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, pairs in (parts or build()).items():
        lines = ["english\tgerman", *(f"{english}\t{german}" for english, german in pairs)]
        content = ("\n".join(lines) + "\n").encode()
        (folder / f"{part}.tsv.gz").write_bytes(gzip.compress(content, mtime=0))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "translations")
