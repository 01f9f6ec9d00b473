"""Translation with a Transformer: encoder, decoder, beam search.

The encoder reads the whole sentence; the decoder writes the translation word by word, looking at what it has
written and, by attention, at the words of the source. In training all places are learned at once: the decoder
is given the true translation moved one place on, and a mask hides what comes later. Padding is masked too, and
positions are added to the vectors, for attention alone knows no order. To translate, the likeliest word is
taken each time (greedy), or the few likeliest beginnings are followed side by side (beam search).

Notes: 43
Paper: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin (2017), "Attention Is All You Need",
    https://arxiv.org/abs/1706.03762
Data: English sentences with their German translations, written for this library; yours as TSV or as two files.
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
from recipes.nlp.sentence_pairs import (
    END,
    START,
    EncodedPairs,
    batches_of_pairs,
    draw,
    open_encoded_pairs,
    score,
    word_by_word,
)
from recipes.nlp.text_classification.encoding import PAD, UNKNOWN


class Translator(nn.Module):
    """`nn.Transformer` between the words of two languages; the target's table is also the output layer.

    Args:
        source_size, target_size: words of the languages.
        width: numbers in a word's vector, an even multiple of the heads.
        layers: of the encoder, and as many of the decoder.
        heads: of attention.
        dropout: share of numbers that are dropped while training.
        positions: add to each word's vector one that tells its place.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        *,
        width: int,
        layers: int,
        heads: int,
        dropout: float = 0.0,
        positions: bool = True,
    ) -> None:
        super().__init__()
        self.positions = positions
        self.source_words = nn.Embedding(source_size, width, padding_idx=PAD)
        self.target_words = nn.Embedding(target_size, width, padding_idx=PAD)
        shape: dict[str, Any] = {"dim_feedforward": 2 * width, "dropout": dropout, "batch_first": True}
        layer = nn.TransformerEncoderLayer(width, heads, norm_first=True, **shape)
        encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.transformer = nn.Transformer(
            width, heads, num_decoder_layers=layers, custom_encoder=encoder, norm_first=True, **shape
        )
        self.dropout = nn.Dropout(dropout)
        for table in (self.source_words, self.target_words):
            nn.init.normal_(table.weight, std=width**-0.5)

    def embed(self, table: nn.Embedding, ids: Tensor) -> Tensor:
        vectors = table(ids) * math.sqrt(table.embedding_dim)  # (batch, words, width)
        if self.positions:
            vectors = vectors + waves(ids.shape[1], table.embedding_dim).to(vectors)
        return self.dropout(vectors)

    def encode(self, sources: Tensor) -> Tensor:
        vectors = self.embed(self.source_words, sources)
        return self.transformer.encoder(vectors, src_key_padding_mask=sources == PAD)  # (batch, source words, width)

    def forward(self, sources: Tensor, written: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        """Logits of the word after each of those written, (batch, written words, target words known).

        Args:
            sources: (batch, source words).
            written: (batch, written words), the first of them START; without it, the encoder's answer is returned.
            memory: that answer, if it is known already.
        """
        memory = self.encode(sources) if memory is None else memory
        if written is None:
            return memory
        return F.linear(self.decode(sources, written, memory), self.target_words.weight)

    def decode(self, sources: Tensor, written: Tensor, memory: Tensor) -> Tensor:
        later = torch.ones(written.shape[1], written.shape[1], dtype=torch.bool, device=written.device).triu(1)
        return self.transformer.decoder(
            self.embed(self.target_words, written),
            memory,
            tgt_mask=later,  # no place sees one after it
            tgt_key_padding_mask=written == PAD,
            memory_key_padding_mask=sources == PAD,
        )  # (batch, written words, width)


def waves(length: int, width: int) -> Tensor:
    """Sines and cosines of the place, fast to slow ones: (length, width)."""
    speeds = 10_000 ** -(torch.arange(0, width, 2) / width)  # (width / 2,)
    angles = torch.arange(length)[:, None] * speeds
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def train(
    model: Translator,
    train_set: EncodedPairs,
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
    batches = batches_of_pairs(train_set, batch_size, seed=seed)
    loop = OldLoop(model, optimizer, batches, epochs=epochs, device=device, schedule=one_cycle, name=name, **engine)
    for sources, targets in loop:
        logits = loop.model(sources, targets[:, :-1])  # from START to the last word …
        loss = F.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=PAD)  # … to END
        loop.step(loss)
    return loop


@torch.inference_mode()
def beam_search(model: Translator, sources: Tensor, beam: int) -> tuple[Tensor, Tensor]:
    """Follows the `beam` likeliest beginnings of each translation; a beam of 1 is greedy.

    Args:
        model: the translator.
        sources: (batch, source words).
        beam: beginnings that are kept.

    Returns:
        The translation with the highest mean log-probability a word, (batch, words), and that mean, (batch,).
    """
    model.eval()
    count = len(sources)
    memory = model(sources)
    sources, memory = sources.repeat_interleave(beam, 0), memory.repeat_interleave(beam, 0)  # (batch · beam, …)
    written = torch.full((count * beam, 1), START, device=sources.device)
    # At first all beginnings are the same: only the first of them may go on.
    scores = torch.full((count, beam), -torch.inf, device=sources.device)
    scores[:, 0] = 0
    lengths = torch.zeros_like(scores)
    first = torch.arange(count, device=sources.device)[:, None] * beam  # row of each sentence's first beginning
    for _ in range(sources.shape[1] + 10):
        logits = model(sources, written, memory)[:, -1].float()
        logits[:, [PAD, UNKNOWN, START]] = -torch.inf
        steps = logits.log_softmax(dim=1)  # (batch · beam, target words known)
        done = written[:, -1].eq(END) | written[:, -1].eq(PAD)
        steps[done] = -torch.inf
        steps[done, PAD] = 0  # what has ended stays as it is
        totals = scores[:, :, None] + steps.view(count, beam, -1)  # (batch, beam, target words known)
        scores, chosen = totals.flatten(1).topk(beam, dim=1)  # (batch, beam)
        before, word = chosen // steps.shape[1], chosen % steps.shape[1]
        lengths = lengths.gather(1, before) + (word != PAD)
        written = torch.cat([written[(first + before).flatten()], word.view(-1, 1)], dim=1)
        if (word.eq(END) | word.eq(PAD)).all():
            break
    means = scores / lengths  # by the sum alone, short ones would win
    best = means.argmax(dim=1, keepdim=True)
    return written[(first + best).flatten()], means.gather(1, best)[:, 0]


def translate(model: Translator, dataset: EncodedPairs, device: torch.device, beam: int) -> tuple[list[str], float]:
    """Translations of all sources, and the log-probability that the model gives a word of them."""
    sentences, total = [], 0.0
    for indices in torch.arange(len(dataset)).split(100):
        written, means = beam_search(model, dataset.__getitems__(indices.tolist())[0].to(device), beam)
        sentences += [dataset.languages[1].decode(ids) for ids in written]
        total += means.sum().item()
    return sentences, total / len(dataset)


@torch.inference_mode()
def attention(model: Translator, source: Tensor) -> tuple[Tensor, Tensor]:
    """Translates (source words,) greedily, and tells where the last decoder layer looks as it writes.

    Returns:
        The words written, (words,), and for each of them shares of attention that sum to 1, (words, source words).
    """
    weights: list[Tensor] = []

    def keep(module: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        weights.append(module.forward(*inputs, **options | {"need_weights": True})[1])

    written = beam_search(model, source[None], 1)[0][0]
    layer: Any = model.transformer.decoder.layers[-1]
    hook = layer.multihead_attn.register_forward_pre_hook(keep, with_kwargs=True)
    model(source[None], written[None, :-1])
    hook.remove()
    return written[1:], weights[0][0]


@old_recipe
def run(
    *,
    data: str | None = None,
    source: str | None = None,
    target: str | None = None,
    limit: int | None = None,
    min_freq: int = 1,
    max_words: int = 60,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    dropout: float = 0.0,
    beam: int = 4,
    epochs: int = 5,
    batch_size: int = 32,
    lr: float = 4e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a translator, and one without positions, and measures both on held-out sentences.

    Args:
        data: folder with train.tsv and test.tsv, or with files such as train.en and train.de; or one TSV file;
            the bundled English and German sentences if not given.
        source: language to translate from; the first one, or en, if not given.
        target: language to translate to; the other one if not given.
        limit: sentence pairs of the train part that are read; all if not given.
        min_freq: times a word must occur in the train sentences to be known.
        max_words: words of a sentence that are read; the rest is left out.
        width: numbers in a word's vector, an even multiple of the heads.
        layers: of the encoder, and as many of the decoder.
        heads: of attention in each layer.
        dropout: share of numbers that are dropped while training; 0.1 or more helps with many epochs.
        beam: beginnings that beam search follows side by side.
        epochs: passes over the train sentences.
        batch_size: sentence pairs in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the sentences, and of the split of a single file.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if min(width, layers, heads, beam, max_words) < 1 or width % (2 * heads) or not 0 <= dropout < 1:
        raise InputError(
            "options width, layers, heads, beam, max_words and dropout: expected at least 1, width an even multiple of "
            f"heads, dropout below 1; got {width}, {layers}, {heads}, {beam}, {max_words} and {dropout}"
        )
    place = setup(device, seed)
    train_set, test_set = open_encoded_pairs(
        data, source=source, target=target, limit=limit, min_freq=min_freq, max_words=max_words, seed=seed
    )
    replaced = word_by_word(train_set, test_set)
    rows: list[dict[str, Any]] = [{"model": "word by word"} | score(replaced, test_set) | {"writes": replaced[0][:60]}]
    shape: dict[str, Any] = {"width": width, "layers": layers, "heads": heads, "dropout": dropout}
    shared: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "device": place, "seed": seed}
    sure = {}
    for positions in (False, True):
        torch.manual_seed(seed)
        model = Translator(*map(len, train_set.languages), **shape, positions=positions).to(place)
        loop = train(model, train_set, name="translator" if positions else "without_positions", **shared, **engine)
        kinds = {"greedy": 1, f"beam of {beam}": beam} if positions else {"without positions": 1}
        for name, kept in kinds.items():
            translations, sure[kept] = translate(model, test_set, place, kept)
            rows.append({"model": name} | score(translations, test_set) | {"writes": translations[0][:60]})
    baseline, blind, greedy, metrics = ({key: row[key] for key in ("bleu", "exact_match")} for row in rows)
    return Result(
        metrics=metrics,
        baseline=baseline,
        baseline_name="word by word",
        bars={"bleu": 65},
        claims=[
            claim("it needs positions: without them, greedy BLEU is lower", blind["bleu"], "<", greedy["bleu"]),
            claim("beam search finds likelier ones (mean log-probability of a word)", sure[beam], ">=", sure[1]),
            claim("and their BLEU is at least as high", metrics["bleu"], ">=", greedy["bleu"]),
        ],
        rows=rows,
        history=loop.history,
        model=model,
        draw=lambda: draw(rows, test_set, lambda source: attention(model, source.to(place))),
    )


if __name__ == "__main__":
    main(run)
