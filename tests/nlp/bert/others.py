"""Tiny networks of other families, in folders as `transformers` writes them."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from recipes.nlp.bert.subwords import Subwords

KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16},
    "roberta": {"pad_token_id": 0, "max_position_embeddings": 80},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
}


def write_model(auto: Any, kind: str, subwords: Subwords, folder: Path) -> Any:
    """Writes a network of random weights with its tokenizer; `auto` is AutoModel or another of its kind."""
    small = {"vocab_size": len(subwords.words), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 16, "max_position_embeddings": 64}
    network = auto.from_config(AutoConfig.for_model(kind, **small | KINDS[kind]))
    network.save_pretrained(folder)
    subwords.tokenizer.save_pretrained(folder)
    return network
