"""Named entities: a tag for every word.

A linear layer on the encoder's state of each word says whether an entity begins there (B-), goes on (I-) or
neither (O), and of which kind. What the tokenizer splits into pieces is tagged at its first one; the others are
left out of the loss. Entities are then read off the tags, and count only when they are right from the first word
to the last.

A list of names does not get far: names are new every day, and the same one may be a person, a town or a firm. Here
all is read in lower case, so not even capitals help: what a name is, its neighbours have to tell. So a random encoder
begins with positions that are strong beside the words. The run measures how many it finds of those names that training
never showed.

Notes: 46
Paper: Devlin, Chang, Lee, Toutanova (2019), "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", https://arxiv.org/abs/1810.04805
Data: sentences in the style of news, written for this library; yours in CoNLL columns, BIO or BMES.
"""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, new_figure
from recipes.core.loop import Engine, Loop, one_cycle
from recipes.core.result import Claim, Result, recipe
from recipes.datasets.tagged_words import TaggedWords, open_tagged_words, spans_of
from recipes.nlp.bert.encoder import open_encoder, start_with_positions, states_of, with_some_hidden
from recipes.nlp.bert.subwords import Subwords
from recipes.nlp.bert.tagging import NO_TAG, TaggedPieces, encode_tags, entity_scores, looked_up, new_entities
from recipes.nlp.text_classification.encoding import batches_by_length
from recipes.options import main


class WordTagger(nn.Module):
    """A linear layer on the state of each piece.

    Args:
        encoder: a model of `transformers`.
        subwords: the pieces that it reads.
        num_tags: O, and two for each kind of entity.
        hidden: share of the pieces that are hidden while training, so that the others have to tell what they are.
    """

    def __init__(self, encoder: Any, subwords: Subwords, num_tags: int, hidden: float = 0.15) -> None:
        super().__init__()
        self.encoder, self.hidden, self.pad, self.mask = encoder, hidden, subwords.pad, subwords.mask
        self.head = nn.Linear(encoder.config.hidden_size, num_tags)

    def forward(self, ids: Tensor) -> Tensor:
        there = ids != self.pad
        if self.training and self.hidden:
            ids = with_some_hidden(ids, there, self.hidden, self.mask)
        return self.head(states_of(self.encoder, ids, there))  # (batch, pieces, tags)


def train(
    model: WordTagger,
    train_set: TaggedPieces,
    test_set: TaggedPieces,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    **engine: Unpack[Engine],
) -> Loop:
    """Minimises the cross-entropy of the words' tags; the loop's history follows the test part."""
    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr),
        batches_by_length(train_set, batch_size, seed=seed),
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        evaluate=lambda: evaluate(model, test_set, device),
        **engine,
    )
    for ids, tags in loop:
        logits = loop.model(ids)
        loss = F.cross_entropy(logits.flatten(0, 1), tags.flatten(), ignore_index=NO_TAG)
        loop.step(loss)
    return loop


def evaluate(model: WordTagger, dataset: TaggedPieces, device: torch.device) -> dict[str, float]:
    """F1, precision and recall of entities over the whole set."""
    return entity_scores(dataset.tagged(predict(model, dataset, device, 64)), dataset.part.tags)


def draw(
    rows: list[dict[str, Any]], history: list[dict[str, float]], predicted: list[list[str]], part: TaggedWords
) -> Any:
    """The curve, all that was compared, and held-out sentences with the entities that were found."""
    figure, axes = new_figure(2, 2, width=5.2, height=2.9)
    draw_curves(axes[0, 0], history, ["f1", "loss"])
    axes[0, 0].set(ylim=(0, None), title="training")
    names = [row["model"] for row in rows]
    for shift, key, label in ((-0.2, "f1", "F1"), (0.2, "recall_new", "new names found")):
        bars = axes[0, 1].barh(torch.arange(len(rows)) + shift, [row[key] for row in rows], height=0.38, label=label)
        axes[0, 1].bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes[0, 1].set_yticks(range(len(rows)), names)
    axes[0, 1].set(xlim=(0, 1.15), ylim=(len(rows) - 0.4, -1.2))
    axes[0, 1].legend(frameon=False, ncols=2, loc="upper right")
    axes[0, 1].spines[["top", "right"]].set_visible(False)
    grid = axes[1, 0].get_gridspec()
    for place in axes[1]:
        place.remove()
    draw_sentences(figure.add_subplot(grid[1, :]), predicted, part)
    return figure


def draw_sentences(axes: Any, predicted: list[list[str]], part: TaggedWords, lines: int = 8) -> None:
    """The first sentences, each kind of entity on a colour of its own; what is wrong is underlined in red."""
    from matplotlib import colormaps

    colours = {kind: colormaps["Pastel1"](index % 9) for index, kind in enumerate(part.kinds)}
    columns = 132  # letters of a typewriter's font in a line
    for line in range(min(lines, len(part))):
        words, place, starts = part.words[line], 0, []
        for word in words:
            starts.append(place)
            if place + len(word) <= columns:
                axes.text(place, -line, word, family="monospace", fontsize=9, va="center")
            place += len(word) + 1
        told, true = (set(spans_of(tags)) for tags in (predicted[line], part.tags[line]))
        for start, end, kind in told | true:
            sides = [starts[start], starts[end - 1] + len(words[end - 1])]
            if sides[1] <= columns and (start, end, kind) in told:
                axes.fill_between(sides, -line - 0.35, -line + 0.35, color=colours[kind], zorder=0, lw=0)
            if sides[1] <= columns and (start, end, kind) not in told & true:
                axes.plot(sides, [-line - 0.4] * 2, color="red", lw=1.5)
    for kind, colour in colours.items():
        axes.fill_between([], [], color=colour, label=kind)
    axes.plot([], [], color="red", label="wrong")
    axes.set(xlim=(0, columns), ylim=(-lines, 1.4))
    axes.legend(frameon=False, ncols=9, loc="upper left", fontsize=8)
    axes.axis("off")


@recipe
def run(
    *,
    data: str | None = None,
    weights: str | None = None,
    pieces: int = 300,
    max_pieces: int = 256,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    epochs: int = 10,
    batch_size: int = 16,
    lr: float = 3e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a tagger and measures the entities it finds in held-out sentences.

    Args:
        data: folder or file of your tagged words; the bundled entities if not given.
        weights: pretrained (MiniLM), a folder or a hub name that transformers reads; random if not given.
        pieces: of words, which the tokenizer learns at most; few of them split rare names, as new ones will be.
        max_pieces: of a sentence that are read, its beginning and end among them; the rest is tagged O.
        width: numbers in a piece's vector.
        layers: of the encoder.
        heads: of attention in each layer.
        epochs: passes over the train sentences.
        batch_size: sentences in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule; pretrained weights need less, such as 1e-4.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the sentences, and of the split of a single file.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if max_pieces < 3:
        raise InputError(f"option max_pieces: expected a whole number of at least 3, got {max_pieces}")
    place = setup(device, seed)
    train_part, test_part = open_tagged_words(data, seed=seed)
    texts = [" ".join(words) for words in train_part.words]
    size = {"width": width, "layers": layers, "heads": heads, "longest": max_pieces}
    encoder, subwords = open_encoder(weights, texts, pieces=pieces, **size)
    train_set, test_set = (encode_tags(part, subwords, max_pieces) for part in (train_part, test_part))
    if weights is None:
        start_with_positions(encoder)

    model = WordTagger(encoder, subwords, len(train_set.names)).to(place)
    loop = train(
        model, train_set, test_set, epochs=epochs, batch_size=batch_size, lr=lr, device=place, seed=seed, **engine
    )
    predicted = test_set.tagged(predict(model, test_set, place, 64))
    taggers = {
        "words looked up": looked_up(train_part, test_part, capitals=False),
        "words and capitals": looked_up(train_part, test_part, capitals=True),
        "encoder": predicted,
    }
    new = new_entities(train_part, test_part)
    rows: list[dict[str, Any]] = []
    for name, tags in taggers.items():
        scores = entity_scores(tags, test_part.tags)
        rows.append({"model": name} | scores | {"recall_new": entity_scores(tags, new)["recall"]})
    best = max(rows[:2], key=lambda row: row["f1"])
    return Result(
        metrics={key: rows[-1][key] for key in ("f1", "precision", "recall")},
        baseline={key: best[key] for key in ("f1", "precision", "recall")},
        baseline_name=best["model"],
        bars={"f1": 0.87},
        claims=[
            Claim(
                "context tells what a name is: of entities with words that training never showed, it finds more "
                "than a list of words and the capitals do",
                rows[-1]["recall_new"],
                ">",
                max(row["recall_new"] for row in rows[:2]),
            ),
        ],
        rows=rows,
        history=loop.history,
        model=model,
        draw=lambda: draw(rows, loop.history, predicted, test_part),
    )


if __name__ == "__main__":
    main(run)
