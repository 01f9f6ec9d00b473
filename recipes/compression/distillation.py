"""Distillation: a small network learns from the answers of a large one.

A label says that a picture is a 7. A trained teacher says more: surely a 7, perhaps a 1, never a 0. Dividing its
logits by a temperature before the softmax brings these small shares out, and the student is trained to give the same.

Softness pays where pictures are few. From five of each class a student learns far more from the teacher's soft answers
than from its plain labels, since each answer says something about every class; it even comes to recognize a class that
it was never shown, by what the teacher sees of it in the others. With all the pictures at hand, little of that gain is
left: the plain labels do about as well, and more pictures labelled by the teacher are worth more than softness.

Features can be distilled too: the student is to find those pictures alike that the teacher finds alike.

Notes: 86
Paper: Hinton, Vinyals, Dean (2015), "Distilling the Knowledge in a Neural Network",
    https://arxiv.org/abs/1503.02531; Tung, Mori (2019), "Similarity-Preserving Knowledge Distillation",
    https://arxiv.org/abs/1907.09682
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression.calls import call, each_tensor, logits_of
from recipes.compression.files import file_bytes, save_dense
from recipes.compression.modes import in_mode
from recipes.compression.report import Version, compare
from recipes.compression.shipping import Shipped
from recipes.core.evaluation import predict
from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Loop, Options, Precision, Result, batches, main, option, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN

UNKNOWN = -100  # the label of a picture that nobody labelled, as F.cross_entropy has it


@dataclass(kw_only=True)
class DistillationOptions(Options):
    method: Literal["soft", "hard", "features", "none"] = option(
        "soft", "what the student learns: soft answers, hard ones (labels), features too, or none of the teacher's"
    )
    pictures: int = option(5, "pictures of each class that the student sees, at most", least=1)
    temperature: float = option(8.0, "divides the logits of teacher and student before the softmax", above=0)
    hard_weight: float = option(0.1, "share of the soft method's loss on the true labels", least=0, most=1)
    teacher_width: int = option(32, "channels of the teacher's first convolution", least=1)
    width: int = option(8, "channels of the student's first convolution", least=1)
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = option(8, "passes of the teacher over the train part; the student takes as many steps", least=1)
    batch_size: int = 64
    precision: Precision = "auto"
    channels_last: bool = True


def soft_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """How far the student is from the teacher's softened answers, in nats; both logits are (batch, classes)."""
    teacher, student = ((logits / temperature).log_softmax(dim=1) for logits in (teacher_logits, student_logits))
    # T² Σ_class p_teacher log(p_teacher / p_student), both at temperature T: the factor T² keeps its gradient as
    # large as the labels', since it shrinks with 1 / T²
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(dim=1).mean()


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p(label), the mean over the pictures that have a label, and 0 where none has."""
    total = F.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="sum")
    return total / (labels != UNKNOWN).sum().clamp(min=1)


def similarity_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """How differently the two see which samples are alike; from (batch, n) and (batch, m)."""
    # Row i of F Fᵀ, brought to length 1, tells how alike sample i is to each sample of the batch
    student, teacher = (F.normalize(one @ one.T, dim=1) for one in (student_features, teacher_features))
    return (student - teacher).square().sum(dim=1).mean()


def with_features(network: nn.Module, model: Any, inputs: Any) -> tuple[Tensor, Tensor]:
    """Logits, and the features (batch, any number) that the network's last linear layer, if any, made them of."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(next(each_tensor([args, kwargs])))

    heads = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    hooks = [head.register_forward_pre_hook(keep, with_kwargs=True) for head in heads[-1:]]
    logits = logits_of(call(model, inputs)).float()
    for hook in hooks:
        hook.remove()
    return logits, seen[0].float().flatten(1) if seen else logits


def distill(
    teacher: nn.Module, student: nn.Module, train_set: Any, options: DistillationOptions, evaluate: Any = dict
) -> Loop:
    """Trains the student by the method that the options name.

    Args:
        teacher: a trained network that gives logits (batch, classes), by themselves or among other outputs, as
            transformers' do; it is not changed.
        student: the network to train, in place.
        train_set: any map-style data set of (input, label); the input may be a tuple, or a dict of named ones;
            samples without a label have `UNKNOWN`.
        evaluate: as for `Loop`.
    """
    optimizer = torch.optim.AdamW(student.parameters(), lr=options.lr, weight_decay=0.05)
    loop = Loop(student, optimizer, batches(train_set, options), options, evaluate=evaluate, name=options.method)
    teacher.to(options.device)
    for inputs, labels in loop:
        with torch.no_grad(), in_mode(teacher, training=False):
            answers, known_features = with_features(teacher, teacher, inputs)
        logits, features = with_features(student, loop.model, inputs)
        if logits.shape != answers.shape:
            expected, got = tuple(answers.shape), tuple(logits.shape)
            raise InputError(f"student: expected logits of the teacher's shape {expected}, got {got}")
        if options.method == "soft":
            loss = soft_loss(logits, answers, options.temperature)
            loss = (1 - options.hard_weight) * loss + options.hard_weight * label_loss(logits, labels)
        else:
            loss = label_loss(logits, labels if options.method == "none" else answers.argmax(dim=1))
        if options.method == "features":
            loss = loss + 10 * similarity_loss(features, known_features)
        loop.step(loss)
    return loop


def some_of_each(train_set: Images | ImageFiles, count: int, seed: int) -> Images | ImageFiles:
    """At most `count` pictures of each class, repeated until they are as many as before: an epoch takes as long."""
    generator = torch.Generator().manual_seed(seed)
    labels, drawn = train_set.labels.cpu(), []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        drawn.append(members[torch.randperm(len(members), generator=generator)[:count]])
    chosen = torch.cat(drawn)
    return train_set.subset(chosen.repeat(-(-len(labels) // len(chosen)))[: len(labels)])


def build(options: DistillationOptions, data: Images | ImageFiles, *, teacher: bool = False) -> SmallCNN:
    """The student, or its teacher, for pictures and classes like these."""
    return SmallCNN(data.shape[0], len(data.classes), width=options.teacher_width if teacher else options.width)


def train(model: nn.Module, train_set: Images | ImageFiles, options: DistillationOptions) -> Loop:
    """Trains the teacher: minimizes the cross-entropy to all the labels."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05)
    loop = Loop(model, optimizer, batches(train_set, options), options, name="teacher")
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(images), labels))
    return loop


@recipe(DistillationOptions)
def run(options: DistillationOptions) -> Result:
    """Trains a teacher on all pictures, and a student on its answers to a few; the baseline gets its plain labels."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    teacher = build(options, train_set, teacher=True).to(options.device)
    student = build(options, train_set).to(options.device)
    baseline = copy.deepcopy(student)
    train(teacher, train_set, options)
    pictures = some_of_each(train_set, options.pictures, options.seed)
    distill(teacher, baseline, pictures, replace(options, method="hard"))
    loop = distill(teacher, student, pictures, options, lambda: evaluate(student, test_set, options.device))
    return Result(
        metrics=evaluate(student, test_set, options.device),
        baseline=evaluate(baseline, test_set, options.device),
        baseline_name="the teacher's plain labels",
        bars={"accuracy": 0.73},
        history=loop.history,
        model=student,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    device = next(result.model.parameters()).device
    options = DistillationOptions(**result.options | {"out": None, "checkpoint": None, "device": device})
    left_out = len(result.test_set.classes) // 3
    networks, accuracy, area = {}, defaultdict(list), defaultdict(list)
    with torch.random.fork_rng(devices=[]):
        for seed in range(options.seed, options.seed + 5):
            for name, network in learners(result.train_set, replace(options, seed=seed), left_out):
                networks[name] = network
                accuracy[name].append(evaluate(network, result.test_set, options.device)["accuracy"])
                area[name].append(roc_area(network, result.test_set, left_out))
    size = {name: file_bytes(network, save_dense) for name, network in networks.items()}
    timed = {"teacher": networks["teacher"], "soft, few": networks["soft, few"]}  # all students are equally fast
    versions = [Version(key, one, mean(accuracy[key]), size[key], timed.get(key)) for key, one in networks.items()]
    result.rows = compare(versions, result.test_set[0][0].to(options.device))
    soft, hard, features, soft_on_all, hard_on_all = (mean(accuracy[one.name]) for one in versions[1:6])
    text = f"from {options.pictures} pictures a class, soft answers teach more than plain labels: means of 5 students"
    yield Claim(text, soft, ">", hard, margin=0.03)
    yield Claim("features beside plain labels teach more than these alone", features, ">", hard, margin=0.015)
    gain = soft_on_all - hard_on_all
    yield Claim("softness gains less when all pictures are at hand", gain, "<", soft - hard, margin=0.02)
    yield Claim("plain labels of all pictures teach more than soft answers to few", hard_on_all, ">", soft, margin=0.02)
    soft_area, hard_area = (mean(area[one.name]) for one in versions[6:])
    yield Claim("ROC area of a left-out class: larger from soft answers", soft_area, ">", hard_area, margin=0.02)
    smaller = size["teacher"] / size["soft, few"]
    yield Claim("how many times smaller a student's file is than its teacher's", smaller, ">", 4, kind="fact")


def learners(train_set: Any, options: DistillationOptions, left_out: int) -> Iterator[tuple[str, nn.Module]]:
    """A teacher, and students of it that differ in what they learn and from which pictures, each with its name."""
    torch.manual_seed(options.seed)
    teacher = build(options, train_set, teacher=True).to(options.device)
    start = build(options, train_set).to(options.device)
    train(teacher, train_set, options)
    yield "teacher", teacher
    few = some_of_each(train_set, options.pictures, options.seed)
    others = train_set.subset((train_set.labels != left_out).nonzero().flatten())
    for pictures, name in ((few, "few"), (train_set, "all"), (others, "all but one class")):
        for method in ("soft", "hard", "features") if pictures is few else ("soft", "hard"):
            student = copy.deepcopy(start)
            distill(teacher, student, pictures, replace(options, method=method))
            yield f"{method}, {name}", student


def roc_area(model: nn.Module, dataset: Images | ImageFiles, index: int) -> float:
    """How often a picture of that class gets a larger share of it than one of another class: 0.5 is chance."""
    shares = torch.stack(predict(model, dataset, next(model.parameters()).device)).log_softmax(dim=1)[:, index]
    members = dataset.labels.cpu() == index
    return (0.5 + 0.5 * (shares[members][:, None] - shares[~members]).sign()).mean().item()  # over all pairs


@run.figure
def figure(result: Result) -> Any:
    drawing, axes = new_figure(1, 2, width=4.8, height=3.6)
    accuracies = {row["version"]: row["accuracy"] for row in result.rows} or {"student": result["accuracy"]}
    axes[0, 0].barh(list(accuracies), list(accuracies.values()))
    axes[0, 0].set(xlabel="accuracy", xlim=(0.5, 1))
    labels, classes = result.test_set.labels.cpu(), result.test_set.classes
    logits = torch.stack(predict(result.model, result.test_set, next(result.model.parameters()).device))
    index = int((logits.softmax(dim=1).amax(dim=1) + (logits.argmax(dim=1) != labels)).argmin())  # least sure, right
    for shift, T in ((-0.2, 1.0), (0.2, result.options["temperature"])):
        shares = (logits[index] / T).softmax(dim=0)
        axes[0, 1].bar(torch.arange(len(shares)) + shift, shares, width=0.4, label=f"temperature {T:g}")
    axes[0, 1].set_xticks(range(len(classes)), classes, rotation=90)
    axes[0, 1].set_ylabel(f"the student's answer to: {classes[labels[index]]}")
    axes[0, 1].legend(frameon=False, fontsize=8)
    return drawing


run.predicts(Shipped, build)


if __name__ == "__main__":
    main(run)
