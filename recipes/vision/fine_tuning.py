"""Fine-tuning: a trained backbone, adapted layer by layer to a new task with few labels.

Lower layers see edges and strokes, which every task needs; upper layers put them together for the task they
were trained on. So the lower ones are to change least. Two rules see to that. Gradual unfreezing: first the new
head is trained alone, which at random would upset all below it, then the topmost stage joins in, then the next.
And lower rates for lower layers: each stage learns half as fast as the one above it.

Here a backbone learns to name digits cut out of scenes, of which there are many. Then it is given three tasks
with few labels: to name digits of other kinds, to find the digits of whole scenes with boxes, and to find them
pixel by pixel. Beside fine-tuning stand training from scratch, and the new head on a frozen backbone.

Training all layers at once at one rate does about as well on the new task, but forgets the old one. And the
study notes behind this library have it that one freezes the top layers and trains the bottom ones. It is the
other way round: freeze the bottom, train the top. Both are measured.

Notes: 89
Paper: Howard and Ruder (2018), "Universal Language Model Fine-tuning for Text Classification" (both rules),
    https://arxiv.org/abs/1801.06146; Yosinski, Clune, Bengio, Lipson (2014), "How transferable are features
    in deep neural networks?", https://arxiv.org/abs/1411.1792
Data: scenes with handwritten digits on clutter, 64×64, and digits (UCI), 8×8; yours as scenes with boxes (COCO,
    Pascal VOC or PNG masks), on which it learns to detect.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.scenes import Boxes, open_boxes, open_masks
from recipes.vision.detection.drawing import show_boxes
from recipes.vision.detection.features import conv_block
from recipes.vision.detection.old import FAST, CenterNet, centre_loss
from recipes.vision.detection.scoring import mean_average_precision, truths
from recipes.vision.few_labels import cut_out, other_digits, some
from recipes.vision.segmentation.scoring import predict_masks, scores
from recipes.vision.segmentation.task import dice_loss

METRICS = {"detection": "map_50", "segmentation": "mean_iou", "classification": "accuracy"}
HEAD = 3  # the part above the three stages


def new_backbone(width: int = 12) -> nn.ModuleList:
    """Three stages of two convolutions: (batch, 3, H, W) to (batch, 4 * width, H / 4, W / 4)."""
    return nn.ModuleList(
        [
            nn.Sequential(conv_block(3, width, 2), conv_block(width, width)),
            nn.Sequential(conv_block(width, 2 * width, 2), conv_block(2 * width, 2 * width)),
            nn.Sequential(conv_block(2 * width, 4 * width), conv_block(4 * width, 4 * width)),
        ]
    )


class Network(nn.Module):
    """A copy of a backbone under a new head of one layer, which is all that a task adds."""

    stride, peaks_only = 4, True
    decode: Any = CenterNet.decode  # from maps of centres to boxes, as the detection task has it

    def __init__(self, backbone: nn.ModuleList, task: str, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.task = copy.deepcopy(backbone), task
        width = [layer.out_channels for layer in backbone.modules() if isinstance(layer, nn.Conv2d)][-1]
        if task == "classification":
            self.head: nn.Module = nn.Linear(width, num_classes)
        elif task == "segmentation":
            self.head = nn.Conv2d(width, num_classes, 1)
        else:
            self.head = nn.Conv2d(width, num_classes + 4, 1)
            start = [-4.6] * num_classes + [0.0] * 4  # centres are rare: the heat starts at 1 %
            self.head.bias = nn.Parameter(torch.tensor(start))

    @property
    def parts(self) -> list[nn.Module]:
        """The stages from the lowest up, then the head."""
        return [*self.backbone, self.head]

    def train(self, mode: bool = True) -> "Network":
        super().train(mode)
        for part in self.parts:
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()  # or batch norm's running statistics would move
        return self

    def forward(self, images: Tensor) -> Any:
        features = images
        for stage in self.backbone:
            features = stage(features)
        if self.task == "classification":
            return self.head(features.amax(dim=(2, 3)))  # (batch, classes)
        maps = self.head(features)  # (batch, classes, height / 4, width / 4); in detection four more
        if self.task == "segmentation":
            return F.interpolate(maps, size=images.shape[2:], mode="bilinear")
        return maps if self.training else self.decode(maps.float())


@dataclass(frozen=True)
class Way:
    """How to train: which parts (0 to 2 the stages, 3 the head) in each phase, and by what factor rates fall."""

    phases: tuple[tuple[int, ...], ...]
    fall: float = 1.0
    pretrained: bool = True


WAYS = {
    "this recipe": Way(((HEAD,), (2, HEAD), (1, 2, HEAD), (0, 1, 2, HEAD)), fall=0.5),
    "from scratch": Way(((0, 1, 2, HEAD),), pretrained=False),
    "frozen backbone": Way(((HEAD,),)),
    "all at once, one rate": Way(((0, 1, 2, HEAD),)),
    "bottom frozen": Way(((2, HEAD),)),
    "top frozen": Way(((0, 1, HEAD),)),  # as the notes have it
}


def loss_of(task: str, answers: Tensor, targets: Any) -> Tensor:
    if task == "detection":
        return centre_loss(answers, targets)
    loss = F.cross_entropy(answers, targets, ignore_index=255)
    return loss + dice_loss(answers, targets) if task == "segmentation" else loss


def train(
    network: Network, way: Way, train_set: Any, *, epochs: int, batch_size: int, lr: float, seed: int, **settings: Any
) -> list[dict[str, float]]:
    """Trains in phases, the last of which is the longest by far, and gives their history.

    Args:
        way: what is trained in each phase; all else is frozen.
        epochs: of all phases together, at least one each.
        lr: highest learning rate of the head; a stage's is `way.fall` times that of the part above it.
        settings: those of `Loop`.
    """
    history: list[dict[str, float]] = []
    name, early = settings.pop("name", "model"), max(1, epochs // 8)
    for number, phase in enumerate(way.phases):
        network.requires_grad_(False)
        groups = []
        for part in phase:
            parameters = list(network.parts[part].requires_grad_(True).parameters())
            groups.append({"params": parameters, "lr": lr * way.fall ** (HEAD - part)})
        loop = OldLoop(
            network,
            torch.optim.AdamW(groups, weight_decay=0.05),
            old_batches(train_set, batch_size, seed=seed),
            epochs=max(1, epochs - early * (len(way.phases) - 1) if number == len(way.phases) - 1 else early),
            schedule=one_cycle,
            name=f"{name}-{number}",
            **settings,
        )
        for images, targets in loop:
            loop.step(loss_of(network.task, loop.model(images), targets))
        history += [row | {"epoch": len(history) + row["epoch"]} for row in loop.history]
    return history


def score(network: Network, test_set: Any, device: torch.device) -> float:
    """The task's metric on the whole set: mean average precision at 0.5, mean IoU, or accuracy."""
    if network.task == "segmentation":
        answer = scores(predict_masks(network, test_set, device), test_set.masks, len(test_set.classes))
        return answer["mean_iou"]
    found = predict(network, test_set, device, batch_size=64)
    if network.task == "detection":
        return mean_average_precision(found, truths(test_set))["map_50"]
    return (torch.stack(found).argmax(dim=1) == test_set.labels).double().mean().item()


def draw(
    rows: list[dict[str, Any]], tasks: Sequence[str], shown: dict[str, Network], test_set: Boxes, device: Any
) -> Any:
    """The metric of each task by each way, and held-out scenes as three detectors see them."""
    figure, axes = new_figure(2, 3, width=3.4, height=2.8)
    for place, task in zip(axes[0], tasks, strict=False):  # your own scenes have one task
        names, values = zip(*((row["trained"], row[METRICS[task]]) for row in rows[::-1]), strict=True)
        place.barh(names, values, color=["tab:orange" if name == "this recipe" else "tab:gray" for name in names])
        place.set(title=f"{task}: {METRICS[task]}", xlim=(0, 1))
        place.spines[["top", "right"]].set_visible(False)
        if place is not axes[0, 0]:
            place.set_yticks([])
    crowded = max(range(min(40, len(test_set))), key=lambda index: len(test_set.boxes[index]))
    for place, (name, network) in zip(axes[1], shown.items(), strict=True):
        found = predict(network, some(test_set, 0, crowded + 1), device, batch_size=64)[crowded]
        show_boxes(place, test_set.images[crowded], found, truths(test_set)[crowded], test_set.classes)
        place.set_title(f"detection, {name}", fontsize=9)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    scenes: int = 40,
    samples: int = 3,
    epochs: int = 20,
    batch_size: int = 8,
    lr: float = 4e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Pretrains a backbone, then fine-tunes it for three tasks in several ways.

    Args:
        data: folder of your scenes with boxes; the bundled scenes and digits if not given.
        image_size: side in pixels that scenes are warped to; small square ones keep their own if not given.
        scenes: labelled scenes to fine-tune on; from the others the backbone has learned.
        samples: labelled digits of each new kind.
        epochs: passes over the few labels; a third as many over the pictures that the backbone learns from.
        batch_size: pictures in an optimizer step, over all processes; four times as many for the backbone.
        lr: highest learning rate of the head.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the pictures and of the digits chosen.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    options: dict[str, Any] = {"lr": lr, "seed": seed, "device": place, **FAST, **engine}
    train_boxes, test_boxes = open_boxes(data, image_size=image_size, seed=seed)
    if len(train_boxes.classes) < 2:
        raise InputError("option data: expected objects of two classes or more, for the backbone to tell apart")
    few = min(scenes, len(train_boxes) // 2)
    tasks: dict[str, tuple[Any, Any]] = {"detection": (some(train_boxes, 0, few), test_boxes)}
    if data is None:
        train_masks, test_masks = open_masks()
        tasks["segmentation"] = (some(train_masks, 0, few), test_masks)
        tasks["classification"] = other_digits(samples, seed)

    pieces, unseen = cut_out(some(train_boxes, few, len(train_boxes))), cut_out(test_boxes)
    source = Network(new_backbone(), "classification", len(pieces.classes)).to(place)
    passes = max(1, epochs // 3)
    whole = WAYS["from scratch"]
    history = train(source, whole, pieces, epochs=passes, batch_size=4 * batch_size, name="source", **options)

    rows: list[dict[str, Any]] = []
    shown: dict[str, Network] = {}
    for title, way in WAYS.items():
        row: dict[str, Any] = {"trained": title}
        for task, (train_set, test_set) in tasks.items():
            torch.manual_seed(seed)  # the same new head, and from scratch the same backbone
            backbone = source.backbone if way.pretrained else new_backbone()
            network = Network(backbone, task, len(train_set.classes)).to(place)
            name = f"{task}-{title.replace(' ', '_')}"
            train(network, way, train_set, epochs=epochs, batch_size=batch_size, name=name, **options)
            row[METRICS[task]] = score(network, test_set, place)
            if task == "detection":
                shown[title] = network
                remembers = copy.deepcopy(source)
                remembers.backbone = network.backbone
                row["still_names"] = score(remembers, unseen, place)
        rows.append(row)
    by_way = {row["trained"]: row for row in rows}
    names = [METRICS[task] for task in tasks]
    mean = {title: sum(row[name] for name in names) / len(names) for title, row in by_way.items()}
    mine, scratch, frozen, at_once = list(by_way.values())[:4]
    claims = []
    for task in tasks:
        name = METRICS[task]
        claims.append(claim(f"{task}: fine-tuning beats training from scratch, {name}", mine[name], ">", scratch[name]))
        claims.append(claim(f"{task}: and the frozen backbone", mine[name], ">", frozen[name]))
    claims += [
        claim(
            "the bottom is to be frozen, not the top: mean of the metrics",
            mean["bottom frozen"],
            ">",
            mean["top frozen"],
        ),
        claim(
            "what the backbone knew is kept better than at one rate: accuracy in naming digits cut out",
            mine["still_names"],
            ">",
            at_once["still_names"],
        ),
    ]
    return Result(
        metrics={name: mine[name] for name in names},
        baseline={name: scratch[name] for name in names},
        baseline_name="from scratch",
        bars={"map_50": 0.4},
        claims=claims,
        history=history,
        rows=rows,
        model=shown["this recipe"],
        draw=lambda: draw(rows, list(tasks), dict(list(shown.items())[:3]), test_boxes, place),
    )


if __name__ == "__main__":
    main(run)
