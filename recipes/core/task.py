"""What using a trained model needs, written beside its weights: from what people have to tensors, and back."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from recipes.core.errors import InputError, tell
from recipes.core.evaluation import map_tensors

if TYPE_CHECKING:
    from recipes.core.result import Result


@dataclass(kw_only=True)
class Task:
    """How models of one task are used: what they take, what their answers are; a subclass for each task.

    Its fields are what `model.json` holds: text, numbers, lists and dicts of them.

    Attributes:
        takes: pictures, recordings or sequences, which are files, or texts.
        example: inputs of the model from held-out data, which an exported file is checked on.
    """

    takes: ClassVar[str] = "pictures"

    example: tuple[Tensor, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, result: "Result", options: Any) -> Self:
        """The task of a recipe's result, from its train and test set and its options."""
        raise NotImplementedError

    def load(self, item: Any) -> Any:
        """What `batch` takes, from a path or a text."""
        if self.takes == "texts" and not isinstance(item, str):
            raise TypeError("expected a text")
        return item

    def batch(self, items: Sequence[Any]) -> tuple[Tensor, ...]:
        """The model's inputs for these items."""
        raise NotImplementedError

    def answers(self, outputs: Any, items: Sequence[Any]) -> list[dict[str, Any]]:
        """One answer for each item, from the model's outputs for the batch."""
        raise NotImplementedError

    def predict(self, model: nn.Module, items: Sequence[Any], device: torch.device) -> list[dict[str, Any]]:
        """One answer for each item; what generates or follows step by step has its own."""
        inputs = map_tensors(lambda tensor: tensor.to(device), self.batch(items))
        return self.answers(map_tensors(lambda tensor: tensor.cpu(), model(*inputs)), items)

    def together(self, answered: Iterator[tuple[Any, dict[str, Any]]]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Items and answers as they are given out; what compares items with each other waits for all of them."""
        return answered

    def draw(self, item: Any, answer: dict[str, Any]) -> Any:
        """A matplotlib Figure of an item and its answer.

        Raises:
            InputError: such answers have no picture.
        """
        raise InputError(f"--draw: expected a model for pictures or sound, this one takes {self.takes}")

    def beside(self, answer: dict[str, Any]) -> dict[str, Callable[[Path], object]]:
        """Further files beside the picture of an answer: the ending of each, such as .wav, and what writes it."""
        return {}

    def to_export(self, model: nn.Module) -> nn.Module:
        """The part of the model that goes into an exported file: from tensors to tensors."""
        return model

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        """The dimensions of each input that may have any size in an exported file, with their names.

        A torch.export.Dim stands in place of a name where the size has a limit.
        """
        return tuple({0: "batch"} for _ in self.example)

    def files(self, result: "Result") -> dict[str, Callable[[Path], object]]:
        """Further files that `out` gets beside the usual ones: the name of each, and what writes it."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        names = [one.name for one in dataclasses.fields(self) if one.name != "example"]
        return {name: getattr(self, name) for name in names}


def class_answers(logits: Tensor, classes: Sequence[str], given: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is given of each item, its likeliest class, and the probability of every class, from (N, num_classes)."""
    found = []
    for item, shares in zip(given, logits.softmax(dim=1), strict=True):
        best, by_class = int(shares.argmax()), dict(zip(classes, shares.tolist(), strict=True))
        found.append(item | {"class": classes[best], "probability": float(shares[best]), "classes": by_class})
    return found


def exported(task: Task, model: nn.Module) -> torch.export.ExportedProgram:
    """The network, which moves to the CPU, as torch exports it, for inputs whose dimensions vary as the task says."""
    sizes = task.dynamic()
    named = {size for one in sizes for size in one.values() if isinstance(size, str)}
    names: dict[Any, Any] = {name: torch.export.Dim(name) for name in named}
    shapes = tuple({axis: names.get(size, size) for axis, size in one.items()} for one in sizes)
    with torch.no_grad():
        return torch.export.export(task.to_export(model).cpu().eval(), task.example, dynamic_shapes=shapes)


def tell_if_longer(lengths: Iterable[int], most: int, unit: str) -> None:
    """A line where texts are longer than what a model reads of them."""
    if max(lengths, default=0) > most:
        tell(f"some texts are longer than {most} {unit}: the rest is not read")


def first_inputs(dataset: Any, count: int = 2) -> tuple[Tensor, ...]:
    """The model's inputs for the first samples of a data set that hands out batches (inputs, targets)."""
    indices = [index % len(dataset) for index in range(count)]
    inputs = dataset.__getitems__(indices)[0]
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)


def model_files(result: "Result") -> dict[str, Callable[[Path], object]]:
    """What to write of a trained model: its weights, and last the `model.json` that makes them usable."""
    from safetensors.torch import save_file

    weights = whole_weights(result.model)
    files: dict[str, Callable[[Path], object]] = {"model.safetensors": lambda path: save_file(weights, path)}
    if result.task is not None:
        example = {f"input{i}": one.detach().cpu().contiguous() for i, one in enumerate(result.task.example)}
        content = {
            "recipe": result.recipe,
            "options": {key: value for key, value in result.options.items() if key not in ("out", "checkpoint")},
            "task": result.task.to_dict(),
            "weights": digest(weights),
        }
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        if example:
            files["example.safetensors"] = lambda path: save_file(example, path)
        files |= result.task.files(result)
        files["model.json"] = lambda path: path.write_text(text, "utf-8")
    return files


def digest(weights: dict[str, Tensor]) -> str:
    """A word that tells these weights from others: `model.json` names those it belongs to."""
    whole = hashlib.sha256()
    for name in sorted(weights):
        whole.update(name.encode())
        whole.update(weights[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()[:16]


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's state, gathered where it is sharded; what two names share stands under the first."""
    whole: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        if not tensor.numel() or first.setdefault(tensor.data_ptr(), name) == name:
            whole[name] = tensor.detach().cpu().contiguous()
    return whole
