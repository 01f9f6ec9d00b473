"""Causal language models of `transformers`: opened from a folder, read text by tokens, used once they were changed."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from recipes.core.errors import InputError, tell
from recipes.core.files import own_path
from recipes.core.result import Result
from recipes.core.task import exported
from recipes.datasets.running_text import Windows, open_running_text
from recipes.nlp.language_modeling import LanguageModeling


class CausalModel(nn.Module):
    """A causal model of `transformers`, called as the library's own are: tokens to logits (batch, time, vocabulary).

    Attributes:
        network: of `transformers`.
        tokenizer: of `tokenizers`, as JSON.
        context: tokens it reads at most.
    """

    def __init__(self, network: Any, tokenizer: str) -> None:
        super().__init__()
        self.network, self.tokenizer = network, tokenizer
        self.context: int = getattr(network.config, "max_position_embeddings", None) or 2**31

    def forward(self, ids: Tensor) -> Tensor:
        return self.network(input_ids=ids, use_cache=False).logits.float()


def open_causal_model(folder: str, data: Any, context: int, limit: int | None) -> tuple[CausalModel, Windows, Windows]:
    """A model from a local folder, and running text in windows of its tokens: the train and the test part.

    Args:
        folder: that `save_pretrained` of the model and of its tokenizer has written; nothing is downloaded.
        data: as `open_running_text` takes it.
        context: tokens in a window; fewer where the model reads fewer.
        limit: characters of the train text that are used, from its beginning; all of them if None.

    Raises:
        InputError: the folder holds no such model or no fast tokenizer, or the text has no room for a window.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    if not own_path(folder).is_dir():
        raise InputError(f"option weights: expected a folder with a causal model of transformers, got {folder!r}")
    logging.disable_progress_bar()
    source: Any = {"pretrained_model_name_or_path": str(own_path(folder)), "local_files_only": True}
    try:
        network = AutoModelForCausalLM.from_pretrained(**source, dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(**source).backend_tokenizer
    except Exception as error:  # what transformers raises has no common base
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"option weights: {folder!r} cannot be opened with its tokenizer ({reason})") from None
    tokenizer.no_truncation()
    model = CausalModel(network.eval(), tokenizer.to_str())
    return model, *token_windows(model, data, context, limit)


def token_windows(model: CausalModel, data: Any, context: int, limit: int | None) -> tuple[Windows, Windows]:
    """Running text in windows of the model's tokens: the train and the test part; see `open_causal_model`."""
    from tokenizers import Tokenizer

    tokenizer, context, sets = Tokenizer.from_str(model.tokenizer), min(context, model.context), []
    for part, text in zip(("train", "test"), open_running_text(data), strict=True):
        text = text[:limit] if part == "train" else text
        ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids)
        if len(ids) <= context:
            raise InputError(f"the {part} text has {len(ids):,} tokens: expected more than the context, {context}")
        sets.append(Windows(ids, context, [], stride=context if part == "train" else max(1, context // 2)))
    return sets[0], sets[1]


@torch.inference_mode()
def held_out_loss(model: Any, dataset: Windows, device: Any) -> float:
    """Mean cross-entropy in nats over the later halves of all windows, a few windows at a time."""
    total, half = 0.0, dataset.context // 2
    for indices in torch.arange(len(dataset)).split(16):  # their logits may be large
        ids, targets = (tensor.to(device) for tensor in dataset.__getitems__(indices.tolist()))
        logits = model(ids)[:, half:].flatten(0, 1)
        total += nn.functional.cross_entropy(logits, targets[:, half:].flatten(), reduction="sum").item()
    return total / (len(dataset) * (dataset.context - half))


@dataclass(kw_only=True)
class CausalModeling(LanguageModeling):
    """Texts to their continuations, by a network of this library over characters, or by one of `transformers`.

    Attributes:
        config: of the network of `transformers`; None for one over characters.
        tokenizer: its tokenizer, of `tokenizers`, as JSON.
    """

    config: dict[str, Any] | None = None
    tokenizer: str | None = None

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        task = super().of(result, options)
        if isinstance(result.model, CausalModel):
            config = result.model.network.config
            task.config, task.tokenizer = json.loads(config.to_json_string(use_diff=False)), result.model.tokenizer
        return task

    def files(self, result: Result) -> dict[str, Callable[[Path], object]]:
        """`model.pt2`: the network with its integers, as torch exports it; a line says why where it cannot."""
        try:
            program = exported(self, copy.deepcopy(result.model))
        except Exception as error:  # exporters raise many kinds
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            tell(f"model.pt2: left out, the network cannot be exported: {reason[:200]}")
            return {}
        return {"model.pt2": lambda path: torch.export.save(program, path)}

    @cached_property
    def encoder(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_str(self.tokenizer or "")

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        if self.tokenizer is None:
            return super().batch(items)
        return (pad_sequence([self.tokens(text) for text in items], batch_first=True),)

    def tokens(self, text: str) -> Tensor:
        return torch.tensor(self.encoder.encode(text or "\n").ids)

    def predict(self, model: nn.Module, items: Sequence[str], device: torch.device) -> list[dict[str, Any]]:
        if not isinstance(model, CausalModel):
            return super().predict(model, items, device)
        how: dict[str, Any] = {"temperature": self.temperature, "top_k": self.top_k or 0, "top_p": self.top_p}
        found = []
        for prompt in items:
            ids = self.tokens(prompt)[-(model.context // 2) :]
            length = min(self.length, model.context - len(ids))
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                written = model.network.generate(ids[None].to(device), max_new_tokens=length, do_sample=True, **how)
            found.append({"prompt": prompt, "text": self.encoder.decode(written[0, len(ids) :].tolist())})
        return found


def built(data: Any, build: Callable[[], nn.Module]) -> nn.Module:
    """The network of a `CausalModeling`, with random weights: that of its config, or what `build` makes."""
    if getattr(data, "config", None) is None:
        return build()
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = getattr(torch, data.config.get("dtype") or "float32")
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(**data.config), dtype=kind)
    return CausalModel(network, data.tokenizer)
