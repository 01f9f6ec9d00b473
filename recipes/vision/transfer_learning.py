"""Transfer learning: a frozen backbone with a new head.

A network that has learned one task sees what the next one needs too. Its last layer, the head, is replaced
by a new one for the new classes; all before it, the backbone, is frozen. Then nothing is left to train but
one linear layer, for which few pictures are enough. As the backbone no longer changes, its features are
computed once and the head is trained on them, thousands of times faster than through the whole network.

Here the backbone learns to tell ten digits apart, and is then asked something new: does the digit close a
loop, as 0, 6, 8 and 9 do? It is taught by ten pictures of each answer, and so is a network that starts from
scratch. With your own pictures, the backbone is one of timm's or torchvision's, trained on ImageNet.

Two traps. First freeze, then replace the head: the other way round the new head is frozen as well, and nothing
trains; `check_trainable` says so. And keep the backbone in evaluation mode: batch norm moves its running
statistics by mere looking at pictures in training mode, whether or not its weights are frozen.

Notes: 45
Paper: Yosinski, Clune, Bengio, Lipson (2014), "How transferable are features in deep neural networks?",
    https://arxiv.org/abs/1411.1792
Data: handwritten digits (UCI), 8×8 pixels; yours as a folder a class, IDX files, or torchvision:NAME, with
    the option weights.
"""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import new_figure
from recipes.core.files import write_whole
from recipes.core.loading import holdout
from recipes.core.loop import one_cycle
from recipes.core.measure import macs
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.core.task import whole_weights
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.datasets.loading import few_of_each
from recipes.vision.classification.old import FAST, build_model
from recipes.vision.classification.scoring import evaluate
from recipes.vision.pretrained import last_linear, load_pretrained, load_weights

LOOPS = (0, 6, 8, 9)  # digits that close a loop


class Transfer(nn.Module):
    """A network whose last linear layer is replaced by a new one, and whose other layers are frozen."""

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        super().__init__()
        name = last_linear(network)
        old: Any = network.get_submodule(name)
        network.set_submodule(name, nn.Identity())
        self.backbone = network.requires_grad_(False)  # frozen first,
        self.head = nn.Linear(old.in_features, num_classes)  # then given a new head, which is not

    def train(self, mode: bool = True) -> "Transfer":
        super().train(mode)
        self.backbone.eval()  # or batch norm's running statistics would move
        return self

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.backbone(images)  # (batch, width)
        return self.head(features)  # (batch, num_classes)


def check_trainable(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Says what would train in vain.

    Raises:
        ValueError: no parameter is trainable, the optimizer holds a frozen one, or it lacks a trainable one.
    """
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trainable:
        raise ValueError("no parameter is trainable: expected the new head after the freezing, not before it")
    if any(not parameter.requires_grad for parameter in held):
        raise ValueError("the optimizer holds frozen parameters: expected the trainable ones alone")
    if missing := [name for name, parameter in trainable.items() if parameter not in held]:
        raise ValueError(f"the optimizer lacks the trainable parameter {missing[0]}")


@dataclass
class Features:
    """What a frozen backbone sees in each picture, computed once: values (N, width), labels (N,)."""

    values: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.values[indices], self.labels[indices]

    def subset(self, indices: Tensor) -> "Features":
        return Features(self.values[indices], self.labels[indices])


def features_of(model: Transfer, dataset: Images | ImageFiles, device: torch.device) -> Features:
    return Features(torch.stack(predict(model.backbone, dataset, device, 64)), dataset.labels.cpu())


def train(
    model: nn.Module,
    train_set: Images | ImageFiles | Features,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    **loop_options: Any,
) -> OldLoop:
    """Minimises the cross-entropy over whatever of the model is trainable."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=lr, weight_decay=0.05)
    check_trainable(model, optimizer)
    loader = old_batches(train_set, batch_size, seed=seed)
    loop = OldLoop(model, optimizer, loader, epochs=epochs, device=device, schedule=one_cycle, **loop_options)
    for inputs, labels in loop:
        loss = F.cross_entropy(loop.model(inputs), labels)
        loop.step(loss)
    return loop


def save_weights(network: nn.Module, path: Path) -> None:
    write_whole(path, lambda target: save_file(whole_weights(network), target))


def closes_a_loop(dataset: Images | ImageFiles) -> Images | ImageFiles:
    """The same digits with a new question: does it close a loop?"""
    return replace(dataset, labels=torch.isin(dataset.labels, torch.tensor(LOOPS)).long(), classes=["no loop", "loop"])


def differing(one: nn.Module, other: nn.Module) -> int:
    """How many tensors, weights and running statistics, are not equal to the bit."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return sum(not torch.equal(mine, theirs.to(mine.device)) for mine, theirs in pairs)


def mean_of(metrics: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(each[name] for each in metrics) / len(metrics) for name in metrics[0]}


def refused(model: nn.Module) -> bool:
    """Whether `check_trainable` refuses the model with an optimizer of all its parameters."""
    try:
        check_trainable(model, torch.optim.SGD(model.parameters(), lr=0.1))
    except ValueError:
        return True
    return False


def draw(rows: list[dict[str, Any]], networks: dict[str, nn.Module], test_set: Any, device: torch.device) -> Any:
    """Accuracy over the number of pictures, and the held-out pictures as either network sees them."""
    figure, axes = new_figure(1, 1 + len(networks), width=3.8)
    for name in networks:
        axes[0, 0].plot([row["samples"] for row in rows], [row[name] for row in rows], marker="o", label=name)
    axes[0, 0].set(title="held-out accuracy", xlabel="labelled pictures of each class")
    axes[0, 0].legend(frameon=False)
    for place, (name, network) in zip(axes[0, 1:], networks.items(), strict=True):
        cut = network if isinstance(network, Transfer) else Transfer(copy.deepcopy(network), 2)
        seen = features_of(cut, test_set, device)
        centred = seen.values - seen.values.mean(dim=0)
        # The two directions in which the features differ most: eigenvectors of their covariance.
        flat = centred @ torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -2:]  # (N, 2)
        for label, class_name in enumerate(test_set.classes):
            place.scatter(*flat[seen.labels == label].T, s=8, label=class_name)
        place.set(title=f"features, {name}", xticks=[], yticks=[])
    axes[0, 1].legend(frameon=False, markerscale=2)
    for place in axes[0]:
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    model: str = "small_cnn",
    weights: str | None = None,
    samples: int | None = None,
    image_size: int | None = None,
    epochs: int = 100,
    scratch_epochs: int | None = None,
    batch_size: int = 32,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a new head on a frozen backbone, and a whole network from scratch on the same few pictures.

    Args:
        data: folder of your pictures, or torchvision:NAME, both with weights; the bundled digits if not given.
        model: small_cnn, timm:NAME or torchvision:NAME.
        weights: pretrained, a name of torchvision's such as IMAGENET1K_V1, or a file of the model's weights;
            if not given, the backbone learns the bundled digits first.
        samples: labelled pictures of each class; 10 of the bundled, all of yours if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        epochs: passes of the head over the features.
        scratch_epochs: passes of the network from scratch; as many, or 3 with weights, if not given.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights and of the pictures chosen.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if weights is None and data is not None:
        raise InputError("option weights: expected pretrained, a name or a file with pictures of your own")
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    channels = train_set.shape[0]
    options: dict[str, Any] = {"batch_size": batch_size, "lr": lr, "device": place, **FAST, **engine}
    if weights is None:
        seen, unseen = (train_set.subset(part) for part in holdout(train_set.labels, 0.2, seed))
        source = build_model(model, channels, len(train_set.classes))
        train(source, seen, epochs=8, seed=seed, name="source", **options)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(out or folder) / "source.safetensors"
            save_weights(source, file)
            network = load_weights(model, file, channels)
        lost = differing(source.cpu(), network)
        train_set, test_set = closes_a_loop(unseen), closes_a_loop(test_set)
    else:
        network, normal = load_pretrained(model, weights, channels)
        train_set, test_set = replace(train_set, **normal), replace(test_set, **normal)
    transfer = Transfer(network, len(train_set.classes)).to(place)
    before = copy.deepcopy(transfer.backbone)
    features = features_of(transfer, train_set, place)
    test_features: Any = features_of(transfer, test_set, place)

    few = samples or (10 if weights is None else len(train_set))
    sizes = (few // 2, 2 * few, 4 * few, few) if weights is None else (few,)  # the last is what is reported
    repeats = 3 if weights is None else 1
    rows: list[dict[str, Any]] = []
    for size in sizes:
        answers: list[dict[str, float]] = []
        scratch_answers: list[dict[str, float]] = []
        for repeat in range(repeats * seed, repeats * seed + repeats):
            torch.manual_seed(repeat)
            chosen = few_of_each(train_set.labels.cpu(), size, repeat)
            name = f"{size}-{repeat}"
            head = nn.Linear(transfer.head.in_features, len(train_set.classes))
            untrained = copy.deepcopy(head)
            loop = train(head, features.subset(chosen), epochs=epochs, seed=repeat, name=f"head-{name}", **options)
            answers.append(evaluate(head, test_features, place))
            scratch = build_model(model, channels, len(train_set.classes))
            passes = scratch_epochs or (epochs if weights is None else 3)
            train(scratch, train_set.subset(chosen), epochs=passes, seed=repeat, name=f"scratch-{name}", **options)
            scratch_answers.append(evaluate(scratch, test_set, place))
        metrics, baseline = mean_of(answers), mean_of(scratch_answers)
        rows.append({"samples": size, "new head": metrics["accuracy"], "from scratch": baseline["accuracy"]})
    rows.sort(key=lambda row: row["samples"])
    transfer.head = head

    images = train_set.__getitems__(range(min(32, len(train_set))))[0].to(place)
    loose = copy.deepcopy(transfer.backbone).train()
    for each in (transfer.train(), loose):
        each(images)
    trap = Transfer(build_model(model, channels, 2), 2).requires_grad_(False)  # as the notes do: head, then freeze
    left = sum(each.numel() for each in trap.parameters() if each.requires_grad)
    work = macs(transfer.backbone, images[:1]) / macs(head, test_features.values[:1].to(place))
    claims = [
        claim("the new head beats training from scratch", metrics["accuracy"], ">", baseline["accuracy"]),
        claim("frozen: tensors of the backbone that changed", differing(before, transfer.backbone), "<", 1),
        claim("trained: tensors of the head that changed", differing(untrained, head), ">=", 2),
        claim("in training mode frozen batch norm moves: tensors", differing(before, loose), ">", 0),
        claim("frozen after the head was replaced: trainable parameters", left, "<", 1),
        claim("and check_trainable refuses to train that", int(refused(trap)), ">=", 1),
        claim("arithmetic: the backbone's over the head's", work, ">", 100),
    ]
    if weights is None:
        claims.append(claim("saved and loaded again: tensors that changed", lost, "<", 1))
    return Result(
        metrics=metrics,
        baseline=baseline,
        baseline_name="from scratch",
        bars={"accuracy": 0.88},
        claims=claims,
        history=loop.history,
        rows=rows,
        model=transfer,
        draw=lambda: draw(rows, {"new head": transfer, "from scratch": scratch}, test_set, place),
    )


if __name__ == "__main__":
    main(run)
