"""Writing text a character at a time: with what was computed before kept, without it, and by transformers."""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.row import Row
from recipes.core.measure import interleaved
from recipes.nlp.language_model import LanguageModel, LanguageModelOptions
from recipes.nlp.language_modeling import generate

CHARACTERS, VOCABULARY = 250, 96
SIZES = ((64, 2, 4), (256, 4, 8))  # width, layers, heads


def measure(rounds: int = 7) -> list[Row]:
    rows = []
    for width, layers, heads in SIZES:
        options = LanguageModelOptions(width=width, layers=layers, heads=heads, context=512)
        torch.manual_seed(0)
        ours = LanguageModel(VOCABULARY, options).eval()
        prompt = torch.randint(1, VOCABULARY, (64,))
        calls: dict[str, Callable[[], Any]] = {
            "cached": partial(generate, ours, prompt, CHARACTERS),
            "anew": partial(without_cache, ours, prompt),
            "transformers": partial(by_transformers, gpt2(width, layers, heads), prompt[None]),
        }
        seconds = interleaved(calls, rounds=rounds)
        each = min(seconds["cached"]) / CHARACTERS
        for name, theirs in (("anew", "without its cache"), ("transformers", "GPT-2 as wide and deep, `generate`")):
            ratios = [mine / other for mine, other in zip(seconds["cached"], seconds[name], strict=True)]
            ours_is = f"`nlp.language_model`, {CHARACTERS} characters, width {width}"
            rows.append(Row(ours_is, theirs, ratios, remark=f"ours {1000 * each:.2f} ms a character"))
    return rows


def without_cache(model: LanguageModel, prompt: torch.Tensor) -> torch.Tensor:
    with patch("recipes.nlp.language_modeling.nothing_known", return_value=None):
        return generate(model, prompt, CHARACTERS)


def gpt2(width: int, layers: int, heads: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes: dict[str, Any] = {
        "n_embd": width,
        "n_layer": layers,
        "n_head": heads,
        "n_positions": 512,
        "vocab_size": VOCABULARY,
    }
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=None, pad_token_id=0)).eval()


def by_transformers(model: Any, prompt: torch.Tensor) -> torch.Tensor:
    drawn = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 0}
    with torch.inference_mode():
        return model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=CHARACTERS, **drawn)
