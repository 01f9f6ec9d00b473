"""Sentence similarity: two sentences through one encoder, and the cosine between them.

The states of a sentence's words are averaged into one vector, and the cosine of two such vectors is trained to
be the score that people gave the pair (Sentence-BERT). Each sentence is read alone, so the vectors of a million
sentences can be kept and searched.

Counting shared words does not do: "the burglar tricked the attorney" and "the lawyer was deceived by the thief"
share next to none. Which words mean the same is learned here from scored pairs alone, and that is nearly all that is
learned: the plain mean of word vectors, without any attention, is ahead (attention=False), and shuffling the words
costs the encoder little. Who did it to whom is harder, "the lawyer deceived the thief" has the words of its opposite,
and so few pairs do not teach it. The encoder therefore starts as little more than that mean: its layers begin silent.

A pretrained encoder has read much more. With weights="pretrained" it is fine-tuned, with frozen=True as well it
is measured as it is.

Notes: 46
Paper: Reimers, Gurevych (2019), "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    https://arxiv.org/abs/1908.10084
Data: pairs of English sentences written for this library; yours as TSV, such as the STS benchmark.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import (
    Claim,
    InputError,
    Loop,
    Options,
    Result,
    batches_by_length,
    main,
    option,
    predict,
    recipe,
)
from recipes.datasets.sentence_scores import open_scored_pairs
from recipes.nlp.bert.encoder import (
    begin,
    encoder_from,
    mean_pool,
    open_start,
    start_with_words,
    states_of,
    with_a_fast_head,
    with_some_hidden,
)
from recipes.nlp.bert.ranking import EncodedScores, encode_pairs, ranks, rare_overlap, spearman, word_overlap
from recipes.nlp.bert.using_pairs import SentenceSimilarity


@dataclass(kw_only=True)
class SimilarityOptions(Options):
    weights: str | None = option(None, "pretrained (MiniLM), or a folder or hub name that transformers reads")
    frozen: bool = option(False, "measure the pretrained encoder as it is, without training it")
    attention: bool = option(True, "let an encoder read the sentence; otherwise each word's vector stands alone")
    pieces: int = option(1000, "of words, which a tokenizer learns at most", least=1)
    max_pieces: int = option(128, "of a sentence that are read; the rest is left out", least=3)
    width: int = option(64, "size of a piece's state, a multiple of the heads", least=1)
    layers: int = option(2, "of the encoder", least=1)
    heads: int = option(4, "of attention in each layer", least=1)
    epochs: int = 8
    batch_size: int = 16
    lr: float = option(
        2e-3, "highest learning rate of the schedule; pretrained weights need less, such as 5e-5", above=0
    )


class Similarity(nn.Module):
    """Pairs of sentences (batch, 2, pieces) to the cosine between their mean states (batch,), from -1 to 1.

    Args:
        encoder: a model of `transformers`.
        pad, mask: numbers of the pieces that fill up, and that hide others.
        attention: let the encoder read; otherwise only its vectors of pieces are used.
        hidden: share of the pieces that are hidden while training, so that no pair is learned by heart.
    """

    def __init__(self, encoder: Any, pad: int, mask: int, *, attention: bool = True, hidden: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder if attention else encoder.get_input_embeddings()
        self.pad, self.mask, self.attention, self.hidden = pad, mask, attention, hidden

    def forward(self, ids: Tensor) -> Tensor:
        flat = ids.flatten(0, 1)  # (batch, 2, pieces) to (batch * 2, pieces)
        real = flat != self.pad
        if self.training and self.hidden:
            flat = with_some_hidden(flat, real, self.hidden, self.mask)
        states = states_of(self.encoder, flat, real) if self.attention else self.encoder(flat)
        vectors = mean_pool(states, real).unflatten(0, (-1, 2))  # (batch, 2, width)
        return F.cosine_similarity(vectors[:, 0], vectors[:, 1])


def build(options: SimilarityOptions, data: Any) -> Similarity:
    """The network for an encoder like this, with random weights."""
    words, hidden = data.vocabulary, 0.1 if options.weights is None else 0.0
    return Similarity(encoder_from(data.config), words.pad, words.mask, attention=options.attention, hidden=hidden)


def train(model: Similarity, train_set: EncodedScores, test_set: EncodedScores, options: SimilarityOptions) -> Loop:
    """Brings the cosines to the scores, by squared distance; vectors of pieces that start random learn faster."""
    random = options.weights is None
    embeddings = model.encoder.get_input_embeddings() if options.attention else model.encoder
    lengths = [max(len(one), len(other)) for one, other in zip(train_set.firsts, train_set.seconds, strict=True)]
    loop = Loop(
        model,
        with_a_fast_head(model, embeddings.parameters() if random else [], options.lr),
        batches_by_length(train_set, options, lengths),
        options,
        evaluate=lambda: evaluate(model, test_set, options.device),
    )
    for ids, scores in loop:
        loop.step(F.mse_loss(loop.model(ids), scores))
    return loop


def evaluate(model: Similarity, dataset: EncodedScores, device: Any) -> dict[str, float]:
    """Spearman's correlation of cosines and scores over the whole set."""
    return {"spearman": spearman(torch.stack(predict(model, dataset, device, 128)), dataset.scores)}


@recipe(SimilarityOptions)
def run(options: SimilarityOptions) -> Result:
    """Trains an encoder on scored pairs and measures it on held-out ones."""
    if options.frozen and options.weights is None:
        raise InputError("option frozen: expected it with weights; an encoder that starts random has to be trained")
    parts = open_scored_pairs(options.data, seed=options.seed)
    size: dict[str, Any] = {"width": options.width, "layers": options.layers, "heads": options.heads}
    size |= {"pieces": options.pieces, "longest": options.max_pieces}
    start = open_start(options.weights, [*parts[0].firsts, *parts[0].seconds], **size)
    scale = parts[0].scores.min().item(), parts[0].scores.max().item()
    read = start.subwords, options.max_pieces, scale, start.config
    train_set, test_set = encode_pairs(parts[0], *read), encode_pairs(parts[1], *read)
    model = build(options, train_set)
    if options.attention:
        begin(model.encoder, start)
    if options.attention and options.weights is None:
        start_with_words(model.encoder)
    history = [] if options.frozen else train(model, train_set, test_set, options).history
    return Result(
        metrics=evaluate(model.to(options.device), test_set, options.device),
        baseline={"spearman": spearman(rare_overlap(*parts), test_set.scores)},
        baseline_name="rare words shared (TF-IDF)",
        bars={"spearman": 0.74},
        history=history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full = run()
    test_set, learned, counted = full.test_set, full["spearman"], full.baseline["spearman"]
    device = next(full.model.parameters()).device
    disordered = evaluate(full.model, test_set.with_words_shuffled(full.options["seed"]), device)["spearman"]
    measured = {"words shared": spearman(word_overlap(test_set.pairs), test_set.scores), full.baseline_name: counted}
    measured |= {"encoder": learned, "encoder, words shuffled": disordered}
    text = "words that mean the same are learned from scored pairs: it beats counting the rare words that both have"
    yield Claim(text, learned, ">", counted, margin=0.1)
    if full.options["weights"] is None:
        text = "it is mostly words that are learned: with those of each sentence shuffled it still beats counting them"
        yield Claim(text, disordered, ">", counted, margin=0.1)
        measured["mean of word vectors"] = run(attention=False)["spearman"]
        text = "attention is not what does it: the mean of word vectors beats counting as well"
        yield Claim(text, measured["mean of word vectors"], ">", counted, margin=0.1)
    full.rows = [{"model": name, "spearman": value} for name, value in measured.items()]


@run.figure
def figure(result: Result) -> Any:
    """Cosines over scores, all that was compared, and pairs that word overlap gets most wrong."""
    dataset, pairs, device = result.test_set, result.test_set.pairs, next(result.model.parameters()).device
    cosines, overlap = torch.stack(predict(result.model, dataset, device, 128)), word_overlap(pairs)
    figure, axes = new_figure(2, 2, width=5.2, height=3.0)
    jitter = torch.rand(len(dataset), generator=torch.Generator().manual_seed(0)) * 0.3 - 0.15
    for values, label in ((overlap, "words shared"), (cosines, "this recipe")):
        axes[0, 0].scatter(pairs.scores + jitter, values, s=7, alpha=0.5, label=label)
    axes[0, 0].set(xlabel="score given", ylabel="cosine, or share of words", title="held-out pairs", ylim=(-0.35, 1.3))
    axes[0, 0].legend(frameon=False, ncols=2, loc="upper left", markerscale=2)
    rows = result.rows or [{"model": "this recipe"} | result.metrics]
    bars = axes[0, 1].barh([row["model"] for row in rows], [row["spearman"] for row in rows])
    axes[0, 1].bar_label(bars, fmt="%.2f", padding=3)
    axes[0, 1].set(xlim=(min(0, *(row["spearman"] for row in rows)), 1.15), xlabel="Spearman's correlation")
    axes[0, 1].invert_yaxis()
    grid = axes[1, 0].get_gridspec()
    for lower in axes[1]:
        lower.remove()
    words = figure.add_subplot(grid[1, :])
    misled = (ranks(overlap) - ranks(dataset.scores)).abs() - (ranks(cosines) - ranks(dataset.scores)).abs()
    for line, index in enumerate(misled.topk(min(5, len(dataset))).indices.tolist()):
        for shift, side in enumerate((pairs.firsts, pairs.seconds)):
            words.text(0, 2.5 * line + shift, side[index][:105], fontsize=9)
        text = f"score {pairs.scores[index]:.3g}, words shared {overlap[index]:.2f}, cosine {cosines[index]:.2f}"
        words.text(1, 2.5 * line + 0.5, text, fontsize=9, color="tab:blue", ha="right")
    words.set(xlim=(0, 1), ylim=(12.5, -1.2))
    words.set_title("where counting words errs most and the encoder does not", fontsize=10)
    words.axis("off")
    for upper in axes[0]:
        upper.spines[["top", "right"]].set_visible(False)
    return figure


run.predicts(SentenceSimilarity, build)


if __name__ == "__main__":
    main(run)
