"""Eight-bit integers on this processor: from a CNN on 8×8 pixels to a BERT encoder, by every way installed.

All run in one process of one thread, in turn, and processor time counts. The networks have random weights:
their arithmetic does not depend on them.
"""

import logging
import math
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.row import Row
from recipes.compression.graphs import exported
from recipes.compression.inductor import compiled, missing_for_integers, quantize_by_torchao
from recipes.compression.report import repeated
from recipes.compression.runtimes import Call, installed_ways
from recipes.core.measure import interleaved, ratio
from recipes.vision.classification.resnet import BasicBlock, ResNet
from recipes.vision.classification.task import SmallCNN

GOALS = {
    ("small CNN", 1): "≤ 0.12",
    ("small CNN", 32): "≤ 0.4",
    ("ResNet-18", 1): "≤ 0.25",
    ("ResNet-18", 32): "≤ 0.2",
    ("BERT encoder", 1): "≤ 0.4",
}


def bert_encoder() -> nn.Module:
    """Four layers of 512, as `transformers` has them, over vectors (batch, 128, 512)."""
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertEncoder

    config = BertConfig(hidden_size=512, num_hidden_layers=4, num_attention_heads=8, intermediate_size=2048)
    config._attn_implementation = "sdpa"
    encoder = BertEncoder(config)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, states: Tensor) -> Tensor:
            return self.encoder(states).last_hidden_state

    return Encoder().eval()


def versions(model: nn.Module, inputs: Tensor, folder: Path) -> dict[str, Call]:
    """Every way to run the model that is installed here, by name."""
    found: dict[str, Call] = {"fp32": model}
    found |= {name: call for name, call, _ in installed_ways(model, inputs, folder) if call}
    if not missing_for_integers() and not any(isinstance(layer, nn.Conv2d) for layer in model.modules()):
        rounded = quantize_by_torchao(exported(model, inputs), inputs, dynamic=True)  # it leaves convolutions alone
        found["dynamic int8, compiled"] = compiled(rounded, inputs[0], folder / "dynamic", batch_sizes=(1,))
    return found


def measure() -> list[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    networks = {
        "small CNN": (SmallCNN(1, 10, width=64).eval(), torch.randn(256, 1, 8, 8), (1, 32)),  # the recipe's own
        "ResNet-18": (ResNet(BasicBlock, [2, 2, 2, 2]).eval(), torch.randn(8, 3, 224, 224), (1, 32)),
        "BERT encoder": (bert_encoder(), torch.randn(8, 128, 512), (1,)),
    }
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            for name, (model, inputs, batch_sizes) in networks.items():
                ways = versions(model, inputs, Path(folder))
                for batch_size in batch_sizes:
                    batch = inputs[:1].expand(batch_size, *inputs.shape[1:]).contiguous()
                    calls: dict[str, Callable[[], Any]] = {way: partial(call, batch) for way, call in ways.items()}
                    once = min(interleaved({"fp32": calls["fp32"]}, rounds=3)["fp32"])
                    calls = {way: repeated(call, math.ceil(0.01 / once)) for way, call in calls.items()}
                    seconds = interleaved(calls, rounds=7 if batch_size == 1 else 3)
                    for way in list(ways)[1:]:
                        ratios = [mine / eager for mine, eager in zip(seconds[way], seconds["fp32"], strict=True)]
                        goal = GOALS[name, batch_size] if way.endswith("int8, compiled") else ""
                        faster = 1 / ratio(seconds[way], seconds["fp32"])[1]
                        rows.append(
                            Row(f"{name}, {way}, batch {batch_size}", "eager fp32", ratios, goal, f"{faster:.1f}×")
                        )
    finally:
        logging.disable(logging.NOTSET)
        torch.set_num_threads(threads)
    return rows
