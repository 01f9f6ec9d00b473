"""Transfer learning: a frozen backbone with a new head.

A network that has learned one task sees what the next one needs too. Its last layer, the head, is replaced by a new
one for the new classes; all before it, the backbone, is frozen. Then nothing is left to train but one linear layer, for
which few pictures are enough. As the backbone no longer changes, its features are computed once and the head is
trained on them: of the small network here, a step of the head takes less than a hundredth of the arithmetic.

Here the backbone learns to tell ten digits apart, and is then asked something new: does the digit close a loop, as 0,
6, 8 and 9 do? It is taught by 20 pictures of each answer. With your own pictures, the backbone is one of timm's or
torchvision's, trained on ImageNet, or what you have trained yourself.

Two traps. First freeze, then replace the head: the other way round the new head is frozen as well, and nothing trains;
`check_trainable` says so. And keep the backbone in evaluation mode: in training mode batch norm moves its running
statistics by mere looking at pictures, whether or not its weights are frozen.

Notes: 45
Paper: Yosinski, Clune, Bengio, Lipson (2014), "How transferable are features in deep neural networks?",
    https://arxiv.org/abs/1411.1792
Data: handwritten digits (UCI), 8×8 pixels; yours as a folder a class, IDX files, torchvision:NAME, or Datasets, with
    EfficientNet-Lite0 from the extra `pretrained` if no other backbone is named.
"""

import copy
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, Loop, Options, Result, batches, hold_out, main, option, predict, recipe
from recipes.core.measure import macs, parameter_count
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.datasets.loading import few_of_each
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN
from recipes.vision.classification.using import Classification
from recipes.vision.networks import GrayToColor, last_linear, load_pretrained, named_model
from recipes.vision.pixels import nearest_neighbor, shrunk

LOOPS = (0, 6, 8, 9)  # digits that close a loop
PHOTOS = "timm:tf_efficientnet_lite0"


@dataclass(kw_only=True)
class TransferOptions(Options):
    backbone: str | None = option(None, f"timm:NAME or torchvision:NAME; for your pictures {PHOTOS} if not given")
    weights: str | None = option(None, "of the backbone: pretrained, a file, torchvision's name, or random")
    frozen: bool = option(True, "train the new head alone, not the backbone")
    samples: int | None = option(None, "labelled pictures of each class; 20 of the bundled, else all", least=1)
    image_size: int | None = option(None, "side in pixels of the pictures; 320 for yours if not given", least=1)
    epochs: int = 100
    lr: float = 3e-3


class Transfer(nn.Module):
    """A network whose last linear layer is replaced by a new one; its other layers may be frozen."""

    def __init__(self, network: nn.Module, num_classes: int, *, frozen: bool = True) -> None:
        super().__init__()
        name = last_linear(network)
        old: Any = network.get_submodule(name)
        network.set_submodule(name, nn.Identity())
        self.frozen, self.backbone = frozen, network.requires_grad_(not frozen)  # frozen first,
        self.head = nn.Linear(old.in_features, num_classes)  # then given a new head, which is not

    def train(self, mode: bool = True) -> "Transfer":
        super().train(mode)
        if self.frozen:
            self.backbone.eval()  # or batch norm's running statistics would move
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))  # features (batch, width) to logits (batch, num_classes)


def check_trainable(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError for what would train in vain: nothing trainable, or not just that in the optimizer."""
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    trainable = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trainable:
        raise ValueError("no parameter is trainable: expected the new head after the freezing, not before it")
    if any(not parameter.requires_grad for parameter in held):
        raise ValueError("the optimizer holds frozen parameters: expected the trainable ones alone")
    if missing := trainable.keys() - held:
        raise ValueError(f"the optimizer lacks the trainable parameter {min(trainable[one] for one in missing)}")


@dataclass
class Cached:
    """What a frozen backbone computes from each picture, once: values (N, width), labels (N,)."""

    values: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.values[indices], self.labels[indices]


def cached(model: Transfer, dataset: Images | ImageFiles, device: torch.device) -> Cached:
    """The features of a data set's pictures; convolutions in the order (N, H, W, C) are twice as fast on the CPU."""
    backbone = model.backbone.to(memory_format=torch.channels_last)
    return Cached(torch.stack(predict(backbone, dataset, device, 64)), dataset.labels.cpu())


def backbone_name(options: TransferOptions) -> str | None:
    """None is the small network, which learns to tell the bundled digits apart."""
    bundled = options.data is None and options.weights in (None, "random")
    return options.backbone or (None if bundled else PHOTOS)


def closes_a_loop(dataset: Any) -> Any:
    """The same digits with a new question: does it close a loop?"""
    return replace(dataset, labels=torch.isin(dataset.labels, torch.tensor(LOOPS)).long(), classes=["no loop", "loop"])


def open_pictures(options: TransferOptions) -> tuple[Any, Any]:
    """Your pictures; or the bundled ones that the backbone has not seen, with the new question."""
    side = options.image_size or (None if options.data is None else 320)
    train_set, test_set = open_images(options.data, image_size=side, seed=options.seed)
    if options.data is None:
        return closes_a_loop(hold_out(train_set, 0.2, options.seed)[1]), closes_a_loop(test_set)
    return train_set, test_set


def build(options: TransferOptions, data: Any, network: nn.Module | None = None) -> Transfer:
    """A new head for classes like these on that network, or on one with random weights."""
    name = backbone_name(options)
    if network is None:
        network = SmallCNN(data.shape[0], 10) if name is None else named_model(name, 3, 1000)
    if name is not None and data.shape[0] == 1:
        network = nn.Sequential(GrayToColor(), network)
    return Transfer(network, len(data.classes), frozen=options.frozen)


def train(model: nn.Module, train_set: Any, options: TransferOptions, name: str = "head") -> Loop:
    """Minimizes the cross-entropy over whatever of the model is trainable."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=options.lr, weight_decay=0.05)
    check_trainable(model, optimizer)
    loop = Loop(model, optimizer, batches(train_set, options), options, name=name)
    for inputs, labels in loop:
        loop.step(F.cross_entropy(loop.model(inputs), labels))
    return loop


def trained_here(options: TransferOptions) -> nn.Module:
    """A network that learned to tell ten digits apart, out of the file that its weights were saved in."""
    known = hold_out(open_images(None, image_size=options.image_size, seed=options.seed)[0], 0.2, options.seed)[0]
    network = SmallCNN(known.shape[0], len(known.classes))
    train(network, known, replace(options, epochs=8, steps=None, lr=3 * options.lr), "source")
    with tempfile.TemporaryDirectory() as folder:
        torch.save(network.state_dict(), f"{folder}/digits.pth")
        network = SmallCNN(known.shape[0], len(known.classes))
        network.load_state_dict(torch.load(f"{folder}/digits.pth", weights_only=True))
    return network


@recipe(TransferOptions)
def run(options: TransferOptions) -> Result:
    """Trains a new head on a frozen backbone, and measures it on held-out pictures."""
    (train_set, test_set), name, network = open_pictures(options), backbone_name(options), None
    count = options.samples or (20 if options.data is None else len(train_set))
    train_set = train_set.subset(few_of_each(train_set.labels.cpu(), count, options.seed))
    if name is None:
        network = None if options.weights == "random" else trained_here(options)
    elif options.weights != "random":
        network, scale = load_pretrained(name, options.weights or "pretrained")
        if train_set.shape[0] == 1:
            scale = {key: value.mean(dim=0, keepdim=True) for key, value in scale.items()}
        train_set, test_set = replace(train_set, **scale), replace(test_set, **scale)
    torch.manual_seed(options.seed)  # the new head does not depend on how the backbone came about
    model = build(options, train_set, network).to(options.device)
    learner: nn.Module = model.head if options.frozen else model
    parts: list[Any] = [cached(model, one, options.device) if options.frozen else one for one in (train_set, test_set)]
    loop = train(learner, parts[0], options)
    return Result(
        metrics=evaluate(learner, parts[1], options.device),
        baseline=nearest_neighbor(train_set, test_set),
        baseline_name="nearest neighbor in pixels",
        bars={"accuracy": 0.94},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, untrained = run(), run(weights="random")
    image = full.test_set.__getitems__([0])[0].to(next(full.model.parameters()).device)
    inputs = {"backbone": image, "head": full.model.eval().backbone(image)}
    full.rows = [
        {"part": name, "parameters": parameter_count(part), "macs a picture": macs(part, inputs[name])}
        for name, part in full.model.named_children()
    ]
    text = "a new head on a backbone of random weights does worse"
    yield Claim(text, untrained["accuracy"], "<", full["accuracy"], margin=0.05)
    if full.options["data"] is None:  # of photos, minutes would be too few to train from scratch
        scratch, tuned = run(weights="random", frozen=False), run(frozen=False)
        text = "trained from scratch on the same pictures, in as many steps, the network does worse"
        yield Claim(text, scratch["accuracy"], "<", full["accuracy"], margin=0.04)
        text = "the weights out of the file, trained further as a whole, do better than random ones"
        yield Claim(text, tuned["accuracy"], ">", scratch["accuracy"], margin=0.04)
    text = "frozen after the head was replaced, nothing would train: `check_trainable` refuses"
    yield Claim(text, refused(copy.deepcopy(full.model).requires_grad_(False)), ">=", 1, kind="fact")


def refused(model: nn.Module) -> int:
    """1 if `check_trainable` refuses to train the model's parameters, else 0."""
    try:
        check_trainable(model, torch.optim.SGD(model.parameters(), lr=0.1))
    except ValueError:
        return 1
    return 0


@run.figure
def figure(result: Result) -> Any:
    """Accuracy of the head and of what it is compared with; held-out pictures by features, and by pixels."""
    drawn, axes = new_figure(1, 3, width=4.0, height=3.2)
    bars = {"this recipe": result["accuracy"], result.baseline_name: result.baseline["accuracy"]}
    names = {"weights=random": "head on random weights", "frozen=False": "whole network, trained further"}
    names["weights=random, frozen=False"] = "whole network, from scratch"
    bars |= {names.get(label, label): one["accuracy"] for label, one in result.runs.items()}
    axes[0, 0].barh(list(bars)[::-1], list(bars.values())[::-1])
    axes[0, 0].set(xlim=(0.4, 1), title="held-out accuracy")
    features = cached(result.model, result.test_set, next(result.model.parameters()).device).values.flatten(1)
    views = {"features": features, "pixels": shrunk(result.test_set)}
    for panel, (name, seen) in zip(axes[0, 1:], views.items(), strict=True):
        # The two directions in which the pictures differ most: the first singular vectors.
        left = torch.linalg.svd(seen - seen.mean(dim=0), full_matrices=False).U[:, :2]
        for label, kind in enumerate(result.test_set.classes):
            panel.scatter(*left[result.test_set.labels.cpu() == label].T.numpy(), s=8, label=kind)
        panel.set(title=f"held-out pictures by {name}", xticks=[], yticks=[])
    drawn.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower right", ncols=6, frameon=False)
    return drawn


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
