"""Each compression's effect on networks of other libraries, with random weights.

Errors are of the answers, relative to what differs from input to input in the network's own in fp32; bytes are of the
file, against the dense one. Distillation is told by the loss that is left.
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
from recipes.compression.calls import each_tensor, logits_of
from recipes.compression.channels import prune_channels
from recipes.compression.distillation import UNKNOWN, DistillationOptions, distill
from recipes.compression.files import file_bytes, save_dense, save_sparse
from recipes.compression.huffman import save_shared
from recipes.compression.quantization import quantize
from recipes.compression.quantization_aware import packed_model
from recipes.compression.weight_pruning import prune
from recipes.compression.weight_sharing import share_weights
from recipes.core.errors import tell
from recipes.core.evaluation import map_tensors
from recipes.core.measure import parameter_count
from tests.compression.networks import LARGE, TINY, answer, off_by_input, other

COLUMNS = (
    *("network", "parameters", "int8 weights", "int8 throughout", "dynamic int8", "4 bits", "80 % zeros"),
    *("16 values a layer", "half the channels", "distilled into these"),
)
STEPS, EPOCHS = 16, 4  # of distillation


def section() -> str:
    lines = [[f"`{name}`", *row(name)] for name in (*TINY, *LARGE)]
    return f"""## Networks of other libraries

Random weights. Of quantized ones: the answers' error, relative to what differs from input to input, and the file's
bytes against the dense file's; of pruned and shared ones the bytes; of those with half the channels the parameters
left, and what remains of the loss after {STEPS} steps of distillation into a fresh one of that size, on these inputs:
with batch norm, whose statistics in training are those of four pictures, little is gained in so few, and googlenet's
classifiers for training alone, which pruning does not see, no longer fit. In brackets the share of the parameters that
a function reached, where it left something alone.

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
        of(lambda: loss_left(model, prune_channels(other(name, 1)[0], inputs, 0.5), inputs), "{:.3f}".format),
    ]


class Repeated(torch.utils.data.Dataset[Any]):
    """A batch of inputs, a tensor, a tuple or a dict, over and over; nobody labelled them."""

    def __init__(self, inputs: Any) -> None:
        self.inputs, self.count = inputs, len(next(each_tensor(inputs)))

    def __len__(self) -> int:
        return self.count * STEPS // EPOCHS

    def __getitem__(self, index: int) -> Any:
        return map_tensors(lambda one: one[index % self.count], self.inputs), UNKNOWN


class OneAnswer(nn.Module):
    """A network that gives one answer (batch, classes), of the last word or the mean over pixels, as large as told."""

    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        logits = self.scale * logits_of(self.network(*args, **kwargs))
        if logits.ndim == 3:
            return logits[:, -1]  # (batch, words, classes)
        return logits.flatten(2).mean(dim=2) if logits.ndim > 3 else logits  # (batch, classes, height, width)


def loss_left(teacher: nn.Module, student: nn.Module, inputs: Any) -> float:
    """What the last steps' loss is of the first ones', for answers that differ from input to input by about 1."""
    data, exact = Repeated(inputs), answer(teacher, inputs)
    scale = 1 / float((exact - exact.mean(0)).std())
    options = DistillationOptions(
        device="cpu",
        epochs=EPOCHS,
        batch_size=data.count,
        hard_weight=0.0,
        lr=1e-3,
        precision="fp32",
        channels_last=False,
    )
    with torch.enable_grad():
        history = distill(OneAnswer(teacher, scale), OneAnswer(student, scale), data, options).history
    return history[-1]["loss"] / history[0]["loss"]


def pruned(model: nn.Module, inputs: Tensor) -> nn.Module:
    prune(model, 0.8)
    return model


def written(model: nn.Module, save: Callable[[nn.Module, Path], object]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save(model, path)
        return path.stat().st_size
