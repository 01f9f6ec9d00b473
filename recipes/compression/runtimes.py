"""A network in few bits by every library that is installed, each in its fast way on this processor."""

import math
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recipes.compression.graphs import exported
from recipes.compression.inductor import (
    HalfPrecision,
    accuracy_of,
    compiled,
    missing_for_integers,
    quantize_by_torchao,
    quiet_and_single,
)
from recipes.compression.report import Version
from recipes.datasets.images import ImageFiles, Images

Call = Callable[[Tensor], Any]


def installed_ways(model: nn.Module, inputs: Tensor, folder: Path) -> Iterator[tuple[str, Call | None, int]]:
    """Every way to run the model that there is here: its name, what to call, and the bytes of its file.

    What a library cannot take has no call, and says so in its name.

    Args:
        model: in evaluation mode, on the CPU.
        inputs: a batch (N, …), from which ranges are taken.
        folder: for the files that libraries write.
    """
    if not missing_for_integers():
        ways = {"fp32": exported(model, inputs)}
        if torch.cpu.get_capabilities().get("avx512_bf16", False):
            ways["bf16"] = exported(HalfPrecision(model).eval(), inputs)
        ways["int8"] = quantize_by_torchao(exported(model, inputs), inputs)
        for kind, graph in ways.items():
            call = compiled(graph, inputs[0], folder / kind)
            yield f"{kind}, compiled", call, next((folder / kind).glob("1*.pt2")).stat().st_size
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        try:
            call = by_onnxruntime(model, inputs, folder)
            yield "int8, onnxruntime", call, (folder / "integers.onnx").stat().st_size
        except torch.onnx.OnnxExporterError:  # the format lacks some layers, such as adaptive max pooling
            yield "int8, onnxruntime: torch.onnx cannot export it", None, 0
    if find_spec("openvino") and find_spec("nncf"):
        yield "int8, OpenVINO", by_openvino(model, inputs, folder), (folder / "integers.bin").stat().st_size


def installed_versions(model: nn.Module, inputs: Tensor, test_set: Images | ImageFiles) -> Iterator[Version]:
    """The same as rows of a table, with their accuracy; a row says what fast integers lack, where they do."""
    with quiet_and_single(), tempfile.TemporaryDirectory() as folder:
        for name, call, size in installed_ways(model, inputs, Path(folder)):
            yield Version(name, model, accuracy_of(call, test_set) if call else math.nan, size, call)
    if lacking := missing_for_integers():
        yield Version(f"int8, compiled: needs {lacking}", model, math.nan, 0, None)


def by_onnxruntime(model: nn.Module, inputs: Tensor, folder: Path) -> Call:
    """Static quantization by onnxruntime, with nodes that round and restore (QDQ), one thread; writes integers.onnx.

    Inputs of layers without a sign are what it has fast products for: signed ones, its default, take 2.6 times as long.
    Weights have 7 bits: a processor without VNNI adds two products in 16 bits, which those of 8 bits exceed.
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
        verbose=False,
    )
    quant_pre_process(plain, ready)
    way = {"quant_format": QuantFormat.QDQ, "per_channel": True, "activation_type": QuantType.QUInt8}
    quantize_static(ready, integers, Reader(), reduce_range=True, **way)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(integers, options, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run(None, {"inputs": batch.numpy()})[0])


def by_openvino(model: nn.Module, inputs: Tensor, folder: Path) -> Call:
    """Static quantization by NNCF, run by OpenVINO with one thread; writes integers.bin, and its graph beside it."""
    import nncf
    import openvino

    graph = openvino.convert_model(model, example_input=inputs[:1])
    rounded = nncf.quantize(graph, nncf.Dataset([one[None].numpy() for one in inputs]))
    openvino.save_model(rounded, folder / "integers.xml")
    ready = openvino.compile_model(rounded, "CPU", {"INFERENCE_NUM_THREADS": 1})
    return lambda batch: torch.from_numpy(ready(batch.numpy())[0])
