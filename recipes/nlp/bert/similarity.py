"""Sentence similarity: two sentences through one encoder, and the cosine between them.

The states of a sentence's words are averaged into one vector, and the cosine of two such vectors is trained to
be the score that people gave the pair (Sentence-BERT). Each sentence is read alone, so the vectors of a million
sentences can be kept and searched.

Counting shared words does not do: "the burglar tricked the attorney" and "the lawyer was deceived by the thief"
share next to none. Which words mean the same is learned here from scored pairs alone, first by word vectors whose
mean is taken, then by an encoder that starts from them. Who did it to whom is harder: "the lawyer deceived the
thief" has the words of its opposite, and the run measures how little of that so few pairs teach.

A pretrained encoder has read much more. With weights="pretrained" it is fine-tuned, with frozen=True as well it
is measured as it is.

Notes: 46
Paper: Reimers, Gurevych (2019), "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    https://arxiv.org/abs/1908.10084
Data: pairs of English sentences written for this library; yours as TSV, such as the STS benchmark.
"""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.sentence_scores import open_scored_pairs
from recipes.nlp.bert.encoder import encoder_from, mean_pool, open_encoder, silence_layers, states_of, with_some_hidden
from recipes.nlp.bert.ranking import EncodedScores, encode_pairs, ranks, rare_overlap, spearman, word_overlap
from recipes.nlp.bert.subwords import Subwords
from recipes.nlp.bert.using_pairs import SentenceSimilarity
from recipes.nlp.text_classification.encoding import batches_by_length


class Similarity(nn.Module):
    """The cosine between the mean states of two sentences, from -1 to 1.

    Args:
        encoder: a model of `transformers`.
        subwords: the pieces that it reads.
        hidden: share of the pieces that are hidden while training, so that no pair is learned by heart.
    """

    def __init__(self, encoder: Any, subwords: Subwords, hidden: float = 0.0) -> None:
        super().__init__()
        self.encoder, self.hidden, self.pad, self.mask = encoder, hidden, subwords.pad, subwords.mask

    def states(self, ids: Tensor) -> Tensor:
        return states_of(self.encoder, ids, ids != self.pad)

    def forward(self, ids: Tensor) -> Tensor:
        flat = ids.flatten(0, 1)  # (batch, 2, pieces) to (batch * 2, pieces)
        there = flat != self.pad
        if self.training and self.hidden:
            flat = with_some_hidden(flat, there, self.hidden, self.mask)
        vectors = mean_pool(self.states(flat), there).unflatten(0, (-1, 2))  # (batch, 2, width)
        return F.cosine_similarity(vectors[:, 0], vectors[:, 1])  # (batch,)


class WordVectorSimilarity(Similarity):
    """The same without attention: the mean of vectors that each belong to a piece wherever it stands."""

    def states(self, ids: Tensor) -> Tensor:
        return self.encoder(ids)


def start_from(encoder: Any, vectors: Tensor) -> None:
    """Lets a random encoder begin as little more than the mean of these word vectors (pieces, width).

    Its layers begin silent, since what they add to a state starts at zero; positions begin weak.
    """
    with torch.no_grad():
        encoder.get_input_embeddings().weight.copy_(vectors)
        encoder.embeddings.token_type_embeddings.weight.zero_()
        encoder.embeddings.position_embeddings.weight *= 0.25
    silence_layers(encoder)


def train(
    model: Similarity,
    train_set: EncodedScores,
    test_set: EncodedScores,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    name: str = "model",
    **engine: Unpack[Engine],
) -> OldLoop:
    """Brings the cosines to the scores, by their squared distance; the loop's history follows the test part."""
    lengths = [max(len(one), len(other)) for one, other in zip(train_set.firsts, train_set.seconds, strict=True)]
    loop = OldLoop(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr),
        batches_by_length(train_set, batch_size, lengths=lengths, seed=seed),
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        evaluate=lambda: evaluate(model, test_set, device),
        name=name,
        **engine,
    )
    for ids, scores in loop:
        loss = F.mse_loss(loop.model(ids), scores)
        loop.step(loss)
    return loop


def evaluate(model: Similarity, dataset: EncodedScores, device: torch.device) -> dict[str, float]:
    """Spearman's correlation of cosines and scores over the whole set."""
    return {"spearman": spearman(torch.stack(predict(model, dataset, device, 128)), dataset.scores)}


def draw(model: Similarity, dataset: EncodedScores, device: torch.device, rows: list[dict[str, Any]]) -> Any:
    """Cosines over scores, all that was compared, and pairs that word overlap gets most wrong."""
    cosines, overlap = torch.stack(predict(model, dataset, device, 128)), word_overlap(dataset.pairs)
    figure, axes = new_figure(2, 2, width=5.2, height=3.0)
    jitter = torch.rand(len(dataset), generator=torch.Generator().manual_seed(0)) * 0.3 - 0.15
    for values, label in ((overlap, "words shared"), (cosines, "this recipe")):
        axes[0, 0].scatter(dataset.pairs.scores + jitter, values, s=7, alpha=0.5, label=label)
    axes[0, 0].set(xlabel="score given", ylabel="cosine, or share of words", title="held-out pairs", ylim=(-0.35, 1.3))
    axes[0, 0].legend(frameon=False, ncols=2, loc="upper left", markerscale=2)
    bars = axes[0, 1].barh([row["model"] for row in rows], [row["spearman"] for row in rows])
    axes[0, 1].bar_label(bars, fmt="%.2f", padding=3)
    axes[0, 1].set(xlim=(min(0, *(row["spearman"] for row in rows)), 1.15), xlabel="Spearman's correlation")
    axes[0, 1].invert_yaxis()
    grid = axes[1, 0].get_gridspec()
    for place in axes[1]:
        place.remove()
    words = figure.add_subplot(grid[1, :])
    misled = (ranks(overlap) - ranks(dataset.scores)).abs() - (ranks(cosines) - ranks(dataset.scores)).abs()
    for line, index in enumerate(misled.topk(min(5, len(dataset))).indices.tolist()):
        for shift, side in enumerate((dataset.pairs.firsts, dataset.pairs.seconds)):
            words.text(0, 2.5 * line + shift, side[index][:105], fontsize=9)
        told = (
            f"score {dataset.pairs.scores[index]:.3g}, words shared {overlap[index]:.2f}, cosine {cosines[index]:.2f}"
        )
        words.text(1, 2.5 * line + 0.5, told, fontsize=9, color="tab:blue", ha="right")
    words.set(xlim=(0, 1), ylim=(12.5, -1.2))
    words.set_title("where counting words errs most and the encoder does not", fontsize=10)
    words.axis("off")
    for place in axes[0]:
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    weights: str | None = None,
    frozen: bool = False,
    pieces: int = 1000,
    max_pieces: int = 128,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    epochs: int = 7,
    batch_size: int = 16,
    lr: float = 2e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains an encoder on scored pairs and measures it on held-out ones, beside a mean of word vectors.

    Args:
        data: folder or file of your pairs as TSV; the bundled similarities if not given.
        weights: pretrained (MiniLM), a folder or a hub name that transformers reads; random if not given.
        frozen: measure the pretrained encoder as it is, without training it.
        pieces: of words, which the tokenizer learns at most; pretrained weights have their own.
        max_pieces: of a sentence that are read, its beginning and end among them; the rest is left out.
        width: numbers in a piece's vector.
        layers: of the encoder.
        heads: of attention in each layer.
        epochs: passes over the train pairs.
        batch_size: pairs in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule; pretrained weights need less, such as 5e-5.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the pairs, and of the split of a single file.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if frozen and weights is None:
        raise InputError("option frozen: expected it with weights; an encoder that starts random has to be trained")
    if max_pieces < 3:
        raise InputError(f"option max_pieces: expected a whole number of at least 3, got {max_pieces}")
    place = setup(device, seed)
    parts = open_scored_pairs(data, seed=seed)
    texts = [*parts[0].firsts, *parts[0].seconds]
    size = {"width": width, "layers": layers, "heads": heads, "longest": max_pieces}
    encoder, subwords = open_encoder(weights, texts, pieces=pieces, **size)
    scale = parts[0].scores.min().item(), parts[0].scores.max().item()
    train_set, test_set = (encode_pairs(part, subwords, max_pieces, scale) for part in parts)
    overlaps = {"words shared": word_overlap(parts[1]), "rare words shared (TF-IDF)": rare_overlap(*parts)}
    rows: list[dict[str, Any]] = [
        {"model": name, "spearman": spearman(values, test_set.scores)} for name, values in overlaps.items()
    ]
    best = max(rows, key=lambda row: row["spearman"])

    model = Similarity(encoder, subwords, hidden=0.1 if weights is None else 0.0).to(place)
    untrained = evaluate(model, test_set, place)
    rows.append({"model": "encoder, not trained here"} | untrained)
    history: list[dict[str, float]] = []
    claims = []
    if not frozen:
        options: dict[str, Any] = {"batch_size": batch_size, "device": place, "seed": seed, **engine}
        vectors = nn.Embedding.from_pretrained(encoder.get_input_embeddings().weight.detach().clone(), freeze=False)
        words = WordVectorSimilarity(vectors, subwords)
        train(words, train_set, test_set, epochs=epochs, lr=1e-2, name="words", **options)
        rows.append({"model": "mean of word vectors"} | evaluate(words, test_set, place))
        if weights is None:
            start_from(encoder, vectors.weight)
        history = train(model, train_set, test_set, epochs=epochs, lr=lr, **options).history
        rows.append({"model": "encoder"} | evaluate(model, test_set, place))
        claims.append(claim("it learned: untrained it was worse", untrained["spearman"], "<", rows[-1]["spearman"]))
    metrics = {"spearman": rows[-1]["spearman"]}
    disordered = evaluate(model, test_set.with_words_shuffled(seed), place)["spearman"]
    rows.append({"model": "encoder, words shuffled", "spearman": disordered})
    if weights is None:
        claims += [
            claim(
                "what it learned is mostly what words mean: the mean of word vectors comes within 0.05 of it",
                rows[-3]["spearman"],
                ">",
                metrics["spearman"] - 0.05,
            ),
            claim(
                "who did it to whom is hardly learned from so few pairs: shuffled words cost it less than 0.05",
                disordered,
                ">",
                metrics["spearman"] - 0.05,
            ),
        ]
    else:
        claims.append(claim("it reads the order: shuffled words cost it", disordered, "<", metrics["spearman"]))
    return Result(
        metrics=metrics,
        baseline={"spearman": best["spearman"]},
        baseline_name=best["model"],
        bars={"spearman": 0.75},
        claims=claims,
        rows=rows,
        history=history,
        model=model,
        train_set=train_set,
        test_set=test_set,
        draw=lambda: draw(model, test_set, place, rows),
    )


def build(options: Any, task: SentenceSimilarity) -> Similarity:
    """The network of a trained model, from what its task remembers."""
    return Similarity(encoder_from(task.config), task.subwords)


run.predicts(SentenceSimilarity, build)


if __name__ == "__main__":
    main(run)
