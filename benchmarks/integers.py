"""Eight-bit integers on this processor: a ResNet-18 at 224 pixels and a BERT encoder, by every way installed.

All run in one process of one thread, in turn, and processor time counts. The networks have random weights:
their arithmetic does not depend on them.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.row import Row
from recipes.compression.inductor import compiled, exported, missing_for_integers, quantize_by_torchao
from recipes.core.measure import interleaved, ratio
from recipes.vision.classification.resnet import BasicBlock, ResNet

Call = Callable[[Tensor], Any]
GOALS = {("ResNet-18", 1): "≤ 0.25", ("ResNet-18", 32): "≤ 0.2", ("BERT encoder", 1): "≤ 0.4"}


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


def by_onnxruntime(model: nn.Module, inputs: Tensor, folder: Path) -> Call:
    """Static quantization by onnxruntime, with nodes that round and restore (QDQ), one thread.

    Inputs of layers without a sign are what it has fast products for: signed ones, its default, take 2.6 times as long.
    """
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, Any]] = ({"inputs": one[None].numpy()} for one in inputs)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    plain, ready, integers = (str(folder / f"{name}.onnx") for name in ("plain", "ready", "integers"))
    torch.onnx.export(
        model,
        (inputs[:2],),
        plain,
        input_names=["inputs"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
    )
    quant_pre_process(plain, ready)
    way = {"quant_format": QuantFormat.QDQ, "per_channel": True, "activation_type": QuantType.QUInt8}
    quantize_static(ready, integers, Reader(), **way)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(integers, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"inputs": batch.numpy()})


def by_openvino(model: nn.Module, inputs: Tensor) -> Call:
    """Static quantization by NNCF, run by OpenVINO with one thread."""
    import nncf
    import openvino

    graph = openvino.convert_model(model, example_input=inputs[:1])
    rounded = nncf.quantize(graph, nncf.Dataset([one[None].numpy() for one in inputs]))
    ready = openvino.compile_model(rounded, "CPU", {"INFERENCE_NUM_THREADS": 1})
    return lambda batch: ready(batch.numpy())


def in_bf16(call: Call) -> Call:
    def run(batch: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return call(batch)

    return run


def versions(model: nn.Module, inputs: Tensor, folder: Path) -> dict[str, Call]:
    """Every way to run the model that is installed here, by name."""
    found: dict[str, Call] = {"eager fp32": model, "compiled fp32": compiled(exported(model, inputs), inputs[0])}
    if torch.cpu.get_capabilities().get("avx512_bf16", False):
        found["compiled bf16"] = in_bf16(torch.compile(model))
    if not missing_for_integers():
        found["int8, torchao and inductor"] = compiled(quantize_by_torchao(exported(model, inputs), inputs), inputs[0])
        if not any(isinstance(layer, nn.Conv2d) for layer in model.modules()):  # torchao leaves these as they are
            rounded = quantize_by_torchao(exported(model, inputs), inputs, dynamic=True)
            found["dynamic int8, torchao and inductor"] = compiled(rounded, inputs[0])
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        found["int8, onnxruntime"] = by_onnxruntime(model, inputs, folder)
    if find_spec("openvino") and find_spec("nncf"):
        found["int8, OpenVINO"] = by_openvino(model, inputs)
    return found


def measure() -> list[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    networks = {
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
                    seconds = interleaved(calls, rounds=7 if batch_size == 1 else 3)
                    for way in list(ways)[1:]:
                        ratios = [mine / eager for mine, eager in zip(seconds[way], seconds["eager fp32"], strict=True)]
                        goal = GOALS[name, batch_size] if way.endswith("int8, torchao and inductor") else ""
                        faster = 1 / ratio(seconds[way], seconds["eager fp32"])[1]
                        rows.append(
                            Row(f"{name}, {way}, batch {batch_size}", "eager fp32", ratios, goal, f"{faster:.1f}×")
                        )
    finally:
        logging.disable(logging.NOTSET)
        torch.set_num_threads(threads)
    return rows
