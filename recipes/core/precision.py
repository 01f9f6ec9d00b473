"""The arithmetic of the forward pass: float32, or half precision inside with float32 outputs."""

from collections.abc import Callable
from typing import Any

import torch

from recipes.core.evaluation import map_tensors

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """The type of that name; "auto" is bf16 where the device computes in it, and float32 elsewhere."""
    if name == "auto":
        return torch.bfloat16 if computes_in_bf16(device) else torch.float32
    return PRECISIONS[name]


def computes_in_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than float32 there: on GPUs that have it, and on CPUs with its instructions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)


def autocast(model: Callable[..., Any], device: torch.device, dtype: torch.dtype) -> Callable[..., Any]:
    """The model with arithmetic of that type inside and float32 outputs."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device.type, dtype):
            outputs = model(*args, **kwargs)
        return map_tensors(lambda tensor: tensor.float() if tensor.dtype == dtype else tensor, outputs)

    return forward
