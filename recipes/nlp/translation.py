"""Translation with a Transformer: encoder, decoder, beam search.

The encoder reads the whole sentence; the decoder writes the translation word by word, attending to what it has
written and to the words of the source. In training all positions are learned at once: the decoder is given the true
translation shifted by one, and a mask hides what comes later. Padding is masked too, and an embedding of its
position is added to each word's, for attention alone knows no order. To translate, the likeliest word is taken each
time (greedy), or several of the likeliest beginnings are followed side by side (beam search).

Notes: 43
Paper: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin (2017), "Attention Is All You Need",
    https://arxiv.org/abs/1706.03762
Data: English sentences with their German translations, written for this library; yours as TSV or as two files.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches_by_length, main, option, recipe
from recipes.nlp.sentence_pairs import END, START, EncodedPairs, draw, open_encoded_pairs, plain_scores, score
from recipes.nlp.text_classification.encoding import PAD, UNKNOWN
from recipes.nlp.translating import Translation


@dataclass(kw_only=True)
class TranslationOptions(Options):
    source: str | None = option(None, "language to translate from; the first one, or en, if not given")
    target: str | None = option(None, "language to translate to; the other one if not given")
    limit: int | None = option(None, "sentence pairs of the train part that are read; all if not given", least=1)
    min_freq: int = option(1, "times a word must occur in the train sentences to be known", least=1)
    pieces: int | None = option(None, "at most, that rare words fall into; 0: none; 0, for your data 3000", least=0)
    max_words: int = option(60, "words of a sentence that are read; the rest is left out", least=1)
    width: int = option(64, "size of a word's embedding, an even multiple of the heads", least=2)
    layers: int = option(2, "of the encoder, and as many of the decoder", least=1)
    heads: int = option(4, "of attention in each layer", least=1)
    dropout: float | None = option(None, "share of numbers dropped in training; 0, for your data 0.2", least=0, below=1)
    smoothing: float | None = option(
        None, "label smoothing: share of the target spread over all words; 0, for your data 0.1", least=0, below=1
    )
    positions: bool = option(True, "add an embedding of its position to each word's")
    beam: int = option(4, "beginnings that beam search follows side by side; 1 is greedy", least=1)
    lr: float = 4e-3


class Translator(nn.Module):
    """`nn.Transformer` between the words of two languages; the target's embedding table is also the output layer."""

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

    def forward(self, sources: Tensor, written: Tensor) -> Tensor:
        """Logits of the word after each of those written, (batch, written words, target words known).

        Args:
            sources: (batch, source words).
            written: (batch, written words), the first of them START.
        """
        return self.decode(sources, written, self.encode(sources))

    def decode(self, sources: Tensor, written: Tensor, memory: Tensor) -> Tensor:
        return F.linear(self.states(sources, written, memory), self.target_words.weight)

    def states(self, sources: Tensor, written: Tensor, memory: Tensor) -> Tensor:
        later = torch.ones(written.shape[1], written.shape[1], dtype=torch.bool, device=written.device).triu(1)
        return self.transformer.decoder(
            self.embed(self.target_words, written),
            memory,
            tgt_mask=later,  # no position sees one after it
            tgt_is_causal=False,  # the mask says it; to find that out by its values would stop an export
            tgt_key_padding_mask=written == PAD,
            memory_key_padding_mask=sources == PAD,
        )  # (batch, written words, width)


def waves(length: int, width: int) -> Tensor:
    """Sines and cosines of the position, from fast to slow: (length, width)."""
    speeds = 10_000 ** -(torch.arange(0, width, 2) / width)  # (width / 2,)
    angles = torch.arange(length)[:, None] * speeds
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def build(options: TranslationOptions, data: EncodedPairs) -> Translator:
    """The network for the words of these two languages."""
    if options.width % (2 * options.heads):
        raise InputError(f"option width: expected an even multiple of {options.heads} heads, got {options.width}")
    sizes = {"width": options.width, "layers": options.layers, "heads": options.heads}
    source_size, target_size = map(len, data.languages)
    return Translator(source_size, target_size, **sizes, dropout=options.dropout or 0.0, positions=options.positions)


def train(model: Translator, train_set: EncodedPairs, options: TranslationOptions) -> Loop:
    """Minimizes the cross-entropy of each next word, given the true ones before it, with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.98), fused=True)
    lengths = [len(ids) for ids in train_set.targets]
    loop = Loop(model, optimizer, batches_by_length(train_set, options, lengths), options)
    for sources, targets in loop:
        logits = loop.model(sources, targets[:, :-1]).flatten(0, 1)  # from START to the last word …
        following = targets[:, 1:].flatten()  # … to END
        loop.step(F.cross_entropy(logits, following, ignore_index=PAD, label_smoothing=options.smoothing or 0.0))
    return loop


@torch.inference_mode()
def beam_search(model: Translator, sources: Tensor, beam: int) -> tuple[Tensor, Tensor]:
    """Follows the `beam` likeliest beginnings of each translation; a beam of 1 is greedy.

    Beginnings compete by their mean log-probability per word: by the sum, short ones would win.

    Args:
        model: the translator.
        sources: (batch, source words).
        beam: beginnings that are kept.

    Returns:
        The translation with the highest mean, (batch, words), and that mean, (batch,).
    """
    model.eval()
    count, words = len(sources), (sources != PAD).sum(dim=1)
    limit = (words + 10).repeat_interleave(beam)  # words of each translation, whatever it is batched with
    memory = model.encode(sources)
    sources, memory = sources.repeat_interleave(beam, 0), memory.repeat_interleave(beam, 0)  # (batch · beam, …)
    written = torch.full((count * beam, 1), START, device=sources.device)
    # At first all beginnings are the same: only the first of them may continue.
    scores = torch.full((count, beam), -torch.inf, device=sources.device)
    scores[:, 0] = 0
    lengths = torch.zeros_like(scores)
    first = torch.arange(count, device=sources.device)[:, None] * beam  # row of each sentence's first beginning
    for step in range(int(limit.max())):
        logits = model.decode(sources, written, memory)[:, -1].float()
        logits[:, [PAD, UNKNOWN, START]] = -torch.inf
        steps = logits.log_softmax(dim=1)  # (batch · beam, target words known)
        done = written[:, -1].eq(END) | written[:, -1].eq(PAD) | (step >= limit)
        steps[done] = -torch.inf
        steps[done, PAD] = 0  # what has ended stays as it is
        totals = scores[:, :, None] + steps.view(count, beam, -1)  # (batch, beam, target words known)
        longer = lengths + ~done.view(count, beam)
        chosen = (totals / longer[:, :, None].clamp(min=1)).flatten(1).topk(beam, dim=1).indices  # (batch, beam)
        scores = totals.flatten(1).gather(1, chosen)
        before, word = chosen // steps.shape[1], chosen % steps.shape[1]
        lengths = longer.gather(1, before)
        written = torch.cat([written[(first + before).flatten()], word.view(-1, 1)], dim=1)
        if (word.eq(END) | word.eq(PAD)).all():
            break
    means = scores / lengths
    best = means.argmax(dim=1, keepdim=True)
    return written[(first + best).flatten()], means.gather(1, best)[:, 0]


def translate(model: Translator, dataset: EncodedPairs, device: torch.device, beam: int) -> tuple[list[str], float]:
    """Translations of all sources, and the mean log-probability per word that the model gives them."""
    found, total = dict[int, str](), 0.0
    lengths = torch.tensor([len(ids) for ids in dataset.sources])
    for indices in lengths.argsort(stable=True).split(100):  # those of like lengths end together
        written, means = beam_search(model, dataset.__getitems__(indices.tolist())[0].to(device), beam)
        found |= zip(indices.tolist(), map(dataset.languages[1].decode, written), strict=True)
        total += means.sum().item()
    return [found[index] for index in range(len(dataset))], total / len(dataset)


@recipe(TranslationOptions)
def run(options: TranslationOptions) -> Result:
    """Trains a translator and measures it on held-out sentences."""
    if options.data is not None:  # sentences that people wrote: rare words, and more freedom than there are pairs
        for name, usual in {"pieces": 3000, "dropout": 0.2, "smoothing": 0.1}.items():
            setattr(options, name, usual if getattr(options, name) is None else getattr(options, name))
    names = ("source", "target", "limit", "min_freq", "max_words", "seed")
    asked = {name: getattr(options, name) for name in names}
    train_set, test_set = open_encoded_pairs(options.data, pieces=options.pieces or None, **asked)
    words = (train_set, test_set) if not options.pieces else open_encoded_pairs(options.data, **asked)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, options)
    return Result(
        metrics=score(translate(model, test_set, options.device, options.beam)[0], test_set),
        baseline=plain_scores(*words),
        baseline_name="the better of word by word and the nearest train sentence's translation",
        bars={"bleu": 65},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result, blind = run(), run(positions=False)
    text = "it needs positions: without them BLEU is lower"
    yield Claim(text, blind["bleu"], "<", result["bleu"], margin=10)
    device, beam = next(result.model.parameters()).device, max(2, result.options["beam"])
    (greedy, sure), (_, surer) = (translate(result.model, result.test_set, device, kept) for kept in (1, beam))
    result.rows = [
        {"model": "greedy"} | score(greedy, result.test_set) | {"log-probability per word": sure},
        {"model": f"beam of {beam}"} | result.metrics | {"log-probability per word": surer},
    ]
    yield Claim("beam search finds likelier ones: log-probability per word", surer, ">=", sure, kind="fact")


@run.figure
def figure(result: Result) -> Any:
    return draw(result, lambda source: attention(result.model, source))


@torch.inference_mode()
def attention(model: Translator, source: Tensor) -> tuple[Tensor, Tensor]:
    """Translates (source words,) greedily, and tells where the last decoder layer attends as it writes.

    Returns:
        The words written, (words,), and for each of them shares of attention that sum to 1, (words, source words).
    """
    weights: list[Tensor] = []

    def keep(module: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        weights.append(module.forward(*inputs, **options | {"need_weights": True})[1])

    source = source.to(next(model.parameters()).device)
    written = beam_search(model, source[None], 1)[0][0]
    layer: Any = model.transformer.decoder.layers[-1]
    hook = layer.multihead_attn.register_forward_pre_hook(keep, with_kwargs=True)
    model(source[None], written[None, :-1])
    hook.remove()
    return written[1:], weights[0][0]


class BeamTranslation(Translation):
    """Sentences translated by beam search."""

    def search(self, model: Any, sources: Tensor) -> Tensor:
        return beam_search(model, sources, self.beam)[0]


run.predicts(BeamTranslation, build)


if __name__ == "__main__":
    main(run)
