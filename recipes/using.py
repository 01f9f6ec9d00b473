"""Using a model that a recipe has trained and written with `out`: in Python, on the command line, exported."""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from recipes import catalog
from recipes.core.device import pick_device
from recipes.core.errors import InputError, missing_package
from recipes.core.evaluation import map_tensors
from recipes.core.files import own_path, require_writable, write_whole
from recipes.core.task import Task, digest, exported
from recipes.datasets.own import described

# Largest difference of an exported file's outputs to the model's, relative to their size. Where values are nearly
# equal, rounding may decide which of them pooling keeps, and so what follows.
TOLERANCE = 1e-3


@dataclass(eq=False)
class Trained:
    """A trained model with all that using it needs; call it with what its task takes.

    ```
    trained = recipes.trained("out/unet")
    trained(["photo.jpg"])
    ```

    Attributes:
        model: the network, in evaluation mode.
        task: what it takes, and what its answers are.
        recipe: the recipe's name.
        options: that it was trained with.
        device: where it computes.
    """

    model: nn.Module
    task: Task
    recipe: str
    options: dict[str, Any]
    device: torch.device

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The network as torch exports it, on the CPU, for inputs whose dimensions vary as the task says."""
        return exported(self.task, self.model)

    def __call__(self, items: Iterable[Any], *, batch_size: int = 32) -> list[dict[str, Any]]:
        """An answer for each item, in the field's usual form."""
        return [answer for _, answer in self.stream(items, batch_size=batch_size)]

    def stream(self, items: Iterable[Any], *, batch_size: int = 32) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Each item as the task has loaded it, with its answer; a batch is held in memory at a time."""
        return self.task.together(self.batched(items, batch_size))

    @torch.inference_mode()
    def batched(self, items: Iterable[Any], batch_size: int) -> Iterator[tuple[Any, dict[str, Any]]]:
        """The same, each answer by the item alone."""
        waiting: list[Any] = []

        def answered() -> list[tuple[Any, dict[str, Any]]]:
            if not waiting:
                return []
            with torch.inference_mode():
                return list(zip(waiting, self.task.predict(self.model, waiting, self.device), strict=True))

        if isinstance(items, (str, bytes, os.PathLike)):
            raise InputError(f"expected a list of {self.task.takes}, got {described(items)}")
        found = iter(items)
        while True:
            try:
                for item in islice(found, batch_size):
                    waiting.append(self.loaded(item))
            except InputError:  # what came before it is answered first
                yield from answered()
                raise
            if not waiting:
                return
            yield from answered()
            waiting.clear()

    def loaded(self, item: Any) -> Any:
        """The item as the task takes it."""
        try:
            return self.task.load(item)
        except (AttributeError, TypeError) as error:
            raise InputError(f"expected one of the {self.task.takes} to answer, got {described(item)}") from error

    def export(self, file: str | Path) -> float:
        """Writes the network for onnxruntime (.onnx) or torch alone (.pt2), for batches of any size.

        Returns:
            The largest difference of the file's outputs to the model's, on inputs that it was not trained on.

        Raises:
            InputError: another ending, an operation that cannot be exported (it is named), or outputs that differ.
        """
        return export(self, Path(file))


def trained(
    folder: str | Path, *, device: str = "auto", model: nn.Module | None = None, weights: str | None = None
) -> Trained:
    """Opens what a recipe's `out` has written; no training data are needed.

    Args:
        folder: that was given as `out`; or "timm:NAME" or "torchvision:NAME", a classifier with ImageNet's weights.
        device: auto, cpu, cuda or mps.
        model: a network to load the weights into, where the recipe was given one of your own.
        weights: of a network by name: a file, torchvision's name, or its library's own if not given.

    Raises:
        InputError: the folder holds no such model, or a damaged one; names the file.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise InputError(f"expected the folder that a recipe's --out has written, got {described(folder)}")
    if str(folder).startswith(("timm:", "torchvision:")):
        return named(str(folder), weights or "pretrained", device)
    if weights is not None:
        raise InputError(f"option weights: expected the name of a network, such as timm:resnet18, not {folder}")
    folder = own_path(folder)
    content = read_model_json(folder / "model.json")
    run = catalog.load(content["recipe"]).run
    made: Any = run.recipe
    if made.task is None:
        raise InputError(f"{folder / 'model.json'}: the recipe {content['recipe']} has no way to use its model")
    where = pick_device(device)
    if model is None and str(content["options"].get("model", "")).startswith("<"):
        raise InputError(f"{folder / 'model.json'}: was trained with a network of yours: expected it again, as model=")
    try:
        options = made.options_from(content["options"])
        made = made.chosen(options)
        task = made.task(**content["task"])
        if (folder / "example.safetensors").exists():
            example = load_file(folder / "example.safetensors")
            task.example = tuple(example[f"input{i}"] for i in range(len(example)))
        network = made.build(options, task) if model is None else model
    except InputError:
        raise
    except ModuleNotFoundError as error:
        raise missing_package(error) from None
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{folder / 'model.json'}: expected what its recipe has written ({reason})") from None
    load_weights(network, folder / "model.safetensors", content["weights"])
    return Trained(network.to(where).eval(), task, content["recipe"], content["options"], where)


def named(name: str, weights: str, device: str) -> Trained:
    """A classifier of timm's or torchvision's, as it was trained by others."""
    try:
        from recipes.vision.pretrained import named_classifier

        network, task = named_classifier(name, weights)
    except ModuleNotFoundError as error:
        raise missing_package(error) from None
    where = pick_device(device)
    return Trained(network.to(where).eval(), task, name, {"weights": weights}, where)


def read_model_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected the folder that a recipe's --out has written") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON ({str(error).partition(chr(10))[0]})") from None
    kinds = {"recipe": str, "options": dict, "task": dict, "weights": str}
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in kinds.items()):
        raise InputError(f"{path}: expected recipe, options, task and weights, as a recipe's --out writes them")
    return content


def load_weights(model: nn.Module, path: Path, told: str) -> None:
    """Loads weights; those that two names share stand under the first."""
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected the weights beside model.json") from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: expected whole weights ({str(error).partition(chr(10))[0]})") from None
    if digest(weights) != told:
        raise InputError(f"{path}: expected the weights that model.json belongs to, these are others")
    state = model.state_dict()
    given = {tensor.data_ptr(): weights[name] for name, tensor in state.items() if name in weights}
    whole = {name: weights.get(name, given.get(tensor.data_ptr(), tensor)) for name, tensor in state.items()}
    missing = [name for name, tensor in state.items() if name not in weights and tensor.data_ptr() not in given]
    if missing or weights.keys() - state.keys():
        name = (missing or sorted(weights.keys() - state.keys()))[0]
        raise InputError(f"{path}: expected weights of this network, but {name} is only on one side")
    try:
        model.load_state_dict(whole)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path}: expected weights of this network ({reason})") from None


def export(trained: Trained, file: Path) -> float:
    """Writes the exported network once its outputs have been compared; see `Trained.export`."""
    if file.suffix not in (".onnx", ".pt2"):
        raise InputError(f"{file}: expected a file that ends in .onnx or .pt2")
    require_writable(file.parent)
    if not trained.task.example:
        raise InputError(f"recipe {trained.recipe}: its models have no export, as they take no fixed tensors")
    differences: list[float] = []

    def write_and_compare(path: Path) -> None:
        with torch.no_grad():
            expected = flat(trained.task.to_export(trained.model).cpu().eval()(*trained.task.example))
        try:
            (write_pt2 if file.suffix == ".pt2" else write_onnx)(trained.program, path)
            found = (run_pt2 if file.suffix == ".pt2" else run_onnx)(path, trained.task.example)
        except ModuleNotFoundError as error:
            raise missing_package(error) from None
        except Exception as error:  # torch's exporters raise many kinds
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = next((line for line in lines if "aten" in line or "operator" in line), lines[0] if lines else "")
            kind = type(error).__name__
            raise InputError(f"{file}: the network cannot be exported: {kind}: {reason[:200]}") from None
        if len(found) != len(expected):
            raise InputError(f"{file}: has {len(found)} outputs, expected the model's {len(expected)}")
        for one, other in zip(found, expected, strict=True):
            differences.append((one.double() - other.double()).abs().max().item())
            if not differences[-1] <= TOLERANCE * max(1.0, other.double().abs().max().item()):
                raise InputError(f"{file}: its outputs differ from the model's by {differences[-1]:.2g}; not written")

    logging.disable(logging.ERROR)  # torch tells at length what one line says
    try:
        write_whole(file, write_and_compare)
    finally:
        logging.disable(logging.NOTSET)
        trained.model.to(trained.device)
    return max(differences)


def write_pt2(program: torch.export.ExportedProgram, path: Path) -> None:
    torch.export.save(program, path)


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    import warnings

    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    with warnings.catch_warnings(action="ignore"):
        made = torch.onnx.export(program, dynamo=True, verbose=False)
    assert made is not None
    made.save(path, external_data=False)


def run_pt2(file: Path, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of an exported file, by torch."""
    return flat(torch.export.load(file).module()(*inputs))


def run_onnx(file: Path, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of an exported file, by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    named = {one.name: tensor.numpy() for one, tensor in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(one) for one in session.run(None, named)]


def flat(outputs: Any) -> list[Tensor]:
    """All tensors of a model's outputs, in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(note, outputs)
    return found


def as_json(value: Any) -> Any:
    """An answer as JSON can hold it: tensors become lists."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    return value
