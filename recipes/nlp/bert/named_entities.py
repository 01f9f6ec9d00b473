"""Named entities: a tag for every word.

A linear layer on the encoder's state of each word says whether an entity begins there (B-), goes on (I-) or
neither (O), and of which kind. What the tokenizer splits into pieces is tagged at its first one; the others are
left out of the loss. Entities are then read off the tags, and count only when they are right from the first word
to the last.

A list of names does not get far: names are new every day, and the same one may be a person, a town or a firm. Here
all is read in lower case, so not even capitals help: what a name is, its neighbours have to tell. So a convolution
shows each piece its neighbours before a random encoder reads it, and positions begin strong beside the words. The run
measures how many it finds of those names that training never showed.

Where each word is tagged for itself, long names fall into parts: an I- comes where nothing is to go on with. A second
tagger learns whole sequences of tags (a conditional random field: Lafferty, McCallum, Pereira, 2001,
https://repository.upenn.edu/cis_papers/159), by the cross-entropy of the true sequence among all legal ones, and of
those it tells the likeliest. The run compares how many entities of two words or more the two find.

Notes: 46
Paper: Devlin, Chang, Lee, Toutanova (2019), "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", https://arxiv.org/abs/1810.04805
Data: sentences in the style of news, written for this library; yours in CoNLL columns, BIO or BMES.
"""

import copy
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.tagged_words import TaggedWords, open_tagged_words, spans_of
from recipes.nlp.bert.encoder import open_encoder, start_with_positions, states_of, with_neighbours, with_some_hidden
from recipes.nlp.bert.subwords import Subwords
from recipes.nlp.bert.tagging import (
    FORBIDDEN,
    NO_TAG,
    TaggedPieces,
    encode_tags,
    entity_scores,
    legal_steps,
    long_entities,
    looked_up,
    new_entities,
)
from recipes.nlp.text_classification.encoding import batches_by_length


class WordTagger(nn.Module):
    """A linear layer on the state of each piece.

    Args:
        encoder: a model of `transformers`.
        subwords: the pieces that it reads.
        num_tags: O, and two for each kind of entity.
        hidden: share of the pieces that are hidden while training, so that the others have to tell what they are.
        neighbours: show each piece two neighbours on either side before the encoder reads it.
        sequences: learn and tell legal sequences of tags; otherwise each word's tag for itself.
    """

    def __init__(
        self,
        encoder: Any,
        subwords: Subwords,
        num_tags: int,
        *,
        hidden: float = 0.15,
        neighbours: bool = True,
        sequences: bool = True,
    ) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder, self.hidden, self.pad, self.mask = encoder, hidden, subwords.pad, subwords.mask
        self.neighbours = nn.Conv1d(width, width, 5, padding=2) if neighbours else None
        self.head, self.sequences = nn.Linear(width, num_tags), sequences

    def forward(self, ids: Tensor) -> Tensor:
        there = ids != self.pad
        if self.training and self.hidden:
            ids = with_some_hidden(ids, there, self.hidden, self.mask)
        if self.neighbours is None:
            return self.head(states_of(self.encoder, ids, there))  # (batch, pieces, tags)
        vectors = self.encoder.get_input_embeddings()(ids)  # (batch, pieces, width)
        vectors = with_neighbours(vectors, there, self.neighbours)
        return self.head(self.encoder(inputs_embeds=vectors, attention_mask=there.long()).last_hidden_state)


def sequence_loss(logits: Tensor, tags: Tensor, steps: Tensor) -> Tensor:
    """The cross-entropy of the true sequence of tags among all legal ones, per word.

    A sequence's score is the sum of its tags' logits, its probability exp(score) / Σ exp(score of each legal one). The
    sum is built up word by word. If any tag might follow any other, this would be the cross-entropy of each word.

    Args:
        logits: (batch, pieces, tags).
        tags: (batch, pieces), NO_TAG where a piece has none.
        steps: (tags, tags), see `legal_steps`.
    """
    logits, there = logits.float(), tags != NO_TAG
    true = (logits.gather(2, tags.clamp(min=0)[:, :, None])[:, :, 0] * there).sum(dim=1)  # (batch,)
    total = torch.full_like(logits[:, 0], FORBIDDEN)  # (batch, tags): log Σ exp(score) of those that end in each tag
    total[:, 0] = 0  # before the first word stands an O
    for piece, known in zip(logits.unbind(dim=1), there.unbind(dim=1), strict=True):
        longer = (total[:, :, None] + steps).logsumexp(dim=1) + piece
        total = torch.where(known[:, None], longer, total)
    return (total.logsumexp(dim=1) - true).sum() / there.sum().clamp(min=1)


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
    name: str = "model",
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises the cross-entropy of the tags; the loop's history follows the test part."""
    loop = OldLoop(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr, fused=True),
        batches_by_length(train_set, batch_size, seed=seed),
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        evaluate=lambda: evaluate(model, test_set, device),
        name=name,
        **engine,
    )
    steps = legal_steps(train_set.names).to(device)
    for ids, tags in loop:
        logits = loop.model(ids)
        if model.sequences:
            loss = sequence_loss(logits, tags, steps)
        else:
            loss = F.cross_entropy(logits.flatten(0, 1), tags.flatten(), ignore_index=NO_TAG)
        loop.step(loss)
    return loop


def evaluate(model: WordTagger, dataset: TaggedPieces, device: torch.device) -> dict[str, float]:
    """F1, precision and recall of entities over the whole set."""
    tags = dataset.tagged(predict(model, dataset, device, 64), legal=model.sequences)
    return entity_scores(tags, dataset.part.tags)


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


@old_recipe
def run(
    *,
    data: str | None = None,
    weights: str | None = None,
    pieces: int = 300,
    max_pieces: int = 256,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    epochs: int = 4,
    batch_size: int = 16,
    lr: float = 3e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains two taggers, of words and of sequences, and measures the entities it finds in held-out sentences.

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

    taggers = {
        "words looked up": looked_up(train_part, test_part, capitals=False),
        "words and capitals": looked_up(train_part, test_part, capitals=True),
    }
    for name, sequences in (("encoder, each word for itself", False), ("encoder", True)):
        setup(device, seed)  # both start alike
        parts = {"neighbours": weights is None, "sequences": sequences}  # pretrained weights expect no convolution
        model = WordTagger(copy.deepcopy(encoder), subwords, len(train_set.names), **parts).to(place)
        options: dict[str, Any] = {"device": place, "seed": seed, "name": "sequences" if sequences else "words"}
        loop = train(model, train_set, test_set, epochs=epochs, batch_size=batch_size, lr=lr, **options, **engine)
        taggers[name] = test_set.tagged(predict(model, test_set, place, 64), legal=sequences)
    kept = {"recall_new": new_entities(train_part, test_part), "recall_long": long_entities(test_part)}
    rows: list[dict[str, Any]] = []
    for name, tags in taggers.items():
        scores = entity_scores(tags, test_part.tags)
        recalls = {key: entity_scores(tags, some)["recall"] for key, some in kept.items()}
        rows.append({"model": name} | scores | recalls)
    best = max(rows[:2], key=lambda row: row["f1"])
    return Result(
        metrics={key: rows[-1][key] for key in ("f1", "precision", "recall")},
        baseline={key: best[key] for key in ("f1", "precision", "recall")},
        baseline_name=best["model"],
        bars={"f1": 0.87},
        claims=[
            claim(
                "context tells what a name is: of entities with words that training never showed, it finds more "
                "than a list of words and the capitals do",
                rows[-1]["recall_new"],
                ">",
                max(row["recall_new"] for row in rows[:2]),
            ),
            claim(
                "taught whole sequences of tags, it finds as many entities of two words or more, or more of them",
                rows[-1]["recall_long"],
                ">=",
                rows[-2]["recall_long"],
            ),
        ],
        rows=rows,
        history=loop.history,
        model=model,
        draw=lambda: draw(rows, loop.history, taggers["encoder"], test_part),
    )


if __name__ == "__main__":
    main(run)
