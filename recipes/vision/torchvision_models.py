"""Whole detectors and segmenters of torchvision, with weights from a file or by name, for classes of your own."""

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recipes.core.errors import InputError
from recipes.vision.backbones import KeepsStatistics, two_rates
from recipes.vision.networks import read_weights

KINDS = {"detection": "detector", "segmentation": "segmenter"}


class TorchvisionModel(KeepsStatistics):
    """A network of torchvision's for classes of your own.

    Args:
        network: with its weights.
        new: names of its parameters that no file gave: those of a head for other classes.
        pretrained: whether the weights were trained before.
    """

    network: Any

    def __init__(self, network: nn.Module, new: Iterable[str] = (), *, pretrained: bool = False) -> None:
        super().__init__()
        self.network, self.new, self.pretrained = network, set(new), pretrained

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """For an optimizer: a new head learns at that rate, the rest at a tenth of it."""
        return two_rates(((one, name not in self.new) for name, one in self.network.named_parameters()), lr)[::-1]


def names_a_model(options: Any) -> bool:
    """Whether the options name a network to take the place of the recipe's own.

    Raises:
        InputError: options that do not go together.
    """
    backbone = getattr(options, "backbone", None)
    if options.model is not None and backbone is not None:
        raise InputError("option backbone: expected none beside a model, which has its own")
    if options.model is None and backbone is None and options.weights is not None:
        raise InputError("option weights: expected a backbone or a model, whose weights they are")
    return options.model is not None


def open_model(name: str, kind: str, num_classes: int, weights: str | None, **given: Any) -> tuple[Any, list[str]]:
    """The network of that name, and the names of its parameters that the weights do not give.

    Args:
        name: "torchvision:NAME".
        kind: the module of torchvision.models that has it, detection or segmentation.
        num_classes: as torchvision counts them, with the background.
        weights: None or "none" for random ones, a file of torchvision's (a state dict), "pretrained", or a name of
            torchvision's such as "COCO_V1". Where they are for another number of classes, the head is a new one.
        given: further arguments of torchvision's function.

    Raises:
        InputError: there is no such network, or the weights cannot be had or are another network's.
    """
    from torchvision import models

    short = known_name(name, kind)

    def make(classes: int) -> nn.Module:
        return models.get_model(short, weights=None, weights_backbone=None, num_classes=classes, **given)

    if weights in (None, "none"):
        return make(num_classes), []
    state = {key: value for key, value in open_weights(short, weights).items() if not key.startswith("aux_classifier.")}
    try:
        head, expected = head_and_shapes(make, state)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{weights}: expected weights of torchvision:{short} ({reason})") from None
    network = make(num_classes)
    own = network.state_dict()
    if all(own[key].shape == expected[key] for key in head):
        head = []
    kept = {key: value for key, value in own.items() if key in head or key.endswith("num_batches_tracked")}
    network.load_state_dict(state | kept)
    return network, head


def known_name(name: str, kind: str) -> str:
    """The part after "torchvision:", if torchvision has such a network; names the nearest if not."""
    from torchvision import models

    library, _, short = name.partition(":")
    if library != "torchvision":
        raise InputError(f"option model: expected torchvision:NAME, got {name!r}")
    known = [one for one in models.list_models(module=getattr(models, kind)) if not one.startswith("keypoint")]
    if short not in known:
        near = difflib.get_close_matches(short, known, n=1) or known
        raise InputError(f"option model: torchvision has no {KINDS[kind]} {short!r}, did you mean {near[0]}?")
    return short


def open_weights(name: str, weights: str) -> dict[str, Tensor]:
    """A file's state dict, or torchvision's own weights of that name, which it downloads once."""
    from torchvision import models

    path = Path(weights).expanduser()
    if path.exists():
        try:
            found = read_weights(path)
        except Exception as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{weights}: expected a file of weights ({reason})") from None
        state = found.get("model", found) if isinstance(found, dict) else None  # torchvision's scripts: beside others
        if not isinstance(state, dict) or not state or not all(isinstance(one, Tensor) for one in state.values()):
            raise InputError(f"{weights}: expected a state dict, the tensors of torchvision:{name} by name")
        return state
    known = models.get_model_weights(name)
    if weights not in ("pretrained", *known.__members__):
        names = ", ".join(["pretrained", *known.__members__])
        raise InputError(f"option weights: expected a file, none, or one of {names}, got {weights!r}")
    try:
        return dict(known["DEFAULT" if weights == "pretrained" else weights].get_state_dict(check_hash=True))
    except Exception as error:  # of the network, the disk, a checksum
        reason = " ".join(str(error).split())[:160]
        told = f"{weights!r} of torchvision:{name} cannot be had ({reason}); a file that you have will do"
        raise InputError(f"option weights: {told}") from None


def head_and_shapes(
    make: Callable[[int], nn.Module], state: dict[str, Tensor]
) -> tuple[list[str], dict[str, torch.Size]]:
    """The names of the tensors that grow with the number of classes, and all shapes for as many as the state has.

    Raises:
        ValueError: names or shapes are not this network's.
    """

    def shapes(classes: int) -> dict[str, torch.Size]:
        with torch.device("meta"):  # no memory, no time
            made = make(classes).state_dict()
        return {key: one.shape for key, one in made.items() if not key.endswith("num_batches_tracked")}

    two, three = shapes(2), shapes(3)
    head = [key for key in two if two[key] != three[key]]
    if missing := [key for key in two if key not in state]:
        raise ValueError(f"{missing[0]} is missing")
    rows = [one[head[0]][0] for one in (two, three)]
    classes = 2 + (len(state[head[0]]) - rows[0]) // (rows[1] - rows[0])
    expected = shapes(max(classes, 1))
    known = expected.keys() | {key for key in state if key.endswith("num_batches_tracked")}
    if unknown := [key for key in state if key not in known]:
        raise ValueError(f"has {unknown[0]}, which that network has not")
    for key, shape in expected.items():
        if state[key].shape != shape:
            raise ValueError(f"{key} is {' x '.join(map(str, state[key].shape))}, not {' x '.join(map(str, shape))}")
    return head, expected
