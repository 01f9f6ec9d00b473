"""Summarization with a Transformer that copies names from the article.

The model of `nlp.translation` reads an article and writes a summary. A name that training never showed is in no
vocabulary, so no softmax over one can write it; but it stands in the article. At each word, a second attention
says which word of the article could come next, and a gate how far to trust it:

    p(word) = gate · p_vocabulary(word) + (1 - gate) · Σ attention on the positions of the word

Words that the vocabulary lacks are numbered after its own, article by article. To the Transformer they are all the
same unknown word, and only the context tells which is which: so a convolution shows each word its two neighbors
before the encoder reads. Nobody says when to copy: the loss is the cross-entropy of the mixture. A summary is
written greedily, the likeliest word each time.

Notes: 43
Paper: See, Liu, Manning (2017), "Get To The Point: Summarization with Pointer-Generator Networks",
    https://arxiv.org/abs/1704.04368
Data: short made-up news with one-sentence summaries, written for this library; yours as TSV or as two files.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches_by_length, main, option, recipe
from recipes.nlp.articles import (
    EncodedArticles,
    best_plain,
    best_sentences,
    draw,
    first_sentences,
    new_words_found,
    open_articles,
    rouge,
)
from recipes.nlp.sentence_pairs import END, START
from recipes.nlp.summarizing import Summarization
from recipes.nlp.text_classification.encoding import PAD, UNKNOWN
from recipes.nlp.translation import Translator


@dataclass(kw_only=True)
class SummarizationOptions(Options):
    source: str | None = option(None, "column of the articles; the first one if not given")
    target: str | None = option(None, "column of the summaries; the other one if not given")
    limit: int | None = option(None, "articles of the train part that are read; all if not given", least=1)
    min_freq: int = option(5, "times a word must occur in the train part to be in the vocabulary", least=1)
    max_words: int = option(400, "words of an article that are read; the rest is left out", least=1)
    max_summary: int = option(25, "words of a summary that are read, and that are written at most", least=1)
    width: int = option(64, "size of a word's embedding, an even multiple of the heads", least=2)
    layers: int = option(1, "of the encoder, and as many of the decoder", least=1)
    heads: int = option(4, "of attention in each layer", least=1)
    dropout: float = option(0.0, "share of numbers that are dropped while training", least=0, below=1)
    copying: bool = option(True, "mix with copying; else only words of the vocabulary are written")
    neighbors: bool = option(True, "show each word of the article its neighbors before the encoder reads")
    lr: float = 5e-3


class Summarizer(Translator):
    """A `Translator` within one language of `size` words, with a pointer into the article."""

    def __init__(self, size: int, *, width: int, copying: bool = True, neighbors: bool = True, **shape: Any) -> None:
        super().__init__(size, size, width=width, **shape)
        self.source_words = self.target_words  # one language, one table
        self.size, self.copying = size, copying
        self.neighbors = nn.Conv1d(width, width, 3, padding=1) if neighbors else None
        if copying:
            self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
            self.gate = nn.Linear(2 * width, 1)

    def known(self, ids: Tensor) -> Tensor:
        return ids.where(ids < self.size, UNKNOWN)

    def encode(self, sources: Tensor) -> Tensor:
        sources = self.known(sources)
        vectors, padding = self.embed(self.source_words, sources), sources == PAD  # (batch, article words, width)
        if self.neighbors is not None:
            vectors = vectors + self.neighbors(vectors.masked_fill(padding[:, :, None], 0).mT).mT
        return self.transformer.encoder(vectors, src_key_padding_mask=padding)

    def forward(self, sources: Tensor, written: Tensor) -> Any:
        """Probabilities of the word after each of those written, (batch, written words, all words), and how much of
        them is copied from each position of the article, (batch, written words, article words).
        """
        generated, copied = self.parts(sources, written, self.encode(sources))
        return mixture(generated, copied, sources), copied

    def parts(self, sources: Tensor, written: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """What is generated, (batch, written words, size), and copied, (batch, written words, article words)."""
        vectors = self.states(sources, self.known(written), memory)
        generated = F.linear(vectors, self.target_words.weight).float().softmax(dim=2)
        if not self.copying:
            return generated, torch.zeros_like(sources[:, None].expand(-1, written.shape[1], -1), dtype=torch.float)
        scores = self.query(vectors) @ self.key(memory).mT / math.sqrt(vectors.shape[2])
        attention = scores.masked_fill((sources == PAD)[:, None], -torch.inf).softmax(dim=2)
        context = attention.to(memory) @ memory  # (batch, written words, width)
        gate = self.gate(torch.cat([vectors, context], dim=2)).float().sigmoid()  # (batch, written words, 1)
        return gate * generated, (1 - gate) * attention


def mixture(generated: Tensor, copied: Tensor, sources: Tensor) -> Tensor:
    """Probabilities of all words, those of the vocabulary and those that the articles have besides.

    Args:
        generated: of the words of the vocabulary, (batch, written words, size).
        copied: of the article's positions, (batch, written words, article words); all of both sums to 1.
        sources: the words there, (batch, article words).
    """
    lacking = max(int(sources.max()) + 1 - generated.shape[2], 0)
    words = sources[:, None].expand_as(copied)
    # (batch, written words, size + lacking); a word at two positions gets both shares
    return F.pad(generated, (0, lacking)).scatter_add(2, words, copied)


def build(options: SummarizationOptions, data: EncodedArticles) -> Summarizer:
    """The network for the words of these articles."""
    if options.width % (2 * options.heads):
        raise InputError(f"option width: expected an even multiple of {options.heads} heads, got {options.width}")
    names = ("width", "layers", "heads", "dropout", "copying", "neighbors")
    return Summarizer(len(data.language), **{name: getattr(options, name) for name in names})


def train(model: Summarizer, train_set: EncodedArticles, options: SummarizationOptions) -> Loop:
    """Minimizes the cross-entropy of each next word, given the true ones before it, with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.98), fused=True)
    loader = batches_by_length(train_set, options, [len(ids) for ids in train_set.sources])
    loop = Loop(model, optimizer, loader, options)
    for sources, targets in loop:
        chances, _ = loop.model(sources, targets[:, :-1])  # from START to the last word …
        targets = targets[:, 1:]  # … to END
        targets = targets.where(targets < chances.shape[2], UNKNOWN)  # what cannot be copied
        right = chances.gather(2, targets[:, :, None])[targets != PAD]  # p(word), as generated or as copied
        loop.step(-right.clamp(min=1e-9).log().mean())
    return loop


@torch.inference_mode()
def greedy(model: Summarizer, sources: Tensor, max_words: int) -> Tensor:
    """Writes the likeliest word each time, be it generated or copied: (batch, words), from START to END."""
    model.eval()
    memory = model.encode(sources)
    written = torch.full((len(sources), 1), START, device=sources.device)
    for _ in range(max_words + 1):
        chances = mixture(*model.parts(sources, written, memory), sources)[:, -1]  # (batch, all words)
        chances[:, [PAD, START]] = 0
        done = written[:, -1].eq(END) | written[:, -1].eq(PAD)
        word = chances.argmax(dim=1).where(~done, PAD)
        written = torch.cat([written, word[:, None]], dim=1)
        if (done | word.eq(END)).all():
            break
    return written


def summarize(model: Summarizer, dataset: EncodedArticles, device: torch.device, max_words: int) -> list[str]:
    """Summaries of all articles, words in lower case with spaces between them."""
    summaries: list[str] = []
    for indices in torch.arange(len(dataset)).split(100):
        sources = dataset.__getitems__(indices.tolist())[0].to(device)
        for index, ids in zip(indices.tolist(), greedy(model, sources, max_words), strict=True):
            summaries.append(" ".join(dataset.words(index, ids)))
    return summaries


@recipe(SummarizationOptions)
def run(options: SummarizationOptions) -> Result:
    """Trains a summarizer and measures it on held-out articles."""
    names = ("source", "target", "limit", "min_freq", "max_words", "max_summary", "seed")
    train_set, test_set = open_articles(options.data, **{name: getattr(options, name) for name in names})
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, options)
    summaries = summarize(model, test_set, options.device, options.max_summary)
    new = {"new_words": new_words_found(summaries, train_set, test_set)}  # of those that training never showed
    return Result(
        metrics=rouge(summaries, test_set.truths) | new,
        baseline=best_plain(train_set, test_set),
        baseline_name="the better of the first sentence and the nearest train article's summary",
        bars={"rouge_l": 0.85},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    whole, plain, blind = run(), run(copying=False), run(neighbors=False)
    plain_answers = {"first sentence": first_sentences, "best sentence, the truth being known": best_sentences}
    for name, answers in plain_answers.items():
        whole.rows.append({"model": name} | rouge(answers(whole.test_set), whole.test_set.truths))
    text = "copying writes names and numbers that training never showed"
    yield Claim(text, whole["new_words"], ">", plain["new_words"], margin=0.3)
    yield Claim("and ROUGE-L is higher than without copying", whole["rouge_l"], ">", plain["rouge_l"], margin=0.2)
    text = "neighbors tell it which unknown word to copy"
    yield Claim(text, whole["new_words"], ">", blind["new_words"], margin=0.05)
    right, copied, others = pointing(whole.model, whole.test_set)
    yield Claim("before an unknown word, most of its attention is on that word", right, ">", 0.5, margin=0.1)
    yield Claim("there it copies more than before other words", copied, ">", others, margin=0.1)


@torch.inference_mode()
def pointing(model: Summarizer, dataset: EncodedArticles) -> list[float]:
    """Given the true words so far: which share of what is copied comes from the next word, and how
    much is copied at all, both for the words that the vocabulary lacks; and how much for all others. Means."""
    model.eval()
    device = next(model.parameters()).device
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
def traced(model: Summarizer, dataset: EncodedArticles, index: int, max_words: int) -> Any:
    """An article's words, those of its summary, and how much of each of these was copied from which of those."""
    sources = dataset.sources[index][None].to(next(model.parameters()).device)
    written = greedy(model, sources, max_words)
    summary = dataset.words(index, written[0])
    _, copied = model(sources, written[:, :-1])
    return dataset.words(index, sources[0]), summary, copied[0, : len(summary)]


@run.figure
def figure(result: Result) -> Any:
    dataset, most = result.test_set, result.options.get("max_summary", 25)
    by_length = sorted(range(len(dataset)), key=lambda index: len(dataset.sources[index]))
    shown = by_length[0], by_length[len(by_length) // 2]
    histories = {"as given": result.history} | {label: one.history for label, one in result.runs.items()}
    return draw(histories, [traced(result.model, dataset, index, most) for index in shown])


class GreedySummarization(Summarization):
    """Articles summarized greedily."""

    def search(self, model: Any, sources: Tensor) -> Tensor:
        return greedy(model, sources, self.max_summary)


run.predicts(GreedySummarization, build)


if __name__ == "__main__":
    main(run)
