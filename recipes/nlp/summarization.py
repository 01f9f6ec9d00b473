"""Summarization with a Transformer that copies names from the article.

The model of `nlp.translation` reads an article and writes a summary. A name that training never showed is in no
vocabulary, so no softmax over one can write it; but it stands in the article. At each word, a second attention
says which word of the article could come next, and a gate how far to trust it:

    p(word) = gate · p_vocabulary(word) + (1 - gate) · Σ attention on the places where the word stands

The words that the vocabulary lacks are numbered after its own, article by article. To the Transformer they are all
the same unknown word, and only what stands around it tells which is which: so a convolution shows each word its two
neighbours before the encoder reads. Nobody says when to copy: the loss is the cross-entropy of the mixture. A summary
is written greedily, the likeliest word each time.

Notes: 43
Paper: See, Liu, Manning (2017), "Get To The Point: Summarization with Pointer-Generator Networks",
    https://arxiv.org/abs/1704.04368
Data: short made-up news with one-sentence summaries, written for this library; yours as TSV or as two files.
"""

import math
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_recipe
from recipes.core.result import Result
from recipes.nlp.articles import (
    EncodedArticles,
    batches_of_articles,
    best_sentences,
    draw,
    first_sentences,
    new_words_found,
    open_articles,
    rouge,
)
from recipes.nlp.sentence_pairs import END, START
from recipes.nlp.text_classification.encoding import PAD, UNKNOWN
from recipes.nlp.translation import Translator

MODELS = {"without copying": {"copying": False}, "without neighbours": {"neighbours": False}, "copying": {}}


class Summarizer(Translator):
    """A `Translator` within one language, with a pointer into the article.

    Args:
        size: words of the vocabulary.
        width: numbers in a word's vector.
        copying: mix with copying; without it, only words of the vocabulary are written.
        neighbours: show each word of the article its two neighbours before the encoder reads it.
        shape: layers, heads and dropout of a `Translator`.
    """

    def __init__(self, size: int, *, width: int, copying: bool = True, neighbours: bool = True, **shape: Any) -> None:
        super().__init__(size, size, width=width, **shape)
        self.source_words = self.target_words  # one language, one table
        self.size, self.copying = size, copying
        self.neighbours = nn.Conv1d(width, width, 3, padding=1) if neighbours else None
        if copying:
            self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
            self.gate = nn.Linear(2 * width, 1)

    def known(self, ids: Tensor) -> Tensor:
        return ids.where(ids < self.size, UNKNOWN)

    def encode(self, sources: Tensor) -> Tensor:
        sources = self.known(sources)
        vectors, padding = self.embed(self.source_words, sources), sources == PAD  # (batch, article words, width)
        if self.neighbours is not None:
            vectors = vectors + self.neighbours(vectors.masked_fill(padding[:, :, None], 0).mT).mT
        return self.transformer.encoder(vectors, src_key_padding_mask=padding)

    def forward(self, sources: Tensor, written: Tensor | None = None, memory: Tensor | None = None) -> Any:
        """Probabilities of the word after each of those written, (batch, written words, all words), and how much of
        them is copied from each place of the article, (batch, written words, article words).

        Args:
            sources: (batch, article words); numbers from `size` on are words that the vocabulary lacks.
            written: (batch, written words), the first of them START; without it, the encoder's answer is returned.
            memory: that answer, if it is known already.
        """
        memory = self.encode(sources) if memory is None else memory
        if written is None:
            return memory
        vectors = self.decode(sources, self.known(written), memory)
        generated = F.linear(vectors, self.target_words.weight).softmax(dim=2)  # (batch, written words, size)
        if not self.copying:
            return generated, torch.zeros_like(sources[:, None].expand(-1, written.shape[1], -1), dtype=torch.float)
        scores = self.query(vectors) @ self.key(memory).mT / math.sqrt(vectors.shape[2])
        attention = scores.masked_fill((sources == PAD)[:, None], -torch.inf).softmax(dim=2)
        context = attention.to(memory) @ memory  # what stands there, (batch, written words, width)
        gate = self.gate(torch.cat([vectors, context], dim=2)).float().sigmoid()  # (batch, written words, 1)
        copied = (1 - gate) * attention
        return mixture(gate * generated, copied, sources), copied


def mixture(generated: Tensor, copied: Tensor, sources: Tensor) -> Tensor:
    """Probabilities of all words, those of the vocabulary and those that the articles have besides.

    Args:
        generated: of the words of the vocabulary, (batch, written words, size).
        copied: of the article's places, (batch, written words, article words); all of both sums to 1.
        sources: the words there, (batch, article words).
    """
    lacking = max(int(sources.max()) + 1 - generated.shape[2], 0)
    words = sources[:, None].expand_as(copied)
    # (batch, written words, size + lacking); a word that stands in two places gets both shares
    return F.pad(generated, (0, lacking)).scatter_add(2, words, copied)


def train(
    model: Summarizer,
    train_set: EncodedArticles,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    name: str = "model",
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises the cross-entropy of each next word, given the true ones before it, with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), fused=True)
    batches = batches_of_articles(train_set, batch_size, seed=seed)
    loop = OldLoop(model, optimizer, batches, epochs=epochs, device=device, schedule=one_cycle, name=name, **engine)
    for sources, targets in loop:
        chances, _ = loop.model(sources, targets[:, :-1])  # from START to the last word …
        targets = targets[:, 1:]  # … to END
        targets = targets.where(targets < chances.shape[2], UNKNOWN)  # what cannot be copied
        right = chances.gather(2, targets[:, :, None])[targets != PAD]  # p(word), as generated or as copied
        loss = -right.clamp(min=1e-9).log().mean()
        loop.step(loss)
    return loop


@torch.inference_mode()
def greedy(model: Summarizer, sources: Tensor, max_words: int) -> Tensor:
    """Writes the likeliest word each time, be it generated or copied: (batch, words), from START to END."""
    model.eval()
    memory = model(sources)
    written = torch.full((len(sources), 1), START, device=sources.device)
    for _ in range(max_words + 1):
        chances = model(sources, written, memory)[0][:, -1]  # (batch, all words)
        chances[:, [PAD, START]] = 0
        done = written[:, -1].eq(END) | written[:, -1].eq(PAD)
        word = chances.argmax(dim=1).where(~done, PAD)
        written = torch.cat([written, word[:, None]], dim=1)
        if (done | word.eq(END)).all():
            break
    return written


def summarise(model: Summarizer, dataset: EncodedArticles, device: torch.device, max_words: int) -> list[str]:
    """Summaries of all articles, words in lower case with spaces between them."""
    summaries: list[str] = []
    for indices in torch.arange(len(dataset)).split(100):
        sources = dataset.__getitems__(indices.tolist())[0].to(device)
        for index, ids in zip(indices.tolist(), greedy(model, sources, max_words), strict=True):
            summaries.append(" ".join(dataset.words(index, ids)))
    return summaries


@torch.inference_mode()
def pointing(model: Summarizer, dataset: EncodedArticles, device: torch.device) -> list[float]:
    """Given the true words so far: which share of what is copied comes from where the next word stands, and how
    much is copied at all, both for the words that the vocabulary lacks; and how much for all others. Means."""
    model.eval()
    found: tuple[list[Tensor], ...] = ([], [], [])
    for indices in torch.arange(len(dataset)).split(100):
        sources, targets = (ids.to(device) for ids in dataset.__getitems__(indices.tolist()))
        _, copied = model(sources, targets[:, :-1])
        targets, total = targets[:, 1:], copied.sum(dim=2)  # (batch, words)
        right = (copied * (sources[:, None] == targets[:, :, None])).sum(dim=2) / total.clamp(min=1e-9)
        lacking = targets >= model.size
        found[0].append(right[lacking])
        found[1].append(total[lacking])
        found[2].append(total[~lacking & (targets != PAD)])
    return [torch.cat(values).mean().item() for values in found]


@torch.inference_mode()
def traced(model: Summarizer, dataset: EncodedArticles, index: int, device: torch.device, max_words: int) -> Any:
    """An article's words, those of its summary, and how much of each of these was copied from which of those."""
    sources = dataset.sources[index][None].to(device)
    written = greedy(model, sources, max_words)
    summary = dataset.words(index, written[0])
    _, copied = model(sources, written[:, :-1])
    return dataset.words(index, sources[0]), summary, copied[0, : len(summary)]


@old_recipe
def run(
    *,
    data: str | None = None,
    source: str | None = None,
    target: str | None = None,
    limit: int | None = None,
    min_freq: int = 5,
    max_words: int = 400,
    max_summary: int = 25,
    width: int = 64,
    layers: int = 1,
    heads: int = 4,
    dropout: float = 0.0,
    epochs: int = 5,
    batch_size: int = 32,
    lr: float = 5e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a summarizer, one that cannot copy and one without neighbours; measures them on held-out articles.

    Args:
        data: folder with train.tsv and test.tsv, or with files such as train.article and train.summary; or one
            TSV file; the bundled articles if not given.
        source: column of the articles; the first one if not given.
        target: column of the summaries; the other one if not given.
        limit: articles of the train part that are read; all if not given.
        min_freq: times a word must occur in the train part to be in the vocabulary.
        max_words: words of an article that are read; the rest is left out.
        max_summary: words of a summary that are read, and that are written at most.
        width: numbers in a word's vector, an even multiple of the heads.
        layers: of the encoder, and as many of the decoder.
        heads: of attention in each layer.
        dropout: share of numbers that are dropped while training; 0.1 or more helps with many epochs.
        epochs: passes over the train articles.
        batch_size: articles in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the articles, and of the split of a single file.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if min(width, layers, heads, max_words, max_summary) < 1 or width % (2 * heads) or not 0 <= dropout < 1:
        raise InputError(
            "options width, layers, heads, max_words, max_summary, dropout: at least 1, width an even multiple of "
            f"heads, dropout below 1; got {width}, {layers}, {heads}, {max_words}, {max_summary} and {dropout}"
        )
    place = setup(device, seed)
    columns: dict[str, Any] = {"source": source, "target": target, "limit": limit, "seed": seed}
    train_set, test_set = open_articles(
        data, min_freq=min_freq, max_words=max_words, max_summary=max_summary, **columns
    )

    def row(name: str, summaries: list[str]) -> dict[str, Any]:
        found = new_words_found(summaries, train_set, test_set)
        return {"model": name} | rouge(summaries, test_set.truths) | {"new": found, "writes": summaries[0][:60]}

    rows = [row("first sentence", first_sentences(test_set)), row("best sentence", best_sentences(test_set))]
    shape: dict[str, Any] = {"width": width, "layers": layers, "heads": heads, "dropout": dropout}
    shared: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "device": place, "seed": seed}
    histories = {}
    for name, parts in MODELS.items():
        torch.manual_seed(seed)
        model = Summarizer(len(train_set.language), **shape, **parts).to(place)
        histories[name] = train(model, train_set, name=name.replace(" ", "_"), **shared, **engine).history
        rows.append(row(name, summarise(model, test_set, place, max_summary)))
    by_length = sorted(range(len(test_set)), key=lambda index: len(test_set.sources[index]))
    shown = by_length[0], by_length[len(by_length) // 2]
    right, copied, copied_known = pointing(model, test_set, place)
    first, _, plain, blind, whole = rows
    return Result(
        metrics={key: whole[key] for key in ("rouge_l", "rouge_2")},
        baseline={key: first[key] for key in ("rouge_l", "rouge_2")},
        baseline_name="first sentence",
        bars={"rouge_l": 0.85},
        claims=[
            claim("copying writes names and numbers that training never showed", whole["new"], ">", plain["new"]),
            claim("and its ROUGE-L is higher than without copying", whole["rouge_l"], ">", plain["rouge_l"]),
            claim("neighbours tell it which unknown word to copy", whole["new"], ">", blind["new"]),
            claim("before an unknown word, most of its attention is on that word", right, ">", 0.5),
            claim("there it copies more than before other words", copied, ">", copied_known),
        ],
        rows=rows,
        history=histories["copying"],
        model=model,
        draw=lambda: draw(histories, [traced(model, test_set, index, place, max_summary) for index in shown]),
    )


if __name__ == "__main__":
    main(run)
