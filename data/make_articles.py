"""Writes the bundled articles, `articles/train.tsv.gz` and `articles/test.tsv.gz`: the same texts on every run.

    python data/make_articles.py [FOLDER]

A short piece of news and its summary are built from the same plan: what kind of thing happened, and who, where and
how many. The sentences of the article tell a part of it each, in any order, among others that say little and names
that do not matter:

    Rain fell for most of the evening. Peter Fodal hit the post, but Rosa Vekar scored twice. Duncaster lost at home
    to Marwick. The crowd of 634 sang to the end.
    Marwick beat Duncaster in front of 634 fans thanks to Rosa Vekar.

The kind decides the words of the summary, and which name goes where has to be found out. Half of the names in an
article are among a few that come back often, the others are made up for it. The test part puts everything into
other words, and none of its made-up names and none of its numbers is in the train part.
"""

import gzip
import random
import sys
from pathlib import Path

SIZES = {"train": 900, "test": 150}
COMMON = 12  # names of each sort that come back often

# A kind of news a block: its summary, a sentence that says little, and those that tell a part of the plan each, in
# four wordings, of which the last is kept for the test part.
KINDS = """
{person} led {number} {group} out of a burning {building} in {town}.
    nobody slept much | smoke was seen from far away | firemen had a long night | nobody slept before dawn
    {town} heard the bells before dawn | the fire brigade of {town} was called | people in {town} talk of the fire \
        | the fire brigade was called in {town}
    the {building} went up in flames | flames destroyed the roof of the {building} | the {building} caught fire \
        | fire destroyed the {building}
    {person} woke {number} {group} | all {number} {group} got away because {person} woke them \
        | {person} opened a back door for {number} {group} | {person} woke all {number} {group} and opened a door

{company} will build a {product} factory near {town} and hire {number} people.
    there is good news for the poor | many had given up hope of better times | good news is rare in the country \
        | there is hope of better times
    {company} has bought land near {town} | land near {town} now belongs to {company} \
        | a field close to {town} was sold to {company} | a field near {town} now belongs to {company}
    next year a new plant will make {product} | there is a plan for a {product} plant \
        | the new halls are meant for {product} | there is a plan to make {product} in the new halls
    the plan promises {number} jobs | at first {number} men and women are wanted | {number} people will find work \
        | at first {number} men and women will find work

{person} was elected mayor of {town} by {number} votes and wants to {promise}.
    people queued for hours | the counting went on until midnight | it was closer than anyone had thought \
        | people queued until midnight
    {town} has a new mayor | the old mayor of {town} has to go | in {town} the town hall gets a new master \
        | the town hall of {town} has a new mayor
    {person} won with {number} votes more than {other} | {other} lost to {person} by {number} votes \
        | only {number} votes lay between {person} and {other}, who lost \
        | {person} had {number} votes more than {other}, who lost
    the winner promised to {promise} | the first step of the winner is to {promise} \
        | there is a promise to keep: to {promise} | the first promise of the winner is to {promise}

{town} beat {place} in front of {number} fans thanks to {person}.
    rain fell for most of the evening | it was not a pretty game | the grass was wet and the wind was cold \
        | the evening was wet and cold
    {place} lost at home to {town} | {town} won the game against {place} | {place} had no chance against {town} \
        | {place} lost the game against {town}
    {other} hit the post, but {person} scored twice | {person} scored late, after {other} was sent off \
        | both goals came from {person}, while {other} missed a penalty \
        | {other} missed a penalty, but {person} scored late
    the crowd of {number} sang to the end | {number} people were in the stands \
        | there were {number} people to watch | there were {number} people in the stands

{person} from {town} won the {company} prize for {work}.
    the talks went on for two days | there was long applause in the hall | nobody had expected it \
        | nobody in the hall had expected it
    this year the {company} prize goes to {person} | {person} receives the {company} prize \
        | the {company} prize went to {person} and not to {other} \
        | {person} and not {other} receives the {company} prize
    the winner lives in {town} and teaches in {place} | born in {place}, the winner now lives in {town} \
        | {town} is the home of the winner, {place} the place of work | born in {place}, the winner has a home in {town}
    the judges were moved by {work} | the judges honour {work} | it is for {work}, the judges said \
        | the judges said they were moved by {work}

A storm cut off power to {number} homes in {town} and closed the {road}.
    the worst seems to be over | trees lie across the gardens | the wind came in the afternoon \
        | the worst wind came in the afternoon
    in {town} the lights went out | {town} lay in the dark | there was no light in {town} \
        | in {town} there was no light
    {number} families lit candles | candles were lit in {number} homes | {number} homes spent the night like this \
        | {number} families spent the night like this
    the {road} stays shut until Friday | nobody may use the {road} for now | guards keep people from the {road} \
        | the {road} stays shut for now

Police in {town} arrested {person} for stealing {object} worth {number} dollars.
    the museum noticed nothing for a week | the guards heard nothing | one room of the museum is closed \
        | the guards of the museum noticed nothing
    the thief took {object} | one night {object} vanished | where {object} had been, there was only dust \
        | one night the thief took {object}
    experts speak of {number} dollars | a sale would bring {number} dollars | the loss is put at {number} dollars \
        | experts put the loss at {number} dollars
    officers found it in {town} under the bed of {person} | {other} saw {person} in {town} and called the officers \
        | {person} was caught in {town}, betrayed by {other} | officers caught {person} in {town}, called by {other}

{person} was found alive near {town} after {number} hours in the {wild}.
    a family is happy again | hope was almost gone | many had prayed for good news \
        | a family had almost given up hope
    {person} had gone alone into the {wild} | the {wild} had been too much for {person} \
        | {person} had lost the way in the {wild} | alone in the {wild}, {person} had lost the way
    the search took {number} hours | {number} hours had passed | they looked for {number} hours \
        | {number} hours of search had passed
    {other} heard cries near {town} | a dog led {other} to a hut near {town} \
        | near {town} a farmer from {place} saw a fire | near {town} a dog led {other} to a fire
"""
FRAMES = """
{}.
It is known that {}.
On Monday we heard that {}.
As the radio says, {}.
{}, as far as we know.
{}, said {witness}.
{witness} told reporters that {}.
From {elsewhere} we hear that {}.
""".strip().splitlines()
WORDS = {
    "group": "guests, children, patients, workers, students, tourists",
    "building": "hotel, school, hospital, theatre, library, cinema",
    "product": "bicycle, furniture, glass, paper, chocolate, battery",
    "promise": "lower the rents, plant more trees, mend the roads, build a tram, open a swimming pool, clean the river",
    "work": "a novel about bees, a film without words, a song for children, a map of the stars, a new medicine",
    "road": "bridge, harbour, airport, railway, tunnel, market",
    "object": "a painting, a golden crown, a violin, an old coin, a Roman sword, a silver cup",
    "wild": "forest, mountains, desert, caves, snow, swamp",
}
FIRST = "Anna Peter Laura Oscar Clara Simon Rosa Victor Nora Hugo Ruth Felix Alice Martin Edith Bruno"
SYLLABLES = {  # a made-up name is one of the first and one of the second
    "town": (
        "Ash Bel Bram Cald Dun El Fen Gor Hal Kel Lang Mar Nor Os Pem Rad Sel Thorn Ul Ven Wes Yar",
        "bourne bury caster dale don field ford gate ham hurst ley mere mouth ness port stead ton wick worth",
    ),
    "person": (
        "Ba Be Bo Da De Do Fa Fe Fo Ga Gu Ha Hu Ja Ka Ke Ko La Lo Lu Ma Mo Na Pe Ra Ri Sa So Ta Ve Wa Za",
        "bek bin dal den gar gin kar kov lan len lo mar min nel rek ric ros sel sen tin tor vek zar zin",
    ),
    "company": (
        "Ac Al Bex Cor Dex Fin Gal Hex Lum Nex Or Pol Quin Syn Tor Vex Zet",
        "ado ara ela eon era ica ido ion ista ium onix ora ova ux",
    ),
}
SORTS = {
    "person": ("person", "other", "witness"),
    "town": ("town", "place", "elsewhere"),
    "company": ("company",),
}


def made_up(sort: str, part: str, draw: random.Random) -> str:
    """A name of that sort. A fourth of all pairs of syllables is kept for the test part."""
    starts, ends = (syllables.split() for syllables in SYLLABLES[sort])
    while True:
        start, end = draw.randrange(len(starts)), draw.randrange(len(ends))
        if ((start + end) % 4 == 0) == (part == "test"):
            return starts[start] + ends[end]


class Writer:
    """Draws articles.

    Args:
        draw: where chance comes from.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.kinds = [block.splitlines() for block in KINDS.strip().split("\n\n")]
        self.common = {sort: [made_up(sort, "train", draw) for _ in range(COMMON)] for sort in SORTS}

    def article(self, part: str) -> tuple[str, str]:
        """One article of that part, with its summary."""
        draw = self.draw
        summary, scene, *told = draw.choice(self.kinds)
        told += [scene] if draw.random() < 0.5 else []
        draw.shuffle(told)
        plan = {slot: draw.choice(words.split(", ")) for slot, words in WORDS.items()}
        plan["number"] = str(4 * draw.randrange(6, 250) - (part == "train") * draw.randrange(1, 4))
        for sort, slots in SORTS.items():
            names: list[str] = []
            while len(names) < len(slots):
                name = draw.choice(self.common[sort]) if draw.random() < 0.5 else made_up(sort, part, draw)
                names += [name] if name not in names else []
            plan |= dict(zip(slots, names, strict=True))
        plan |= {slot: f"{draw.choice(FIRST.split())} {plan[slot]}" for slot in SORTS["person"]}
        sentences = [self.sentence(line, part).format(**plan) for line in told]
        return " ".join(one[0].upper() + one[1:] for one in sentences), summary.format(**plan)

    def sentence(self, line: str, part: str) -> str:
        """One of the wordings on the line, in a frame; the last wording is kept for the test part."""
        wordings = [" ".join(one.split()) for one in line.split("|")]
        wording = self.draw.choice(wordings[:-1] if part == "train" else wordings[-1:])
        frame = FRAMES[0] if self.draw.random() < 0.4 else self.draw.choice(FRAMES)
        return frame.replace("{}", wording)


def build(seed: int = 0) -> dict[str, list[tuple[str, str]]]:
    """Both parts."""
    writer = Writer(random.Random(seed))
    return {part: [writer.article(part) for _ in range(size)] for part, size in SIZES.items()}


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, pairs in build().items():
        lines = ["article\tsummary", *(f"{article}\t{summary}" for article, summary in pairs)]
        (folder / f"{part}.tsv.gz").write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "articles")
