"""Fine-tuning: a trained backbone, adapted layer by layer to a new task with few labels.

Lower layers see edges and strokes, which every task needs, and so are to change least. Gradual unfreezing: first the
new head is trained alone, which at random would upset all below it, then the top third of the backbone joins in, then
the next. And lower rates for lower layers. Notes that freeze the top have it the wrong way round, as is measured.
Here a backbone that names digits cut out of scenes gets few labels of other digits, or of scenes: boxes or pixels.
To name your pictures, the head is fitted first, and the final weights lie between those before and after the tuning.

Notes: 89
Paper: Howard and Ruder (2018), "Universal Language Model Fine-tuning for Text Classification" (both rules),
    https://arxiv.org/abs/1801.06146; Wortsman et al. (2022), "Robust fine-tuning of zero-shot models" (the mean),
    https://arxiv.org/abs/2109.01903
Data: scenes with handwritten digits on clutter, 64×64, and digits (UCI), 8×8. Yours as `vision.classification` takes
    them, or --task detection or segmentation; with EfficientNet-Lite0 from the extra `pretrained` if not another.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any, Literal

import torch
from torch import Tensor, nn

from recipes.core.figures import draw_curves, new_figure
from recipes.core.frame import Claim, Loop, Options, Precision, Result, batches, main, option, predict, recipe
from recipes.datasets.scenes import open_boxes
from recipes.vision.backbones import Features
from recipes.vision.detection.features import conv_block
from recipes.vision.few_labels import SCENES, cut_out, first
from recipes.vision.tasks import TaskOfModel, backbone_for, loss_of, open_task, plain_method, score, varied, with_head

PHOTOS = "timm:tf_efficientnet_lite0"


@dataclass(kw_only=True)
class FineTuningOptions(Options):
    task: Literal["classification", "detection", "segmentation"] = option("classification", "what is to be learned")
    backbone: str | None = option(None, f"timm:NAME or torchvision:NAME; for your pictures {PHOTOS} if not given")
    weights: str | None = option(None, "of the backbone: pretrained, a file, torchvision's name, or random")
    unfreeze: Literal["gradual", "all", "top", "bottom", "none"] = option("gradual", "what of the backbone is trained")
    fall: float | None = option(None, "rate over that of the part above; 0.8, on yours 0.03 or 0.1", above=0, most=1)
    tuned: float = option(0.25, "to name your pictures: of the final weights, the share of the tuned", above=0, most=1)
    samples: int = option(5, "labelled digits of each new kind, of the bundled", least=1)
    image_size: int | None = option(None, "side in pixels that pictures are brought to", least=1)
    epochs: int = 20
    batch_size: int = 8
    lr: float = 2e-3
    precision: Precision = "auto"
    channels_last: bool = True


class Stages(nn.Sequential):
    """A small network, of which each third has two convolutions: (N, 3, H, W) to [(N, 4 · width, H / 4, W / 4)]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for inputs, outputs, stride in ((3, width, 2), (width, 2 * width, 2), (2 * width, 4 * width, 1)):
            self.append(nn.Sequential(conv_block(inputs, outputs, stride), conv_block(outputs, outputs)))

    def forward(self, features: Tensor) -> list[Tensor]:
        return [super().forward(features)]


def small_backbone(width: int = 12, *, pretrained: bool) -> Features:
    """The small network for scenes; once it is trained, its batch norms keep their statistics."""
    return Features(Stages(width), [4 * width], [4], mean=[0.0] * 3, std=[1.0] * 3, pretrained=pretrained)


def backbone_of(model: nn.Module) -> Features:
    return next(part for part in model.modules() if isinstance(part, Features))


def parts_of(model: nn.Module) -> list[list[nn.Parameter]]:
    """The backbone's parameters in three parts from the bottom up, of as many layers each; last, those of the head."""
    layers = [found for one in backbone_of(model).maps.modules() if (found := list(one.parameters(recurse=False)))]
    known = {one for layer in layers for one in layer}
    thirds = [layers[len(layers) * i // 3 : len(layers) * (i + 1) // 3] for i in range(3)]
    head = [one for one in model.parameters() if one not in known]
    return [*([one for layer in third for one in layer] for third in thirds), head]


def trained_parts(unfreeze: str, progress: float) -> set[int]:
    """Which of the four parts learn when so much of the training, 0 to 1, is done."""
    if unfreeze == "gradual":  # the head, after a quarter of the training the top third too, then every eighth
        return set(range(3 - min(3, max(0, int(8 * progress) - 1)), 4))
    return {"all": {0, 1, 2, 3}, "top": {2, 3}, "bottom": {0, 1, 3}, "none": {3}}[unfreeze]


def fit_head(model: Any, train_set: Any, options: FineTuningOptions) -> None:
    """Trains a classifier's head on features that the frozen backbone computes once; in place."""
    head, model.head = model.head, nn.Identity()
    values = torch.stack(predict(model.to(memory_format=torch.channels_last), train_set, options.device, 64))
    values, labels, model.head = values.to(options.device), train_set.labels.to(options.device), head
    optimizer = torch.optim.AdamW(head.parameters(), lr=options.lr, weight_decay=0.05)
    for _ in range(200):
        loss_of(model, head(values), labels).backward()
        optimizer.step()
        optimizer.zero_grad()


def train(model: nn.Module, train_set: Any, options: FineTuningOptions, name: str = "model") -> Loop:
    """Minimizes the task's loss with AdamW; what is frozen gets no gradient, and so the optimizer leaves it alone.

    Where the head is fitted first, the weights end as a mean of those from before and after the fine-tuning.
    """
    begun = 0.0  # the share of training that is done before the loop
    if options.data is not None and options.task == "classification" and backbone_of(model).pretrained:
        fit_head(model, train_set, options)
        begun = 0.25
    parts, fall = parts_of(model), options.fall or (0.8 if options.data is None else 0.03 if begun else 0.1)
    groups = [{"params": part, "lr": options.lr * fall ** (3 - i)} for i, part in enumerate(parts)]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    loop = Loop(model, optimizer, batches(train_set, options), options, name=name)
    fitted = [one.detach().clone() for one in model.parameters()] if begun else []
    for images, targets in loop:
        learning = trained_parts(options.unfreeze, begun + (1 - begun) * loop.steps / loop.total)
        for i, parameter in ((i, one) for i, part in enumerate(parts) for one in part):
            parameter.requires_grad_(i in learning)
        images, targets = (images, targets) if options.data is None else varied(images, targets)
        loop.step(loss_of(model, loop.model(images), targets))
    with torch.no_grad():
        for parameter, before in zip(model.parameters(), fitted, strict=False):
            parameter.lerp_(before, 1 - options.tuned)
    return loop


def learned_source(options: FineTuningOptions) -> nn.Module:
    """A small network that has learned to name the digits of the scenes which the tasks leave over."""
    pieces = cut_out(first(open_boxes()[0], SCENES, None))
    source = with_head(small_backbone(pretrained=False), "classification", len(pieces.classes))
    whole = replace(options, unfreeze="all", fall=1.0, epochs=4, steps=None, batch_size=32, lr=2 * options.lr)
    train(source, pieces, whole, "source")
    return source


def open_start(options: FineTuningOptions, *, trained: bool) -> Features:
    """The backbone before its fine-tuning, with trained weights or random ones."""
    if options.backbone is None and options.data is None and options.weights in (None, "random"):
        backbone = small_backbone(pretrained=trained)
        if trained:
            backbone.load_state_dict(backbone_of(learned_source(options)).state_dict())
        return backbone
    return backbone_for(options.task, options.backbone or PHOTOS, options.weights or "pretrained" if trained else None)


def build(options: FineTuningOptions, data: Any, backbone: Features | None = None) -> nn.Module:
    """A new head for the task's classes on that backbone, or on one of random weights."""
    return with_head(backbone or open_start(options, trained=False), options.task, len(data.classes))


@recipe(FineTuningOptions)
def run(options: FineTuningOptions) -> Result:
    """Fine-tunes a trained backbone for a task with few labels, and measures it on held-out pictures."""
    if options.data is not None:
        options.steps = options.steps or {"classification": 60, "detection": 240, "segmentation": 150}[options.task]
    train_set, test_set = open_task(options)
    backbone = open_start(options, trained=options.weights != "random")
    torch.manual_seed(options.seed)  # the new head does not depend on how the backbone came about
    model = build(options, train_set, backbone).to(options.device)
    baseline = plain_method(backbone, train_set, test_set, options.device)
    loop = train(model, train_set, options)
    return Result(
        metrics=score(model, test_set, options.device),
        baseline=baseline,
        baseline_name="best plain method",
        bars={METRICS[options.task]: {"classification": 0.6, "detection": 0.4, "segmentation": 0.4}[options.task]},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full = run()
    if full.options["data"] is not None:
        return  # of photographs, every variant takes minutes
    for task, metric in METRICS.items():
        given = {} if task == full.options["task"] else {"task": task}
        tuned, head, scratch = (run(**given, **changed)[metric] for changed in WAYS.values())
        full.rows.append({"task": task, "metric": metric} | dict(zip(WAYS, (tuned, head, scratch), strict=True)))
        yield Claim(f"{task}: fine-tuning beats training from scratch, {metric}", tuned, ">", scratch, margin=0.03)
        yield Claim(f"{task}: and a new head on the frozen backbone", tuned, ">", head, margin=0.05)
    seeds, metric = range(full.options["seed"], full.options["seed"] + 3), METRICS[full.options["task"]]
    top, bottom = (mean(run(unfreeze=part, seed=seed)[metric] for seed in seeds) for part in ("top", "bottom"))
    text = "the bottom is to be frozen and the top to be trained, not, as in the notes, the other way round (3 runs)"
    yield Claim(text, top, ">", bottom, margin=0.04)


METRICS = {"classification": "balanced_accuracy", "detection": "map_50", "segmentation": "mean_iou"}
WAYS: dict[str, dict[str, Any]] = {"fine-tuned": {}, "frozen, new head": {"unfreeze": "none"}}
WAYS["from scratch"] = {"weights": "random", "unfreeze": "all", "fall": 1.0, "lr": 4e-3}  # more suits it better


@run.figure
def figure(result: Result) -> Any:
    """The loss over the epochs, and for each task what three ways reach."""
    drawn, axes = new_figure(1, 1 + max(1, len(result.rows)), width=3.2, height=2.6)
    draw_curves(axes[0, 0], result.history)
    metric = METRICS[result.options["task"]]
    told = {"task": result.options["task"], "metric": metric, "fine-tuned": result[metric]}
    told[result.baseline_name] = result.baseline[metric]
    for panel, row in zip(axes[0, 1:], result.rows or [told], strict=True):
        ways = {name: value for name, value in row.items() if name not in ("task", "metric")}
        panel.barh(list(ways)[::-1], list(ways.values())[::-1], color=["tab:gray"] * (len(ways) - 1) + ["tab:orange"])
        panel.set(title=f"{row['task']}: {row['metric']}", xlim=(0, 1))
        panel.spines[["top", "right"]].set_visible(False)
    return drawn


run.predicts(TaskOfModel, build)


if __name__ == "__main__":
    main(run)
