"""Each compression's effect on networks of other libraries, with random weights.

Errors are of the answers, relative to what differs from input to input in the network's own in fp32; bytes are of the
file, against the dense one.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.row import table
from recipes.compression.channels import prune_channels
from recipes.compression.files import file_bytes, save_dense, save_sparse
from recipes.compression.huffman import save_shared
from recipes.compression.quantization import quantize
from recipes.compression.quantization_aware import packed_model
from recipes.compression.weight_pruning import prune
from recipes.compression.weight_sharing import share_weights
from recipes.core.errors import tell
from recipes.core.measure import parameter_count
from tests.compression.networks import LARGE, TINY, answer, off_by_input, other

COLUMNS = (
    *("network", "parameters", "int8 weights", "int8 throughout", "dynamic int8", "4 bits", "80 % zeros"),
    *("16 values a layer", "half the channels"),
)


def section() -> str:
    lines = [[f"`{name}`", *row(name)] for name in (*TINY, *LARGE)]
    return f"""## Networks of other libraries

Random weights. Of quantized ones: the answers' error, relative to what differs from input to input, and the file's
bytes against the dense file's; of pruned and shared ones the bytes; of those with half the channels the parameters
left. In brackets the share of the parameters that a function reached, where it left something alone.

{table(list(COLUMNS), lines)}"""


def row(name: str) -> list[str]:
    model, inputs = other(name, 0)
    exact, dense = answer(model, inputs), file_bytes(model, save_dense)

    def of(make: Callable[[], Any], measure: Callable[[Any], str]) -> str:
        told = io.StringIO()
        tell.cache_clear()
        try:
            with contextlib.redirect_stderr(told), torch.no_grad():
                cell = measure(make())
        except Exception as error:  # the table says so instead of ending
            return f"no: {str(error).partition(chr(10))[0][:60]}"
        reached = next((line.split("reached ")[1].split(" of")[0] for line in told.getvalue().splitlines()
                        if "reached " in line), "")  # fmt: skip
        return f"{cell} ({reached})" if reached else cell

    def error_and_bytes(small: nn.Module) -> str:
        return f"{off_by_input(answer(small, inputs), exact):.3f}, {file_bytes(small, save_dense) / dense:.3f}"

    def share_of_bytes(save: Callable[[nn.Module, Path], object]) -> Callable[[Any], str]:
        return lambda small: f"{written(small, save) / dense:.3f}"

    return [
        f"{parameter_count(model):,}",
        of(lambda: quantize(model), error_and_bytes),
        of(lambda: quantize(model, inputs), error_and_bytes),
        of(lambda: quantize(model, dynamic=True), error_and_bytes),
        of(lambda: packed_model(model), error_and_bytes),
        of(lambda: pruned(other(name, 0)[0], inputs), share_of_bytes(save_sparse)),
        of(lambda: share_weights(model, 16), share_of_bytes(save_shared)),
        of(
            lambda: prune_channels(model, inputs, 0.5),
            lambda small: f"{parameter_count(small) / parameter_count(model):.3f}",
        ),
    ]


def pruned(model: nn.Module, inputs: Tensor) -> nn.Module:
    prune(model, 0.8)
    return model


def written(model: nn.Module, save: Callable[[nn.Module, Path], object]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save(model, path)
        return path.stat().st_size
