"""Distillation: a small network learns from the answers of a large one.

A label says that a picture is a 7. A trained teacher says more: surely a 7, perhaps a 1, never a 0. Dividing
its logits by a temperature before the softmax brings these small shares out, and the student is trained to
give the same. Since the teacher answers for any picture, the student also learns from those that nobody
labelled: with few labels, that is where the gain lies.

Notes: 86
Paper: Hinton, Vinyals, Dean (2015), "Distilling the Knowledge in a Neural Network",
    https://arxiv.org/abs/1503.02531
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import copy
import functools
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression.files import file_bytes, save_dense
from recipes.compression.report import Version, check_counts, compare, in_subfolder
from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import new_figure, show_picture
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.old import FAST, train
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN

UNKNOWN = -100  # the label of a picture that nobody labelled, as F.cross_entropy has it


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, hard_weight: float
) -> Tensor:
    """How far the student is from the teacher's softened answers, and from the labels that are known.

    Args:
        student_logits, teacher_logits: (batch, classes).
        labels: (batch,), `UNKNOWN` where there is none.
        temperature: divides both logits; above 1 it brings out what the teacher holds for unlikely.
        hard_weight: share of the loss on the labels, 0 to 1; the rest is on the teacher's answers.

    Returns:
        A scalar in nats.
    """
    T = temperature
    teacher, student = (teacher_logits / T).log_softmax(dim=1), (student_logits / T).log_softmax(dim=1)
    # soft = T² Σ_class p_teacher log(p_teacher / p_student), both at temperature T: the factor T² keeps its
    # gradient as large as the labels', since it shrinks with 1 / T²
    soft = T**2 * (teacher.exp() * (teacher - student)).sum(dim=1).mean()
    # hard = -log p_student(label) at temperature 1, the mean over the pictures that have a label
    hard = F.cross_entropy(student_logits, labels, ignore_index=UNKNOWN, reduction="sum")
    hard = hard / (labels != UNKNOWN).sum().clamp(min=1)
    return (1 - hard_weight) * soft + hard_weight * hard


def distill(
    teacher: nn.Module,
    student: nn.Module,
    train_set: Images | ImageFiles,
    *,
    temperature: float = 4.0,
    hard_weight: float = 0.1,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    **engine: Unpack[Engine],
) -> OldLoop:
    """Trains the student on the teacher's answers to all pictures and on the labels there are.

    Args:
        teacher: a trained network that gives logits (batch, classes); it is not changed.
        student: the network to train, in place.
        train_set: pictures, those without a class labelled `UNKNOWN`.
        temperature, hard_weight: see `distillation_loss`.

    Raises:
        InputError: the two networks' answers differ in shape, or an option is out of range.
    """
    if not temperature > 0:
        raise InputError(f"option temperature: expected a number above 0, got {temperature!r}")
    if not 0 <= hard_weight <= 1:
        raise InputError(f"option hard_weight: expected a share between 0 and 1, got {hard_weight!r}")
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=0.05)
    loader = old_batches(train_set, batch_size, seed=seed, workers=2 if isinstance(train_set, ImageFiles) else 0)
    loop = OldLoop(student, optimizer, loader, epochs=epochs, device=device, schedule=one_cycle, **engine)
    was_training = teacher.training
    teacher.to(device).eval()
    for images, labels in loop:
        with torch.no_grad():
            answers = teacher(images)  # (batch, classes)
        logits = loop.model(images)  # (batch, classes)
        if logits.shape != answers.shape:
            raise InputError(
                f"student: expected logits of the teacher's shape {(*answers.shape,)}, got {(*logits.shape,)}"
            )
        loss = distillation_loss(logits, answers, labels, temperature=temperature, hard_weight=hard_weight)
        loop.step(loss)
    teacher.train(was_training)
    return loop


def few_labels(labels: Tensor, count: int, seed: int) -> Tensor:
    """Indices of `count` samples of each class, drawn with the seed.

    Raises:
        InputError: a class has fewer.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        if len(members) < count:
            raise InputError(f"option labels: expected at most {len(members)}, the pictures of a class, got {count}")
        drawn.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(drawn)


def draw_students(
    scores: dict[str, list[float]],
    reached: float,
    teacher: nn.Module,
    test_set: Images | ImageFiles,
    temperature: float,
) -> Any:
    """The students' accuracies, and the teacher's answer to the picture it is least sure of but right about."""
    figure, axes = new_figure(1, 3, width=4.2, height=3.4)
    for row, values in enumerate(scores.values()):
        axes[0, 0].plot(values, [row] * len(values), "o", alpha=0.5, color=f"C{row % 2}")
        axes[0, 0].plot(sum(values) / len(values), row, "|", markersize=22, color=f"C{row % 2}")
    axes[0, 0].axvline(reached, color="black", linewidth=0.8, linestyle="--")
    axes[0, 0].text(reached, len(scores) - 0.55, "teacher", ha="center", fontsize=8)
    axes[0, 0].set_yticks(range(len(scores)), list(scores))
    axes[0, 0].set(xlabel="accuracy", ylim=(len(scores) - 0.5, -0.5))

    logits = torch.stack(predict(teacher, test_set, next(teacher.parameters()).device))  # (N, classes)
    labels = test_set.labels.cpu()
    sureness = logits.softmax(dim=1).amax(dim=1) + (logits.argmax(dim=1) != labels)
    index = int(sureness.argmin())
    show_picture(axes[0, 1], test_set.pixels(torch.tensor([index]))[0], f"a {test_set.classes[labels[index]]}")
    places = torch.arange(len(test_set.classes))
    for shift, T in ((-0.2, 1.0), (0.2, temperature)):
        axes[0, 2].bar(places + shift, (logits[index] / T).softmax(dim=0), width=0.4, label=f"temperature {T:g}")
    axes[0, 2].set_xticks(places, test_set.classes, rotation=90 if max(map(len, test_set.classes)) > 2 else 0)
    axes[0, 2].set_ylabel("the teacher's answer")
    axes[0, 2].legend(frameon=False, fontsize=8)
    for place in axes[0, ::2]:
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    labels: int = 10,
    temperature: float = 4.0,
    hard_weight: float = 0.1,
    teacher_width: int = 32,
    width: int = 8,
    epochs: int = 8,
    batch_size: int = 64,
    lr: float = 1e-2,
    seeds: int = 5,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains students alone and with a teacher, on a few labels and on all, for the same number of steps.

    The teacher has seen every label. A student on few labels has those alone; with the teacher, it also has
    the teacher's answers to all the training pictures.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        labels: labelled pictures a class, where there are few.
        temperature: divides the logits of teacher and student before the softmax.
        hard_weight: share of the loss on the known labels, 0 to 1; the rest is on the teacher's answers.
        teacher_width: channels of the teacher's first convolution; the others have two and four times as many.
        width: channels of the student's first convolution.
        epochs: passes over all training pictures; few labels are repeated until they fill as many batches.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        seeds: students of each kind that an accuracy is the mean of.
        device: auto, cpu, cuda or mps.
        seed: of the teacher and the first students: weights, order and which pictures are labelled.
        out: folder for result.json, figure.png and model.safetensors, a student's weights.
    """
    check_counts(labels=labels, teacher_width=teacher_width, width=width, seeds=seeds)
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    options: Engine = {**FAST, **engine}
    alone = functools.partial(train, test_set=test_set, epochs=epochs, batch_size=batch_size, lr=lr, device=place)
    taught = functools.partial(
        distill,
        temperature=temperature,
        hard_weight=hard_weight,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        device=place,
    )

    def new_network(width: int, number: int) -> nn.Module:
        torch.manual_seed(number)
        return SmallCNN(train_set.shape[0], len(train_set.classes), width=width).to(place)

    teacher = new_network(teacher_width, seed)
    history = alone(teacher, train_set, seed=seed, **in_subfolder(options, "teacher")).history
    teacher.to(memory_format=torch.contiguous_format)
    before = copy.deepcopy(teacher.state_dict())

    few = f"{labels} labels a class"
    scores: dict[str, list[float]] = {
        f"{few}, alone": [],
        f"{few}, teacher": [],
        "all labels, alone": [],
        "all labels, teacher": [],
    }
    students: dict[str, nn.Module] = {}
    for number in range(seed, seed + seeds):
        known = few_labels(train_set.labels.cpu(), labels, number)
        repeated_few = train_set.subset(known.repeat(-(-len(train_set) // len(known)))[: len(train_set)])
        hidden = torch.full_like(train_set.labels, UNKNOWN)
        hidden[known] = train_set.labels[known]
        partly = replace(train_set, labels=hidden)
        for (kind, values), pictures in zip(scores.items(), (repeated_few, partly, train_set, train_set), strict=True):
            student = new_network(width, number)
            own = in_subfolder(options, f"{kind}-{number}")
            if kind.endswith("alone"):
                alone(student, pictures, seed=number, **own)
            else:
                taught(teacher, student, pictures, seed=number, **own)
            student.to(memory_format=torch.contiguous_format)
            values.append(evaluate(student, test_set, place)["accuracy"])
            students.setdefault(kind, student)

    mean = {kind: sum(values) / len(values) for kind, values in scores.items()}
    reached = evaluate(teacher, test_set, place)["accuracy"]
    versions = [Version("teacher", teacher, reached, file_bytes(teacher, save_dense), teacher)]
    for kind, student in students.items():
        call = student if kind == f"{few}, teacher" else None  # they are all equally fast
        versions.append(Version(kind, student, mean[kind], file_bytes(student, save_dense), call))
    rows = compare(versions, test_set[0][0].to(place))
    pupil = students[f"{few}, teacher"]
    start = new_network(width, seed).state_dict()
    gain, gain_on_all = (100 * (mean[f"{name}, teacher"] - mean[f"{name}, alone"]) for name in (few, "all labels"))
    changed = sum(int((tensor != before[name]).sum()) for name, tensor in teacher.state_dict().items())
    unmoved = sum(torch.equal(parameter, start[name]) for name, parameter in pupil.named_parameters())
    return Result(
        metrics={"accuracy": mean[f"{few}, teacher"], "bytes": versions[2].bytes, "macs": rows[2]["macs"]},
        baseline={"accuracy": mean[f"{few}, alone"], "bytes": versions[1].bytes, "macs": rows[1]["macs"]},
        baseline_name="student alone",
        bars={"accuracy": 0.9},
        claims=[
            claim(f"points that a teacher adds to {few}, mean of {seeds} students", gain, ">=", 2),
            claim("with all labels at hand a teacher adds less", gain_on_all, "<", gain),
            claim(
                f"points between {few} with a teacher and all labels alone",
                100 * (mean["all labels, alone"] - mean[f"{few}, teacher"]),
                "<=",
                2,
            ),
            claim("numbers of the teacher that changed", changed, "<=", 0),
            claim("parameters of the student that did not move", unmoved, "<=", 0),
        ],
        history=history,
        rows=rows,
        model=pupil,
        draw=lambda: draw_students(scores, reached, teacher, test_set, temperature),
    )


if __name__ == "__main__":
    main(run)
