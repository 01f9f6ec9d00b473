"""Files that are deployed: they run without this library, and `out` gets them beside the usual ones."""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from recipes.compression.calls import call, each_tensor
from recipes.compression.files import save_dense
from recipes.compression.inductor import quiet_and_single
from recipes.compression.layers import copy_for_cpu
from recipes.compression.observing import calibration, without_changed_inputs
from recipes.compression.runtimes import by_onnxruntime
from recipes.core.errors import missing_package, tell
from recipes.core.result import Result
from recipes.vision.classification.using import Classification

Save = Callable[[nn.Module, Path], object]
EXACT, ROUNDED = 1e-4, 0.1  # how far a file's answers may be from the model's, relative to their size


@dataclass(kw_only=True)
class Shipped(Classification):
    """Pictures to classes by a compressed network, which `out` also holds ready to be deployed.

    A recipe whose weights are packed by other means than `save_dense` has a subclass with another `save`.
    """

    @staticmethod
    def save(model: nn.Module, path: Path) -> None:
        """Writes the packed weights."""
        save_dense(model, path)

    def files(self, result: Result) -> dict[str, Callable[[Path], object]]:
        return shipped_files(result.model, calibration(result.train_set, count=256), self.save)


def shipped_files(model: nn.Module, inputs: Tensor, save: Save = save_dense) -> dict[str, Callable[[Path], object]]:
    """Each file's name and what writes it: `packed.safetensors`, `model.pt2` and `model.onnx`.

    The first holds the weights as they are packed. The second is the network as torch exports it, for batches of any
    size, and gives the same answers. The third has nodes that round and restore (QDQ): 8-bit integers for onnxruntime,
    which rounds what layers give, too, by the ranges that these inputs have. What cannot be made, or answers
    otherwise than the model, is left out, and a line says why.

    Args:
        model: a compressed network; it is not changed.
        inputs: a batch (N, …), from which onnxruntime takes ranges.
        save: writes the packed weights.
    """
    model = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()
    files: dict[str, Callable[[Path], object]] = {"packed.safetensors": lambda path: save(model, path)}
    with torch.no_grad(), quiet_and_single(), tempfile.TemporaryDirectory() as folder:
        expected = next(each_tensor(call(model, inputs)))
        for name, make, most in (("model.pt2", by_torch, EXACT), ("model.onnx", in_integers, ROUNDED)):
            try:
                answers = next(each_tensor(make(model, inputs, Path(folder))))
            except ModuleNotFoundError as error:
                tell(f"{name}: left out, {missing_package(error)}")
                continue
            except Exception as error:  # exporters raise many kinds
                reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
                tell(f"{name}: left out, the network cannot be exported: {reason[:200]}")
                continue
            difference = float((answers - expected).norm() / expected.norm())
            if difference <= most:
                content = (Path(folder) / name).read_bytes()
                files[name] = lambda path, content=content: path.write_bytes(content)  # type: ignore[misc]
            else:
                tell(f"{name}: left out, its answers differ from the model's by {difference:.2g} of their size")
    return files


def by_torch(model: nn.Module, inputs: Tensor, folder: Path) -> Tensor:
    """Writes model.pt2; its answers."""
    sizes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(model, (inputs[:2],), dynamic_shapes=sizes), folder / "model.pt2")
    return torch.export.load(folder / "model.pt2").module()(inputs)


def in_integers(model: nn.Module, inputs: Tensor, folder: Path) -> Tensor:
    """Writes model.onnx; its answers."""
    floats = without_changed_inputs(copy_for_cpu(model))
    answer = by_onnxruntime(floats, inputs, folder)
    (folder / "integers.onnx").rename(folder / "model.onnx")
    return answer(inputs)
